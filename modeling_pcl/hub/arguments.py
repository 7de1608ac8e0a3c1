"""The options of a push to the Hub."""

from dataclasses import dataclass
from pathlib import Path

from ..options import option, positional


@dataclass
class PushArguments:
    """What goes into the repository, and where it goes."""

    model: Path = positional("Folder that `pcl pretrain` or `pcl probe` wrote.", "MODEL", type=Path)
    repo_id: str = positional("Repository on the Hub, `user/name`.", "REPO_ID")
    license: str | None = option(None, "License of the weights as the Hub names it; by default the card states none.")
    training_data: list[str] = option(
        [], "What it was trained on: names of known collections, or `NAME: TERMS`, with spaces between them."
    )
    base_model: str | None = option(None, "Hub id of the encoder that a head was trained on.")
    example_images: list[Path] = option(
        [], "Images of faces that you may publish: shown in the card with the model's answers."
    )
    include_faces: bool = option(False, "Push pictures that show images of the corpus, too: if its terms allow it.")
    onnx: bool = option(True, "Export the model for onnxruntime and browsers; needs pip install modeling_pcl[onnx].")
    face_detector: bool = option(False, "Add the face detector, 7 MB, with which the static page finds faces.")
    private: bool = option(False, "Make a new repository private.")
    revision: str | None = option(None, "Branch to push to; made if it does not exist.")
    dry_run: bool = option(False, "Write the folder and show what would change on the Hub; change nothing there.")
