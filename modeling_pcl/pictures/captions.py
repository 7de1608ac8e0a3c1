"""The labels of one row in a few short lines."""

from collections.abc import Iterator, Mapping

from datasets import ClassLabel

from ..data.label_columns import ATTRIBUTES, attributes, class_name, is_missing
from ..data.schema import action_units
from ..head_pose_pcl import ANGLES
from .style import one_line, wrapped

LETTERS, LINES = 27, 4
SUBJECT_LETTERS = 18
MOST_ATTRIBUTES = 4


def caption_lines(labels: Mapping, features: Mapping) -> list[str]:
    """The known labels of a row: its pose on a line of its own, and of the others as many as go on the rest.

    Args:
        labels: A row of a flat corpus.
        features: Of this corpus.

    Returns:
        At most four lines of at most 27 letters, that of the pose 29. Action units that are absent, and attributes that
        are false, are left out; of the other attributes four are named and the rest counted.
    """
    known = {name: value for name, value in labels.items() if not is_missing(value)}
    pose = [f"{angle} {round(known[angle]):+d}" for angle in ANGLES if angle in known]
    lines = [" ".join(pose)] if pose else []
    words = wrapped(", ".join(_words(known, features)), LETTERS, LINES - len(lines))
    return lines + (words.split("\n") if words else [])


def _words(known: Mapping, features: Mapping) -> Iterator[str]:
    for name in ("expression", "smile", "age", "gender"):
        if name in known:
            yield f"age\xa0{known[name]:.0f}" if name == "age" else _unbroken(class_name(known[name], features[name]))
    present = [name for name in action_units(known) if known[name] > 0]
    if present:
        is_coded = {name: isinstance(features[name], ClassLabel) for name in present}
        yield " ".join(name if is_coded[name] else f"{name}={known[name]:.0f}" for name in present)
    held = list(filter(None, (_attribute(name, known[name], features[name]) for name in attributes(known))))
    yield from map(_unbroken, held[:MOST_ATTRIBUTES])
    if len(held) > MOST_ATTRIBUTES:
        yield f"+{len(held) - MOST_ATTRIBUTES}"
    if "subject" in known:
        yield _unbroken(f"subject {one_line(str(known['subject']), SUBJECT_LETTERS)}")


def _unbroken(label: str) -> str:
    """A label that no line break tears apart."""
    return "\xa0".join(label.split())


def _attribute(name: str, value, feature) -> str | None:
    """What to say of an attribute: its name if it is true, nothing if it is false, else its name and class."""
    short = name.removeprefix(ATTRIBUTES).replace("_", " ")
    return {True: short, False: None}[value] if isinstance(value, bool) else f"{short}: {class_name(value, feature)}"
