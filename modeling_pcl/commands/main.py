"""The command `pcl`: pre-train, probe, compare, embed and publish PCL models of faces."""

import argparse
import atexit
import gc
import importlib
import logging
import signal
import sys
from contextlib import nullcontext

from .. import __version__

COMMANDS = {
    "pretrain": "train a model on images of faces, without labels",
    "probe": "measure the features of a model on a task, and save the trained head",
    "compare": "compare models with each other and with random initialisation",
    "embed": "write the features of many images or videos to files",
    "align": "cut the faces out of photos and videos into a corpus",
    "prepare": "convert a downloaded collection of faces to a corpus",
    "export": "export a model to ONNX files",
    "push": "publish a run on the Hub",
    "convert": "convert a checkpoint of the paper's authors",
    "show": "draw what a model and its heads predict for faces",
    "swaps": "draw every face in every pose",
    "search": "compare training recipes, follow a long run",
}
STOPS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and the signal of clusters and spot machines before SIGKILL.


def main(name: str | None = None):
    """Run a command with the arguments of the command line.

    The exit status is 1 after an expected error, which is printed as one line; 2 for wrong usage; 130 or 143 if SIGINT
    or SIGTERM stopped the command.

    Args:
        name: Name of the command; None takes it from the command line.
    """
    argv = sys.argv[1:]
    if name is None:
        name, argv = _parse_command(argv)
    atexit.register(gc.freeze)  # The last collection would look at all that was imported, for more than a second.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("modeling_pcl").setLevel(logging.INFO)  # Other packages inform about every tensor of an export.
    try:
        for number in STOPS:
            signal.signal(number, _stop)
        command = importlib.import_module(f".{name}", __package__)
        options = command.parse(argv, f"pcl {name}")
        print(_run(command, options))
    except KeyboardInterrupt as stop:
        number, message = stop.args or (signal.SIGINT, "stopped; the same command goes on where it can")
        for repeated in STOPS:
            signal.signal(repeated, signal.SIG_IGN)  # `timeout` and launchers send their signal twice.
        _exit(128 + number, message)
    except Exception as error:
        if not isinstance(error, _get_expected_errors()):
            raise
        _exit(1, f"error: {_format_error(error)}")


def _stop(number: int, frame):
    raise KeyboardInterrupt(number, "stopped; the same command goes on where it can")


def _parse_command(argv: list[str]) -> tuple[str, list[str]]:
    """Split the arguments into the name of the command and the arguments of the command."""
    command_list = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "pcl",
        usage="pcl COMMAND …",
        description=f"{__doc__}\n\ncommands:\n{command_list}\n\n`pcl COMMAND --help` shows a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser.parse_args(argv[:1]).command, argv[1:]


def _run(command, options) -> str:
    from tqdm.contrib.logging import logging_redirect_tqdm
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()  # transformers shows a bar for every file of weights; commands show their own.
    set_verbosity_error()  # transformers would print a table of missing weights before the one-line error.
    # In a log file, a line of progress would follow every message.
    with logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext():
        return command.run(options) or ""


def _format_error(error: Exception) -> str:
    """Return the message of an error in one line.

    The traceback that workers of torch's loaders add is left out, and the validator's name that strict dataclasses add.
    """
    from huggingface_hub.errors import StrictDataclassError

    if isinstance(error, StrictDataclassError) and error.__cause__:
        error = error.__cause__
    text = str(error)
    if "Original Traceback" in text:
        text = text[text.rindex(f"\n{type(error).__name__}: ") :].partition(": ")[2]
    return " ".join(text.split())


def _get_expected_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors whose message explains the problem: values, files, packages that are missing."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError  # Raised if the disk is full when weights are saved.

    return ValueError, OSError, ImportError, StrictDataclassError, SafetensorError


def _exit(status: int, message: str):
    if message:  # Empty in all but one of several processes.
        print(message, file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
