"""The command `pcl`: pre-train, probe, compare, embed and publish PCL models of faces."""

import argparse
import importlib
import logging
import signal
import sys

from .. import __version__

COMMANDS = {
    "pretrain": "train a model on images of faces, without labels",
    "probe": "measure what a model knows, and save the head that was trained",
    "compare": "set models beside each other and beside random initialisation",
    "embed": "write features of many images or videos as files",
    "align": "cut the faces out of photos and videos into a corpus",
    "prepare": "turn a downloaded collection of faces into a corpus",
    "export": "write a model as ONNX files",
    "push": "publish a run on the Hub",
    "convert": "open an authors' checkpoint",
    "show": "look at what a model and its heads make of faces",
    "swaps": "draw every face in every pose",
    "search": "compare training recipes, follow a long run",
}
STOPS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what clusters and spot machines send before they kill.


def main(name: str | None = None):
    """Run one command with the words of the command line. It ends with exit status 1 where something is not as it must
    be, and says in one line what and the way out; with 2 for wrong usage; with 130 or 143 where SIGINT or SIGTERM
    stopped it.

    Args:
        name: The command; None takes it from the command line.
    """
    words = sys.argv[1:]
    if name is None:
        name, words = _choose(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        for number in STOPS:
            signal.signal(number, _stop)
        command = importlib.import_module(f".{name}", __package__)
        options = command.parse(words, f"pcl {name}")
        print(_run(command, options))
    except KeyboardInterrupt as stop:
        number, words = stop.args or (signal.SIGINT, "stopped; the same command goes on where it can")
        for repeated in STOPS:
            signal.signal(repeated, signal.SIG_IGN)  # Some send theirs twice; the end is near.
        _end(128 + number, words)
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        _end(1, f"error: {_in_one_line(error)}")


def _stop(number: int, frame):
    raise KeyboardInterrupt(number, "stopped; the same command goes on where it can")


def _choose(words: list[str]) -> tuple[str, list[str]]:
    """The command that the words begin with, and the rest of them."""
    listed = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "pcl",
        usage="pcl COMMAND …",
        description=f"{__doc__}\n\ncommands:\n{listed}\n\n`pcl COMMAND --help` shows a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser.parse_args(words[:1]).command, words[1:]


def _run(command, options) -> str:
    from tqdm.contrib.logging import logging_redirect_tqdm
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()  # transformers' own, for every file of weights; long work has one of its own.
    set_verbosity_error()  # What is wrong with a model, one line says; transformers has a table before it.
    with logging_redirect_tqdm():
        return command.run(options) or ""


def _in_one_line(error: Exception) -> str:
    """An error's message; of one that a worker of torch hands on with its traceback, the message alone."""
    text = str(error)
    if "Original Traceback" in text:
        text = text[text.rindex(f"\n{type(error).__name__}: ") :].partition(": ")[2]
    return " ".join(text.split())


def _expected_errors() -> tuple[type[Exception], ...]:
    """What says itself what is wrong: values, files, a package that is not installed."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError  # What a full disk is where weights are saved.

    return ValueError, OSError, ImportError, StrictDataclassError, SafetensorError


def _end(status: int, words: str):
    if words:  # Of several processes that end together, one says why.
        print(words, file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
