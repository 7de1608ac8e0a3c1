"""A corpus as one picture: samples with their labels drawn on, and below them how the labels are distributed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from .captions import LETTERS, caption_lines
from .chart_drawing import charts_height_px, draw_charts
from .images import BrokenImageError, decode_image
from .label_charts import Panel, corpus_panels, fold_panel
from .label_columns import ANGLES, is_missing, names
from .pixel_figure import LINE_PX, SMALL, axes_at, broken_into_lines, from_top, new_figure, one_line, rendered
from .pose_picture import LEGEND_PX, add_legend, draw_pose_axes
from .sample_choice import choose_pairs, choose_samples

TILE_PX, GAP_PX = 160, 20
HEADING_PX, HEADING_LETTER_PX = 40, 11
WIDEST_PX, NARROWEST_PX, NARROWEST_WITH_CHARTS_PX = 1700, 540, 1080  # Of a page.
GREY = 190
REASON = (24, 8)  # Letters and lines.
FRAMES = {True: ("#009a00", 4), False: ("#d00000", 4)}  # Of a pair: colour and width.


@dataclass(frozen=True)
class Tile:
    """Images side by side with words above and below.

    Args:
        images: As `decode_image` takes them.
        name: What to call them in errors.
        above: Lines of words.
        below: Likewise.
        pose: Yaw, pitch and roll in degrees, drawn on the image; None draws nothing.
        frame: Colour and width of the frame.
    """

    images: Sequence[Mapping | None]
    name: str
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    pose: Sequence[float] | None = None
    frame: tuple[str, float] = ("black", 0.8)


def draw_corpus(corpus: Dataset, title: str, samples: int = 36, seed: int = 0) -> Image.Image:
    """Draw samples of a corpus with their labels, and the labels' histograms.

    Args:
        corpus: As `load_corpus` returns it.
        title: Written above, with the number of rows and of subjects.
        samples: How many images to show, as `choose_samples` takes them.
        seed: Of the choice; the same corpus and seed give the same pixels.

    Returns:
        An RGB picture. An image that does not decode is a grey tile with the reason.

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
    return draw_page(heading, tiles, corpus_panels(corpus))


def draw_pairs(pairs: Dataset, title: str, samples: int = 24, seed: int = 0) -> Image.Image:
    """Draw samples of a list of pairs, same ones framed green and different ones red, and the counts by fold.

    Args:
        pairs: As `load_pairs` returns it.
        title: Written above, with the number of pairs.
        samples: How many pairs to show, as `choose_pairs` takes them.
        seed: Of the choice; the same list and seed give the same pixels.

    Returns:
        An RGB picture. An image that does not decode is a grey tile with the reason.

    Raises:
        ValueError: If the list has no rows, or `samples` is below 1.
    """
    chosen = choose_pairs(pairs, samples, seed)
    tiles = [_pair_tile(pair, row) for row, pair in zip(chosen, pairs.with_format(None).select(chosen))]
    return draw_page(f"{title}: {_count(len(pairs), 'pair')}", tiles, [fold_panel(pairs)])


def _face_tile(labels: Mapping, features: Mapping, row: int, mark: str) -> Tile:
    image = {"bytes": labels["image.bytes"], "path": labels["image.path"]}
    pose = [labels.get(angle) for angle in ANGLES]
    above, below = broken_into_lines(mark, LETTERS, 2), caption_lines(labels, features)
    return Tile([image], f"row {row}", above, below, None if any(map(is_missing, pose)) else pose)


def _pair_tile(pair: Mapping, row: int) -> Tile:
    words = {True: ["same"], False: ["different"]}.get(pair["same"], [])
    words = words + ([] if pair["fold"] is None else [f"fold {pair['fold']}"])
    images = [pair["image_a"], pair["image_b"]]
    return Tile(images, f"row {row}", below=[", ".join(words)], frame=FRAMES.get(pair["same"], Tile.frame))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def draw_page(heading: str, tiles: Sequence[Tile], panels: Sequence[Panel]) -> Image.Image:
    """Heading, tiles, what the axes of poses mean if there are any, and charts, from top to bottom."""
    cell = len(tiles[0].images) * TILE_PX + GAP_PX
    columns = min(WIDEST_PX // cell, len(tiles))
    above = LINE_PX * max(len(tile.above) for tile in tiles)
    row_height = above + TILE_PX + LINE_PX * max(len(tile.below) for tile in tiles) + GAP_PX
    width = max(columns * cell, NARROWEST_WITH_CHARTS_PX if panels else NARROWEST_PX)
    legend_top = HEADING_PX + -(-len(tiles) // columns) * row_height
    charts_top = legend_top + (LEGEND_PX if any(tile.pose for tile in tiles) else 0)
    figure = new_figure(width, charts_top + charts_height_px(panels, width))
    words = one_line(heading, width // HEADING_LETTER_PX)
    figure.text(0.5, from_top(figure, HEADING_PX / 2), words, ha="center", va="center", fontsize=13, parse_math=False)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        _draw_tile(figure, tile, GAP_PX // 2 + column * cell, HEADING_PX + row * row_height + above)
    if charts_top > legend_top:
        add_legend(figure, legend_top)
    draw_charts(figure, panels, charts_top, width)
    return rendered(figure)


def _draw_tile(figure: Figure, tile: Tile, left_px: int, top_px: int):
    """Draw a tile whose first image has its corner there."""
    width = len(tile.images) * TILE_PX
    axes = axes_at(figure, left_px, top_px, width, TILE_PX)
    are_shown = [_show(axes, image, place * TILE_PX, tile.name) for place, image in enumerate(tile.images)]
    if tile.pose and all(are_shown):
        draw_pose_axes(axes, tile.pose, TILE_PX)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(TILE_PX, 0))
    axes.set_title("\n".join(tile.above), pad=3, **SMALL)
    axes.set_xlabel("\n".join(tile.below), labelpad=3, **SMALL)
    colour, thickness = tile.frame
    axes.spines[:].set(color=colour, linewidth=thickness)


def _show(axes: Axes, image: Mapping | None, left_px: int, name: str) -> bool:
    """Draw an image; whether it decodes. One that does not is grey and says why."""
    try:
        pixels = decode_image(image, TILE_PX, name=name).permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
        reason = ""
    except BrokenImageError as error:
        pixels, reason = np.full((TILE_PX, TILE_PX, 3), GREY, np.uint8), error.reason
    axes.imshow(pixels, extent=(left_px, left_px + TILE_PX, TILE_PX, 0))
    words = "\n".join(broken_into_lines(reason, *REASON))
    axes.text(left_px + TILE_PX / 2, TILE_PX / 2, words, ha="center", va="center", **SMALL)
    return not reason
