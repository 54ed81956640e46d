"""VGG16's own classes, from full weights that are on this machine, and from nowhere else."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from imgsortd.config.model import ModelConfig
from imgsortd.errors import WeightsError
from imgsortd.networks.sources import RELEASES, WeightsSource
from imgsortd.networks.vgg16 import build_classifier, class_names, full_weights
from imgsortd.networks.weights import conv_shapes
from imgsortd.records import Backbone

WIDE = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Return seeded random weights of VGG16's real shape, few of their numbers of their own."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:] or (100,))) ** 0.5
        for name, shape in conv_shapes().items()
    }
    for number, (out, into) in WIDE.items():
        column = torch.randn((out, 1), generator=generator) * (2 / into) ** 0.5
        tensors[f"classifier.{number}.weight"] = column.expand(out, into)  # a small file
        tensors[f"classifier.{number}.bias"] = torch.linspace(-0.1, 0.1, out)
    return tensors


@pytest.fixture(scope="module")
def full_file(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(state, path)
    return path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's own caches out of it, and fail at the first connection."""
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("threads_given_back")
def test_the_logits_are_those_of_torchvisions_vgg16(
    state: dict[str, torch.Tensor], full_file: Path
) -> None:
    model = ModelConfig(weights=str(full_file))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    with torch.device("meta"):
        theirs = torchvision.models.vgg16()
    theirs.load_state_dict(state, assign=True)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    images = ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = theirs.eval()(images).numpy()

    classifier = build_classifier(model, full_weights(model))

    logits = classifier.extract(list(pixels))
    classifier.unload()
    assert logits.shape == (2, 1000)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_full_weights_in_torchs_cache_are_found_whatever_the_features_are_made_with(
    full_file: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(full_file.read_bytes()).hexdigest()[:8]
    release = replace(RELEASES["imagenet1k_v1"], url=f"https://example.invalid/vgg16-{digest}.pth")
    cached = tmp_path / "torch" / "hub" / "checkpoints" / release.file_name
    cached.parent.mkdir(parents=True)
    cached.symlink_to(full_file)
    releases = {**RELEASES, "imagenet1k_v1": release}

    for model in (ModelConfig(), ModelConfig(backbone=Backbone.EFFICIENTNET_LITE0)):
        weights = full_weights(model, _releases=releases)

        assert weights.full
        assert weights.source is WeightsSource.TORCH_HUB


def test_where_the_full_weights_are_not_at_hand_the_error_says_how_to_get_them(
    tmp_path: Path,
) -> None:
    with pytest.raises(WeightsError) as error:
        full_weights(ModelConfig())

    text = str(error.value)
    assert str(tmp_path / "cache" / "vgg16-397923af.pth") in text
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in text
    assert "imgsortd weights fetch --weights imagenet1k_v1 downloads them (528 MB)" in text


def test_a_configured_file_without_a_classifier_is_named_in_the_error(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = tmp_path / "convolutions.pth"
    torch.save({name: state[name] for name in conv_shapes()}, file)

    with pytest.raises(WeightsError, match=r"convolutions.pth: expected for layer logits a class"):
        full_weights(ModelConfig(weights=str(file)))


def test_there_is_a_name_for_each_logit() -> None:
    names = class_names()

    assert len(names) == 1000
    assert (names[0], names[985]) == ("tench", "daisy")
