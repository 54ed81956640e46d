"""When is a batch closed? When it is full, or its oldest member has waited enough."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchRule:
    """Limits of one batch: pictures, and seconds of the oldest one's waiting."""

    max_images: int
    max_wait_s: float


def batch_size(rule: BatchRule, waiting: int, oldest_wait_s: float, more_coming: bool) -> int:
    """Tell how many of the waiting files to take now; 0 means wait.

    Parameters
    ----------
    waiting
        Files at hand, oldest first.
    oldest_wait_s
        Seconds that the oldest has waited.
    more_coming
        Whether other files can still join soon. When none can, waiting is idle.
    """
    if waiting == 0:
        return 0
    if waiting >= rule.max_images:
        return rule.max_images
    if not more_coming or oldest_wait_s >= rule.max_wait_s:
        return waiting
    return 0
