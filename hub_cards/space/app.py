"""A page to try a PCL model on one's own face:

python app.py --model user/pcl --expression user/pcl-expression --head_pose user/pcl-head-pose

Each is a folder or a Hub id, and may be left out; the variables PCL_MODEL, PCL_EXPRESSION and PCL_HEAD_POSE say the
same. The code of these repositories is run.
"""

import argparse
import os
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import gradio as gr
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, Pipeline, pipeline

SAMPLES = Path(__file__).parent / "samples"
FEATURES = {
    "face: without pose": ("face_features",),
    "pose": ("pose_features",),
    "face and pose": ("face_features", "pose_features"),
    "trunk: before both": ("pooler_output",),
}
KINDS = {"model": "PCL_MODEL", "expression": "PCL_EXPRESSION", "head_pose": "PCL_HEAD_POSE"}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
NEIGHBOURS, MOST_PIXELS, LEAST_SIDE_PX, MOST_SIDE_PX, SHOWN_PX = 8, 40_000_000, 16, 1024, 256
NEEDED = {"expression": "PCLForImageClassification", "head_pose": "PCLForHeadPoseEstimation"}
TRUST = {"trust_remote_code": True}

WELCOME = """# What a face model keeps apart
Give it a photo of one face that fills the image, as a face detector would cut it out. It was trained without labels to
keep **pose** apart from **everything else**. Photos are read on the machine that runs this page and
deleted from it within 20 minutes."""
NEIGHBOURS_TEXT = """The nearest of {count} drawn faces, by the cosine of the chosen feature (1 is the same direction).
Drawn faces are far from photos: what is worth seeing is whether *face* brings back a person and *pose* a direction."""
POSE_TEXT = """Degrees. Positive are: the nose to the right of the image (yaw), the nose up (pitch), leaning clockwise
(roll). Red points out of the person's left ear, green out of the top of the head, blue out of the face."""
EXPRESSION_TEXT = """Probabilities of a linear layer on the frozen encoder. They say what a face looks like to those who
labelled its training images, not what its owner feels."""
SWAP_TEXT = """What the decoder draws from the face features of one photo and the pose features of the other: blurred,
since it was trained to check what the features hold. The sliders go from the first photo (0) to the second (1)."""


def photo(**options) -> tuple[gr.Image, gr.State]:
    """An image, and the path of what it shows, or None where that is no photo, of which the user is warned once."""
    image = gr.Image(type="filepath", height=280, buttons=["fullscreen"], **options)
    # As a path unread. An update of the component (as gr.Examples makes them) would undo this, a plain value does not.
    image.preprocess = lambda payload: payload and payload.path
    path = gr.State()
    image.change(checked, image, path, api_visibility="private")
    return image, path


def checked(path: str | None) -> str | None:
    try:
        if path is not None:
            open_photo(path)
        return path
    except gr.Error as error:
        gr.Warning(error.message, title=error.title)
        return None


def open_photo(path: str | None) -> Image.Image:
    """Decode a photo as it lies in its file; a file that is none is reported to the user."""
    if path is None:
        raise gr.Error("Choose a photo first.", title="No photo")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise gr.Error(f"{image.width} x {image.height} px are too many; {MOST_PIXELS:,} pixels are read.")
            if min(image.size) < LEAST_SIDE_PX:
                raise gr.Error(f"{image.width} x {image.height} px are too few: each side must have {LEAST_SIDE_PX}.")
            image.load()
            return image
    except gr.Error:  # It is a ValueError too.
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise gr.Error("This file is not an image that can be read.", title="Not an image") from error


def head(kind: str, task: str, model: str) -> Pipeline:
    """The pipeline of a probe's model.

    Raises:
        ValueError: If the model is of another kind, whose head would be random, or was saved without its pipeline.
    """
    config = AutoConfig.from_pretrained(model, **TRUST)
    found = (config.architectures or ["nothing known"])[0]
    if found != NEEDED[kind]:
        raise ValueError(f"`{kind}` must be a {NEEDED[kind]}, but {model} is a {found}.")
    if kind == "head_pose" and task not in list(getattr(config, "custom_pipelines", None) or {}):
        raise ValueError(
            f"`{kind}`: {model} was saved without its pipeline; save it again with the current modeling_pcl."
        )
    return pipeline(task, model, **TRUST)


