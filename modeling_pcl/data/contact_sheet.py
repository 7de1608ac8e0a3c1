"""A corpus as one picture: samples with their labels drawn on, and below them how the labels are distributed."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from .head_pose import axes_in_image, rotation_matrix
from .images import BrokenImageError, decode_image
from .schema import action_units

ANGLES = ("yaw", "pitch", "roll")
CLASSES = ("expression", "smile", "gender", "split")
ATTRIBUTES = "attributes."  # What the names of attributes begin with in a flat corpus.
MOST_CLASSES = 30
MOST_ATTRIBUTES = 4
SUBJECT_LETTERS = 18
LINE_LETTERS = 28  # What fits below a tile.

TILE_PX = 160
TILES, PAIRS, CHARTS = 9, 5, 4  # Across the page.
PAGE_WIDTH, ROW_HEIGHT, CHART_HEIGHT, BAR_HEIGHT = 16.2, 2.4, 2.5, 0.17  # Inches, at 100 dots each.
SMALL = {"fontsize": 8, "parse_math": False}  # A label may hold dollar signs.

# Direction of the head: colour, length in shares of the tile, and the words of the legend.
AXES = {
    "left": ("#e00000", 0.4, "out of the left ear"),
    "top": ("#00b000", 0.4, "out of the top of the head"),
    "nose": ("#0030ff", 0.5, "out of the face, where the nose points"),
}
SAME, DIFFERENT = "#009a00", "#d00000"
COLOURS = {"same": SAME, "different": DIFFERENT, "present": "#4878a8", "absent": "#c8d8e8", "missing": "#b0b0b0"}
COLOURS |= {str(level): f"#{220 - 36 * level:02x}{230 - 30 * level:02x}f0" for level in range(6)}


@dataclass(frozen=True)
class Panel:
    """The numbers of one chart.

    Args:
        title: Written above.
        bars: The bars' names, or the bins' lower edges where there is a `bin_width`.
        series: Name to a height a bar; several are stacked.
        bin_width: In the unit of `bars`.
        unit: Written along the bins.
        is_log: Whether heights are drawn on a logarithmic scale.
    """

    title: str
    bars: Sequence
    series: Mapping[str, np.ndarray]
    bin_width: int | None = None
    unit: str = ""
    is_log: bool = False

    @property
    def is_horizontal(self) -> bool:
        """Whether the names are too many or too long to stand side by side."""
        return self.bin_width is None and len(self.bars) * (1 + max(map(len, self.bars), default=0)) > 55


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
        heading += f", {_count(len(set(_names(corpus, 'subject')) - {None}), 'subject')}"
    figure, axes = _page(heading, len(chosen), TILES, corpus_panels(corpus))
    for axis, (row, mark), labels in zip(axes, chosen.items(), corpus.with_format(None).select(list(chosen))):
        _show(axis, [{"bytes": labels["image.bytes"], "path": labels["image.path"]}], f"row {row}")
        axis.set_title(mark, pad=3, **SMALL)
        axis.set_xlabel("\n".join(caption_lines(labels, corpus.features)), labelpad=2, **SMALL)
        pose = [labels.get(angle) for angle in ANGLES]
        if not any(map(_is_missing, pose)):
            _draw_axes(axis, pose, TILE_PX)
    if set(ANGLES) <= set(corpus.column_names):
        _add_axes_legend(axes[0].figure)
    return _rendered(figure)


def draw_pairs(pairs: Dataset, title: str, samples: int = 24, seed: int = 0) -> Image.Image:
    """Draw samples of a list of pairs, same ones framed green and different ones red, and the counts by fold.

    Args:
        pairs: As `load_pairs` returns it.
        title: Written above, with the number of pairs.
        samples: How many pairs to show, about as many same as different ones.
        seed: Of the choice; the same list and seed give the same pixels.

    Returns:
        An RGB picture.

    Raises:
        ValueError: If the list has no rows, or `samples` is below 1.
    """
    _check_not_empty(pairs, samples)
    same = _names(pairs, "same")
    chosen = sorted(_balanced(same, np.random.default_rng(seed))[:samples], key=lambda row: str(same[row]))
    figure, axes = _page(f"{title}: {_count(len(pairs), 'pair')}", len(chosen), PAIRS, [fold_panel(pairs)])
    for axis, row, pair in zip(axes, chosen, pairs.with_format(None).select(chosen)):
        _show(axis, [pair["image_a"], pair["image_b"]], f"row {row}")
        words = {True: ["same"], False: ["different"]}.get(pair["same"], [])
        words += [] if pair["fold"] is None else [f"fold {pair['fold']}"]
        axis.set_xlabel(", ".join(words), **SMALL)
        axis.spines[:].set(color={True: SAME, False: DIFFERENT}.get(pair["same"], "0.5"), linewidth=4)
    return _rendered(figure)


# --- Which rows are shown, and what is written below them.


def choose_samples(corpus: Dataset, samples: int, seed: int) -> dict[int, str]:
    """Rows to show: the two lowest and two highest of each angle, then random ones, about equally many of each class.

    Returns:
        Row number to what it is the extreme of, `""` for the random ones.
    """
    _check_not_empty(corpus, samples)
    extremes = dict(list(_extremes(corpus).items())[:samples])
    column = next((name for name in ("expression", "smile") if name in corpus.column_names), None)
    names = _names(corpus, column) if column else [""] * len(corpus)
    others = [row for row in _balanced(names, np.random.default_rng(seed)) if row not in extremes]
    others = sorted(others[: samples - len(extremes)], key=lambda row: (names[row] is None, names[row]))
    return extremes | dict.fromkeys(others, "")


def _check_not_empty(rows: Dataset, samples: int):
    if not len(rows) or samples < 1:
        raise ValueError(f"There must be rows to draw, and `samples` of at least 1; there are {len(rows)}, {samples}.")


def _extremes(corpus: Dataset) -> dict[int, str]:
    marks: dict[int, list[str]] = {}
    for angle in filter(corpus.column_names.__contains__, ANGLES):
        values = _numbers(corpus, angle)
        order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()].tolist()  # NaN comes last.
        for row in order[:2]:
            marks.setdefault(row, []).append(f"lowest {angle}")
        for row in order[2:][-2:]:
            marks.setdefault(row, []).append(f"highest {angle}")
    return {row: ", ".join(words) for row, words in marks.items()}


def _balanced(names: Sequence[str | None], generator: np.random.Generator) -> list[int]:
    """All rows in random order, one of each name in turn; those without a name come last."""
    seen: Counter = Counter()
    turns = []
    for row in generator.permutation(len(names)).tolist():
        turns.append((names[row] is None, seen[names[row]], row))
        seen[names[row]] += 1
    return [row for *_, row in sorted(turns, key=lambda turn: turn[:2])]


def caption_lines(labels: Mapping, features: Mapping) -> list[str]:
    """The known labels of a row, in at most three lines."""
    pose = [f"{angle} {labels[angle]:+.0f}" for angle in ANGLES if not _is_missing(labels.get(angle))]
    words = [_class_name(labels[name], features[name]) for name in ("expression", "smile") if name in labels]
    words.append(None if _is_missing(labels.get("age")) else f"age {labels['age']:.0f}")
    words.append(_class_name(labels["gender"], features["gender"]) if "gender" in labels else None)
    words += [_action_unit(name, labels[name], features[name]) for name in action_units(labels)]
    words += _attributes(labels, features)
    words.append(None if labels.get("subject") is None else _shortened(str(labels["subject"]), SUBJECT_LETTERS))
    # A label is not broken within its words: textwrap knows no-break spaces.
    text = " ".join(word.replace(" ", "\xa0") for word in words if word)
    lines = textwrap.wrap(text, LINE_LETTERS, max_lines=2 if pose else 3, placeholder=" …", break_on_hyphens=False)
    return ([" ".join(pose)] if pose else []) + lines


def _action_unit(name: str, value, feature) -> str | None:
    if _is_missing(value) or value <= 0:
        return None
    return name if isinstance(feature, ClassLabel) else f"{name}={value:.0f}"


def _attributes(labels: Mapping, features: Mapping) -> list[str]:
    words = []
    for name in filter(_is_attribute, labels):
        short, value = name.removeprefix(ATTRIBUTES).replace("_", " "), _class_name(labels[name], features[name])
        if value not in (None, "False"):
            words.append(short if value == "True" else f"{short}: {value}")
    return words[:MOST_ATTRIBUTES] + ([f"+{len(words) - MOST_ATTRIBUTES}"] if len(words) > MOST_ATTRIBUTES else [])


def _is_attribute(column: str) -> bool:
    return column.startswith(ATTRIBUTES)


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


# --- The columns, read without a look at the images.


def _column(corpus: Dataset, name: str) -> pa.ChunkedArray:
    return corpus.select_columns(name).with_format("arrow")[:].column(name)


def _numbers(corpus: Dataset, name: str) -> np.ndarray:
    """A column with NaN for what is missing, `(rows,)`."""
    values = pc.cast(_column(corpus, name), pa.float64()).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _names(corpus: Dataset, name: str) -> list[str | None]:
    return [_class_name(value, corpus.features[name]) for value in _column(corpus, name).to_pylist()]


def _class_name(value, feature) -> str | None:
    if not isinstance(feature, ClassLabel):
        return None if _is_missing(value) else str(value)
    return None if value is None or value < 0 else feature.names[value]


def _is_missing(value) -> bool:
    return value is None or value != value


# --- The charts' numbers.


def corpus_panels(corpus: Dataset) -> list[Panel]:
    """The histograms of the label columns that a corpus has, and `split` if it has several values."""
    corpus = corpus.flatten()
    panels = []
    for name in filter(corpus.column_names.__contains__, CLASSES):
        names = _names(corpus, name)
        if name != "split" or len(set(names)) > 1:
            panels.append(class_panel(name, names, corpus.features[name]))
    for name, width, unit in [*((angle, 5, "degrees") for angle in ANGLES), ("age", 5, "years")]:
        if name in corpus.column_names:
            panels.append(histogram_panel(name, _numbers(corpus, name), width, unit))
    panels += action_unit_panels(corpus) + attribute_panels(corpus)
    return panels + ([subject_panel(_names(corpus, "subject"))] if "subject" in corpus.column_names else [])


def class_panel(title: str, names: Iterable[str | None], feature=None) -> Panel:
    """Rows by class: in the feature's order, or by name; of very many classes the largest."""
    counts = Counter(names)
    missing = counts.pop(None, 0)
    bars = list(feature.names) if isinstance(feature, ClassLabel) else sorted(counts)
    title = _with_missing(title, missing)
    if len(bars) > MOST_CLASSES:
        title += f" (the {MOST_CLASSES} largest of {len(bars)})"
        bars = sorted(bars, key=lambda name: -counts[name])[:MOST_CLASSES]
    return Panel(title, bars, {"rows": np.array([counts[name] for name in bars])})


