"""Predictions beside labels on the faces themselves."""

from collections.abc import Mapping, Sequence

from PIL import Image

from .captions import LETTERS
from .contact_sheet import FRAMES, Tile, draw_page
from .label_columns import ANGLES
from .pixel_figure import one_line


def draw_class_predictions(
    images: Sequence[Mapping], labelled: Sequence[str], predicted: Sequence[str], title: str
) -> Image.Image:
    """Draw faces with the class that was predicted, framed green where it is the labelled one and red where not.

    Args:
        images: As `decode_image` takes them, one at least.
        labelled: Name of each image's class.
        predicted: Likewise.
        title: Written above.
    """
    tiles = [
        Tile(
            [image],
            f"image {number}",
            [one_line(f"labelled {label}", LETTERS)],
            [one_line(f"predicted {guess}", LETTERS)],
            frame=FRAMES[label == guess],
        )
        for number, (image, label, guess) in enumerate(zip(images, labelled, predicted, strict=True))
    ]
    return draw_page(title, tiles, [])


def draw_pose_predictions(
    images: Sequence[Mapping], labelled: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]], title: str
) -> Image.Image:
    """Draw every face twice: with the axes of the labelled head pose, and with those of the predicted one.

    Args:
        images: As `decode_image` takes them, one at least.
        labelled: Yaw, pitch and roll of each image, in degrees.
        predicted: Likewise.
        title: Written above.
    """
    tiles = [
        Tile([image], f"image {number}", [word], [_angles(pose)], pose)
        for number, (image, *poses) in enumerate(zip(images, labelled, predicted, strict=True))
        for word, pose in zip(("labelled", "predicted"), poses)
    ]
    return draw_page(title, tiles, [])


def _angles(pose: Sequence[float]) -> str:
    return " ".join(f"{angle} {round(value):+d}" for angle, value in zip(ANGLES, pose))
