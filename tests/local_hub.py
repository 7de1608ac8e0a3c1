"""Just enough of the Hub, on this machine, to take a repository's files in commits."""

import base64
import json
import re
from http.server import BaseHTTPRequestHandler

REPOSITORY = re.compile(r"/api/(models|datasets)/user/faces/(preupload|commit)/")


class LocalHub(BaseHTTPRequestHandler):
    """The repository `user/faces`; a fixture clears it for every test.

    Args:
        files: Path to content of what was committed.
        kinds: Under which of models and datasets.
        created: What was asked for to make the repository.
        fails: Whether to refuse everything.
    """

    files: dict[str, bytes] = {}
    kinds: set[str] = set()
    created: list[dict] = []
    fails = False

    @classmethod
    def clear(cls):
        cls.files, cls.kinds, cls.created, cls.fails = {}, set(), [], False

    def do_GET(self):
        self.reply({"name": "user", "type": "user", "siblings": [], "sha": "0" * 40, "id": "user/faces"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        repository = REPOSITORY.match(self.path)
        if self.fails:
            self.reply({"error": "no"}, status=401)
        elif self.path.endswith("/repos/create"):
            self.created.append(json.loads(body))
            self.reply({"url": f"http://{self.headers['Host']}/user/faces", "id": "user/faces"})
        elif self.path.endswith("/validate-yaml"):
            self.reply({"errors": [], "warnings": []})
        elif repository and repository[2] == "preupload":
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            self.reply({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        elif repository:
            self.kinds.add(repository[1])
            self.commit([entry["value"] for entry in map(json.loads, body.splitlines()) if entry["key"] == "file"])
        else:
            self.reply({"error": self.path}, status=404)

    def commit(self, entries: list[dict]):
        for entry in entries:
            self.files[entry["path"]] = base64.b64decode(entry["content"])
        commit = f"http://{self.headers['Host']}/user/faces/commit/1"
        self.reply({"success": True, "commitUrl": commit, "commitOid": "1" * 40})

    def reply(self, content: dict, status: int = 200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass
