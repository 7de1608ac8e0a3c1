"""Faces with their labels or predictions on one page; of a corpus also how its labels are distributed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from PIL import Image

from ..data.images import decode_image
from ..data.label_columns import is_missing, names
from ..head_pose_pcl import ANGLES, draw_axes
from ..images_pcl import BrokenImageError
from . import style
from .captions import LETTERS, caption_lines
from .heads import add_axes_legend
from .label_charts import corpus_panels, draw_panels, fold_panel
from .sample_choice import choose_pairs, choose_samples

TILE_PX, GAP_PX, LINE_PX = 160, 20, 13
HEADING_PX = 70  # With what the axes mean.
WIDEST_PX, NARROWEST_PX = 1700, 540  # Of a page.
GREY = 190
RIGHT, WRONG, PLAIN = ("#009a00", 4), ("#d00000", 4), ("black", 0.8)  # Colour and width of a frame.


@dataclass(frozen=True)
class Tile:
    """Images side by side with words above and below.

    Args:
        images: As `decode_image` takes them; one that does not decode is grey and says why.
        name: What to call them in errors.
        above: Lines of words.
        below: Likewise.
        pose: Yaw, pitch and roll in degrees, drawn on the image; None draws nothing.
        frame: Colour and width of the frame.
    """

    images: Sequence[Mapping | None]
    name: str
    above: str = ""
    below: str = ""
    pose: Sequence[float] | None = None
    frame: tuple[str, float] = PLAIN


def draw_corpus(corpus: Dataset, title: str, samples: int = 36, seed: int = 0) -> Image.Image:
    """Draw samples of a corpus with their labels, and the labels' histograms.

    Args:
        corpus: As `load_corpus` returns it.
        title: Written above, with the number of rows and of subjects.
        samples: How many images to show, as `choose_samples` takes them.
        seed: Of the choice; the same corpus and seed give the same pixels.

    Raises:
        ValueError: If the corpus has no rows, or `samples` is below 1.
    """
    chosen = choose_samples(corpus, samples, seed)
    corpus = corpus.flatten()  # Each attribute becomes a column `attributes.name`.
    heading = f"{title}: {_count(len(corpus), 'row')}"
    if "subject" in corpus.column_names:
        heading += f", {_count(len(set(names(corpus, 'subject')) - {None}), 'subject')}"
    rows = corpus.with_format(None).select(list(chosen))
    tiles = [_face_tile(labels, corpus.features, row, mark) for (row, mark), labels in zip(chosen.items(), rows)]
    panels = corpus_panels(corpus)
    return style.stacked([draw_tiles(heading, tiles), *([draw_panels(panels)] if panels else [])])


def draw_pairs(pairs: Dataset, title: str, samples: int = 24, seed: int = 0) -> Image.Image:
    """Draw samples of a list of pairs, same ones framed green and different ones red, and the counts by fold.

    Args:
        pairs: As `load_pairs` returns it.
        title: Written above, with the number of pairs.
        samples: How many pairs to show, as `choose_pairs` takes them.
        seed: Of the choice; the same list and seed give the same pixels.

    Raises:
        ValueError: If the list has no rows, or `samples` is below 1.
    """
    chosen = choose_pairs(pairs, samples, seed)
    tiles = [_pair_tile(pair, row) for row, pair in zip(chosen, pairs.with_format(None).select(chosen))]
    heading = f"{title}: {_count(len(pairs), 'pair')}"
    return style.stacked([draw_tiles(heading, tiles), draw_panels([fold_panel(pairs)])])


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
    tiles = []
    for number, (image, label, guess) in enumerate(zip(images, labelled, predicted, strict=True)):
        words = style.one_line(f"labelled {label}", LETTERS), style.one_line(f"predicted {guess}", LETTERS)
        tiles.append(Tile([image], f"image {number}", *words, frame=RIGHT if label == guess else WRONG))
    return draw_tiles(title, tiles)


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
    tiles = []
    for number, (image, *poses) in enumerate(zip(images, labelled, predicted, strict=True)):
        for word, pose in zip(("labelled", "predicted"), poses):
            angles = " ".join(f"{angle} {round(value):+d}" for angle, value in zip(ANGLES, pose))
            tiles.append(Tile([image], f"image {number}", word, angles, pose))
    return draw_tiles(title, tiles)


def _face_tile(labels: Mapping, features: Mapping, row: int, mark: str) -> Tile:
    image = {"bytes": labels["image.bytes"], "path": labels["image.path"]}
    pose = [labels.get(angle) for angle in ANGLES]
    below = "\n".join(caption_lines(labels, features))
    is_posed = not any(map(is_missing, pose))
    return Tile([image], f"row {row}", style.wrapped(mark, LETTERS, 2), below, pose if is_posed else None)


def _pair_tile(pair: Mapping, row: int) -> Tile:
    words = {True: ["same"], False: ["different"]}.get(pair["same"], [])
    words = words + ([] if pair["fold"] is None else [f"fold {pair['fold']}"])
    frame = {True: RIGHT, False: WRONG}.get(pair["same"], PLAIN)
    return Tile([pair["image_a"], pair["image_b"]], f"row {row}", below=", ".join(words), frame=frame)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def draw_tiles(heading: str, tiles: Sequence[Tile]) -> Image.Image:
    """Draw tiles of one kind in rows, below a heading, and what the axes of head poses mean if there are any."""
    width_px = len(tiles[0].images) * TILE_PX + GAP_PX
    lines = sum(max(getattr(tile, side).count("\n") + 2 for tile in tiles) for side in ("above", "below"))
    columns = min(WIDEST_PX // width_px, len(tiles))
    page_px = max(columns * width_px, NARROWEST_PX)
    rows_px = math.ceil(len(tiles) / columns) * (TILE_PX + lines * LINE_PX)
    figure = style.new_figure(page_px, rows_px + HEADING_PX, style.one_line(heading, page_px // 11))
    figure.get_layout_engine().set(w_pad=GAP_PX / 2 / style.DPI)
    for axes, tile in zip(style.add_grid(figure, len(tiles), columns), tiles):
        pictures, reasons = zip(*(_decode(image, tile) for image in tile.images))
        axes.imshow(np.hstack(pictures))
        for place, reason in enumerate(reasons):
            words = style.wrapped(reason, 24, 8)
            axes.text((place + 0.5) * TILE_PX, TILE_PX / 2, words, ha="center", va="center", **style.SMALL)
        axes.set(xticks=[], yticks=[])
        axes.set_title(tile.above, pad=3, **style.SMALL)
        axes.set_xlabel(tile.below, labelpad=3, **style.SMALL)
        axes.spines[:].set(color=tile.frame[0], linewidth=tile.frame[1])
    if any(tile.pose for tile in tiles):
        add_axes_legend(figure)
    return style.rendered(figure)


def _decode(image: Mapping | None, tile: Tile) -> tuple[np.ndarray, str]:
    """Pixels of an image, `(TILE_PX, TILE_PX, 3)`, and why it is grey, `""` for one that decodes."""
    try:
        pixels = decode_image(image, TILE_PX, name=tile.name).permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
    except BrokenImageError as error:
        return np.full((TILE_PX, TILE_PX, 3), GREY, np.uint8), error.reason
    return (np.asarray(draw_axes(Image.fromarray(pixels), *tile.pose)) if tile.pose else pixels), ""
