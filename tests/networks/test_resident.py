"""A model is freed when it is told to, and comes back when it is needed."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import pytest
import torch

from imgsortd.config.values import Precision
from imgsortd.errors import WeightsError
from imgsortd.networks.network import Network
from imgsortd.networks.resident import FeatureExtractor, Resident
from imgsortd.networks.torch_engine import Arithmetic, TorchExtractor
from imgsortd.records import ExtractorId, Layer, Pixels, Vectors

PICTURE = np.zeros((224, 224, 3), dtype=np.uint8)


class Fake:
    """An extractor that knows how it was used."""

    def __init__(self, words: str = "fake") -> None:
        self.id = ExtractorId("fake", Layer.POOL5, 2)
        self.batch_images, self.on_cpu = 5, True
        self.words = words
        self.unloaded = False

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        return np.ones((len(pixels), 2), dtype=np.float32)

    def describe(self) -> str:
        return self.words

    def unload(self) -> None:
        self.unloaded = True


class Builder:
    """Builds fakes, and remembers them without keeping them."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Fake]] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self) -> FeatureExtractor:
        self.before()
        fake = Fake()
        self.made.append(weakref.ref(fake))
        return fake


@pytest.fixture
def build() -> Builder:
    return Builder()


def test_it_is_loaded_at_once_and_looks_like_what_it_holds(build: Builder) -> None:
    resident = Resident(build)

    assert resident.is_loaded
    assert (resident.id, resident.batch_images) == (ExtractorId("fake", Layer.POOL5, 2), 5)
    assert resident.describe() == "fake"
    assert resident.extract([PICTURE] * 3).shape == (3, 2)
    assert len(build.made) == 1


def test_unloading_closes_and_frees_the_model(build: Builder) -> None:
    resident = Resident(build)
    fake = build.made[0]()
    assert fake is not None

    resident.unload()

    assert fake.unloaded
    del fake
    gc.collect()
    assert build.made[0]() is None
    assert not resident.is_loaded
    assert resident.describe() == "fake (unloaded)"
    assert resident.id == ExtractorId("fake", Layer.POOL5, 2)


def model_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("model_")]


def test_nothing_of_a_torch_network_stays_in_memory(small: Network) -> None:
    arithmetic = Arithmetic(Precision.FP32, step_images=2, workers=2)
    tensors: list[weakref.ref[torch.Tensor]] = []

    def build() -> FeatureExtractor:
        extractor = TorchExtractor(small, torch.device("cpu"), arithmetic)
        placed = [tensor for stage in extractor._stages for tensor in stage.parameters()]
        tensors.extend(weakref.ref(tensor) for tensor in placed)
        return extractor

    resident = Resident(build)
    resident.extract([PICTURE] * 4)
    working = model_threads()

    resident.unload()

    gc.collect()
    assert tensors
    assert not any(tensor() is not None for tensor in tensors)
    assert working
    assert not model_threads()


def test_the_next_picture_loads_it_again_and_the_log_says_so(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    resident = Resident(build)
    resident.unload()

    features = resident.extract([PICTURE])

    assert features.shape == (1, 2)
    assert resident.is_loaded
    assert resident.describe() == "fake"
    assert len(build.made) == 2
    assert [message.partition(" load_s=")[0] for message in caplog.messages] == [
        "model unloaded",
        "model loaded again",
    ]


def test_unloading_twice_is_unloading_once(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    resident = Resident(build)

    resident.unload()
    resident.unload()

    assert caplog.messages == ["model unloaded"]


def test_what_it_says_follows_the_engine_and_outlives_it() -> None:
    fake = Fake("openvino bf16")
    resident = Resident(lambda: fake)

    fake.words = "openvino int8"

    resident.loaded()
    assert resident.describe() == "openvino int8"
    resident.unload()
    assert resident.describe() == "openvino int8 (unloaded)"


def test_weights_that_went_meanwhile_are_told_and_looked_for_again(build: Builder) -> None:
    resident = Resident(build)
    resident.unload()

    def fail() -> None:
        raise WeightsError("weights: gone")

    build.before = fail
    for _ in range(2):  # the lock is free again after the first
        with pytest.raises(WeightsError, match="weights: gone"):
            resident.extract([PICTURE])
    assert resident.describe() == "fake (unloaded)"

    build.before = lambda: None
    assert resident.extract([PICTURE]).shape == (1, 2)


def test_threads_that_need_it_at_the_same_time_load_it_once(build: Builder) -> None:
    resident = Resident(build)
    resident.unload()
    meeting, loaded = threading.Barrier(2), []

    def before() -> None:
        with suppress(threading.BrokenBarrierError):  # where the other is kept out
            meeting.wait(0.3)

    build.before = before

    def need() -> None:
        loaded.append(resident.loaded())

    threads = [threading.Thread(target=need) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(build.made) == 2
    assert loaded[0] is loaded[1]
