"""Make a repository of a run, check it as a stranger would open it, and push it to the Hub in one commit:

python scripts/push_to_hub.py runs/mine user/pcl --license cc-by-nc-4.0 --training_data voxceleb

RUN_DIR is what pretrain.py or probe.py wrote. Its folder `repository` gets weights, config, code, image processor,
card, results, ONNX, parity tensors and an Inference Endpoint's handler, and becomes what the Hub has; `--dry_run` only
shows what would change. A second push without changes makes no commit. Log in with `hf auth login`, or set HF_TOKEN.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from probing.encoder import open_model
from tqdm import tqdm
from transformers import HfArgumentParser, pipeline
from transformers.utils.logging import disable_progress_bar

from modeling_pcl import PCLImageProcessor
from modeling_pcl.hub.card import gather_facts, lint, model_card
from modeling_pcl.hub.parity import check_parity, write_parity
from modeling_pcl.hub.repository import copy_records, describe_changes, remote_files
from modeling_pcl.hub.upload import upload_repository
from modeling_pcl.probes.features import model_digest
from modeling_pcl.training.arguments import option

HUB_CARDS = Path(__file__).parents[1] / "hub_cards"
TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in HUB_CARDS.glob("*.md")}
ENDPOINT_FILES = ("handler.py", "requirements.txt")


@dataclass
class PushArguments:
    """What goes into the repository, and where it goes."""

    license: str | None = option(None, "License of the weights as the Hub names it; by default the card states none.")
    training_data: list[str] = field(
        default_factory=list,
        metadata={"help": "What it was trained on: names of known collections, or `NAME: TERMS`."},
    )
    base_model: str | None = option(None, "Hub id of the encoder that a head was trained on.")
    example_images: list[Path] = field(
        default_factory=list,
        metadata={"help": "Images of faces that you may publish: shown in the card with the model's answers."},
    )
    include_faces: bool = option(False, "Push pictures that show images of the corpus, too: if its terms allow it.")
    onnx: bool = option(True, "Export the model for onnxruntime and browsers; needs pip install .[onnx].")
    private: bool = option(False, "Make a new repository private.")
    revision: str | None = option(None, "Branch to push to; made if it does not exist.")
    dry_run: bool = option(False, "Write the folder and show what would change on the Hub; change nothing there.")


def build(run_dir: Path, repo_id: str, arguments: PushArguments) -> Path:
    """Write the repository's folder and check it.

    Raises:
        ValueError: If the run's model does not open, the card has faults, or the folder computes something else.
    """
    model, folder = open_model(str(run_dir)).eval(), run_dir / "repository"
    if folder.exists() and not (folder / "config.json").exists():
        raise ValueError(f"{folder} is to hold the repository, and holds something else: move that elsewhere.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tqdm(total=5, desc="model", unit="step", leave=False) as bar:

        def begin(what: str):
            bar.update()
            bar.set_description(what)

        model.save_pretrained(folder)
        open_processor(run_dir, model.config.image_size).save_pretrained(folder)
        write_parity(model, folder)
        for name in ENDPOINT_FILES:
            shutil.copyfile(HUB_CARDS / name, folder / name)
        begin("onnx")
        if arguments.onnx:
            export_to(folder, repo_id)
        begin("records")
        pictures = copy_records(run_dir, folder, model_digest(model.base_model), arguments.include_faces)
        examples = [answer(folder, path) for path in arguments.example_images]
        begin("card")
        write_card(folder, repo_id, arguments, pictures, examples)
        begin("check in a new process")
        check_parity(folder)
    return folder


def open_processor(run_dir: Path, image_size: int) -> PCLImageProcessor:
    """The run's own; of one that has none, that of its model's size."""
    if (run_dir / "preprocessor_config.json").exists():
        return PCLImageProcessor.from_pretrained(run_dir)
    return PCLImageProcessor.for_image_size(image_size)


def export_to(folder: Path, repo_id: str):
    from export_onnx import export  # It needs packages that a push without ONNX does not.

    export(str(folder), folder / "onnx", int8=True)
    record = json.loads((folder / "onnx" / "export.json").read_text())
    (folder / "onnx" / "export.json").write_text(json.dumps(record | {"model": repo_id}, indent=2) + "\n")


def answer(folder: Path, image: Path) -> dict:
    """Copy an example image and ask the model, as the card's widget shows it."""
    (folder / "examples").mkdir(exist_ok=True)
    shutil.copyfile(image, folder / "examples" / image.name)
    config = json.loads((folder / "config.json").read_text())
    task = "image-classification"
    if config["architectures"] == ["PCLForHeadPoseEstimation"]:
        task = "head-pose-estimation"
    elif config["architectures"] != ["PCLForImageClassification"] or config.get("problem_type") == "regression":
        raise ValueError("`--example_images` are for heads, whose answers a card can show.")
    said = pipeline(task, str(folder), trust_remote_code=True)(str(image))
    if task == "head-pose-estimation":
        said = {"text": ", ".join(f"{angle} {degrees:.1f}°" for angle, degrees in said.items())}
    return {"file": f"examples/{image.name}", "output": said}


def write_card(folder: Path, repo_id: str, arguments: PushArguments, pictures: list[str], examples: list[dict]):
    given = {"license": arguments.license, "training_data": arguments.training_data, "base_model": arguments.base_model}
    facts = gather_facts(folder, repo_id, **given, pictures=pictures, examples=examples)
    card = model_card(TEMPLATES, facts)
    faults = lint(card, TEMPLATES, facts)
    if faults:
        raise ValueError("The card has faults:\n" + "\n".join(faults))
    (folder / "README.md").write_text(card, encoding="utf-8")


def push(api: HfApi, run_dir: Path, repo_id: str, arguments: PushArguments) -> str:
    """Build, check, and push or show.

    Returns:
        What was done, in words.

    Raises:
        ValueError: If the name is none, nobody is logged in, the folder cannot be made, or the upload failed.
    """
    check_name(repo_id)
    if not arguments.dry_run:
        check_token(api)
    folder = build(run_dir, repo_id, arguments)
    remote = remote_files(api, repo_id, arguments.revision)
    if arguments.dry_run:
        return f"{describe_changes(api, repo_id, arguments.revision, folder, remote)}\n\nWritten to {folder}."
    commit = upload_repository(api, folder, repo_id, arguments.private, arguments.revision)
    return f"{commit.repo_url} is what {folder} is, by commit {commit.oid}."


def check_name(repo_id: str):
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be a repository's name: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} must be `user/name`.")


def check_token(api: HfApi):
    try:
        role = api.whoami().get("auth", {}).get("accessToken", {}).get("role")
    except LocalTokenNotFoundError as error:
        raise ValueError("Nobody is logged in: `hf auth login`, or HF_TOKEN with a token that may write.") from error
    except Exception as error:
        raise ValueError(f"The Hub does not know who is asking: {error}") from error
    if role == "read":
        raise ValueError("The token may only read: log in with one that may write.")


def main():
    parser = HfArgumentParser(PushArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="Folder of pretrain.py or probe.py.")
    parser.add_argument("repo_id", metavar="REPO_ID", help="user/name")
    arguments, places = parser.parse_args_into_dataclasses()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        print(push(HfApi(), places.run_dir, places.repo_id, arguments))
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