def histogram_panel(title: str, values: np.ndarray, width: int, unit: str = "") -> Panel:
    """Rows by bins of `width`, each from its lower edge to below the next; NaN is missing."""
    lows = np.floor(values[~np.isnan(values)] / width).astype(int)
    title = _with_missing(title, len(values) - len(lows))
    if not len(lows):
        return Panel(title, [], {"rows": np.array([])}, width, unit)
    counts = np.bincount(lows - lows.min())
    return Panel(title, width * np.arange(lows.min(), lows.max() + 1), {"rows": counts}, width, unit)


def action_unit_panels(corpus: Dataset) -> list[Panel]:
    """Rows by action unit: present and absent, and likewise those with an intensity from 0 to 5."""
    panels = []
    for levels in ({"present": 1, "absent": 0}, {str(level): level for level in range(6)}):
        is_presence = "present" in levels
        units = action_units(corpus.column_names)
        units = [unit for unit in units if isinstance(corpus.features[unit], ClassLabel) == is_presence]
        values = [_numbers(corpus, unit) for unit in units]
        series = {name: np.array([(np.round(v) == level).sum() for v in values]) for name, level in levels.items()}
        series["missing"] = np.array([np.isnan(v).sum() for v in values])
        if units:
            title = "action units" if is_presence else "action units, intensity"
            panels.append(Panel(_with_missing(title, series["missing"].sum()), units, series))
    return panels


