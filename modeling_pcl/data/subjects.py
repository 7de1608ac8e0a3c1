"""The people of a corpus: numbered, and chosen by name."""

import re
from collections.abc import Callable
from functools import partial

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset

from .corpora import Corpus

SUBJECT_RANGE = re.compile(r"(?P<prefix>.*?)(?P<first>\d+)-(?:(?P=prefix))?(?P<last>\d+)")


def column_codes(corpus: Dataset, column: str) -> tuple[np.ndarray, list]:
    """Number the distinct values of a column, reading that column only.

    Args:
        corpus: A map-style dataset.
        column: Name of a column of plain values.

    Returns:
        The number of every row's value, `(rows,)`, and the values by number.

    Raises:
        ValueError: If there is no such column, or it has gaps.
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
    """Keep the rows of some subjects, in their order, as a command line names them.

    Args:
        corpus: A dataset with a column `subject`; one of numbers is compared by their decimal form.
        spec: Names with commas between them, `a,b,c`. `s1-s30` stands for all subjects from s1 to s30 by number; both
            ends must exist.

    Raises:
        ValueError: If `spec` names no subject, there is no column `subject`, or the corpus lacks one of the subjects,
            which cannot be seen in a stream.
    """
    # A stream cannot be asked who is in it without reading all of it.
    is_stream = isinstance(corpus, IterableDataset)
    if is_stream and "subject" not in corpus.features:
        raise ValueError(f"The corpus needs a column `subject`; its columns are {list(corpus.features)}.")
    codes, values = (None, []) if is_stream else column_codes(corpus, "subject")
    feature = corpus.features["subject"]
    as_name = feature.int2str if isinstance(feature, ClassLabel) else str
    known = [as_name(value) for value in values]
    subjects = []
    for item in filter(None, (part.strip() for part in spec.split(","))):
        span = SUBJECT_RANGE.fullmatch(item)
        is_range = span is not None and item not in known
        subjects += _span(span, None if is_stream else set(known)) if is_range else [item]
    if not subjects:
        raise ValueError("`subjects` must name at least one subject.")
    if is_stream:
        is_kept = partial(_is_in, subjects=frozenset(subjects), as_name=as_name)
        return corpus.filter(is_kept, input_columns=["subject"])
    missing = sorted(set(subjects) - set(known))
    if missing:
        raise ValueError(f"The corpus has no subject {missing[:5]}; it has {len(known)}: {known[:3]} to {known[-1:]}.")
    wanted = np.flatnonzero(np.isin(known, subjects))
    return corpus.select(np.flatnonzero(np.isin(codes, wanted)))


def _span(span: re.Match, known: set[str] | None) -> list[str]:
    """The names from first to last; those between the ends may be missing from the corpus."""
    first, last = int(span["first"]), int(span["last"])
    digits = len(span["first"]) if span["first"].startswith("0") else 1
    names = [f"{span['prefix']}{number:0{digits}d}" for number in range(first, last + 1)]
    if not names:
        raise ValueError(f"The range of subjects `{span[0]}` runs backwards.")
    return names if known is None else [name for name in names if name in known or name in (names[0], names[-1])]


def _is_in(subject, subjects: frozenset[str], as_name: Callable[[object], str]) -> bool:
    return as_name(subject) in subjects
