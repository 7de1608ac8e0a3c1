"""Fields of dataclasses that a command line reads."""

from dataclasses import field
from typing import Any


def option(default: Any, text: str):
    """A dataclass field with the help text that the command line shows."""
    return field(default=default, metadata={"help": text})
