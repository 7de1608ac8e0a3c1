"""Progress of long work: a bar on a terminal, now and then a line where there is none."""

import sys
from collections.abc import Iterable

from tqdm.auto import tqdm as bar
from tqdm.std import tqdm

LINE_EVERY_S = 20.0


class _Lines(tqdm):
    """Says every so often how far the work is, in a line of its own; of short work nothing."""

    def __init__(self, iterable: Iterable | None = None, **options):
        # The same words as a bar's, without the bar.
        layout = "{desc}: {n_fmt}/{total_fmt} {unit}s, {elapsed} passed, {remaining} left, {rate_fmt}{postfix}"
        if options.get("total") is None and not hasattr(iterable, "__len__"):
            layout = "{desc}: {n_fmt} {unit}s, {elapsed} passed, {rate_fmt}{postfix}"
        options |= {"bar_format": layout, "delay": LINE_EVERY_S, "leave": False}
        super().__init__(iterable, mininterval=LINE_EVERY_S, maxinterval=LINE_EVERY_S, miniters=1, **options)

    @staticmethod
    def status_printer(file):
        def write_line(words: str):
            if words.strip():
                file.write(f"{words.strip()}\n")
                file.flush()

        return write_line

    def set_postfix(self, *values, refresh: bool = True, **more):
        """Take the values that the next line ends with."""
        super().set_postfix(*values, refresh=False, **more)

    def moveto(self, n: int):
        """Stay in the line: there is no bar above or below."""

    def close(self):
        self.delay = float("inf")  # As of a bar that was never shown, so that nothing is wiped out.
        super().close()


def progress(iterable: Iterable | None = None, **options) -> tqdm:
    """Show how far some work is, on stderr.

    Args:
        iterable: What is worked on; None where the caller calls `update`.
        **options: `desc`, `unit`, `total`, `initial`, `leave`, `disable`, as for tqdm.

    Returns:
        A tqdm over `iterable`.
    """
    is_notebook = bar.__module__ == "tqdm.notebook"
    return (bar if sys.stderr.isatty() or is_notebook else _Lines)(iterable, **options)
