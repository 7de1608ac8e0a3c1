"""Progress of long work: a bar on a terminal, and occasional lines in log files."""

import sys
from collections.abc import Iterable

from tqdm.auto import tqdm as bar
from tqdm.std import tqdm

LINE_EVERY_S = 20.0  # Seconds between two lines if stderr is not a terminal.


class _Lines(tqdm):
    """A tqdm that writes a new line every `LINE_EVERY_S` seconds, and nothing for shorter work."""

    def __init__(self, iterable: Iterable | None = None, **options):
        # tqdm's own format, without the bar.
        layout = "{desc}: {n_fmt}/{total_fmt} {unit}s, {elapsed} passed, {remaining} left, {rate_fmt}{postfix}"
        if options.get("total") is None and not hasattr(iterable, "__len__"):
            layout = "{desc}: {n_fmt} {unit}s, {elapsed} passed, {rate_fmt}{postfix}"
        options |= {"bar_format": layout, "delay": LINE_EVERY_S, "leave": False}
        super().__init__(iterable, mininterval=LINE_EVERY_S, maxinterval=LINE_EVERY_S, miniters=1, **options)

    @staticmethod
    def status_printer(file):
        def write_line(text: str):
            if text.strip():
                file.write(f"{text.strip()}\n")
                file.flush()

        return write_line

    def set_postfix(self, *values, refresh: bool = True, **more):
        """Set the values at the end of the next line."""
        super().set_postfix(*values, refresh=False, **more)

    def moveto(self, n: int):
        """Do nothing: lines, unlike bars, do not share the screen with other bars."""

    def close(self):
        self.delay = float("inf")  # tqdm then treats the bar as never shown and does not clear the last line.
        super().close()


def progress(iterable: Iterable | None = None, **options) -> tqdm:
    """Show the progress of some work on stderr.

    Args:
        iterable: Items to iterate over; None if the caller calls `update` itself.
        **options: `desc`, `unit`, `total`, `initial`, `leave`, `disable`, as for tqdm.

    Returns:
        A tqdm over `iterable`.
    """
    is_notebook = bar.__module__ == "tqdm.notebook"
    return (bar if sys.stderr.isatty() or is_notebook else _Lines)(iterable, **options)
