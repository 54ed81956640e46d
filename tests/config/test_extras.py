"""What a configuration needs beyond the plain installation is told before it runs."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from imgsortd.config.extras import require, require_extras
from imgsortd.config.model import ModelConfig
from imgsortd.errors import ConfigError

LITE = {"backbone": "efficientnet_lite0"}
OPENVINO = {"engine": "openvino"}
INT8 = {"engine": "openvino", "precision": "int8"}


@pytest.mark.parametrize(
    ("package", "model", "text"),
    [
        (
            "timm",
            LITE,
            "model.backbone: efficientnet_lite0 needs the package timm, which is not installed; "
            "pip install 'imgsortd[lite]', or set model.backbone: vgg16",
        ),
        (
            "openvino",
            OPENVINO,
            "model.engine: openvino needs the package openvino, which is not installed; "
            "pip install 'imgsortd[openvino]', or set model.engine: torch",
        ),
        (
            "nncf",
            INT8,
            "model.precision: int8 needs the package nncf, which is not installed; "
            "pip install 'imgsortd[openvino]', or set model.precision: auto",
        ),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    package: str, model: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("timm", "openvino", "nncf"):  # the others count as installed
        monkeypatch.setitem(sys.modules, name, None if name == package else sys.modules["pytest"])

    with pytest.raises(ConfigError) as caught:
        require_extras(ModelConfig(**model))

    assert str(caught.value) == text


def test_a_plain_model_needs_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("timm", "openvino", "nncf"):
        monkeypatch.setitem(sys.modules, name, None)

    require_extras(ModelConfig())


def test_a_package_that_is_there_is_not_imported() -> None:
    sys.modules.pop("this", None)

    require("this", "key", "extra", "instead")

    assert "this" not in sys.modules
