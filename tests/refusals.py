"""What a command says when it refuses to go on."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest


@contextmanager
def refused(message: str, status: int = 1) -> Iterator[None]:
    """Expect a command to end with this exit status and one line that the regular expression matches."""
    with redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as stop:
        yield
    assert stop.value.code == status
    assert re.search(message, errors.getvalue()), errors.getvalue()
