"""The schema of corpora and of lists of verification pairs.

A corpus has a column `image`, and any of these columns. Unknown values are null.

| column | type | content |
|---|---|---|
| `subject` | string | the person |
| `video` | string | the recording, unique within its subject |
| `frame` | int64 | number of the frame in its recording |
| `split` | string | the split that the row belongs to |
| `expression` | class | the collection's expressions, in its own order |
| `AU1`, `AU2`, ... | class or int8 | one column per action unit: `absent` or `present`, or an intensity from 0 to 5 |
| `yaw`, `pitch`, `roll` | float32 | degrees, right-handed; `modeling_pcl.head_pose_pcl` defines the directions |
| `smile` | class | `not smiling`, `smiling` |
| `age` | float32 | years |
| `gender` | class | `male`, `female`, as perceived by the annotators of the collection |
| `attributes` | struct | further labels by name: booleans, or classes |

A list of pairs has the columns `image_a`, `image_b`, `same` (bool) and `fold` (int32, from 1).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value

ACTION_UNIT = re.compile(r"AU\d+")
PRESENCE = ClassLabel(names=["absent", "present"])
INTENSITY = Value("int8")
POSITIVE_FROM = 2  # Smallest intensity of an action unit that counts as present.

COLUMNS = {
    "subject": Value("string"),
    "video": Value("string"),
    "frame": Value("int64"),
    "split": Value("string"),
    "yaw": Value("float32"),
    "pitch": Value("float32"),
    "roll": Value("float32"),
    "smile": ClassLabel(names=["not smiling", "smiling"]),
    "age": Value("float32"),
    "gender": ClassLabel(names=["male", "female"]),
}
ANGLE = "degrees, right-handed: positive is the "
MEANINGS = {
    "image": "encoded image",
    "yaw": f"{ANGLE}nose to the right of the image",
    "pitch": f"{ANGLE}nose up",
    "roll": f"{ANGLE}head leaning clockwise",
    "age": "years",
    "box": "left, top, right, bottom of the face in px of the photo",
    "points": "x and y of the eyes, the nose and the corners of the mouth in px of the photo",
    "score": "score of the face detector, from 0 to 1",
}
PAIR_COLUMNS = {"image_a": Image(), "image_b": Image(), "same": Value("bool"), "fold": Value("int32")}
# Smallest and largest valid value; None is no limit.
RANGES = {"yaw": (-180, 180), "pitch": (-180, 180), "roll": (-180, 180), "age": (0, 130), "fold": (1, None)}
EXPECTED = {
    **dict.fromkeys(("subject", "video", "split", "frame"), "names or whole numbers"),
    **dict.fromkeys(("expression", "smile", "gender"), "classes, numbers or names"),
    "same": "booleans",
    "attributes": "a struct",
}


def get_features(*names: str) -> dict[str, Any]:
    """Return the features of columns whose type does not depend on the collection."""
    return {name: COLUMNS[name] for name in names}


def make_corpus_features(labels: Mapping[str, Any]) -> Features:
    """Make the features of a corpus: image, split, then these label columns."""
    return Features({"image": Image(), "split": COLUMNS["split"], **labels})


def describe_columns(features: Mapping[str, Any]) -> dict[str, str]:
    """Describe the content of each column of a corpus in a few words."""
    return {name: _describe(name, feature) for name, feature in features.items()}


def _describe(name: str, feature) -> str:
    if ACTION_UNIT.fullmatch(name):
        return f"action unit {name[2:]}, " + (
            "absent or present" if isinstance(feature, ClassLabel) else f"0 to 5, present from {POSITIVE_FROM}"
        )
    if isinstance(feature, ClassLabel):
        return ", ".join(feature.names)
    if name == "attributes":
        return ", ".join(feature)
    return MEANINGS.get(name, name)


def action_units(names: Iterable[str]) -> list[str]:
    """Select the names of action unit columns, sorted by number."""
    return sorted(filter(ACTION_UNIT.fullmatch, names), key=lambda name: int(name[2:]))


def presence(corpus: Dataset, column: str) -> np.ndarray:
    """Read an action unit as 1 (present), 0 (absent) or NaN (missing), `(rows,)`. Intensities from 2 on are present."""
    values = np.array(corpus.select_columns(column)[:][column], dtype=float)
    if isinstance(corpus.features[column], ClassLabel):
        return values
    return np.where(np.isnan(values), np.nan, values >= POSITIVE_FROM)


def check_schema(corpus: Dataset | IterableDataset, name: str):
    """Check that columns with a name of the schema have the content that the schema defines.

    Of a stream only the column types are checked, because its values are not read.

    Args:
        corpus: Corpus with features.
        name: Name of the corpus for errors.

    Raises:
        ValueError: If a column has another type, or a value is out of range.
    """
    for column, feature in corpus.features.items():
        expected = "numbers" if column in RANGES or ACTION_UNIT.fullmatch(column) else EXPECTED.get(column)
        if expected is None:
            continue
        if not _fits(feature, expected):
            raise ValueError(
                f"The column `{column}` of `{name}` must hold {expected}, not {feature}. Cast it, or rename it with "
                "`datasets.Dataset.rename_column` if it means something else."
            )
        if isinstance(corpus, Dataset) and expected != "a struct":
            _check_values(corpus, column, feature, name)


def _fits(feature, expected: str) -> bool:
    if isinstance(feature, dict) or expected == "a struct":
        return isinstance(feature, dict) and expected == "a struct"
    if isinstance(feature, ClassLabel):
        return expected != "booleans"
    if not isinstance(feature, Value):
        return False
    kind = feature.pa_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return True
    if pa.types.is_floating(kind):
        return expected in ("classes, numbers or names", "numbers")
    return (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and "names" in expected


def _check_values(corpus: Dataset, column: str, feature, name: str):
    """Check that numbers are in their range, and that class numbers have names."""
    if column in RANGES:
        low, high = RANGES[column]
    elif isinstance(feature, ClassLabel):
        low, high = 0, feature.num_classes - 1
    elif ACTION_UNIT.fullmatch(column):
        low, high = 0, 5
    else:
        return
    values = corpus.select_columns(column).with_format("arrow")[:].column(column)
    extremes = pc.min_max(values).as_py()
    smallest, largest = extremes["min"], extremes["max"]
    if smallest is not None and (smallest < low or (high is not None and largest > high)):
        raise ValueError(
            f"The column `{column}` of `{name}` must lie in [{low}, {'...' if high is None else high}]; it goes from "
            f"{smallest} to {largest}. Unknown values must be null."
        )
