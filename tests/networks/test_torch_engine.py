"""How pictures are cut, spread and put together again, on a small network; devices."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imgsortd.config.values import Device, Precision
from imgsortd.errors import EXIT_CONFIG, ConfigError
from imgsortd.networks.network import Network
from imgsortd.networks.torch_engine import (
    DTYPES,
    Arithmetic,
    Kernel,
    TorchExtractor,
    Workers,
    choose_device,
    place_stage,
)
from imgsortd.records import ExtractorId, Layer, Pixels

CPU = torch.device("cpu")
PLAIN = Arithmetic(Precision.FP32)


def noise(count: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(count)]


# --- extraction -----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 32])
def test_however_pictures_are_cut_their_features_are_the_same_and_in_order(
    step: int, workers: int, small: Network
) -> None:
    pictures = noise(7)
    alone = [TorchExtractor(small, CPU, PLAIN).extract([picture])[0] for picture in pictures]
    extractor = TorchExtractor(small, CPU, replace(PLAIN, step_images=step, workers=workers))

    together = extractor.extract(pictures)

    extractor.unload()
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(np.round(together, 4), axis=0)) == 7  # none stands for another


def test_pixels_are_scaled_by_channel_and_features_brought_to_length_one(small: Network) -> None:
    picture = noise(1)[0]
    scaled = (picture.transpose(2, 0, 1) / 255 - np.reshape(small.mean, (3, 1, 1))) / np.reshape(
        small.std, (3, 1, 1)
    )
    with torch.inference_mode():
        expected = nn.Sequential(*small.stages)(torch.from_numpy(scaled[None]).float())[0].numpy()

    ours = TorchExtractor(small, CPU, PLAIN).extract([picture])

    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0], expected / np.linalg.norm(expected), atol=1e-6)


def test_logits_keep_their_length(small: Network) -> None:
    logits = replace(small, id=ExtractorId("small", Layer.LOGITS, 16))
    pictures = noise(2)

    kept = TorchExtractor(logits, CPU, PLAIN).extract(pictures)

    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    assert not np.any(np.isclose(lengths, 1))
    cut = TorchExtractor(small, CPU, PLAIN).extract(pictures)
    np.testing.assert_allclose(kept / lengths, cut, atol=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_pictures_give_no_rows_of_the_right_width(workers: int, small: Network) -> None:
    extractor = TorchExtractor(small, CPU, replace(PLAIN, workers=workers))

    nothing = extractor.extract([])

    extractor.unload()
    assert nothing.shape == (0, 16)
    assert nothing.dtype == np.float32


def test_features_that_are_zero_stay_zero(small: Network) -> None:
    dark = replace(small, stages=(*small.stages, nn.Sequential(nn.Threshold(1e9, 0.0))))

    features = TorchExtractor(dark, CPU, PLAIN).extract(noise(2))

    assert not features.any()


def test_shallow_stages_see_one_picture_at_a_time_and_deep_ones_a_step(small: Network) -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}

    class Note(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen[self.number].append(len(images))
            return images

    stages = tuple(nn.Sequential(Note(n), *stage) for n, stage in enumerate(small.stages))
    extractor = TorchExtractor(replace(small, stages=stages), CPU, replace(PLAIN, step_images=3))

    extractor.extract(noise(5))

    assert seen == {0: [1] * 5, 1: [2, 3]}


def test_it_says_what_it_is_and_what_suits_it(small: Network) -> None:
    extractor = TorchExtractor(small, CPU, PLAIN)

    assert extractor.describe() == "vgg16 torch cpu fp32 direct"
    assert (extractor.id, extractor.batch_images) == (small.id, 16)


# --- side by side ---------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 4))
def test_parts_keep_the_order_and_none_is_larger_than_a_step(
    items: int, step: int, count: int
) -> None:
    workers, parts = Workers(count), []

    def note(part: Sequence[int]) -> torch.Tensor:
        parts.append(len(part))
        return torch.tensor(part)

    done = workers.map(note, list(range(items)), step)

    workers.close()
    assert [number for part in done for number in part.tolist()] == list(range(items))
    assert all(1 <= length <= step for length in parts)
    assert max(parts, default=0) - min(parts, default=0) <= 1  # none waits for a longer one
    if items >= count > 1:
        assert len(parts) % count == 0 or len(parts) == items


def test_workers_compute_at_the_same_time_with_one_thread_each() -> None:
    workers, both = Workers(2), threading.Barrier(2, timeout=30)
    threads = []

    def meet(part: Sequence[int]) -> torch.Tensor:
        both.wait()  # breaks when the other does not come
        threads.append(torch.get_num_threads())
        return torch.tensor(part)

    workers.map(meet, [1, 2], 1)

    workers.close()
    assert threads == [1, 1]


def test_a_single_item_is_computed_by_the_thread_that_asks() -> None:
    workers = Workers(2)

    done = workers.map(lambda _: torch.tensor(threading.get_ident()), [1], 1)

    workers.close()
    assert [number.item() for number in done] == [threading.get_ident()]


def test_an_error_in_a_worker_comes_out() -> None:
    workers = Workers(2)

    def fail(part: Sequence[int]) -> torch.Tensor:
        raise ValueError(f"no {part[0]}")

    with pytest.raises(ValueError, match="no 1"):
        workers.map(fail, [1, 2], 1)
    workers.close()


def test_closing_ends_the_threads() -> None:
    workers = Workers(2)
    names: list[threading.Thread] = []
    workers.map(lambda _: names.append(threading.current_thread()) or torch.ones(1), [1, 2], 1)

    workers.close()

    assert names
    assert not any(thread.is_alive() for thread in names)


# --- placing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arithmetic", "tolerance"),
    [
        (PLAIN, 1e-5),
        (Arithmetic(Precision.FP32, Kernel.WINOGRAD), 1e-5),
        (Arithmetic(Precision.BF16), 0.02),
    ],
    ids=["fp32", "winograd", "bf16"],
)
def test_the_stage_that_is_given_stays_as_it_is(
    arithmetic: Arithmetic, tolerance: float, small: Network
) -> None:
    stage, images = small.stages[1], torch.rand(2, 8, 14, 14)
    before = [(name, t, t.stride(), t.clone()) for name, t in stage.named_parameters()]
    layers = [type(layer) for layer in stage]
    expected = stage(images).detach()

    placed = place_stage(stage, CPU, arithmetic)

    ours = placed(images.to(DTYPES[arithmetic.precision])).detach()
    torch.testing.assert_close(ours, expected, atol=tolerance, rtol=0)
    assert [type(layer) for layer in stage] == layers
    for (name, tensor, stride, values), (name_now, now) in zip(
        before, stage.named_parameters(), strict=True
    ):
        assert (name, tensor.dtype, stride) == (name_now, now.dtype, now.stride())
        assert tensor is now
        assert torch.equal(values, now)
    assert torch.equal(stage(images), expected)


@pytest.mark.parametrize("name", ["vgg16", "lite0"])
def test_the_weights_of_a_real_network_are_in_memory_once(
    name: str, request: pytest.FixtureRequest
) -> None:
    stage = request.getfixturevalue(name).stages[-1]

    placed = place_stage(stage, CPU, PLAIN)

    places = [
        [p.data_ptr() for p in layers.parameters() if p.dim() == 4] for layers in (stage, placed)
    ]
    assert places[0] == places[1]


# --- devices --------------------------------------------------------------------------


@pytest.mark.parametrize("device", [Device.CUDA, Device.MPS])
def test_a_gpu_that_is_not_there_is_told_with_what_to_do(device: Device) -> None:
    there = {Device.CUDA: torch.cuda.is_available(), Device.MPS: torch.backends.mps.is_available()}
    if there[device]:
        pytest.skip(f"{device} is there")

    with pytest.raises(ConfigError) as caught:
        choose_device(device)

    assert caught.value.exit_code == EXIT_CONFIG
    assert str(caught.value) == (
        f"model.device must be a device that torch {torch.__version__} sees here, got {device}; "
        f"use auto or cpu, or install its driver and a torch built for it"
    )


def test_auto_takes_a_gpu_where_there_is_one_and_cpu_is_always_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for has_cuda, has_mps in ((False, False), (False, True), (True, False)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has_cuda: has)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda has=has_mps: has)
        found.append(choose_device(Device.AUTO).type)

    assert found == ["cpu", "mps", "cuda"]
    assert choose_device(Device.CPU) == CPU
