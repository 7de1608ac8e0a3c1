"""What each branch holds of pose, identity and expression, in one picture."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from PIL import Image

from .picture_style import GREY, broken_into_lines, is_known, looks, new_figure, one_line, plain, rendered

MIRRORING = "how far mirroring moves it"
PANEL_PX, HEIGHT_PX = 250, 320
TITLE_LETTERS, FEATURE_LETTERS = 30, 12
ROOM = 0.14  # Beyond the bars, in shares of the axis, for their numbers.


def draw_leakage(
    readings: Mapping[str, Mapping[str, float | None]],
    mirror: Mapping[str, float | None],
    swaps: Image.Image | None,
    title: str,
) -> Image.Image:
    """Draw what can be read from each feature, how far it moves when the image is mirrored, and swapped faces.

    Args:
        readings: By measure and feature. A value that is None or NaN is said to be missing.
        mirror: By feature, how far it moves under mirroring, in any unit.
        swaps: Faces in other faces' poses, shown below as wide as the charts; None leaves them out.
        title: Written above.

    Returns:
        An RGB picture, each measure on an axis of its own, from 0.

    Raises:
        ValueError: If a panel has no features.
    """
    panels = {**readings, MIRRORING: mirror}
    for measure, values in panels.items():
        if not values:
            raise ValueError(f"`readings` and `mirror` must hold at least one feature, got none for `{measure}`.")
    figure = new_figure(PANEL_PX * len(panels), HEIGHT_PX, title)
    features = looks(dict.fromkeys(feature for values in panels.values() for feature in values))
    for axes, (measure, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        _draw_bars(axes, values, [features[feature][0] for feature in values])
        axes.set_title(broken_into_lines(measure, TITLE_LETTERS), fontsize=10, parse_math=False)
    charts = rendered(figure)
    return charts if swaps is None else _above(charts, swaps)


def _draw_bars(axes: Axes, values: Mapping[str, float | None], colours: Sequence[str]):
    heights = [value if is_known(value) else 0 for value in values.values()]
    axes.bar(range(len(values)), heights, 0.7, color=colours)
    for place, (value, height) in enumerate(zip(values.values(), heights)):
        words, colour = (f"{value:.3f}", "black") if is_known(value) else ("missing", GREY)
        side, points = ("bottom", 3) if height >= 0 else ("top", -3)
        style = {"ha": "center", "va": side, "fontsize": 9, "color": colour}
        axes.annotate(words, (place, height), (0, points), textcoords="offset points", **style)
    low, high = min(0, *heights), max(0, *heights)
    room = ROOM * (high - low) or 1
    axes.set(xlim=(-0.6, len(values) - 0.4), ylim=(low - room if low < 0 else 0, high + room))
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks(range(len(values)), [one_line(feature, FEATURE_LETTERS) for feature in values], parse_math=False)
    plain(axes)


def _above(charts: Image.Image, swaps: Image.Image) -> Image.Image:
    height = round(swaps.height * charts.width / swaps.width)
    picture = Image.new("RGB", (charts.width, charts.height + height), "white")
    picture.paste(charts)
    picture.paste(swaps.convert("RGB").resize((charts.width, height), Image.Resampling.LANCZOS), (0, charts.height))
    return picture
