"""Captions: the labels of a row in a few short lines."""

from collections.abc import Iterator, Mapping

from datasets import ClassLabel

from ..data.label_columns import ATTRIBUTES, class_name, is_missing, select_attributes
from ..data.schema import action_units
from ..head_pose_pcl import ANGLES
from .style import one_line, wrap_text

LETTERS, LINES = 27, 4  # Width and height of a caption below an image of `contact_sheet.TILE_PX`.
SUBJECT_LETTERS = 18
MOST_ATTRIBUTES = 4


def write_caption(labels: Mapping, features: Mapping) -> list[str]:
    """Write the labels of a row that are not missing: the head pose in the first line, then the other labels.

    Args:
        labels: A row of a flat corpus.
        features: Features of the corpus.

    Returns:
        At most four lines of at most 27 letters; the line of the pose has at most 29. Action units that are absent and
        attributes that are false are left out. At most four other attributes are written, and the rest are counted.
    """
    labels = {name: value for name, value in labels.items() if not is_missing(value)}
    pose = [f"{angle} {round(labels[angle]):+d}" for angle in ANGLES if angle in labels]
    lines = [" ".join(pose)] if pose else []
    text = wrap_text(", ".join(_describe_labels(labels, features)), LETTERS, LINES - len(lines))
    return lines + (text.split("\n") if text else [])


def _describe_labels(labels: Mapping, features: Mapping) -> Iterator[str]:
    for name in ("expression", "smile", "age", "gender"):
        if name in labels:
            yield (
                f"age\xa0{labels[name]:.0f}" if name == "age" else _join_words(class_name(labels[name], features[name]))
            )
    present = [name for name in action_units(labels) if labels[name] > 0]
    if present:
        is_coded = {name: isinstance(features[name], ClassLabel) for name in present}
        yield " ".join(name if is_coded[name] else f"{name}={labels[name]:.0f}" for name in present)
    texts = (_describe_attribute(name, labels[name], features[name]) for name in select_attributes(labels))
    texts = list(filter(None, texts))
    yield from map(_join_words, texts[:MOST_ATTRIBUTES])
    if len(texts) > MOST_ATTRIBUTES:
        yield f"+{len(texts) - MOST_ATTRIBUTES}"
    if "subject" in labels:
        yield _join_words(f"subject {one_line(str(labels['subject']), SUBJECT_LETTERS)}")


def _join_words(label: str) -> str:
    """Replace the spaces of a label by no-break spaces, so that it stays in one line."""
    return "\xa0".join(label.split())


def _describe_attribute(name: str, value, feature) -> str | None:
    """Return the name of an attribute that is true, None if it is false, and otherwise its name and class."""
    short = name.removeprefix(ATTRIBUTES).replace("_", " ")
    return {True: short, False: None}[value] if isinstance(value, bool) else f"{short}: {class_name(value, feature)}"
