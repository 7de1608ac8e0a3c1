"""Count and log images that cannot be decoded, and fail if there are too many."""

import logging
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

MIN_ATTEMPTS = 200  # A share of fewer images says little about the corpus.


class BrokenImageCounter:
    """Count and log images that cannot be decoded, and stop a run that has too many.

    Args:
        max_broken_share: Largest share of the attempted images that may be broken, in [0, 1].
        images_per_epoch: Images per epoch of this process; None if it is not known. The share is checked for the first
            time after this number of attempts, or after 200 if it is larger.

    Raises:
        ValueError: If `max_broken_share` is out of its range.
    """

    def __init__(self, max_broken_share: float = 0.05, images_per_epoch: int | None = None):
        if not 0 <= max_broken_share <= 1:
            raise ValueError(f"`max_broken_share` must be in [0, 1], got {max_broken_share}.")
        self.max_broken_share = max_broken_share
        self.first_check_at = min(MIN_ATTEMPTS, images_per_epoch or MIN_ATTEMPTS)
        self.attempted, self.count = 0, 0
        self.reasons: dict[str, str] = {}

    def add(self, attempted: int, broken: Sequence[tuple[str, str]]):
        """Count the broken images of one batch. Each image is logged once.

        Args:
            attempted: Number of images that were tried, broken ones included.
            broken: Name of each broken image and the reason why it cannot be decoded.

        Raises:
            ValueError: If the share of broken images is above `max_broken_share`.
        """
        self.attempted += attempted
        self.count += len(broken)
        for name, reason in broken:
            if name not in self.reasons:
                logger.warning("skipped %s: %s", name, reason)
                self.reasons[name] = reason
        if self.attempted >= self.first_check_at and self.count > self.max_broken_share * self.attempted:
            raise ValueError(
                f"{self.count} of {self.attempted} images cannot be decoded, a share of "
                f"{self.count / self.attempted:.3f}; `max_broken_share` allows {self.max_broken_share}. Repair or "
                f"remove the broken files, or raise `max_broken_share`.{format_examples(self.reasons)}"
            )


def format_examples(reasons: Mapping[str, str]) -> str:
    """Format the first three names and reasons for an error message, one per line."""
    return "".join(f"\n  {name}: {reason}" for name, reason in list(reasons.items())[:3])
