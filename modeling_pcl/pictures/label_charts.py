"""The charts below a contact sheet, which show the distribution of each label."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import ClassLabel, Dataset, Value
from matplotlib.axes import Axes
from PIL import Image

from ..data.label_columns import ATTRIBUTES, names, numbers, order_names, select_attributes
from ..data.schema import action_units
from ..head_pose_pcl import ANGLES
from . import style

CLASSES = ("expression", "smile", "gender", "split")
BIN_WIDTHS = {"yaw": 5, "pitch": 5, "roll": 5, "age": 5}
MOST_CLASSES = 30
MOST_ATTRIBUTES, MOST_SUBJECT_BINS = 20, 40  # In one chart.
ACROSS, LETTERS_ACROSS = 3, 60  # Charts side by side, and small letters that fit below a chart.
COLOURS = {"same": "#009a00", "different": "#d00000", "present": "#4878a8", "absent": "#c8d8e8", "missing": "#b0b0b0"}
COLOURS |= {str(level): f"#{220 - 36 * level:02x}{230 - 30 * level:02x}f0" for level in range(6)}
LOG_FROM = 100  # Ratio of the highest to the lowest bar from which the scale is logarithmic.


@dataclass(frozen=True)
class Panel:
    """The numbers of one chart.

    Args:
        title: Title of the chart.
        bars: Names of the bars, or lower edges of the bins if there is a `bin_width`.
        series: Heights of the bars by name of the series, `(bars,)` each. Several series are stacked.
        bin_width: Width of the bins in `unit`; None for bars with names.
        unit: Label of the axis of the bins.
        is_log: Whether the scale of the heights is logarithmic.
    """

    title: str
    bars: Sequence
    series: Mapping[str, np.ndarray]
    bin_width: int | None = None
    unit: str = ""
    is_log: bool = False


def build_corpus_panels(corpus: Dataset) -> list[Panel]:
    """Build the histograms of the label columns of a flat corpus, and of `split` if it has several values."""
    present = set(corpus.column_names)
    columns = [name for name in CLASSES if name in present]
    if "split" in columns and len(set(names(corpus, "split"))) == 1:
        columns.remove("split")
    panels = [build_class_panel(corpus, name) for name in columns]
    for name, width in BIN_WIDTHS.items():
        if name in present:
            panels.append(
                build_histogram_panel(name, numbers(corpus, name), width, "degrees" if name in ANGLES else "years")
            )
    panels += build_action_unit_panels(corpus) + build_attribute_panels(corpus)
    return panels + ([build_subject_panel(names(corpus, "subject"))] if "subject" in present else [])


def build_class_panel(corpus: Dataset, column: str) -> Panel:
    """Count rows by class, in the order of the feature or by name. Only the largest of very many classes are kept."""
    column_values = names(corpus, column)
    counts, bars = Counter(column_values), order_names(column_values, corpus.features[column])
    title = _add_missing(column.removeprefix(ATTRIBUTES), counts[None])
    if len(bars) > MOST_CLASSES:
        title += f" (the {MOST_CLASSES} largest of {len(bars)})"
        bars = sorted(bars, key=lambda name: -counts[name])[:MOST_CLASSES]
    return Panel(title, bars, {"rows": np.array([counts[name] for name in bars])})


def build_histogram_panel(title: str, values: np.ndarray, width: int, unit: str) -> Panel:
    """Count rows in bins of `width`, whose lower edges are multiples of it and belong to the bin. NaN is missing."""
    bins = np.floor(values[~np.isnan(values)] / width).astype(int)
    title = _add_missing(title, len(values) - len(bins))
    if not len(bins):
        return Panel(title, [], {"rows": np.array([])}, width, unit)
    edges = width * np.arange(bins.min(), bins.max() + 1)
    return Panel(title, edges, {"rows": np.bincount(bins - bins.min())}, width, unit)


def build_action_unit_panels(corpus: Dataset) -> list[Panel]:
    """Count rows by action unit, with separate panels for presence and for intensity from 0 to 5."""
    units = action_units(corpus.column_names)
    coded = [unit for unit in units if isinstance(corpus.features[unit], ClassLabel)]
    intensities = [unit for unit in units if unit not in coded]
    panels = []
    if coded:
        panels.append(_build_stack("action units", corpus, coded, {"present": 1, "absent": 0}))
    if intensities:
        levels = {str(level): level for level in range(6)}
        panels.append(_build_stack("action units, intensity", corpus, intensities, levels))
    return panels


def _build_stack(title: str, corpus: Dataset, columns: list[str], levels: Mapping[str, int]) -> Panel:
    """Count how often each column has each level, and how often it is missing if any value is."""
    values = np.stack([numbers(corpus, column) for column in columns])  # (columns, rows)
    series = {name: (np.round(values) == level).sum(axis=1) for name, level in levels.items()}
    missing = np.isnan(values).sum(axis=1)
    return Panel(title, columns, series | ({"missing": missing} if missing.any() else {}))


def build_attribute_panels(corpus: Dataset) -> list[Panel]:
    """Build panels of the share of rows for which each boolean attribute is true, and of the classes of the others.

    The share is that of the rows in which the attribute is not missing, and the largest comes first. An attribute that
    is missing in all rows has no bar.
    """
    columns = select_attributes(corpus.column_names)
    booleans = [name for name in columns if corpus.features[name] == Value("bool")]
    panels = [build_class_panel(corpus, name) for name in columns if name not in booleans]
    return (_build_share_panels(corpus, booleans) if booleans else []) + panels


def _build_share_panels(corpus: Dataset, columns: list[str]) -> list[Panel]:
    values = {column.removeprefix(ATTRIBUTES).replace("_", " "): numbers(corpus, column) for column in columns}
    shares = {
        name: np.nanmean(column_values) for name, column_values in values.items() if not np.isnan(column_values).all()
    }
    missing = sum(np.isnan(column_values).sum() for column_values in values.values())
    order = sorted(shares, key=lambda name: -shares[name])
    panels = []
    for first in range(0, max(1, len(order)), MOST_ATTRIBUTES):
        bars = order[first : first + MOST_ATTRIBUTES]
        title = f"attributes, from place {first + 1}" if first else _add_missing("attributes, share of true", missing)
        panels.append(Panel(title, bars, {"share": np.array([shares[name] for name in bars])}))
    return panels


def build_subject_panel(subjects: Iterable[str | None]) -> Panel:
    """Count subjects by their number of images."""
    images = Counter(subjects)
    title = _add_missing("subjects by number of images", images.pop(None, 0))
    sizes = np.array(list(images.values()), dtype=float)
    width = max(1, int(np.ceil(sizes.max(initial=0) / MOST_SUBJECT_BINS)))
    panel = build_histogram_panel(title, sizes, width, "images")
    counts = panel.series["rows"]
    is_log = bool(len(counts)) and counts.max() >= LOG_FROM * counts[counts > 0].min()
    return replace(panel, series={"subjects": counts}, is_log=is_log)


def build_fold_panel(pairs: Dataset) -> Panel:
    """Count pairs of the same person and of different people by fold."""
    same, folds = numbers(pairs, "same"), numbers(pairs, "fold")
    is_known = ~np.isnan(same) & ~np.isnan(folds)
    bars = np.unique(folds[is_known]).astype(int).tolist()
    series = {
        name: np.array([(is_known & (folds == fold) & (same == value)).sum() for fold in bars], dtype=int)
        for name, value in {"same": 1, "different": 0}.items()
    }
    return Panel(_add_missing("pairs by fold", (~is_known).sum()), list(map(str, bars)), series)


def _add_missing(title: str, missing: int) -> str:
    return f"{title}, {missing:,} missing" if missing else title


def draw_panels(panels: Sequence[Panel]) -> Image.Image:
    """Draw charts, with up to three side by side."""
    across = min(ACROSS, len(panels))
    rows = [panels[first : first + across] for first in range(0, len(panels), across)]
    heights = [200 + max(17 * len(panel.bars) if _is_horizontal(panel) else 0 for panel in row) for row in rows]
    figure = style.new_figure(across * 480, sum(heights))
    for axes, panel in zip(style.add_grid(figure, len(panels), across, gridspec_kw={"height_ratios": heights}), panels):
        _draw_panel(axes, panel)
    return style.render_figure(figure)


def _is_horizontal(panel: Panel) -> bool:
    """Return whether the names of the bars are too many or too long to be written side by side."""
    return not panel.bin_width and sum(max(4, len(name) + 1) for name in panel.bars) > LETTERS_ACROSS


def _draw_panel(axes: Axes, panel: Panel):
    style.tidy_axes(axes)
    axes.set_title(style.one_line(panel.title, LETTERS_ACROSS), fontsize=9, parse_math=False)
    if not len(panel.bars):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "nothing is known", ha="center", transform=axes.transAxes, **style.SMALL)
        return
    is_horizontal, base = _is_horizontal(panel), np.zeros(len(panel.bars))
    # A bin of width 1 holds one whole number and is centred on it; a wider bin reaches from its edge to the next.
    start = panel.bin_width / 2 if panel.bin_width and panel.bin_width > 1 else 0
    middles = np.asarray(panel.bars) + start if panel.bin_width else np.arange(len(panel.bars))
    draw_bars, side = (axes.barh, "left") if is_horizontal else (axes.bar, "bottom")
    for name, heights in panel.series.items():
        colour = COLOURS.get(name, "#4878a8")
        bars = draw_bars(middles, heights, panel.bin_width or 0.8, **{side: base}, label=name, color=colour)
        base = base + heights
    if panel.is_log:
        axes.set_yscale("log")
    if panel.bin_width:
        axes.set_xlabel(panel.unit, fontsize=8)
    else:
        style.name_ticks(axes.yaxis if is_horizontal else axes.xaxis, panel.bars, letters=24)
        if len(panel.series) == 1:
            axes.bar_label(bars, fmt="{:.2f}" if "share" in panel.series else "{:,.0f}", fontsize=7, padding=2)
        else:
            axes.legend(fontsize=7, frameon=False, ncols=2)
    if is_horizontal:
        axes.invert_yaxis()  # So that the first bar is at the top.
    axes.margins(**{"x" if is_horizontal else "y": 0.12})
