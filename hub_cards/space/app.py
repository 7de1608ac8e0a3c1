"""A page to try a PCL model on one's own face:

python app.py --model user/pcl --expression user/pcl-expression --head_pose user/pcl-head-pose

Each is a folder or a Hub id. The variables PCL_MODEL, PCL_EXPRESSION and PCL_HEAD_POSE say the same; without a model, a
clone takes `hub_cards/pcl-small-faces`, and without heads those in the model's folders `expression` and `head_pose` are
taken. What has no model is not on the page. The code of these repositories is run.
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
SHIPPED = Path(__file__).parents[1] / "pcl-small-faces"  # Of a clone.
FEATURES = {
    "face: without pose": ("face_features",),
    "pose": ("pose_features",),
    "face and pose": ("face_features", "pose_features"),
    "trunk: before both": ("pooler_output",),
}
KINDS = {"model": "PCL_MODEL", "expression": "PCL_EXPRESSION", "head_pose": "PCL_HEAD_POSE"}
NEEDED = {"expression": "PCLForImageClassification", "head_pose": "PCLForHeadPoseEstimation"}
MOST_PIXELS, LEAST_SIDE_PX, MOST_ELONGATED = 40_000_000, 16, 20  # Of a photo; the last is of its sides.
NEIGHBOURS, MOST_SHOWN_PX, FACE_PX, DRAWN_PX = 8, 1024, 480, 256
TRUST = {"trust_remote_code": True}

WELCOME = """# What a face model keeps apart
It was trained without labels to keep **pose** apart from **everything else** of a face. Below is what it makes of two
examples: put your own photo in their place. Photos are read on the machine that runs this page and deleted from it
within 20 minutes."""
WHOLE_TEXT = "All of the photo is taken as a face."
NO_FACE_TEXT = f"No face is found, as is usual of a drawn one. {WHOLE_TEXT}"
FACES_TEXT = "{} What the model is given is the blue square; a small line marks its upper side."
NEIGHBOURS_TEXT = """## Neighbours
The nearest of {count} drawn faces, by the cosine of the chosen feature (1 is the same direction).
Drawn faces are far from photos: what is worth seeing is whether *face* brings back a person and *pose* a direction."""
POSE_TEXT = """## Head pose
Degrees. Positive are: the nose to the right of the image (yaw), the nose up (pitch), leaning clockwise
(roll). Red points out of the person's left ear, green out of the top of the head, blue out of the face."""
EXPRESSION_TEXT = """## Expression
Probabilities of a linear layer on the frozen encoder. They say what a face looks like to those who
labelled its training images, not what its owner feels."""
SWAP_TEXT = """## Swap
What the decoder draws from the face features of one photo and the pose features of the other: blurred,
since it was trained to check what the features hold. The sliders go from the first photo (0) to the second (1)."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the page keeps of a photo: not its pixels."""

    path: str
    is_searched: bool  # Whether its largest face is cut out; else all of it is taken as a face.
    features: dict[str, torch.Tensor]  # The encoder's outputs of that face by name, `(1, dim)`; empty without one.

    @property
    def options(self) -> dict:
        """Of a pipeline, so that it takes the same face, cut out as its own model was trained."""
        return {"detect": True, "on_no_face": "whole"} if self.is_searched else {}


def head(kind: str, task: str, model: str) -> Pipeline:
    """The pipeline of a probe's model. Raises `ValueError` if it is of another kind, whose head would be random."""
    architecture = (AutoConfig.from_pretrained(model, **TRUST).architectures or ["nothing known"])[0]
    if architecture != NEEDED[kind]:
        raise ValueError(f"`{kind}` must be a {NEEDED[kind]}, but {model} is a {architecture}.")
    return pipeline(task, model, **TRUST)


