"""Clocks around parts of one function of imgsortd, to tell its two halves apart.

They are put on at borders that belong to Pillow and torch, not on imgsortd's own private
functions, and are taken off again behind the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from PIL import Image


class Halves:
    """Seconds of calls, split at the first event within each call.

    Attributes
    ----------
    before_s, after_s
        Sums over all calls; a call without the event counts whole as before.
    """

    def __init__(self) -> None:
        self.before_s = 0.0
        self.after_s = 0.0
        self._split: float | None = None

    def event(self) -> None:
        """Say that the first half of the present call is over; later ones do not count."""
        if self._split is None:
            self._split = time.perf_counter()

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call and count both halves."""
        self._split = None
        started = time.perf_counter()
        result = function(*arguments, **options)
        ended = time.perf_counter()
        split = ended if self._split is None else self._split
        self.before_s += split - started
        self.after_s += ended - split
        return result


@contextmanager
def at_first_resize(halves: Halves) -> Iterator[None]:
    """Split a decode where its pixels are there and the first resize begins."""
    resize = Image.Image.resize

    def marked(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        image.load()  # a resize would do it; it is the decoder's work
        halves.event()
        return resize(image, *arguments, **options)

    with mock.patch.object(Image.Image, "resize", marked):
        yield


@contextmanager
def at_first_layer(halves: Halves) -> Iterator[None]:
    """Split an extraction where the first layer of a torch network is called.

    An engine that is not torch calls none, and its extraction counts whole as before.
    """
    from torch.nn.modules.module import register_module_forward_pre_hook

    handle = register_module_forward_pre_hook(lambda *_: halves.event())
    try:
        yield
    finally:
        handle.remove()