def attribute_panels(corpus: Dataset) -> list[Panel]:
    """The share of rows that each boolean attribute is true of, then the classes of each other attribute."""
    names = list(filter(_is_attribute, corpus.column_names))
    classes = [name for name in names if isinstance(corpus.features[name], ClassLabel)]
    values = {name.removeprefix(ATTRIBUTES): _numbers(corpus, name) for name in names if name not in classes}
    missing = sum(np.isnan(v).sum() for v in values.values())
    shares = {name: np.nansum(v) / max(1, (~np.isnan(v)).sum()) for name, v in values.items()}
    bars = sorted(shares, key=lambda name: -shares[name])
    title = _with_missing("attributes, share of true", missing)
    panels = [Panel(title, bars, {"share": np.array([shares[name] for name in bars])})] if bars else []
    return panels + [
        class_panel(name.removeprefix(ATTRIBUTES), _names(corpus, name), corpus.features[name]) for name in classes
    ]


def subject_panel(subjects: Iterable[str | None]) -> Panel:
    """Subjects by how many images they have."""
    images = Counter(subjects)
    missing = images.pop(None, 0)
    sizes = np.array(list(images.values()), dtype=float)
    width = max(1, int(np.ceil(sizes.max(initial=0) / 40)))
    panel = histogram_panel(_with_missing("images per subject", missing), sizes, width, "images")
    counts = panel.series["rows"]
    is_log = bool(len(counts)) and counts.max() > 20 * np.median(counts[counts > 0])
    return Panel(panel.title, panel.bars, {"subjects": counts}, width, panel.unit, is_log)


