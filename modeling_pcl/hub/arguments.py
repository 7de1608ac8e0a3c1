"""Options of `pcl push`."""

from dataclasses import dataclass
from pathlib import Path

from ..options import option, positional


@dataclass
class PushArguments:
    """What to push, and the repository to push it to."""

    model: Path = positional("Folder that `pcl pretrain` or `pcl probe` wrote.", "MODEL", type=Path)
    repo_id: str = positional("Repository on the Hub, `user/name`.", "REPO_ID")
    license: str | None = option(None, "License identifier of the weights on the Hub; by default the card states none.")
    training_data: list[str] = option(
        [], "Training collections, separated by spaces: names of known collections, or `NAME: TERMS`."
    )
    base_model: str | None = option(None, "Hub id of the encoder that a head was trained on.")
    example_images: list[Path] = option(
        [], "Images of faces that you may publish; the card shows them with the model's answers."
    )
    include_faces: bool = option(False, "Also push pictures that show images of the corpus, if its terms allow it.")
    onnx: bool = option(True, "Export the model for onnxruntime and browsers; needs pip install modeling_pcl[onnx].")
    face_detector: bool = option(False, "Add the face detector (7 MB), which the static page needs to find faces.")
    private: bool = option(False, "Make a new repository private.")
    revision: str | None = option(None, "Branch to push to; created if it does not exist.")
    dry_run: bool = option(False, "Write the folder and show what would change on the Hub, without changing it.")
