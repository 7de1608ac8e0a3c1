"""The charts below a contact sheet, which show the distribution of each label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, Value
from matplotlib.axes import Axes
from PIL import Image

from ..data.label_columns import ATTRIBUTES, names, numbers, order_names, select_attributes
from ..data.schema import action_units
from ..head_pose_pcl import ANGLES
from . import style

CLASSES = ("expression", "smile", "gender", "split")
BIN_WIDTH = 5  # Of angles in degrees, and of ages in years.
MOST_CLASSES, MOST_ATTRIBUTES, MOST_SUBJECT_BINS = 30, 20, 40  # In one chart.
ACROSS, LETTERS_ACROSS = 3, 60  # Charts side by side, and small letters that fit below a chart.
BLUE = "#4878a8"
COLOURS = {"same": "#009a00", "different": "#d00000", "absent": "#c8d8e8", "missing": "#b0b0b0"}
COLOURS |= {str(level): f"#{220 - 36 * level:02x}{230 - 30 * level:02x}f0" for level in range(6)}
LOG_FROM = 100  # Ratio of the highest to the lowest bar from which the scale is logarithmic.


@dataclass(frozen=True)
class Chart:
    """The numbers of one chart.

    Args:
        title: Title of the chart, to which the number of missing values is added.
        missing: Number of missing values.
        heights: Heights of the bars, `(bars, series)`; several series are stacked. The index has the names of the bars,
            or the lower edges of the bins that are not empty if there is a `bin_width`.
        bin_width: Width of the bins in `unit`; None for bars with names.
        unit: Label of the axis of the bins.
        is_log: Whether the scale of the heights is logarithmic.
    """

    title: str
    missing: int
    heights: pd.DataFrame
    bin_width: int | None = None
    unit: str = ""
    is_log: bool = False

    @property
    def is_horizontal(self) -> bool:
        """Whether the names of the bars are too many or too long to be written side by side."""
        return not self.bin_width and sum(max(4, len(name) + 1) for name in self.heights.index) > LETTERS_ACROSS


def count_labels(corpus: Dataset) -> list[Chart]:
    """Count the labels of a flat corpus, and `split` if it has several values."""
    columns = [name for name in CLASSES if name in corpus.column_names]
    if "split" in columns and len(set(names(corpus, "split"))) == 1:
        columns.remove("split")
    charts = [count_classes(corpus, name) for name in columns]
    for name in filter(corpus.column_names.__contains__, (*ANGLES, "age")):
        charts.append(count_in_bins(name, numbers(corpus, name), BIN_WIDTH, "years" if name == "age" else "degrees"))
    charts += count_action_units(corpus) + count_attributes(corpus)
    return charts + ([count_subjects(names(corpus, "subject"))] if "subject" in corpus.column_names else [])


def count_classes(corpus: Dataset, column: str) -> Chart:
    """Count rows by class, in the order of the feature or by name. Only the largest of very many classes are kept."""
    values, title = pd.Series(names(corpus, column), dtype=object), column.removeprefix(ATTRIBUTES)
    order = order_names(values.dropna(), corpus.features[column])
    rows = values.value_counts().reindex(order, fill_value=0)
    if len(rows) > MOST_CLASSES:
        title += f" (the {MOST_CLASSES} largest of {len(rows)})"
        rows = rows.nlargest(MOST_CLASSES)
    return Chart(title, values.isna().sum(), rows.to_frame("rows"))


def count_in_bins(title: str, values: np.ndarray, width: int, unit: str) -> Chart:
    """Count values in bins whose lower edges are multiples of `width` and belong to the bin. NaN is missing."""
    edges = pd.Series(width * np.floor(values / width))
    return Chart(title, edges.isna().sum(), edges.value_counts().sort_index().to_frame(), width, unit)


def count_action_units(corpus: Dataset) -> list[Chart]:
    """Count rows by action unit, in one chart for presence and one for intensity from 0 to 5."""
    units = action_units(corpus.column_names)
    coded = [unit for unit in units if isinstance(corpus.features[unit], ClassLabel)]
    intensities = [unit for unit in units if unit not in coded]
    kinds = {
        "action units": (coded, {"present": 1, "absent": 0}),
        "action units, intensity": (intensities, {str(level): level for level in range(6)}),
    }
    charts = []
    for title, (columns, levels) in kinds.items():
        if columns:
            values = pd.DataFrame({column: numbers(corpus, column) for column in columns}).round()
            heights = pd.DataFrame({name: (values == level).sum() for name, level in levels.items()})
            if values.isna().any(axis=None):
                heights["missing"] = values.isna().sum()
            charts.append(Chart(title, 0, heights))
    return charts


def count_attributes(corpus: Dataset) -> list[Chart]:
    """Compute the share of rows for which each boolean attribute is true, and count the classes of other attributes.

    The share is that of the rows in which the attribute is not missing, and the largest comes first. An attribute that
    is missing in all rows has no bar.
    """
    columns = select_attributes(corpus.column_names)
    booleans = [name for name in columns if corpus.features[name] == Value("bool")]
    classes = [count_classes(corpus, name) for name in columns if name not in booleans]
    if not booleans:
        return classes
    values = pd.DataFrame({name.removeprefix(ATTRIBUTES).replace("_", " "): numbers(corpus, name) for name in booleans})
    shares = values.mean().dropna().sort_values(ascending=False, kind="stable").to_frame("share")
    charts = [Chart("attributes, share of true", values.isna().sum().sum(), shares[:MOST_ATTRIBUTES])]
    for first in range(MOST_ATTRIBUTES, len(shares), MOST_ATTRIBUTES):
        title = f"attributes, from place {first + 1}"
        charts.append(Chart(title, 0, shares[first : first + MOST_ATTRIBUTES]))
    return charts + classes


def count_subjects(subjects: Iterable[str | None]) -> Chart:
    """Count subjects by their number of images."""
    subjects = pd.Series(subjects, dtype=object)
    sizes = subjects.value_counts().to_numpy(dtype=float)
    width = max(1, int(np.ceil(sizes.max(initial=0) / MOST_SUBJECT_BINS)))
    heights = count_in_bins("", sizes, width, "").heights
    is_log = len(sizes) > 0 and heights.max().item() >= LOG_FROM * heights.min().item()
    return Chart("subjects by number of images", subjects.isna().sum(), heights, width, "images", is_log)


def count_pairs(pairs: Dataset) -> Chart:
    """Count pairs of the same person and of different people by fold."""
    values = pd.DataFrame({name: numbers(pairs, name) for name in ("same", "fold")})
    known = values.dropna().astype(int)
    heights = pd.crosstab(known["fold"].astype(str), known["same"]).reindex(columns=[1, 0], fill_value=0)
    heights = heights.set_axis(["same", "different"], axis=1).sort_index(key=lambda folds: folds.astype(int))
    return Chart("pairs by fold", len(values) - len(known), heights)


def draw_charts(charts: Sequence[Chart]) -> Image.Image:
    """Draw charts, with up to three side by side."""
    across = min(ACROSS, len(charts))
    rows = [charts[first : first + across] for first in range(0, len(charts), across)]
    heights = [200 + max(17 * len(chart.heights) * chart.is_horizontal for chart in row) for row in rows]
    figure = style.new_figure(across * 480, sum(heights))
    for axes, chart in zip(style.add_grid(figure, len(charts), across, gridspec_kw={"height_ratios": heights}), charts):
        _draw_chart(axes, chart)
    return style.render_figure(figure)


def _draw_chart(axes: Axes, chart: Chart):
    style.tidy_axes(axes)
    title = f"{chart.title}, {chart.missing:,} missing" if chart.missing else chart.title
    axes.set_title(style.one_line(title, LETTERS_ACROSS), fontsize=9, parse_math=False)
    if not len(chart.heights):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "nothing is known", ha="center", transform=axes.transAxes, **style.SMALL)
        return
    # A bin of width 1 holds one whole number and is centred on it; a wider bin reaches from its edge to the next.
    start = chart.bin_width / 2 if chart.bin_width and chart.bin_width > 1 else 0
    middles = chart.heights.index + start if chart.bin_width else np.arange(len(chart.heights))
    draw, side = (axes.barh, "left") if chart.is_horizontal else (axes.bar, "bottom")
    base = np.zeros(len(chart.heights))
    for name, heights in chart.heights.items():
        bars = draw(middles, heights, chart.bin_width or 0.8, **{side: base}, label=name, color=COLOURS.get(name, BLUE))
        base = base + heights.to_numpy()
    if chart.is_log:
        axes.set_yscale("log")
    if chart.bin_width:
        axes.set_xlabel(chart.unit, fontsize=8)
    else:
        style.name_ticks(axes.yaxis if chart.is_horizontal else axes.xaxis, chart.heights.index, letters=24)
        if len(chart.heights.columns) == 1:
            axes.bar_label(bars, fmt="{:.2f}" if "share" in chart.heights else "{:,.0f}", fontsize=7, padding=2)
        else:
            axes.legend(fontsize=7, frameon=False, ncols=2)
    if chart.is_horizontal:
        axes.invert_yaxis()  # So that the first bar is at the top.
    axes.margins(**{"x" if chart.is_horizontal else "y": 0.12})