def fold_panel(pairs: Dataset) -> Panel:
    """Same and different pairs by fold."""
    same, folds = _numbers(pairs, "same"), _numbers(pairs, "fold")
    is_known = ~np.isnan(same) & ~np.isnan(folds)
    numbers = np.unique(folds[is_known])
    series = {
        name: np.array([(is_known & (folds == fold) & (same == value)).sum() for fold in numbers])
        for name, value in {"same": 1, "different": 0}.items()
    }
    return Panel(_with_missing("pairs by fold", (~is_known).sum()), [f"{fold:.0f}" for fold in numbers], series)


def _with_missing(title: str, missing: int) -> str:
    return f"{title}, {missing:,} missing" if missing else title


# --- The drawing.


def _page(heading: str, tiles: int, columns: int, panels: Sequence[Panel]) -> tuple[Figure, np.ndarray]:
    """A page with its charts drawn, and the axes of its tiles."""
    rows = -(-tiles // columns)
    charts = [panels[i : i + CHARTS] for i in range(0, len(panels), CHARTS)]
    heights = [max(map(_chart_height, row)) for row in charts]
    shares = [ROW_HEIGHT * rows] + ([sum(heights)] if charts else [])
    figure = Figure((PAGE_WIDTH, 0.5 + sum(shares)), dpi=100, layout="constrained")
    figure.suptitle(heading, fontsize=13, parse_math=False)
    parts = figure.subfigures(len(shares), 1, height_ratios=shares, squeeze=False).ravel()
    if charts:
        grid = parts[1].subplots(len(charts), CHARTS, height_ratios=heights, squeeze=False).ravel()
        for axis, panel in zip(grid, panels):
            _draw_panel(axis, panel)
        for axis in grid[len(panels) :]:
            axis.set_axis_off()
    axes = parts[0].subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[tiles:]:
        axis.set_axis_off()
    return figure, axes[:tiles]


def _chart_height(panel: Panel) -> float:
    return max(CHART_HEIGHT, 0.7 + BAR_HEIGHT * len(panel.bars)) if panel.is_horizontal else CHART_HEIGHT


def _draw_panel(axis, panel: Panel):
    places = np.arange(len(panel.bars)) if panel.bin_width is None else panel.bars
    base = np.zeros(len(places))
    for name, heights in panel.series.items():
        style = {"label": name, "color": COLOURS.get(name, "#4878a8"), "edgecolor": "white", "linewidth": 0.5}
        if panel.is_horizontal:
            bars = axis.barh(places, heights, left=base, **style)
        elif panel.bin_width is None:
            bars = axis.bar(places, heights, bottom=base, **style)
        else:
            axis.bar(places, heights, panel.bin_width, align="edge", **style)
        base = base + heights
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(panel.title, fontsize=10, parse_math=False)
    if panel.bin_width is not None:
        axis.set_xlabel(panel.unit, **SMALL)
        axis.set_yscale("log" if panel.is_log else "linear")
        return
    _name_bars(axis, panel)
    if len(panel.series) > 1:
        axis.legend(fontsize=7, ncols=len(panel.series), loc="upper center", bbox_to_anchor=(0.5, -0.08))
    elif len(places):
        axis.bar_label(bars, fmt="{:.2f}" if "share" in panel.series else "{:,.0f}", fontsize=7, padding=2)
        axis.margins(**{"x" if panel.is_horizontal else "y": 0.15})


def _name_bars(axis, panel: Panel):
    set_ticks = axis.set_yticks if panel.is_horizontal else axis.set_xticks
    set_ticks(range(len(panel.bars)), [_shortened(name, 24) for name in panel.bars], parse_math=False)
    if panel.is_horizontal:
        axis.set_ylim(len(panel.bars) - 0.5, -0.5)  # The first bar on top.


def _show(axis, records: Sequence[Mapping | None], name: str):
    """Images side by side; one that does not decode is grey and says why."""
    for i, record in enumerate(records):
        left = i * TILE_PX
        try:
            pixels = decode_image(record, TILE_PX, name=name).permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
        except BrokenImageError as error:
            pixels = np.full((TILE_PX, TILE_PX, 3), 190, np.uint8)
            reason = textwrap.fill(error.reason, 20, max_lines=6)
            axis.text(left + TILE_PX / 2, TILE_PX / 2, reason, ha="center", va="center", **SMALL)
        axis.imshow(pixels, extent=(left, left + TILE_PX, TILE_PX, 0))
    axis.set(xticks=[], yticks=[], xlim=(0, len(records) * TILE_PX), ylim=(TILE_PX, 0))


def _draw_axes(axis, pose: Sequence[float], size: float):
    """The head's axes from the middle of a tile that is `size` wide and high."""
    for name, direction in axes_in_image(*pose).items():
        colour, length, _ = AXES[name]
        right, down = size * (0.5 + np.outer([0, length], direction)).T
        outline = [Stroke(linewidth=5, foreground="white"), Normal()]
        axis.plot(right, down, color=colour, linewidth=3, solid_capstyle="round", path_effects=outline)


def _add_axes_legend(figure):
    lines = [Line2D([], [], color=colour, linewidth=3, label=words) for colour, _, words in AXES.values()]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize=9)


