"""Contact sheets: faces with their labels or predictions on one page, and histograms of a corpus's labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from ..data.images import decode_image
from ..data.label_columns import is_missing, names
from ..head_pose_pcl import ANGLES, draw_axes
from ..images_pcl import BrokenImageError
from . import style
from .captions import LETTERS, write_caption
from .heads import add_axes_legend
from .label_charts import count_labels, count_pairs, draw_charts
from .sample_choice import choose_pairs, choose_samples

TILE_PX, GAP_PX, LINE_PX, TEXT_GAP_PX = 160, 20, 13, 5
HEADING_PX = 70  # Height of the heading and the legend of the axes.
WIDEST_PX, NARROWEST_PX = 1700, 540  # Width of a page.
GREY = 190  # Level of images that cannot be decoded.
RIGHT, WRONG, PLAIN = ("#009a00", 4), ("#d00000", 4), ("black", 0.8)  # Colour and width of a frame.


@dataclass(frozen=True)
class Tile:
    """One or more images side by side, with text above and below.

    Args:
        images: Encoded images for `decode_image`. One that cannot be decoded is drawn in grey, with the reason.
        name: Name of the images in errors.
        above: Lines of text above.
        below: Lines of text below.
        pose: Yaw, pitch and roll in degrees, whose axes are drawn on the images; None draws none.
        frame: Colour and width of the frame.
    """

    images: Sequence[Mapping | None]
    name: str
    above: str = ""
    below: str = ""
    pose: Sequence[float] | None = None
    frame: tuple[str, float] = PLAIN


def draw_corpus(corpus: Dataset, title: str, samples: int = 36, seed: int = 0) -> Image.Image:
    """Draw samples of a corpus with their labels, and histograms of the labels.

    Args:
        corpus: Result of `load_corpus`.
        title: Title, to which the numbers of rows and subjects are added.
        samples: Number of images to draw, see `choose_samples`.
        seed: Seed of the choice. The same corpus and seed give the same pixels.

    Raises:
        ValueError: If the corpus has no rows, or `samples` is below 1.
    """
    marks = choose_samples(corpus, samples, seed)
    corpus = corpus.flatten()  # Each attribute becomes a column `attributes.name`.
    heading = f"{title}: {_format_count(len(corpus), 'row')}"
    if "subject" in corpus.column_names:
        heading += f", {_format_count(len(set(names(corpus, 'subject')) - {None}), 'subject')}"
    samples = corpus.with_format(None).select(list(marks))
    tiles = [_make_face_tile(labels, corpus.features, *entry) for entry, labels in zip(marks.items(), samples)]
    charts = count_labels(corpus)
    return style.stack_pictures([draw_tiles(heading, tiles), *([draw_charts(charts)] if charts else [])])


def draw_pairs(pairs: Dataset, title: str, samples: int = 24, seed: int = 0) -> Image.Image:
    """Draw samples of a list of pairs and the number of pairs by fold.

    Pairs of the same person have a green frame, pairs of different people a red one.

    Args:
        pairs: Result of `load_pairs`.
        title: Title, to which the number of pairs is added.
        samples: Number of pairs to draw, see `choose_pairs`.
        seed: Seed of the choice. The same list and seed give the same pixels.

    Raises:
        ValueError: If the list has no rows, or `samples` is below 1.
    """
    rows = choose_pairs(pairs, samples, seed)
    tiles = [_make_pair_tile(pair, row) for row, pair in zip(rows, pairs.with_format(None).select(rows))]
    heading = f"{title}: {_format_count(len(pairs), 'pair')}"
    return style.stack_pictures([draw_tiles(heading, tiles), draw_charts([count_pairs(pairs)])])


def draw_class_predictions(
    images: Sequence[Mapping], labelled: Sequence[str], predicted: Sequence[str], title: str
) -> Image.Image:
    """Draw faces with their labelled and predicted classes, in a green frame if these agree and a red one otherwise.

    Args:
        images: Encoded images for `decode_image`, at least one.
        labelled: Name of the labelled class of each image.
        predicted: Name of the predicted class of each image.
        title: Title of the picture.
    """
    tiles = []
    for number, (image, label, prediction) in enumerate(zip(images, labelled, predicted, strict=True)):
        texts = style.one_line(f"labelled {label}", LETTERS), style.one_line(f"predicted {prediction}", LETTERS)
        tiles.append(Tile([image], f"image {number}", *texts, frame=RIGHT if label == prediction else WRONG))
    return draw_tiles(title, tiles)


def draw_pose_predictions(
    images: Sequence[Mapping], labelled: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]], title: str
) -> Image.Image:
    """Draw every face twice: with the axes of the labelled head pose, and with those of the predicted one.

    Args:
        images: Encoded images for `decode_image`, at least one.
        labelled: Labelled yaw, pitch and roll of each image, in degrees.
        predicted: Predicted yaw, pitch and roll of each image, in degrees.
        title: Title of the picture.
    """
    tiles = []
    for number, (image, *poses) in enumerate(zip(images, labelled, predicted, strict=True)):
        for kind, pose in zip(("labelled", "predicted"), poses):
            angles = " ".join(f"{angle} {round(value):+d}" for angle, value in zip(ANGLES, pose))
            tiles.append(Tile([image], f"image {number}", kind, angles, pose))
    return draw_tiles(title, tiles)


def _make_face_tile(labels: Mapping, features: Mapping, row: int, mark: str) -> Tile:
    image = {"bytes": labels["image.bytes"], "path": labels["image.path"]}
    pose = [labels.get(angle) for angle in ANGLES]
    below = "\n".join(write_caption(labels, features))
    has_pose = not any(map(is_missing, pose))
    return Tile([image], f"row {row}", style.wrap_text(mark, LETTERS, 2), below, pose if has_pose else None)


def _make_pair_tile(pair: Mapping, row: int) -> Tile:
    texts = {True: ["same"], False: ["different"]}.get(pair["same"], [])
    texts = texts + ([] if pair["fold"] is None else [f"fold {pair['fold']}"])
    frame = {True: RIGHT, False: WRONG}.get(pair["same"], PLAIN)
    return Tile([pair["image_a"], pair["image_b"]], f"row {row}", below=", ".join(texts), frame=frame)


def _format_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def draw_tiles(heading: str, tiles: Sequence[Tile]) -> Image.Image:
    """Draw tiles with equally many images in rows below a heading, with a legend if head poses are drawn."""
    width_px = len(tiles[0].images) * TILE_PX + GAP_PX
    above_px, below_px = (
        LINE_PX * max(getattr(tile, side).count("\n") + 2 for tile in tiles) for side in ("above", "below")
    )
    columns = min(WIDEST_PX // width_px, len(tiles))
    page_px = max(columns * width_px, NARROWEST_PX)
    row_px = above_px + TILE_PX + below_px
    rows_px = math.ceil(len(tiles) / columns) * row_px
    figure = style.new_figure(page_px, rows_px + HEADING_PX, style.one_line(heading, page_px // 11))
    axes = figure.subplots()
    # One pair of axes in px of the page: with a pair for each tile, the layout took a second for 24 tiles.
    axes.set(xlim=(0, columns * width_px), ylim=(rows_px, 0), aspect="equal")
    axes.set_axis_off()
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        _draw_tile(axes, tile, column * width_px + GAP_PX / 2, row * row_px + above_px)
    if any(tile.pose for tile in tiles):
        add_axes_legend(figure)
    return style.render_figure(figure)


def _draw_tile(axes: Axes, tile: Tile, left_px: float, top_px: float):
    """Draw a tile whose images begin at a point of the axes, with the text above it and below."""
    pictures, reasons = zip(*(_decode(image, tile) for image in tile.images))
    right_px, bottom_px = left_px + TILE_PX * len(pictures), top_px + TILE_PX
    axes.imshow(np.hstack(pictures), extent=(left_px, right_px, bottom_px, top_px))
    colour, line_width = tile.frame
    frame = Rectangle((left_px, top_px), right_px - left_px, TILE_PX, fill=False, color=colour, linewidth=line_width)
    axes.add_patch(frame)
    middle_px = (left_px + right_px) / 2
    axes.text(middle_px, top_px - TEXT_GAP_PX, tile.above, ha="center", va="bottom", **style.SMALL)
    axes.text(middle_px, bottom_px + TEXT_GAP_PX, tile.below, ha="center", va="top", **style.SMALL)
    for place, reason in enumerate(reasons):
        if reason:
            x, text = left_px + (place + 0.5) * TILE_PX, style.wrap_text(reason, 24, 8)
            axes.text(x, top_px + TILE_PX / 2, text, ha="center", va="center", **style.SMALL)


def _decode(image: Mapping | None, tile: Tile) -> tuple[np.ndarray, str]:
    """Decode an image to `(TILE_PX, TILE_PX, 3)` pixels and `""`; a broken one gives grey pixels and the reason."""
    try:
        pixels = decode_image(image, TILE_PX, name=tile.name).permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
    except BrokenImageError as error:
        return np.full((TILE_PX, TILE_PX, 3), GREY, np.uint8), error.reason
    return (np.asarray(draw_axes(Image.fromarray(pixels), *tile.pose)) if tile.pose else pixels), ""
