"""Options as fields of dataclasses, and the parser of every command line."""

import argparse
from dataclasses import Field, field
from typing import Any

from transformers import HfArgumentParser


def option(default: Any, text: str) -> Any:
    """Make a dataclass field `--name`, with the help text that the command line shows.

    Args:
        default: A list stands for a new list of its items in every instance.
        text: What the option does, with units.
    """
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def required(text: str) -> Any:
    """Make a dataclass field `--name` that must be given."""
    return field(metadata={"help": text}, kw_only=True)


def positional(text: str, metavar: str, **settings: Any) -> Any:
    """Make a dataclass field that the command line takes by its place.

    Args:
        text: As for `option`.
        metavar: What the help calls it, in capitals.
        **settings: `nargs`, `choices` or `type`, as for argparse.
    """
    return field(metadata={"help": text, "positional": {"metavar": metavar, **settings}}, kw_only=True)


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the description, and shows every default but None, which the texts explain."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, [], argparse.SUPPRESS) or action.required:
            return action.help
        return super()._get_help_string(action)


class Parser(HfArgumentParser):
    """transformers' parser of dataclasses, with positional arguments, and without abbreviations.

    Args:
        *types: Dataclasses whose fields are the options.
        prog: The command as it is typed.
        description: Shown by `--help`.
        epilog: Likewise, at the end.
    """

    def __init__(
        self, *types: type, prog: str | None = None, description: str | None = None, epilog: str | None = None
    ):
        texts = {"prog": prog, "description": description, "epilog": epilog}
        super().__init__(types, formatter_class=HelpFormatter, allow_abbrev=False, **texts)

    def parse_known_args(self, args=None, namespace=None):
        """Parse, and end with exit status 2 at a word that no option takes."""
        namespace, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return namespace, rest

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field):
        settings = field.metadata.get("positional")
        if settings is None:
            return HfArgumentParser._parse_dataclass_field(parser, field)
        return parser.add_argument(field.name, help=field.metadata["help"], **settings)


def check_at_least(options: object, **least: float):
    """Refuse numbers that are too small; None is left alone.

    Raises:
        ValueError: Naming the option, what it must be and what came.
    """
    for name, limit in least.items():
        value = getattr(options, name)
        if value is not None and not limit <= value < float("inf"):
            raise ValueError(f"`--{name}` must be at least {limit}, got {value}.")
