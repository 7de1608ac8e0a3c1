"""Images that do not decode: counted, named once, and too many of them an error."""

import logging
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

JUDGED_AFTER = 200  # Fewer attempts say little about a share.


class BrokenFiles:
    """Counts and names images that do not decode, and stops a run that has too many.

    Args:
        max_broken_share: Share of the attempted images that may be broken, in [0, 1].
        images_per_epoch: Of this process, if known; the share is first judged after as many attempts, at most 200.
    """

    def __init__(self, max_broken_share: float = 0.05, images_per_epoch: int | None = None):
        if not 0 <= max_broken_share <= 1:
            raise ValueError(f"`max_broken_share` must be in [0, 1], got {max_broken_share}.")
        self.max_broken_share = max_broken_share
        self.first_judged_at = min(JUDGED_AFTER, images_per_epoch or JUDGED_AFTER)
        self.attempted, self.count = 0, 0
        self.reasons: dict[str, str] = {}

    def add(self, attempted: int, broken: Sequence[tuple[str, str]]):
        """Take the account of one batch; each file is logged once.

        Args:
            attempted: How many images were tried.
            broken: Name and reason of those that do not decode.

        Raises:
            ValueError: If the share of broken images is above `max_broken_share`.
        """
        self.attempted += attempted
        self.count += len(broken)
        for name, reason in broken:
            if name not in self.reasons:
                logger.warning("skipped %s: %s", name, reason)
                self.reasons[name] = reason
        if self.attempted >= self.first_judged_at and self.count > self.max_broken_share * self.attempted:
            raise ValueError(
                f"{self.count} of {self.attempted} images do not decode, a share of {self.count / self.attempted:.3f}; "
                f"`max_broken_share` allows {self.max_broken_share}. Mend or remove the broken files, or raise "
                f"`max_broken_share`.{examples(self.reasons)}"
            )


def examples(reasons: Mapping[str, str]) -> str:
    """Name the first few in an error: a line each."""
    return "".join(f"\n  {name}: {reason}" for name, reason in list(reasons.items())[:3])
