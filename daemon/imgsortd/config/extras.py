"""Packages that only some configurations need, and what to type where one is missing."""

from __future__ import annotations

import importlib.util

from imgsortd.config.model import ModelConfig
from imgsortd.config.values import Engine, Precision
from imgsortd.errors import ConfigError
from imgsortd.records import Backbone

_WEB = ("starlette", "uvicorn", "jinja2", "prometheus_client")


def require(package: str, key: str, extra: str, instead: str) -> None:
    """Refuse to go on without an optional package; finding it does not run its code.

    Raises
    ------
    ConfigError
        With the key that needs it, how to install it, and what to set instead.
    """
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{key} needs the package {package}, which is not installed; "
            f"pip install 'imgsortd[{extra}]', or set {instead}"
        )


def require_extras(model: ModelConfig) -> None:
    """Refuse a model whose packages are not all installed.

    Raises
    ------
    ConfigError
        As :func:`require`.
    """
    if model.backbone is Backbone.EFFICIENTNET_LITE0:
        require("timm", "model.backbone: efficientnet_lite0", "lite", "model.backbone: vgg16")
    if model.engine is Engine.OPENVINO:
        require("openvino", "model.engine: openvino", "openvino", "model.engine: torch")
    if model.precision is Precision.INT8:
        require("nncf", "model.precision: int8", "openvino", "model.precision: auto")


def require_web() -> None:
    """Refuse to serve the page where one of its packages is missing.

    Raises
    ------
    ConfigError
        With the package and how to install it.
    """
    for package in _WEB:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"imgsortd web needs the package {package}, which is not installed; "
                f"pip install 'imgsortd[web]'"
            )
