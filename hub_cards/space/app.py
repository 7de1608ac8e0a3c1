"""A web page to try a PCL model on your own photos:

python app.py --model user/pcl --expression user/pcl-expression --head_pose user/pcl-head-pose

Each option is a folder or a Hub id, and can also be set with the variables PCL_MODEL, PCL_EXPRESSION and PCL_HEAD_POSE.
The default model in a clone is `hub_cards/pcl-small-faces`, and the default heads are those in the model's folders
`expression` and `head_pose`. The page has the sections for which there is a model. The code in these repositories runs.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from huggingface_hub import snapshot_download
from PIL import Image, ImageOps
from torch.nn import functional as F
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, Pipeline, pipeline

SAMPLES = Path(__file__).parent / "samples"
EXAMPLES = (SAMPLES / "astronaut.jpg", SAMPLES / "person4-left.png")
SHIPPED = Path(__file__).parents[1] / "pcl-small-faces"  # Exists in a clone only.
FEATURES = {
    "face: without pose": ("face_features",),
    "pose": ("pose_features",),
    "face and pose": ("face_features", "pose_features"),
    "trunk: before both": ("pooler_output",),
}
KINDS = {"model": "PCL_MODEL", "expression": "PCL_EXPRESSION", "head_pose": "PCL_HEAD_POSE"}
NEEDED = {"expression": "PCLForImageClassification", "head_pose": "PCLForHeadPoseEstimation"}
MOST_PIXELS, LEAST_SIDE_PX, MOST_ELONGATED = 40_000_000, 16, 20  # Limits for a photo; the last is a ratio of sides.
NEIGHBOURS, MOST_SHOWN_PX, FACE_PX, DRAWN_PX = 8, 1024, 480, 256
TRUST = {"trust_remote_code": True}

WELCOME = """# Pose-disentangled face features
This model was trained without labels to separate the **pose** of a face from **everything else**. Below are its
answers for two examples: replace them by your own photos. Photos are processed on the machine that runs this page, and
deleted within 20 minutes."""
WHOLE_TEXT = "The whole photo is used as a face."
NO_FACE_TEXT = f"No face is found, as is usual for drawn faces. {WHOLE_TEXT}"
FACES_TEXT = "{} The model sees the blue square; a short line marks its upper side."
NEIGHBOURS_TEXT = """## Neighbours
The nearest of {count} drawn faces, by the cosine of the chosen feature (1 is the same direction). Drawn faces are very
different from photos. Compare whether *face* finds the same person and *pose* the same direction."""
POSE_TEXT = """## Head pose
In degrees. Yaw is positive if the nose points to the right of the image, pitch if it points up, and roll if the head
leans clockwise. Red points out of the person's left ear, green out of the top of the head, blue out of the face."""
EXPRESSION_TEXT = """## Expression
Probabilities from a linear layer on the frozen encoder. They describe what a face looks like to the people who labelled
the training images, not what the person feels."""
SWAP_TEXT = """## Swap
What the decoder draws from the features of one photo, turned as the other. Images are blurred: the decoder was trained
to check what the features contain. The sliders go from the first photo (0) to the second (1)."""


@dataclass(frozen=True, eq=False)
class PhotoState:
    """What the page stores of a photo, without its pixels."""

    path: str
    is_searched: bool  # Whether the largest face is cut out of the photo; otherwise the whole photo is used as a face.
    features: dict[str, torch.Tensor]  # See `Models.encode`; empty if there is no encoder.

    @property
    def options(self) -> dict:
        """Options of a pipeline for this photo. Each pipeline cuts the face out as its own model was trained."""
        return {"detect": True, "on_no_face": "whole"} if self.is_searched else {}


def open_head(kind: str, task: str, model: str) -> Pipeline:
    """Open the pipeline of a head. Raises `ValueError` for another class, whose head would have random weights."""
    architecture = (AutoConfig.from_pretrained(model, **TRUST).architectures or ["nothing known"])[0]
    if architecture != NEEDED[kind]:
        raise ValueError(f"`{kind}` must be a {NEEDED[kind]}, but {model} is a {architecture}.")
    return pipeline(task, model, **TRUST)


