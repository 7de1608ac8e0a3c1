"""Pushing a run to the Hub: build the repository, check that it opens without this package, and upload it."""

import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from torch.utils.flop_counter import FlopCounterMode
from transformers import pipeline

from ..detection_pcl import save_detector
from ..files import report_open_errors, use_scratch_folder
from ..image_processing_pcl import PCLImageProcessor
from ..modeling_pcl import PCLPreTrainedModel
from ..progress import progress
from .arguments import PushArguments
from .card import PIPELINES, gather_facts, lint, render_model_card
from .models import model_digest, model_kind, open_model
from .parity import check_parity, write_parity
from .repository import copy_records, describe_changes, list_remote_files
from .upload import upload_repository

TEMPLATES = Path(__file__).parent / "templates"
ENDPOINT_FILES = ("handler.py", "requirements.txt")


def build_repository(arguments: PushArguments) -> Path:
    """Write the folder of the repository and check it.

    Returns:
        The folder, `MODEL/repository`.

    Raises:
        ImportError: If the packages for the export to ONNX are not installed.
        ValueError: If the model cannot be opened, the card has faults, or the folder does not pass the parity check.
    """
    if arguments.onnx:
        from .onnx_export import export_files  # Needs packages that a push without ONNX does not.
    run_dir, repo_id = arguments.model, arguments.repo_id
    model, final = open_model(str(run_dir)).eval(), run_dir / "repository"
    if final.exists() and not (final / "config.json").exists():
        raise ValueError(f"{final} must hold the repository, but holds something else: move that elsewhere.")
    # The folder is built from nothing, because files of an earlier push would be pushed again. It is built beside the
    # old one and renamed at the end, so that `repository` is complete even if a push is killed; the next push removes
    # the leftovers.
    unfinished = run_dir / ".pushing"
    with (
        use_scratch_folder(unfinished),
        progress(total=5, desc="Building the repository", unit="step", leave=False) as bar,
    ):
        folder = unfinished / "repository"
        folder.mkdir()
        model.save_pretrained(folder)
        open_processor(run_dir, model.config.image_size).save_pretrained(folder)
        write_parity(model, folder)
        for name in ENDPOINT_FILES:
            shutil.copyfile(TEMPLATES / name, folder / name)
        bar.update()
        if arguments.onnx:
            export_files(str(folder), folder / "onnx", int8=True, recorded_name=repo_id)
        if arguments.face_detector:
            save_detector(folder / "onnx" / "face_detector.onnx")
        bar.update()
        pictures = copy_records(run_dir, folder, repo_id, model_digest(model.base_model), arguments.include_faces)
        examples = [answer_example(folder, path) for path in arguments.example_images]
        bar.update()
        card_facts = {name: getattr(arguments, name) for name in ("license", "training_data", "base_model")}
        card_facts |= {"pictures": pictures, "examples": examples, "own_card": run_dir / "README.md"}
        write_card(folder, repo_id, model, **card_facts)
        bar.update()
        check_parity(folder)
        if final.exists():
            final.rename(unfinished / "earlier")
        folder.rename(final)
    return final


def open_processor(run_dir: Path, image_size: int) -> PCLImageProcessor:
    """Open the image processor of the run, or make the default one for the model's image size."""
    if (run_dir / "preprocessor_config.json").exists():
        with report_open_errors(f"The image processor of {run_dir}"):
            return PCLImageProcessor.from_pretrained(run_dir)
    return PCLImageProcessor.for_image_size(image_size)


def answer_example(folder: Path, image: Path) -> dict:
    """Copy an example image into the repository, and compute the model's answer in the format of the card's widget."""
    (folder / "examples").mkdir(exist_ok=True)
    shutil.copyfile(image, folder / "examples" / image.name)
    config = {"problem_type": None, "verification_threshold": None} | json.loads((folder / "config.json").read_text())
    task = PIPELINES.get(model_kind(config))
    if task in (None, "face-verification"):
        raise ValueError("`--example_images` are for heads, whose answers a card can show.")
    answer = pipeline(task, str(folder), trust_remote_code=True)(str(image))
    if task == "head-pose-estimation":
        answer = {"text": ", ".join(f"{angle} {degrees:.1f}°" for angle, degrees in answer.items())}
    return {"file": f"examples/{image.name}", "output": answer}


def count_operations(model: PCLPreTrainedModel) -> dict[str, float]:
    """Count the parameters, and the billions of multiply-accumulate operations for one image.

    For a pre-training model, only the encoder is counted.
    """
    inference_model = model.base_model if type(model).__name__ == "PCLForPreTraining" else model
    side_px = model.config.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        inference_model(torch.zeros(1, model.config.num_channels, side_px, side_px))
    parameters = sum(parameter.numel() for parameter in inference_model.parameters())
    return {"parameters": parameters, "gmacs": counter.get_total_flops() / 2e9}  # Two FLOPs are one MAC.


def write_card(folder: Path, repo_id: str, model: PCLPreTrainedModel, **options):
    """Write README.md of a repository.

    Args:
        folder: Folder of the repository.
        repo_id: `user/name`.
        model: The model in the folder.
        **options: Other arguments of `gather_facts`.

    Raises:
        ValueError: If the card has faults.
    """
    facts = gather_facts(folder, repo_id, **options, **count_operations(model))
    templates = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.md")}
    card = render_model_card(templates, facts)
    faults = lint(card, templates, facts)
    if faults:
        raise ValueError("The card has faults:\n" + "\n".join(faults))
    (folder / "README.md").write_text(card, encoding="utf-8")


def push(api: HfApi, arguments: PushArguments) -> str:
    """Build and check the repository, and upload it or, for a dry run, describe the changes.

    Returns:
        Description of what was done.

    Raises:
        ImportError: If the packages for the export to ONNX are not installed.
        ValueError: If the name is not valid, no user is logged in, the folder cannot be built, or the upload failed.
    """
    repo_id = arguments.repo_id
    check_name(repo_id)
    if arguments.onnx:
        from . import onnx_export  # noqa: F401  Reports missing packages before the login is checked.
    if not arguments.dry_run:
        check_token(api)
    folder = build_repository(arguments)
    try:
        remote = list_remote_files(api, repo_id, arguments.revision)
    except ValueError as error:
        if not arguments.dry_run:
            raise
        files = "\n".join(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
        return f"{files}\n\nWritten to {folder}. What would change on the Hub is not known: {error}"
    if arguments.dry_run:
        return f"{describe_changes(api, repo_id, arguments.revision, folder, remote)}\n\nWritten to {folder}."
    commit = upload_repository(api, folder, repo_id, arguments.private, arguments.revision)
    return f"{commit.repo_url} is what {folder} is, by commit {commit.oid}."


def check_name(repo_id: str):
    """Raise `ValueError` unless `repo_id` has the form `user/name`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be a repository's name: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} must be `user/name`.")


def check_token(api: HfApi):
    """Raise `ValueError` if no user is logged in, or the token does not allow writing."""
    try:
        role = api.whoami().get("auth", {}).get("accessToken", {}).get("role")
    except LocalTokenNotFoundError as error:
        raise ValueError("Nobody is logged in: `hf auth login`, or HF_TOKEN with a token that may write.") from error
    except Exception as error:
        raise ValueError(f"The Hub does not know who is asking: {error}") from error
    if role == "read":
        raise ValueError("The token may only read: log in with one that may write.")
