"""What is fastest is measured once under the same conditions, and kept."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from imgsortd.config.values import Precision
from imgsortd.networks import calibration
from imgsortd.networks.calibration import FILE_NAME, CalibrationFile, calibrate, calibration_key
from imgsortd.networks.network import Network
from imgsortd.networks.torch_engine import Arithmetic, Kernel, TorchExtractor, has_fast_bf16
from imgsortd.records import Backbone

WINOGRAD = Arithmetic(Precision.FP32, Kernel.WINOGRAD, 8, 2)


@pytest.fixture
def file(tmp_path: Path) -> CalibrationFile:
    return CalibrationFile(tmp_path)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Precision, Kernel]]]:
    """Note in which arithmetic stages are placed, and place them."""
    seen: list[tuple[Precision, Kernel]] = []
    place = calibration.place_stage

    def note(stage: Any, device: torch.device, arithmetic: Arithmetic) -> Any:
        seen.append((arithmetic.precision, arithmetic.kernel))
        return place(stage, device, arithmetic)

    monkeypatch.setattr(calibration, "place_stage", note)
    return seen


# --- measuring ------------------------------------------------------------------------


@pytest.mark.parametrize("has_bf16", [False, True])
def test_bf16_is_tried_only_where_the_cpu_has_it(
    has_bf16: bool,
    small: Network,
    tried: list[tuple[Precision, Kernel]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "has_fast_bf16", lambda: has_bf16)

    whole = nn.Sequential(*(layer for stage in small.stages for layer in stage))

    chosen = calibrate(replace(small, stages=(whole,), shallow_stages=0), Precision.AUTO, 1)

    assert (Precision.BF16 in {precision for precision, _ in tried}) == has_bf16
    assert chosen.precision in ({Precision.FP32, Precision.BF16} if has_bf16 else {Precision.FP32})


@pytest.mark.skipif(has_fast_bf16(), reason="this CPU has instructions for bf16")
def test_both_convolutions_are_tried_in_float32_for_a_network_of_wide_layers(
    small: Network, tried: list[tuple[Precision, Kernel]]
) -> None:
    calibrate(small, Precision.AUTO, 1)

    assert {(Precision.FP32, Kernel.WINOGRAD), (Precision.FP32, Kernel.DIRECT)} == set(tried)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_precision_that_is_asked_for_is_taken(
    precision: Precision, small: Network, tried: list[tuple[Precision, Kernel]]
) -> None:
    chosen = calibrate(small, precision, 1)

    assert (chosen.precision, chosen.kernel) == (precision, Kernel.DIRECT)
    assert Kernel.WINOGRAD not in {kernel for _, kernel in tried}


@pytest.mark.parametrize("cpus", [1, 2])
def test_what_is_chosen_can_be_computed_and_keeps_to_the_cpus(cpus: int, small: Network) -> None:
    chosen = calibrate(small, Precision.FP32, cpus)

    extractor = TorchExtractor(small, torch.device("cpu"), chosen)
    extractor.unload()
    assert 1 <= chosen.workers <= cpus
    assert chosen.step_images in (2, 4, 8, 16, 32)


def ticking(seconds: Callable[[int, int], float]) -> Callable[..., Callable[[], float]]:
    """Make a stand-in for the run of a step: seconds of one image, by step and workers."""
    return lambda _deep, _maps, step, workers: lambda: seconds(step, workers)


@pytest.mark.parametrize(
    ("seconds_of_step", "expected"),
    [
        ({2: 1.0, 4: 0.9, 8: 0.8, 16: 0.7, 32: 0.6}, 32),
        ({2: 1.0, 4: 0.5, 8: 0.9, 16: 0.1, 32: 0.1}, 4),  # it falls out of the cache
        ({2: 1.0, 4: 0.99, 8: 0.5, 16: 0.5, 32: 0.5}, 2),  # a hundredth does not pay
    ],
)
def test_more_pictures_at_a_time_are_taken_as_long_as_they_pay(
    seconds_of_step: dict[int, float],
    expected: int,
    small: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "_deep_run", ticking(lambda step, _: seconds_of_step[step]))

    assert calibrate(small, Precision.FP32, 1).step_images == expected


@pytest.mark.parametrize(("side_by_side_s", "workers"), [(0.5, 4), (2.0, 1)])
def test_workers_are_taken_where_they_are_faster(
    side_by_side_s: float, workers: int, small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ticking(lambda _, workers: side_by_side_s if workers == 4 else 1.0)
    monkeypatch.setattr(calibration, "_deep_run", run)

    assert calibrate(small, Precision.FP32, 4).workers == workers


def test_a_moment_in_which_others_use_the_cpu_does_not_decide() -> None:
    busy = {"good": iter([9.0, 1.0, 9.0]), "other": iter([2.0, 2.0, 2.0])}
    ways = {name: (lambda found=found: next(found)) for name, found in busy.items()}

    assert calibration._quickest(ways, 3) == "good"


# --- keeping --------------------------------------------------------------------------


def test_a_result_is_recalled_under_its_key_and_no_other(file: CalibrationFile) -> None:
    file.keep("one", WINOGRAD)
    file.keep("two", Arithmetic(Precision.BF16, Kernel.DIRECT, 16, 1))

    assert file.recall("one") == WINOGRAD
    assert file.recall("two") == Arithmetic(Precision.BF16, Kernel.DIRECT, 16, 1)
    assert file.recall("three") is None
    assert os.listdir(file.folder) == [FILE_NAME] == ["calibration.json"]


GOOD = {"precision": "fp32", "kernel": "direct", "step_images": 4, "workers": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        b"\xff\xfe\x00",
        {"key": None},
        {"key": []},
        {"key": {}},
        {"key": {**GOOD, "precision": "fp64"}},
        {"key": {**GOOD, "kernel": 1}},
        {"key": {**GOOD, "step_images": "many"}},
        {"key": {**GOOD, "step_images": 0}},
        {"key": {**GOOD, "step_images": None}},
        {"key": {**GOOD, "workers": -1}},
        {"key": {**GOOD, "workers": float("inf")}},
    ],
    ids=str,
)
def test_garbage_is_ignored_and_replaced(text: object, file: CalibrationFile) -> None:
    raw = text if isinstance(text, bytes | str) else json.dumps(text)
    (file.folder / FILE_NAME).write_bytes(raw if isinstance(raw, bytes) else raw.encode())

    assert file.recall("key") is None

    file.keep("key", WINOGRAD)
    assert file.recall("key") == WINOGRAD


def test_a_folder_that_cannot_be_written_costs_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    file = CalibrationFile(tmp_path / "file")

    file.keep("key", WINOGRAD)

    assert file.recall("key") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith(f"calibration not kept folder={tmp_path}/file reason=")


def test_every_condition_has_a_key_of_its_own(
    small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = replace(small, id=replace(small.id, backbone=Backbone.EFFICIENTNET_LITE0))

    def keys() -> set[str]:
        return {
            calibration_key(network, precision, cpus)
            for network in (small, lite)
            for precision in (Precision.AUTO, Precision.FP32)
            for cpus in (1, 2)
        }

    found = keys()
    assert len(found) == 8
    assert found == keys()
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert not found & keys()