class Models:
    """The models of the page, and the computations of its sections.

    Args:
        model: Folder or Hub id of an encoder, for neighbours, or of a pre-training model, for swaps too; or None.
        expression: Folder or Hub id of a `PCLForImageClassification`.
        head_pose: Folder or Hub id of a `PCLForHeadPoseEstimation`.

    Raises:
        ValueError: If no model is given, or a model is of another class.
    """

    def __init__(self, model: str | None, expression: str | None = None, head_pose: str | None = None):
        first = model or expression or head_pose
        if first is None:
            raise ValueError("No model was given: start the app with `--model`, or set `PCL_MODEL`.")
        if Path(first).is_dir() and not (Path(first) / "modeling_pcl.py").exists():
            import_module("modeling_pcl")  # Registers the classes for a folder without code, such as that of a clone.
        self.processor = AutoImageProcessor.from_pretrained(first, **TRUST)
        # The modules in the model's folder open images and cut out faces in the same way as training did.
        package = type(self.processor).__module__.rpartition(".")[0]
        self.images, self.faces = (import_module(f"{package}.{name}_pcl") for name in ("images", "faces"))
        try:
            self.processor.cut_faces(Image.new("RGB", (64, 64)), on_no_face="skip")
            self.can_search = True
        except ImportError:  # The packages for the face detector are not installed.
            self.can_search = False
        self.encoder = self.decoder = None
        if model:
            config = AutoConfig.from_pretrained(model, **TRUST)
            # Without this objective the decoder was never trained and draws noise.
            if "PCLForPreTraining" in (config.architectures or []) and config.disentangling_weight:
                self.decoder = AutoModelForPreTraining.from_pretrained(model, **TRUST).eval()
            self.encoder = self.decoder.pcl if self.decoder else AutoModel.from_pretrained(model, **TRUST).eval()
            self.samples = [(path, self.encode(self.open_photo(path))) for path in sorted(SAMPLES.glob("*.png"))]
        self.classify = expression and open_head("expression", "image-classification", expression)
        self.estimate = head_pose and open_head("head_pose", "head-pose-estimation", head_pose)

    def open_photo(self, path: str | Path) -> Image.Image:
        """Open a photo as upright RGB. Raises `ValueError` for broken files and for sizes beyond the limits."""
        photo = self.images.open_image(Path(path), max_pixels=MOST_PIXELS)  # As a Path, because a text could be a URL.
        least = max(LEAST_SIDE_PX, max(photo.size) // MOST_ELONGATED)
        if min(photo.size) < least:
            raise ValueError(f"{photo.width} x {photo.height} px are too few: the shorter side must have {least}")
        return photo

    @torch.no_grad()
    def encode(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """Compute the encoder's outputs for a face crop, and what a swap keeps of it and exchanges, `(1, dim)` each."""
        pixels = self.processor(image, return_tensors="pt")["pixel_values"]
        outputs, mirrored = self.encoder(pixels), self.encoder(pixels.flip(3))
        features = {name: outputs[name] for names in FEATURES.values() for name in names}
        pose, together = outputs.pose_features, outputs.face_features + outputs.pose_features
        turn = (pose - mirrored.pose_features) / 2
        length = together.norm().clamp_min(1e-12)
        return features | {"kept": (together - turn) / length, "turn": turn / length}

    def find_face(self, path: str | Path, is_searched: bool) -> tuple[PhotoState, Image.Image, str]:
        """Find the face in a photo, and return its state, the photo with faces drawn on it, and a description."""
        photo = self.open_photo(path)
        faces = self.processor.cut_faces(photo, on_no_face="skip") if is_searched else []
        face, picture, text = photo, photo.copy(), NO_FACE_TEXT if is_searched else WHOLE_TEXT
        if faces:
            columns = (np.stack([getattr(face, name) for face in faces]) for name in ("box", "points", "score"))
            picture = self.faces.draw_faces(photo, self.faces.Faces(*columns), [faces[0].square])
            count = "One face is found." if len(faces) == 1 else f"{len(faces)} faces are found; the largest is taken."
            face, text = faces[0].image, FACES_TEXT.format(count)
        picture.thumbnail((MOST_SHOWN_PX, MOST_SHOWN_PX))
        return PhotoState(str(path), is_searched, self.encode(face) if self.encoder else {}), picture, text

    def find_neighbours(self, state: PhotoState, feature: str) -> list[tuple[str, str]]:
        """Find the nearest sample images, and return their paths with their cosines, the nearest first."""
        query = read_feature(state.features, feature)
        cosines = {
            str(path): F.cosine_similarity(query, read_feature(features, feature)).item()
            for path, features in self.samples
        }
        nearest = sorted(cosines.items(), key=lambda pair: -pair[1])[:NEIGHBOURS]
        return [(path, f"{cosine:.3f}") for path, cosine in nearest]

    def estimate_pose(self, state: PhotoState) -> tuple[Image.Image, str]:
        """Estimate head pose, and return the face with its axes and the angles as text."""
        answer = self.estimate(self.open_photo(state.path), draw=True, **state.options)
        picture = crop_around(answer.pop("image"), answer.pop("box", None))
        return picture, "  ".join(f"**{angle}** {degrees:+.1f}°" for angle, degrees in answer.items())

    def classify_expression(self, state: PhotoState) -> dict[str, float]:
        """Compute the probability of each expression."""
        count = self.classify.model.config.num_labels
        answer = self.classify(self.open_photo(state.path), top_k=count, **state.options)
        return {entry["label"]: entry["score"] for entry in answer}

    @torch.no_grad()
    def draw_swaps(self, first: PhotoState, second: PhotoState, face: float, turn: float) -> tuple[Image.Image, list]:
        """Draw a face at these positions from the first photo (0) to the second (1), and each face turned as each."""
        kept, turns = ((first.features[name], second.features[name]) for name in ("kept", "turn"))
        interpolated = self.decoder.decode(torch.lerp(*kept, face), torch.lerp(*turns, turn))
        swapped = self.decoder.decode(torch.cat(kept).repeat_interleave(2, 0), torch.cat(turns).repeat(2, 1))
        captions = [f"face {a}, turned as {b}" for a in (1, 2) for b in (1, 2)]
        return to_picture(interpolated[0]), [(to_picture(image), text) for image, text in zip(swapped, captions)]


def read_feature(features: dict[str, torch.Tensor], feature: str) -> torch.Tensor:
    """Read a feature by its name in `FEATURES`, `(batch, dim)`; for face and pose, the face feature comes first."""
    return torch.cat([features[name] for name in FEATURES[feature]], dim=1)


def crop_around(picture: Image.Image, box: list[float] | None) -> Image.Image:
    """Crop a picture to a box (or None) enlarged by half of its sides on every side, and fit it into `FACE_PX`."""
    left, top, right, bottom = box or (0, 0, *picture.size)
    x, y = (right - left) / 2, (bottom - top) / 2
    upper, lower = (max(0, left - x), max(0, top - y)), (min(picture.width, right + x), min(picture.height, bottom + y))
    return ImageOps.contain(picture.crop((*upper, *lower)), (FACE_PX, FACE_PX))


def to_picture(image: torch.Tensor) -> Image.Image:
    """Convert a `(3, height, width)` image of the decoder to a picture of `DRAWN_PX` px."""
    pixels = image.clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    return Image.fromarray(pixels).resize((DRAWN_PX, DRAWN_PX), Image.Resampling.BICUBIC)


def skip_without_photo(compute: Callable, outputs: int = 1) -> Callable:
    """Wrap a function with so many outputs to return empty ones while a photo is missing or cannot be read.

    Only `find_face` shows the warning about an unreadable photo, because its empty state stops the other functions.
    """

    @wraps(compute)
    def wrapper(*values):
        if all(value is not None for value in values):
            try:
                return compute(*values)
            except ValueError as error:  # Not BrokenImageError, whose class depends on where the model's code lies.
                gr.Warning(f"This photo cannot be read: {getattr(error, 'reason', error)}.")
        return [None] * outputs if outputs > 1 else None

    return wrapper


def build(models: Models) -> gr.Blocks:
    """Build the page, with the answers for `EXAMPLES`. Other answers are computed when a photo is uploaded."""
    labels = ["Photo", "Second photo"][: 2 if models.decoder else 1]
    with gr.Blocks(title="PCL faces", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown(WELCOME)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                uploads = [add_upload(label, example) for label, example in zip(labels, EXAMPLES)]
                label = "Find the face in the photo; otherwise it must fill the photo"
                search = gr.Checkbox(models.can_search, label=label, visible=models.can_search)
                add_samples_section(uploads)
            with gr.Column(scale=2, min_width=280):
                with gr.Row():
                    states = [add_face_section(models, *photo, search) for photo in zip(labels, uploads, EXAMPLES)]
                if models.encoder:
                    add_neighbours_section(models, states[0])
                with gr.Row():
                    if models.estimate:
                        add_pose_section(models, states[0])
                    if models.classify:
                        add_expression_section(models, states[0])
                if models.decoder:
                    add_swap_section(models, *states)
    return page


def add_upload(label: str, example: Path) -> gr.Image:
    """Add an input for a photo, whose value is the path of the uploaded file."""
    sources = ["upload", "webcam", "clipboard"]
    image = gr.Image(str(example), type="filepath", label=label, height=240, buttons=["fullscreen"], sources=sources)
    # Otherwise gradio decodes the file first. Updates of the component, as by gr.Examples, undo this.
    image.preprocess = lambda payload: payload and payload.path
    return image


def add_samples_section(uploads: list[gr.Image]):
    """Add a gallery of faces. A click on one puts it into the input that the user selects."""
    paths = [str(path) for path in sorted(SAMPLES.iterdir()) if path.suffix in (".jpg", ".png")]
    looks = {"columns": 3, "height": 300, "object_fit": "cover", "allow_preview": False, "buttons": []}
    faces = gr.Gallery(paths, label="Faces to try", **looks)
    names = [upload.label for upload in uploads]
    target = gr.Radio(names, value=names[0], label="A click on one fills", visible=len(names) > 1)

    def place(event: gr.SelectData, target: str, *current_paths: str | None):
        new_paths = [paths[event.index] if name == target else path for name, path in zip(names, current_paths)]
        return new_paths if len(new_paths) > 1 else new_paths[0]

    faces.select(place, [target, *uploads], uploads, api_visibility="private")


def add_face_section(models: Models, label: str, upload: gr.Image, example: Path, search: gr.Checkbox) -> gr.State:
    """Add the picture of the faces in a photo, and return the state of the photo."""
    state, picture, text = models.find_face(example, models.can_search)
    with gr.Column(min_width=150):
        image = gr.Image(picture, label=f"{label}: faces", height=240, buttons=["fullscreen"])
        outputs = [gr.State(state), image, gr.Markdown(text)]
    compute = skip_without_photo(models.find_face, 3)
    gr.on([upload.change, search.change], compute, [upload, search], outputs, api_visibility="private")
    return outputs[0]


def add_neighbours_section(models: Models, state: gr.State):
    gr.Markdown(NEIGHBOURS_TEXT.format(count=len(models.samples)))
    feature = gr.Radio(list(FEATURES), value=next(iter(FEATURES)), label="Feature")
    answer = models.find_neighbours(state.value, feature.value)
    nearest = gr.Gallery(answer, label="Nearest first, with cosine", columns=4, object_fit="contain")
    gr.on([state.change, feature.change], skip_without_photo(models.find_neighbours), [state, feature], nearest)


def add_pose_section(models: Models, state: gr.State):
    picture, text = models.estimate_pose(state.value)
    with gr.Column(min_width=280):
        gr.Markdown(POSE_TEXT)
        outputs = [gr.Image(picture, label="Axes of the head", height=360, buttons=["download"]), gr.Markdown(text)]
    state.change(skip_without_photo(models.estimate_pose, 2), state, outputs)


def add_expression_section(models: Models, state: gr.State):
    with gr.Column(min_width=280):
        gr.Markdown(EXPRESSION_TEXT)
        bars = gr.Label(models.classify_expression(state.value), label="Expression", show_heading=False)
    state.change(skip_without_photo(models.classify_expression), state, bars)


def add_swap_section(models: Models, first: gr.State, second: gr.State):
    gr.Markdown(SWAP_TEXT)
    with gr.Row():
        face = gr.Slider(0, 1, 0, step=0.05, label="Face: from first to second")
        turn = gr.Slider(0, 1, 1, step=0.05, label="Turn: from first to second")
    picture, pictures = models.draw_swaps(first.value, second.value, face.value, turn.value)
    with gr.Row():
        image = gr.Image(picture, label="Drawn", buttons=["download"])
        grid = gr.Gallery(pictures, label="Each face turned as each", columns=2, object_fit="contain")
    inputs, compute = [first, second, face, turn], skip_without_photo(models.draw_swaps, 2)
    gr.on([each.change for each in inputs], compute, inputs, [image, grid], show_progress="minimal")


def launch(page: gr.Blocks, **options):
    """Serve the page without recording runs, neither on the server nor in the browser."""
    page.launch(allowed_paths=[str(SAMPLES)], run_history=False, **options)


def find_head(model: str | None, kind: str) -> str | None:
    """Find the folder of a head in the folder or repository of a model; None if there is none."""
    if model is None:
        return None
    folder = Path(model if Path(model).is_dir() else snapshot_download(model)) / kind
    return str(folder) if (folder / "config.json").exists() else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = {"model": str(SHIPPED)} if SHIPPED.exists() else {}
    for kind, variable in KINDS.items():
        default = os.environ.get(variable) or shipped.get(kind)
        parser.add_argument(f"--{kind}", default=default, metavar="MODEL", help="Folder or Hub id.")
    parser.add_argument("--port", type=int, help="By default GRADIO_SERVER_PORT, or the first free one from 7860.")
    options = parser.parse_args()
    try:
        heads = [getattr(options, kind) or find_head(options.model, kind) for kind in NEEDED]
        page = build(Models(options.model, *heads))
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    launch(page, server_port=options.port)


if __name__ == "__main__":
    main()
