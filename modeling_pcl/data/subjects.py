"""Number the subjects of a corpus, and select subjects by name."""

import re
from collections.abc import Callable
from functools import partial

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset

from .corpora import Corpus

SUBJECT_RANGE = re.compile(r"(?P<prefix>.*?)(?P<first>\d+)-(?:(?P=prefix))?(?P<last>\d+)")


def encode_column(corpus: Dataset, column: str) -> tuple[np.ndarray, list]:
    """Number the distinct values of a column. No other column is read.

    Args:
        corpus: Map-style dataset.
        column: Name of a column with strings, numbers or classes.

    Returns:
        Number of the value of each row, `(rows,)`, and the values by number.

    Raises:
        ValueError: If there is no such column, or it has missing values.
    """
    if column not in corpus.column_names:
        raise ValueError(f"The corpus needs a column `{column}`; its columns are {corpus.column_names}.")
    values = corpus.select_columns(column).with_format("arrow")[:].column(column)
    if values.null_count:
        raise ValueError(
            f"The column `{column}` is empty in {values.null_count} of {len(values)} rows: drop those rows."
        )
    encoded = values.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def select_subjects(corpus: Corpus, spec: str) -> Corpus:
    """Keep the rows of some subjects, in the order of the corpus.

    Args:
        corpus: Dataset or stream with a column `subject`. Subjects that are numbers are compared in decimal notation.
        spec: Names of subjects, separated by commas: `a,b,c`. `s1-s30` stands for all subjects from s1 to s30 by
            number, of which both ends must exist.

    Returns:
        The rows of these subjects.

    Raises:
        ValueError: If `spec` names no subject, there is no column `subject`, or the corpus lacks one of the subjects;
            the last is not checked in a stream.
    """
    # The subjects of a stream are only known after reading all of it.
    is_stream = isinstance(corpus, IterableDataset)
    if is_stream and "subject" not in corpus.features:
        raise ValueError(f"The corpus needs a column `subject`; its columns are {list(corpus.features)}.")
    codes, values = (None, []) if is_stream else encode_column(corpus, "subject")
    feature = corpus.features["subject"]
    as_name = feature.int2str if isinstance(feature, ClassLabel) else str
    known_subjects = [as_name(value) for value in values]
    subjects = []
    for item in filter(None, (part.strip() for part in spec.split(","))):
        match = SUBJECT_RANGE.fullmatch(item)
        is_range = match is not None and item not in known_subjects
        subjects += _expand_range(match, None if is_stream else set(known_subjects)) if is_range else [item]
    if not subjects:
        raise ValueError("`subjects` must name at least one subject.")
    if is_stream:
        is_kept = partial(_is_selected, subjects=frozenset(subjects), as_name=as_name)
        return corpus.filter(is_kept, input_columns=["subject"])
    missing = sorted(set(subjects) - set(known_subjects))
    if missing:
        raise ValueError(
            f"The corpus has no subject {missing[:5]}; it has {len(known_subjects)}: {known_subjects[:3]} to "
            f"{known_subjects[-1:]}."
        )
    selected_codes = np.flatnonzero(np.isin(known_subjects, subjects))
    return corpus.select(np.flatnonzero(np.isin(codes, selected_codes)))


def _expand_range(match: re.Match, known_subjects: set[str] | None) -> list[str]:
    """List the subjects of a range.

    Args:
        match: Match of `SUBJECT_RANGE`.
        known_subjects: Subjects of the corpus; names between the ends that are not among them are left out. None keeps
            all names.
    """
    first, last = int(match["first"]), int(match["last"])
    digits = len(match["first"]) if match["first"].startswith("0") else 1
    names = [f"{match['prefix']}{number:0{digits}d}" for number in range(first, last + 1)]
    if not names:
        raise ValueError(f"The range of subjects `{match[0]}` runs backwards.")
    if known_subjects is None:
        return names
    # The ends are always kept, so that the caller reports them if they do not exist.
    return [name for name in names if name in known_subjects or name in (names[0], names[-1])]


def _is_selected(subject, subjects: frozenset[str], as_name: Callable[[object], str]) -> bool:
    return as_name(subject) in subjects