class Models:
    """What is at hand, opened once.

    Args:
        model: Folder or Hub id of an encoder, for neighbours, and of a pre-training model for swaps; or None.
        expression: Of a `PCLForImageClassification`.
        head_pose: Of a `PCLForHeadPoseEstimation`.
    """

    def __init__(self, model: str | None, expression: str | None = None, head_pose: str | None = None):
        self.encoder = self.decoder = None
        if model:
            architectures = AutoConfig.from_pretrained(model, **TRUST).architectures or []
            self.processor = AutoImageProcessor.from_pretrained(model, **TRUST)
            # A decoder that was never trained draws noise.
            if "PCLForPreTraining" in architectures and AutoConfig.from_pretrained(model, **TRUST).disentangling_weight:
                self.decoder = AutoModelForPreTraining.from_pretrained(model, **TRUST).eval()
            self.encoder = self.decoder.pcl if self.decoder else AutoModel.from_pretrained(model, **TRUST).eval()
            self.samples = [(path, self.encode(open_photo(path))) for path in sorted(SAMPLES.glob("*.png"))]
        self.classify = expression and head("expression", "image-classification", expression)
        self.estimate = head_pose and head("head_pose", "head-pose-estimation", head_pose)

    @torch.inference_mode()
    def encode(self, image: Image.Image):
        return self.encoder(**self.processor(image, return_tensors="pt"))

    def neighbours(self, path: str | None, feature: str) -> list[tuple[str, str]]:
        """Sample images, the nearest first, with their cosines."""
        own = chosen_feature(self.encode(open_photo(path)), feature)
        cosines = {
            str(sample): F.cosine_similarity(own, chosen_feature(outputs, feature)).item()
            for sample, outputs in self.samples
        }
        nearest = sorted(cosines.items(), key=lambda pair: -pair[1])[:NEIGHBOURS]
        return [(sample, f"{cosine:.3f}") for sample, cosine in nearest]

    def pose(self, path: str | None) -> tuple[Image.Image, str]:
        """The photo with axes, and the angles in words."""
        photo = self.estimate.image_processor.fetch_images(open_photo(path))
        photo.thumbnail((MOST_SIDE_PX, MOST_SIDE_PX))  # More is not shown, and drawing on 40 million pixels takes long.
        answer = self.estimate(photo, draw=True)
        return answer.pop("image"), "  ".join(f"**{angle}** {degrees:+.1f}°" for angle, degrees in answer.items())

    def expressions(self, path: str | None) -> dict[str, float]:
        return {
            each["label"]: each["score"]
            for each in self.classify(open_photo(path), top_k=len(self.classify.model.config.id2label))
        }

    @torch.inference_mode()
    def swaps(self, first: str | None, second: str | None, face: float, pose: float) -> tuple[Image.Image, list]:
        """What is drawn between two photos, and each face in each pose."""
        photos = [open_photo(first), open_photo(second)]
        one, other = (self.encode(photo) for photo in photos)
        faces, poses = ((one[name], other[name]) for name in ("face_features", "pose_features"))
        between = self.decoder.decode(torch.lerp(*faces, face), torch.lerp(*poses, pose))
        drawn = self.decoder.decode(torch.cat(faces).repeat_interleave(2, 0), torch.cat(poses).repeat(2, 1))
        captions = [f"face {a}, pose {b}" for a in (1, 2) for b in (1, 2)]
        return to_picture(between[0]), [(to_picture(image), text) for image, text in zip(drawn, captions)]


def chosen_feature(outputs, feature: str) -> torch.Tensor:
    """`(batch, dim)` of an encoder's outputs, by a name of `FEATURES`; of face and pose the face's part first."""
    return torch.cat([outputs[name] for name in FEATURES[feature]], dim=1)


def to_picture(image: torch.Tensor) -> Image.Image:
    pixels = image.clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    return Image.fromarray(pixels).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.BICUBIC)


def quietly(compute: Callable, outputs: int = 1) -> Callable:
    """Empty outputs while a photo is missing."""

    @wraps(compute)
    def wrapper(*values):
        if any(value is None for value in values):
            return [None] * outputs if outputs > 1 else None
        return compute(*values)

    return wrapper


