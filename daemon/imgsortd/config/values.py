"""The values that keys of the configuration take, and how YAML's are read."""

from __future__ import annotations

import math
import os
import re
from enum import StrEnum
from pathlib import Path

from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\]")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Polling(StrEnum):
    """Whether events or repeated listing find new files."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Engine(StrEnum):
    """What computes the model."""

    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """The arithmetic the model runs in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class LogLevel(StrEnum):
    """The least important line that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def on_off(value: object) -> object:
    """YAML 1.1 reads a bare ``on`` and ``off`` as booleans; give the words back."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def duration_s(value: object) -> object:
    """Read ``36h``, ``90 m``, ``off`` or a number of seconds; seconds or None come out."""
    if value is False or value == "off" or value is None:
        return None
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        value = float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise PydanticCustomError("duration", "not a duration")


def duration_not_off(value: object) -> object:
    """Read a duration that there must be, in seconds."""
    seconds = duration_s(value)
    if seconds is None:
        raise PydanticCustomError("duration", "not a duration")
    return seconds


def number_or_off(value: object) -> object:
    """Read ``off`` as None, anything else as :func:`number` does."""
    return None if value is False or value == "off" or value is None else number(value)


def number(value: object) -> object:
    """Refuse booleans and numbers written as text: ``"5 s"`` is a wrong unit, not a 5."""
    if isinstance(value, (bool, str)):
        raise PydanticCustomError("number", "not a number")
    return value


def path(value: object) -> object:
    """Read a path with ``~`` and ``$VARIABLES``."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise PydanticCustomError("path", "not a path")
    return Path(os.path.expandvars(value)).expanduser()


def path_or_off(value: object) -> object:
    """Read ``off`` as None, anything else as :func:`path` does."""
    return None if value is False or value == "off" or value is None else path(value)


def host_name(value: object) -> object:
    """Read a host name or an address, without scheme or port, in lower case."""
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise PydanticCustomError("host", "not a host name")
    return value.lower()
