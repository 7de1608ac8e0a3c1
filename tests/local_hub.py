"""A Hub on this machine: what huggingface_hub 2.4 asks the real one, answered from memory.

    with LocalHub() as hub:
        subprocess.run([...], env=os.environ | hub.environment())

Repositories with branches and commits, large files by git-lfs, downloads by redirect to another host and in ranges.
Clients need `HF_HUB_DISABLE_XET=1`: where hf_xet is installed they send large files by Xet without asking the server.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import parse_qs

import uvicorn
from huggingface_hub import ModelCard
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

ATTRIBUTES = "*.onnx filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LARGE = re.compile(r".*\.(onnx|parquet|safetensors)")
LARGEST_REGULAR_BYTES = 10 * 2**20
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class File:
    """Content of a file, and whether it is in git-lfs."""

    content: bytes
    is_large: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def git_hash(self) -> str:
        blob = self.pointer if self.is_large else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def pointer(self) -> bytes:
        spec = "version https://git-lfs.github.com/spec/v1"
        return f"{spec}\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.git_hash

    def described(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.git_hash}
        if self.is_large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


@dataclass
class Repository:
    """Commits by id, each the files of the whole tree, and the commits of each branch, the newest last."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": []})

    def commit(self, branch: str, files: dict[str, File]) -> str:
        history = self.branches[branch]
        tree = json.dumps([history, {path: file.git_hash for path, file in files.items()}])
        commit = hashlib.sha1(tree.encode()).hexdigest()
        self.commits[commit] = files
        history.append(commit)
        return commit

    def resolve(self, revision: str) -> str:
        if revision in self.branches:
            return self.branches[revision][-1]
        if revision in self.commits:
            return revision
        raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind.

    Args:
        method: Of the request.
        path: Found in the request's path, as a regular expression.
        what: `unavailable` is a 503; `cut` closes the connection unheard, `answer lost` once the request has been
            carried out; `altered` turns bits of what comes in.
        times: How many requests.
    """

    method: str
    path: str
    what: str
    times: int = 1

    def strikes(self, scope: Mapping) -> bool:
        struck = self.times > 0 and scope["method"] == self.method and re.search(self.path, scope["path"])
        self.times -= bool(struck)
        return bool(struck)


def refusal(status: int, message: str, code: str = "") -> HTTPException:
    return HTTPException(status, message, {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}))


class LocalHub:
    """The server, run in a thread of its own.

    Attributes:
        url: To give as `HF_ENDPOINT`.
        tokens: Who may write (`write`) and who may read only (`read`), all of them the user `user`.
        requests: Method, path and whether there was a token, of every request.
        created: What was asked for to make repositories.
    """

    token = "hf_thisIsTheTokenOfTheUser"
    reader = "hf_thisOneMayOnlyRead"

    def __init__(self):
        repository, prefixes = "/api/{kind:str}/{owner}/{name}", ("/{owner}/{name}", "/{kind}/{owner}/{name}")
        routes = [
            ("GET", "/api/whoami-v2", self.whoami),
            ("POST", "/api/validate-yaml", self.validate_card),
            ("POST", "/api/repos/create", self.create),
            ("DELETE", "/api/repos/delete", self.delete),
            ("GET", repository, self.info),
            ("GET", repository + "/revision/{revision}", self.info),
            ("GET", repository + "/refs", self.refs),
            ("GET", repository + "/tree/{revision}", self.tree),
            ("GET", repository + "/tree/{revision}/{folder:path}", self.tree),
            ("POST", repository + "/paths-info/{revision}", self.paths_info),
            ("POST", repository + "/branch/{branch}", self.branch),
            ("POST", repository + "/preupload/{revision}", self.preupload),
            ("POST", repository + "/commit/{revision}", self.commit),
            *[("POST", prefix + ".git/info/lfs/objects/batch", self.batch) for prefix in prefixes],
            *[("GET", prefix + "/resolve/{revision}/{path:path}", self.download) for prefix in prefixes],
            ("PUT", "/storage/{sha256}", self.store),
            ("GET", "/storage/{sha256}", self.storage),
            ("POST", "/verify", self.verify),
        ]
        self.app = Starlette(routes=[Route(path, answer, methods=[method]) for method, path, answer in routes])
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url, self.other_host = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"
        self.server = uvicorn.Server(uvicorn.Config(self, log_level="critical", lifespan="off", timeout_keep_alive=60))
        self.clear()

    def clear(self):
        self.tokens = {self.token: "write", self.reader: "read"}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.received: dict[str, bytes] = {}
        self.objects: dict[str, File] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.created: list[dict] = []
        self.faults: list[Fault] = []

    def __enter__(self) -> "LocalHub":
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()

    def environment(self, token: str | None = None) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        settings = {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return settings | {"NO_PROXY": "127.0.0.1,localhost", "HF_TOKEN": token or ""}

    def files(self, repo_id: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        """Content by path, but for `.gitattributes`."""
        repository = self.repositories[kind, repo_id]
        files = repository.commits[repository.resolve(revision)]
        return {path: file.content for path, file in sorted(files.items()) if path != ".gitattributes"}

    def commits(self, repo_id: str, kind: str = "models", branch: str = "main") -> list[str]:
        """Ids of a branch's commits, the one that made the repository first."""
        return list(self.repositories[kind, repo_id].branches[branch])

    def fail(self, method: str, path: str, what: str, times: int = 1):
        self.faults.append(Fault(method, path, what, times))

    async def __call__(self, scope: dict, receive: Callable, send: Callable):
        has_token = any(name == b"authorization" for name, _ in scope["headers"])
        self.requests.append((scope["method"], scope["path"], has_token))
        what = next((fault.what for fault in self.faults if fault.strikes(scope)), None)
        if what == "unavailable":
            return await Response("no", 503)(scope, receive, send)
        if what == "cut":
            return await _start_and_leave(send)
        if what == "answer lost":
            await self.app(scope, receive, _nowhere)
            return await _start_and_leave(send)
        await self.app(scope, _altered(receive) if what == "altered" else receive, send)

    # Who asks, and for what.

    def role(self, request: Request) -> str | None:
        """`write` or `read`, None without a token."""
        words = request.headers.get("authorization", "").split()
        if not words:
            return None
        if words[-1] not in self.tokens:
            raise refusal(401, "Invalid credentials in Authorization header")
        return self.tokens[words[-1]]

    def writer(self, request: Request, owner: str):
        if self.role(request) is None:
            raise refusal(401, "Invalid username or password.")
        if self.role(request) != "write" or owner != "user":
            raise refusal(403, f"You don't have the rights to write in the namespace {owner}")

    def repository(self, request: Request, writes: bool = False) -> Repository:
        kind, owner, name = (request.path_params.get(key, "models") for key in ("kind", "owner", "name"))
        role, found = self.role(request), self.repositories.get((kind, f"{owner}/{name}"))
        if found is None or (found.private and (role is None or owner != "user")):
            raise refusal(401 if role is None else 404, "Repository not found", "RepoNotFound")
        if writes:
            self.writer(request, owner)
        return found

    # The answers, in the order of the routes.

    async def whoami(self, request: Request) -> Response:
        role = self.role(request)
        if role is None:
            raise refusal(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}}
        return JSONResponse({"type": "user", "name": "user", "auth": access, "orgs": []})

    async def validate_card(self, request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        owner = asked["organization"] or "user"
        self.writer(request, owner)
        self.created.append(asked)
        kind, repo_id = f"{asked.get('type', 'model')}s", f"{owner}/{asked['name']}"
        url = f"{self.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if (kind, repo_id) in self.repositories:
            return JSONResponse({"error": "You already created this repo", "url": url}, 409)
        made = self.repositories[kind, repo_id] = Repository(asked.get("visibility") == "private")
        made.commit("main", {".gitattributes": File(ATTRIBUTES.encode(), is_large=False)})
        return JSONResponse({"url": url, "name": repo_id, "id": repo_id})

    async def delete(self, request: Request) -> Response:
        asked = await request.json()
        self.writer(request, asked["organization"])
        del self.repositories[f"{asked.get('type') or 'model'}s", f"{asked['organization']}/{asked['name']}"]
        return JSONResponse({})

    async def info(self, request: Request) -> Response:
        repository = self.repository(request)
        commit = repository.resolve(request.path_params.get("revision", "main"))
        card = repository.commits[commit].get("README.md")
        metadata = ModelCard(card.content.decode(), ignore_metadata_errors=True).data.to_dict() if card else {}
        # As the Hub's: read from the card's front matter.
        stated = {name: metadata[name] for name in ("library_name", "pipeline_tag") if name in metadata}
        return JSONResponse(
            stated
            | {
                "id": "{owner}/{name}".format(**request.path_params),
                "sha": commit,
                "private": repository.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(repository.commits[commit])],
            }
        )

    async def refs(self, request: Request) -> Response:
        branches = self.repository(request).branches
        described = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[-1]}
            for name, commits in branches.items()
        ]
        return JSONResponse({"branches": described, "converts": [], "tags": []})

    async def tree(self, request: Request) -> Response:
        repository, folder = self.repository(request), request.path_params.get("folder", "")
        files = repository.commits[repository.resolve(request.path_params["revision"])]
        entries = _entries(files, f"{folder}/" if folder else "")
        if folder and not entries:
            raise refusal(404, f"{folder} does not exist", "EntryNotFound")
        if request.query_params.get("recursive", "").lower() != "true":
            entries = {path: entry for path, entry in entries.items() if "/" not in path[len(folder) :].lstrip("/")}
        return JSONResponse(list(entries.values()))

    async def paths_info(self, request: Request) -> Response:
        repository = self.repository(request)
        entries = _entries(repository.commits[repository.resolve(request.path_params["revision"])])
        asked = parse_qs((await request.body()).decode())["paths"]
        return JSONResponse([entries[path] for path in asked if path in entries])

    async def branch(self, request: Request) -> Response:
        repository = self.repository(request, writes=True)
        name = request.path_params["branch"]
        if name in repository.branches:
            raise refusal(409, f"Reference already exists: {name}")
        start = repository.resolve((await request.json()).get("startingPoint", "main"))
        history = next(commits for commits in repository.branches.values() if start in commits)
        repository.branches[name] = history[: history.index(start) + 1]
        return JSONResponse({})

    async def preupload(self, request: Request) -> Response:
        repository = self.repository(request, writes=True)
        held = repository.commits[repository.resolve(request.path_params["revision"])]
        answers = []
        for asked in (await request.json())["files"]:
            path, sample = asked["path"], base64.b64decode(asked["sample"])
            is_large = LARGE.fullmatch(path) or b"\0" in sample or asked["size"] > LARGEST_REGULAR_BYTES
            mode = "lfs" if is_large else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False})
            if path in held:
                answers[-1]["oid"] = held[path].etag
        return JSONResponse({"files": answers})

    async def commit(self, request: Request) -> Response:
        repository, branch = self.repository(request, writes=True), request.path_params["revision"]
        repository.resolve(branch)
        head = repository.branches[branch][-1]
        header, *operations = (json.loads(line) for line in (await request.body()).splitlines())
        if header["value"].get("parentCommit", head) != head:
            raise refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[head])
        for operation in operations:
            self.apply(operation["key"], operation["value"], files)
        commit = repository.commit(branch, files)
        repo_url = str(request.url).split("/api/models/")[-1].split("/api/")[-1].split("/commit/")[0]
        return JSONResponse(
            {"success": True, "commitUrl": f"{self.url}/{repo_url}/commit/{commit}", "commitOid": commit}
        )

    def apply(self, key: str, value: dict, files: dict[str, File]):
        path = value["path"]
        if key == "file":
            files[path] = File(base64.b64decode(value["content"]), is_large=False)
        elif key == "lfsFile" and value["oid"] in self.objects:
            files[path] = self.objects[value["oid"]]
        elif key == "lfsFile":
            raise refusal(400, f"LFS pointer pointed to a file that does not exist: {path}")
        elif key == "deletedFile" and path in files:
            del files[path]
        else:
            raise refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")

    async def batch(self, request: Request) -> Response:
        self.repository(request, writes=True)
        answers = []
        for asked in (await request.json())["objects"]:
            answers.append({"oid": asked["oid"], "size": asked["size"]})
            if asked["oid"] not in self.objects:
                upload = {"href": f"{self.other_host}/storage/{asked['oid']}"}
                answers[-1]["actions"] = {"upload": upload, "verify": {"href": f"{self.url}/verify"}}
        return JSONResponse({"transfer": "basic", "objects": answers})

    async def download(self, request: Request) -> Response:
        repository, path = self.repository(request), request.path_params["path"]
        commit = repository.resolve(request.path_params["revision"])
        file = repository.commits[commit].get(path)
        if file is None:
            absent = refusal(404, "Entry not found", "EntryNotFound")
            absent.headers["X-Repo-Commit"] = commit
            raise absent
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"'}
        if not file.is_large:
            return _content(request, file.content, headers)
        headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(file.content))}
        return RedirectResponse(f"{self.other_host}/storage/{file.sha256}", 302, headers)

    async def store(self, request: Request) -> Response:
        self.received[request.path_params["sha256"]] = await request.body()
        return Response()

    async def storage(self, request: Request) -> Response:
        file = self.objects[request.path_params["sha256"]]
        return _content(request, file.content, {"ETag": f'"{file.sha256}"'})

    async def verify(self, request: Request) -> Response:
        asked = await request.json()
        file = File(self.received.pop(asked["oid"], b""), is_large=True)
        if (file.sha256, len(file.content)) != (asked["oid"], asked["size"]):
            raise refusal(422, "What was received does not have the announced hash")
        self.objects[file.sha256] = file
        return Response()


def _entries(files: Mapping[str, File], prefix: str = "") -> dict[str, dict]:
    """Files below a folder, and the folders between, by path."""
    entries = {}
    for path, file in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.split("/")
        for depth in range(1 + prefix.count("/"), len(parts)):
            folder = "/".join(parts[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries.setdefault(folder, {"type": "directory", "path": folder, "oid": oid, "size": 0})
        entries[path] = file.described(path)
    return entries


def _content(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """All of it, or the range that was asked for."""
    headers = headers | {"Accept-Ranges": "bytes"}
    asked = RANGE.fullmatch(request.headers.get("range", ""))
    if not asked:
        return Response(content, 200, headers, "application/octet-stream")
    first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    if first > last:
        return Response(b"", 416, headers | {"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, headers, "application/octet-stream")


async def _start_and_leave(send: Callable):
    """Begin an answer and return: uvicorn then closes the connection."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})


async def _nowhere(message: dict):
    """Where an answer goes that is lost."""


def _altered(receive: Callable) -> Callable:
    async def receive_altered() -> dict:
        message = await receive()
        return message | {"body": bytes(byte ^ 1 for byte in message.get("body", b""))}

    return receive_altered
