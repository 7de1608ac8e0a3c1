"""Command-line options as fields of dataclasses, and the parser that all commands share."""

import argparse
from dataclasses import Field, field
from typing import Any

from transformers import HfArgumentParser


def option(default: Any, text: str) -> Any:
    """Make a dataclass field for the option `--name`.

    Args:
        default: Default value. A list is copied for each instance.
        text: Help text: what the option does, with units.
    """
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def required(text: str) -> Any:
    """Make a dataclass field for the option `--name` without a default; `text` is its help text."""
    return field(metadata={"help": text}, kw_only=True)


def positional(text: str, metavar: str, **settings: Any) -> Any:
    """Make a dataclass field for a positional argument.

    Args:
        text: Help text.
        metavar: Name of the argument in the help, in capitals.
        **settings: `nargs`, `choices` or `type`, as for argparse.
    """
    return field(metadata={"help": text, "positional": {"metavar": metavar, **settings}}, kw_only=True)


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Formatter that keeps the line breaks of the description and shows all defaults except None.

    The help texts explain what None means.
    """

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, [], argparse.SUPPRESS) or action.required:
            return action.help
        return super()._get_help_string(action)


class Parser(HfArgumentParser):
    """transformers' parser for dataclasses, with positional arguments and without abbreviations of options.

    Args:
        *types: Dataclasses whose fields are the options.
        prog: The command as the user types it.
        description: Text at the start of `--help`.
        epilog: Text at the end of `--help`.
    """

    def __init__(
        self, *types: type, prog: str | None = None, description: str | None = None, epilog: str | None = None
    ):
        texts = {"prog": prog, "description": description, "epilog": epilog}
        super().__init__(types, formatter_class=HelpFormatter, allow_abbrev=False, **texts)

    def parse_known_args(self, args=None, namespace=None):
        """Parse the command line, and exit with status 2 for an unknown argument."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field):
        settings = field.metadata.get("positional")
        if settings is None:
            return HfArgumentParser._parse_dataclass_field(parser, field)
        return parser.add_argument(field.name, help=field.metadata["help"], **settings)


def check_at_least(options: object, **least: float):
    """Check that numeric options are finite and not below their limits. None is not checked.

    Args:
        options: Dataclass instance with the options.
        **least: Smallest allowed value for each option.

    Raises:
        ValueError: If an option is below its limit. The message names the option, the limit and the value.
    """
    for name, limit in least.items():
        value = getattr(options, name)
        if value is not None and not limit <= value < float("inf"):
            raise ValueError(f"`--{name}` must be at least {limit}, got {value}.")
