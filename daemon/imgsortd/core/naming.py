"""What a classifier's outputs for a few pictures of a cluster say of all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imgsortd.core.records import Vectors


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A class, and its share (0 to 1) of what the classifier sees."""

    name: str
    share: float


def likely_classes(
    logits: Vectors, class_names: Sequence[str], count: int
) -> tuple[Suggestion, ...]:
    """Return the classes that the pictures are most likely of, the likeliest first.

    Parameters
    ----------
    logits
        float32 [n, classes]. Each picture's are made probabilities (softmax), and these are
        averaged: nine pictures have nine votes, whatever the length of their logits.
    class_names
        One for each column.
    """
    if not len(logits):
        return ()
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    shares = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
    best = np.argsort(-shares, kind="stable")[:count]
    return tuple(Suggestion(class_names[index], float(shares[index])) for index in best)