def _rendered(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


# --- The sign convention.


def draw_pose_convention() -> Image.Image:
    """Draw which way a head turns with the sign of yaw, pitch and roll, as `head_pose` defines them."""
    turns = {
        "yaw": (40, "nose to the left of the image", "nose to the right of the image"),
        "pitch": (30, "nose down", "nose up"),
        "roll": (30, "head leans counter-clockwise", "head leans clockwise"),
    }
    figure = Figure((9, 9.8), dpi=100, layout="constrained")
    for row, (angle, (turn, negative, positive)) in zip(figure.subplots(3, 3), turns.items()):
        for axis, degrees, words in zip(row, (-turn, 0, turn), (negative, "frontal", positive)):
            _draw_head(axis, [degrees if name == angle else 0 for name in ANGLES])
            axis.set_title(f"{angle} {degrees:+d}: {words}" if degrees else f"{angle} 0: {words}", fontsize=10)
    _add_axes_legend(figure)
    return _rendered(figure)


def _draw_head(axis, pose: Sequence[float]):
    """A schematic head, 2 units high, in a tile of 3."""
    in_image = -rotation_matrix(*pose)[:2]  # (right, down) of the head's x, y and z, as in `axes_in_image`.
    circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 60)), np.sin(np.linspace(0, 2 * np.pi, 60))])
    skull = in_image * [0.75, 1, 0.85]
    outline = np.linalg.cholesky(skull @ skull.T) @ circle  # The outline of a turned ellipsoid is an ellipse.
    eyes = [_on_face(side + 0.1 * circle[0], 0.2 + 0.06 * circle[1]) for side in (-0.3, 0.3)]
    mouth = _on_face(0.3 * circle[0], -0.5 + 0.05 * circle[1])
    nose = np.array([[0, -0.12, 0, 0.12], [0.15, -0.2, -0.1, -0.2], [-0.8, -0.8, -1.15, -0.8]])
    parts = [(outline, "#f2d6bd"), *((in_image @ eye, "black") for eye in eyes)]
    for points, colour in [*parts, (in_image @ mouth, "#b05050"), (in_image @ nose, "#d8a880")]:
        axis.add_patch(Polygon(1.5 + points.T, facecolor=colour, edgecolor="black"))
    _draw_axes(axis, pose, 3)
    axis.set(xlim=(0, 3), ylim=(3, 0), aspect="equal", xticks=[], yticks=[])


def _on_face(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points of the head's front by their x and y, `(3, points)`."""
    return np.stack([x, y, -0.85 * np.sqrt(1 - (x / 0.75) ** 2 - y**2)])
