"""From the configuration to a resident model: backbone, engine, calibration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imgsortd.config.model import ModelConfig
from imgsortd.config.values import Device, Engine, Precision
from imgsortd.errors import WeightsError
from imgsortd.networks import building
from imgsortd.networks.building import build_extractor
from imgsortd.networks.calibration import FILE_NAME
from imgsortd.networks.network import Network
from imgsortd.networks.resident import Resident
from imgsortd.networks.torch_engine import Arithmetic, Kernel, TorchExtractor
from imgsortd.records import Backbone, Layer, Pixels, Vectors
from photographs import cosines

MEASURED = Arithmetic(Precision.FP32, Kernel.WINOGRAD, 3, 1)
Build = Callable[..., Resident]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Precision]:
    """Note each calibration in place of measuring."""
    seen: list[Precision] = []

    def note(_network: Network, precision: Precision, _cpus: int) -> Arithmetic:
        seen.append(precision)
        return MEASURED

    monkeypatch.setattr(building, "calibrate", note)
    return seen


@pytest.fixture
def build(tmp_path: Path, calls: list[Precision], threads_given_back: None) -> Build:
    """Build on the CPU with the calibration kept in ``tmp_path``."""

    def build(folder: Path | None = tmp_path, **keys: Any) -> Resident:
        return build_extractor(ModelConfig(**{"device": Device.CPU, **keys}), folder)

    return build


@pytest.fixture
def build_vgg16(build: Build, conv_weights: Path) -> Build:
    """Build VGG16 with random weights."""
    return partial(build, weights=str(conv_weights))


@pytest.fixture
def build_small(build: Build, small: Network, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build a small network: what is kept of a calibration does not depend on which it is."""
    monkeypatch.setattr(building, "_network", lambda *_: small)
    return build


def arithmetic_of(resident: Resident) -> Arithmetic:
    extractor = resident.loaded()
    assert isinstance(extractor, TorchExtractor)
    return extractor.arithmetic


# --- calibration ----------------------------------------------------------------------


def test_the_calibration_is_made_at_the_first_start_and_recalled_at_the_next(
    build_small: Build, calls: list[Precision], tmp_path: Path
) -> None:
    first = build_small()
    assert (tmp_path / FILE_NAME).is_file()

    second = build_small()

    assert calls == [Precision.AUTO]
    assert arithmetic_of(first) == arithmetic_of(second) == MEASURED
    assert second.describe() == "vgg16 torch cpu fp32 winograd"


def test_a_model_that_comes_back_is_not_measured_again(
    build_small: Build, calls: list[Precision]
) -> None:
    resident = build_small()
    resident.unload()

    resident.loaded()

    assert len(calls) == 1


def test_another_count_of_cpus_or_another_torch_is_measured_anew(
    build_small: Build, calls: list[Precision], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_small()
    monkeypatch.setattr(building, "usable_cpus", lambda: 63)
    build_small()
    monkeypatch.setattr(torch, "__version__", "99.0")
    build_small()
    assert len(calls) == 3

    build_small()

    assert len(calls) == 3


def test_a_damaged_calibration_is_measured_anew_and_replaced(
    build_small: Build, calls: list[Precision], tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).write_text("{ not json")

    build_small()
    build_small()

    assert len(calls) == 1


def test_without_a_folder_nothing_is_kept(build_small: Build, calls: list[Precision]) -> None:
    build_small(folder=None)
    build_small(folder=None)

    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_does_not_stop_the_start(
    build_small: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    resident = build_small(folder=tmp_path / "file")

    assert arithmetic_of(resident) == MEASURED
    assert [r.getMessage()[:20] for r in caplog.records if r.levelno >= logging.WARNING] == [
        "calibration not kept"
    ]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_precision_that_is_asked_for_has_a_calibration_of_its_own(
    precision: Precision, build_small: Build, calls: list[Precision]
) -> None:
    build_small()

    build_small(precision=precision)

    assert calls == [Precision.AUTO, precision]


def test_the_log_says_what_was_loaded_and_how_it_is_computed(
    build_vgg16: Build, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    resident = build_vgg16()

    digest = resident.id.weights_digest[:12]
    assert caplog.messages[-2].startswith(
        "model calibrated precision=fp32 kernel=winograd step_images=3 workers=1 calibrate_s="
    )
    assert caplog.messages[-1].startswith(
        f"model ready weights=file digest={digest} layer=pool5 "
        "runs_on='vgg16 torch cpu fp32 winograd' cpus="
    )


def test_a_gpu_is_not_calibrated_and_computes_in_half_precision(
    small: Network, calls: list[Precision], tmp_path: Path
) -> None:
    chosen = [
        building._arithmetic(small, torch.device("cuda"), precision, 2, tmp_path)
        for precision in (Precision.AUTO, Precision.FP32)
    ]

    assert [a.precision for a in chosen] == [Precision.FP16, Precision.FP32]
    assert [a.step_images for a in chosen] == [128, 128]
    assert not calls
    assert not list(tmp_path.iterdir())


# --- what is built --------------------------------------------------------------------


@pytest.mark.usefixtures("threads_given_back")
def test_the_backbone_and_the_engine_are_those_of_the_configuration(
    lite0: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    calls = []

    def plain(_network: Network, precision: Precision, _cpus: int) -> Arithmetic:
        calls.append(precision)
        return Arithmetic(precision)

    monkeypatch.setattr(building, "calibrate", plain)
    keys = {"backbone": Backbone.EFFICIENTNET_LITE0, "precision": Precision.FP32}
    with_torch = build_extractor(ModelConfig(**keys, device=Device.CPU), tmp_path)

    with_openvino = build_extractor(ModelConfig(**keys, engine=Engine.OPENVINO), tmp_path)

    assert with_torch.describe() == "efficientnet_lite0 torch cpu fp32 direct"
    assert with_openvino.describe() == "efficientnet_lite0 openvino cpu fp32"
    assert with_openvino.id == with_torch.id == lite0.id
    assert calls == [Precision.FP32]  # OpenVINO needs none


def test_real_vgg16_measured_here_gives_the_features_of_the_plainest_arithmetic(
    vgg16: Network,
    photographs: list[Pixels],
    vgg16_features: Vectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgsortd.networks.calibration._STEPS", (2, 4))  # a few seconds less
    arithmetic = building._arithmetic(vgg16, torch.device("cpu"), Precision.AUTO, 2, None)
    extractor = TorchExtractor(vgg16, torch.device("cpu"), arithmetic)

    ours = extractor.extract(photographs)

    extractor.unload()
    assert cosines(ours, vgg16_features).min() >= 0.999


def test_missing_weights_are_told_at_the_start_and_when_the_model_comes_back(
    build_vgg16: Build, conv_weights: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.safetensors"
    file.symlink_to(conv_weights)
    resident = build_vgg16(weights=str(file))
    resident.unload()
    file.unlink()

    with pytest.raises(WeightsError, match="got no such file; correct the path"):
        resident.extract([np.zeros((224, 224, 3), dtype=np.uint8)])
    with pytest.raises(WeightsError, match="got no such file; correct the path"):
        build_vgg16(weights=str(file))


def test_a_layer_without_weights_for_it_is_told(build_vgg16: Build) -> None:
    with pytest.raises(WeightsError, match="for layer fc2 a classifier"):
        build_vgg16(layer=Layer.FC2)