def missing(option: str):
    gr.Markdown(f"*No model was given for this: start the app with `--{option}`, or set `{KINDS[option]}`.*")


def build(models: Models) -> gr.Blocks:
    """The page. What follows from a photo is computed when it arrives."""
    with gr.Blocks(title="PCL faces", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown(WELCOME)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                first, first_path = photo(label="Photo", sources=["upload", "webcam", "clipboard"])
                second, second_path = photo(label="Second photo, for swaps", sources=["upload", "webcam", "clipboard"])
                drawn_faces(first, second)
            with gr.Column(scale=2), gr.Tabs():
                with gr.Tab("Neighbours"):
                    neighbours_tab(models, first_path)
                with gr.Tab("Head pose"):
                    if models.estimate:
                        gr.Markdown(POSE_TEXT)
                        outputs = [
                            gr.Image(label="Axes of the head", height=360, buttons=["download", "fullscreen"]),
                            gr.Markdown(),
                        ]
                        first_path.change(quietly(models.pose, 2), first_path, outputs)
                    else:
                        missing("head_pose")
                with gr.Tab("Expression"):
                    if models.classify:
                        gr.Markdown(EXPRESSION_TEXT)
                        first_path.change(
                            quietly(models.expressions), first_path, gr.Label(label="Expression", show_heading=False)
                        )
                    else:
                        missing("expression")
                with gr.Tab("Swap"):
                    swap_tab(models, first_path, second_path)
    return page


def drawn_faces(first: gr.Image, second: gr.Image):
    """Faces to try, which go into the first photo, or once that is there into the second."""
    paths = sorted(map(str, SAMPLES.glob("*.png")))
    faces = gr.Gallery(
        paths, label="Drawn faces to try", columns=3, height=300, allow_preview=False, buttons=[], object_fit="cover"
    )
    where = gr.Radio(["Photo", "Second photo"], value="Photo", label="A click on a drawn face fills")

    def place(event: gr.SelectData, where: str, first: str | None, second: str | None):
        chosen = paths[event.index]
        return (chosen, second) if where == "Photo" else (first, chosen)

    faces.select(place, [where, first, second], [first, second], api_visibility="private")


def neighbours_tab(models: Models, photo: gr.State):
    if not models.encoder:
        return missing("model")
    gr.Markdown(NEIGHBOURS_TEXT.format(count=len(models.samples)))
    feature = gr.Radio(list(FEATURES), value=next(iter(FEATURES)), label="Feature")
    nearest = gr.Gallery(label="Nearest first, with cosine", columns=4, height=420, object_fit="contain")
    gr.on([photo.change, feature.change], quietly(models.neighbours), [photo, feature], nearest)


def swap_tab(models: Models, first: gr.State, second: gr.State):
    if not models.encoder:
        return missing("model")
    if not models.decoder:
        return gr.Markdown(
            "*This model has no trained decoder: swaps need one that was pre-trained with disentangling.*"
        )
    gr.Markdown(SWAP_TEXT)
    with gr.Row():
        face = gr.Slider(0, 1, 0, step=0.05, label="Face: from first to second")
        pose = gr.Slider(0, 1, 1, step=0.05, label="Pose: from first to second")
    with gr.Row():
        drawn = gr.Image(label="Drawn", height=420, buttons=["download"])
        grid = gr.Gallery(label="Each face in each pose", columns=2, height=420, object_fit="contain")
    gr.on(
        [first.change, second.change, face.change, pose.change],
        quietly(models.swaps, 2),
        [first, second, face, pose],
        [drawn, grid],
        show_progress="minimal",
    )


def launch(page: gr.Blocks, **options):
    """Serve the page; no run is recorded, neither here nor in the browser."""
    page.launch(allowed_paths=[str(SAMPLES)], run_history=False, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, variable in KINDS.items():
        parser.add_argument(f"--{kind}", default=os.environ.get(variable), metavar="MODEL", help="Folder or Hub id.")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    try:
        models = Models(options.model, options.expression, options.head_pose)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    launch(build(models), server_port=options.port)


if __name__ == "__main__":
    main()