class Models:
    """What is at hand, opened once.

    Args:
        model: Folder or Hub id of an encoder, for neighbours, and of a pre-training model for swaps; or None.
        expression: Of a `PCLForImageClassification`.
        head_pose: Of a `PCLForHeadPoseEstimation`.

    Raises:
        ValueError: If none is given, or one does not fit.
    """

    def __init__(self, model: str | None, expression: str | None = None, head_pose: str | None = None):
        first = model or expression or head_pose
        if first is None:
            raise ValueError("No model was given: start the app with `--model`, or set `PCL_MODEL`.")
        if Path(first).is_dir() and not (Path(first) / "modeling_pcl.py").exists():
            import_module("modeling_pcl")  # Opens a folder that holds no code of its own, as one of a clone.
        self.processor = AutoImageProcessor.from_pretrained(first, **TRUST)
        # The model's own modules open images and cut faces as training did.
        package = type(self.processor).__module__.rpartition(".")[0]
        self.images, self.faces = (import_module(f"{package}.{name}_pcl") for name in ("images", "faces"))
        try:
            self.processor.cut_faces(Image.new("RGB", (64, 64)), on_no_face="skip")
            self.can_search = True
        except ImportError:  # What the detector needs is not installed.
            self.can_search = False
        self.encoder = self.decoder = None
        if model:
            config = AutoConfig.from_pretrained(model, **TRUST)
            # A decoder that was never trained draws noise.
            if "PCLForPreTraining" in (config.architectures or []) and config.disentangling_weight:
                self.decoder = AutoModelForPreTraining.from_pretrained(model, **TRUST).eval()
            self.encoder = self.decoder.pcl if self.decoder else AutoModel.from_pretrained(model, **TRUST).eval()
            self.samples = [(path, self.encode(self.open_photo(path))) for path in sorted(SAMPLES.glob("*.png"))]
        self.classify = expression and head("expression", "image-classification", expression)
        self.estimate = head_pose and head("head_pose", "head-pose-estimation", head_pose)

    def open_photo(self, path: str | Path) -> Image.Image:
        """Open a photo upright and in RGB.

        Raises:
            ValueError: If it is no image, cut short, too large, too small, or far longer than wide.
        """
        photo = self.images.open_image(Path(path), max_pixels=MOST_PIXELS)  # A path, never text that may be a URL.
        least = max(LEAST_SIDE_PX, max(photo.size) // MOST_ELONGATED)
        if min(photo.size) < least:
            raise ValueError(f"{photo.width} x {photo.height} px are too few: the shorter side must have {least}")
        return photo

    @torch.no_grad()
    def encode(self, image: Image.Image) -> dict[str, torch.Tensor]:
        outputs = self.encoder(**self.processor(image, return_tensors="pt"))
        return {name: outputs[name] for names in FEATURES.values() for name in names}

    def look(self, path: str | Path, is_searched: bool) -> tuple[Seen, Image.Image, str]:
        """Find the face of a photo: what the panels need of it, the photo with what was found, and that in words."""
        photo = self.open_photo(path)
        found = self.processor.cut_faces(photo, on_no_face="skip") if is_searched else []
        face, picture, words = photo, photo.copy(), NO_FACE_TEXT if is_searched else WHOLE_TEXT
        if found:
            parts = (np.stack([getattr(each, name) for each in found]) for name in ("box", "points", "score"))
            picture = self.faces.draw_faces(photo, self.faces.Faces(*parts), [found[0].square])
            count = "One face is found." if len(found) == 1 else f"{len(found)} faces are found; the largest is taken."
            face, words = found[0].image, FACES_TEXT.format(count)
        picture.thumbnail((MOST_SHOWN_PX, MOST_SHOWN_PX))
        return Seen(str(path), is_searched, self.encode(face) if self.encoder else {}), picture, words

    def neighbours(self, seen: Seen, feature: str) -> list[tuple[str, str]]:
        """Sample images, the nearest first, with their cosines."""
        chosen = chosen_feature(seen.features, feature)
        cosines = {
            str(path): F.cosine_similarity(chosen, chosen_feature(features, feature)).item()
            for path, features in self.samples
        }
        nearest = sorted(cosines.items(), key=lambda pair: -pair[1])[:NEIGHBOURS]
        return [(path, f"{cosine:.3f}") for path, cosine in nearest]

    def pose(self, seen: Seen) -> tuple[Image.Image, str]:
        """The face with axes, and the angles in words."""
        answer = self.estimate(self.open_photo(seen.path), draw=True, **seen.options)
        picture = surroundings(answer.pop("image"), answer.pop("box", None))
        return picture, "  ".join(f"**{angle}** {degrees:+.1f}°" for angle, degrees in answer.items())

    def expressions(self, seen: Seen) -> dict[str, float]:
        count = len(self.classify.model.config.id2label)
        answer = self.classify(self.open_photo(seen.path), top_k=count, **seen.options)
        return {each["label"]: each["score"] for each in answer}

    @torch.no_grad()
    def swaps(self, first: Seen, second: Seen, face: float, pose: float) -> tuple[Image.Image, list]:
        """What is drawn between two photos, and each face in each pose."""
        faces, poses = ((first.features[name], second.features[name]) for name in ("face_features", "pose_features"))
        between = self.decoder.decode(torch.lerp(*faces, face), torch.lerp(*poses, pose))
        drawn = self.decoder.decode(torch.cat(faces).repeat_interleave(2, 0), torch.cat(poses).repeat(2, 1))
        captions = [f"face {a}, pose {b}" for a in (1, 2) for b in (1, 2)]
        return to_picture(between[0]), [(to_picture(image), text) for image, text in zip(drawn, captions)]


def chosen_feature(features: dict[str, torch.Tensor], feature: str) -> torch.Tensor:
    """`(batch, dim)` by a name of `FEATURES`; of face and pose the face's part first."""
    return torch.cat([features[name] for name in FEATURES[feature]], dim=1)


def surroundings(picture: Image.Image, box: list[float] | None) -> Image.Image:
    """A box of a picture, by default all of it, with half its sides around it as far as the picture goes; `FACE_PX`."""
    left, top, right, bottom = box or (0, 0, *picture.size)
    x, y = (right - left) / 2, (bottom - top) / 2
    upper, lower = (max(0, left - x), max(0, top - y)), (min(picture.width, right + x), min(picture.height, bottom + y))
    return ImageOps.contain(picture.crop((*upper, *lower)), (FACE_PX, FACE_PX))


def to_picture(image: torch.Tensor) -> Image.Image:
    pixels = image.clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    return Image.fromarray(pixels).resize((DRAWN_PX, DRAWN_PX), Image.Resampling.BICUBIC)


def quietly(compute: Callable, outputs: int = 1) -> Callable:
    """Empty outputs while a photo is missing, or cannot be read, of which the user is warned once, by `look`."""

    @wraps(compute)
    def wrapper(*values):
        if all(value is not None for value in values):
            try:
                return compute(*values)
            except ValueError as error:  # Of the model's own code, whose classes are not known here.
                gr.Warning(f"This photo cannot be read: {getattr(error, 'reason', error)}.")
        return [None] * outputs if outputs > 1 else None

    return wrapper


def build(models: Models) -> gr.Blocks:
    """The page, which opens with the answers for `EXAMPLES`. What follows from a photo is computed when it arrives."""
    labels = ["Photo", "Second photo"][: 2 if models.decoder else 1]
    with gr.Blocks(title="PCL faces", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown(WELCOME)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                uploads = [upload(label, example) for label, example in zip(labels, EXAMPLES)]
                label = "Find the face in the photo; otherwise it must fill the photo"
                is_searched = gr.Checkbox(models.can_search, label=label, visible=models.can_search)
                samples_section(uploads)
            with gr.Column(scale=2, min_width=280):
                with gr.Row():
                    seen = [look_section(models, *each, is_searched) for each in zip(labels, uploads, EXAMPLES)]
                if models.encoder:
                    neighbours_section(models, seen[0])
                with gr.Row():
                    if models.estimate:
                        pose_section(models, seen[0])
                    if models.classify:
                        expression_section(models, seen[0])
                if models.decoder:
                    swap_section(models, *seen)
    return page


def upload(label: str, example: Path) -> gr.Image:
    """A photo of the user's, of which the file itself is read."""
    sources = ["upload", "webcam", "clipboard"]
    image = gr.Image(str(example), type="filepath", label=label, height=240, buttons=["fullscreen"], sources=sources)
    # As a path unread. An update of the component (as gr.Examples makes them) would undo this, a plain value does not.
    image.preprocess = lambda payload: payload and payload.path
    return image


def samples_section(uploads: list[gr.Image]):
    """Faces to try, which a click puts where the user says."""
    paths = [str(path) for path in sorted(SAMPLES.iterdir()) if path.suffix in (".jpg", ".png")]
    looks = {"columns": 3, "height": 300, "object_fit": "cover", "allow_preview": False, "buttons": []}
    faces = gr.Gallery(paths, label="Faces to try", **looks)
    names = [each.label for each in uploads]
    where = gr.Radio(names, value=names[0], label="A click on one fills", visible=len(names) > 1)

    def place(event: gr.SelectData, where: str, *shown: str | None):
        placed = [paths[event.index] if name == where else path for name, path in zip(names, shown)]
        return placed if len(placed) > 1 else placed[0]

    faces.select(place, [where, *uploads], uploads, api_visibility="private")


def look_section(models: Models, label: str, upload: gr.Image, example: Path, is_searched: gr.Checkbox) -> gr.State:
    seen, picture, words = models.look(example, models.can_search)
    with gr.Column(min_width=150):
        shown = gr.Image(picture, label=f"{label}: faces", height=240, buttons=["fullscreen"])
        outputs = [gr.State(seen), shown, gr.Markdown(words)]
    changes = [upload.change, is_searched.change]
    gr.on(changes, quietly(models.look, 3), [upload, is_searched], outputs, api_visibility="private")
    return outputs[0]


def neighbours_section(models: Models, seen: gr.State):
    gr.Markdown(NEIGHBOURS_TEXT.format(count=len(models.samples)))
    feature = gr.Radio(list(FEATURES), value=next(iter(FEATURES)), label="Feature")
    answer = models.neighbours(seen.value, feature.value)
    nearest = gr.Gallery(answer, label="Nearest first, with cosine", columns=4, object_fit="contain")
    gr.on([seen.change, feature.change], quietly(models.neighbours), [seen, feature], nearest)


def pose_section(models: Models, seen: gr.State):
    picture, words = models.pose(seen.value)
    with gr.Column(min_width=280):
        gr.Markdown(POSE_TEXT)
        outputs = [gr.Image(picture, label="Axes of the head", height=360, buttons=["download"]), gr.Markdown(words)]
    seen.change(quietly(models.pose, 2), seen, outputs)


def expression_section(models: Models, seen: gr.State):
    with gr.Column(min_width=280):
        gr.Markdown(EXPRESSION_TEXT)
        bars = gr.Label(models.expressions(seen.value), label="Expression", show_heading=False)
    seen.change(quietly(models.expressions), seen, bars)


def swap_section(models: Models, first: gr.State, second: gr.State):
    gr.Markdown(SWAP_TEXT)
    with gr.Row():
        face = gr.Slider(0, 1, 0, step=0.05, label="Face: from first to second")
        pose = gr.Slider(0, 1, 1, step=0.05, label="Pose: from first to second")
    picture, pictures = models.swaps(first.value, second.value, face.value, pose.value)
    with gr.Row():
        drawn = gr.Image(picture, label="Drawn", buttons=["download"])
        grid = gr.Gallery(pictures, label="Each face in each pose", columns=2, object_fit="contain")
    changes = [first.change, second.change, face.change, pose.change]
    inputs, outputs = [first, second, face, pose], [drawn, grid]
    gr.on(changes, quietly(models.swaps, 2), inputs, outputs, show_progress="minimal")


def launch(page: gr.Blocks, **options):
    """Serve the page; no run is recorded, neither here nor in the browser."""
    page.launch(allowed_paths=[str(SAMPLES)], run_history=False, **options)


def find_head(model: str | None, kind: str) -> str | None:
    """The folder of a head below a model, which may be on the Hub, if there is one."""
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
