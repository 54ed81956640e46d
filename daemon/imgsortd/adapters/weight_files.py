"""VGG16 tensors out of .pth, .safetensors and .onnx files, and what makes them fit for use.

Files are read as plain tensors, never as objects that could run code.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from imgsortd.core.records import Layer
from imgsortd.errors import WeightsError

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "dict[str, torch.Tensor]"
"""float32 on the CPU, under the names of torchvision's ``vgg16().state_dict()``."""

SUFFIXES = (".pth", ".pt", ".safetensors")
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


def load_tensors(path: Path, layer: Layer) -> Tensors:
    """Read and check the tensors that ``layer`` needs: convolutions, or all with the classifier.

    Returns
    -------
    dict of str to torch.Tensor
        26 tensors for pool5, 32 otherwise; contiguous copies, free of the file.

    Raises
    ------
    WeightsError
        Unreadable, damaged, not a VGG16 state dict, or a tensor missing, of another
        shape, or with NaN.
    """
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
    raw = _read(path)
    if not isinstance(raw, Mapping):
        raise _unfit(path, "a state dict (names to tensors)", type(raw).__name__)
    return raw


def digest_tensors(tensors: Tensors, layer: Layer) -> str:
    """Return the SHA-256 (hex) over the tensors that ``layer`` uses.

    Of each, sorted by name: name, dtype, shape and little-endian bytes. The file they
    came from leaves no trace in it.
    """
    names = set(conv_shapes())
    if layer is not Layer.POOL5:
        names |= set(_CLASSIFIER)
    if layer is Layer.FC2:
        names -= set(_BEYOND_FC2)
    return digest_of({name: tensors[name] for name in names})


def digest_of(tensors: Tensors) -> str:
    """Return the SHA-256 (hex) over all of these, as float32, whatever their order."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].numpy().astype("<f4", copy=False)
        sha.update(f"{name} float32 {array.shape}\n".encode())
        sha.update(array.data)
    return sha.hexdigest()


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that is there whole, or not at all, also after a power cut."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
    try:
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
    except OSError as error:
        raise _unfit(path, "a readable file", str(error.strerror or error)) from error
    # What a damaged file raises depends on the damaged byte: UnpicklingError, EOFError,
    # RuntimeError, KeyError, UnicodeDecodeError ... and torch's own text advises to
    # read it unsafely, so it is not passed on.
    except Exception as error:
        got = f"{type(error).__name__} after reading {path.stat().st_size} bytes"
        raise _unfit(path, "a whole file of plain tensors", got) from error


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


_USE_FULL = "set layer: pool5, or model.weights: imagenet1k_v1"
_REPLACE = "replace it by the state dict of torchvision's vgg16, or fetch it again"


def _unfit(path: Path, expected: str, got: str, remedy: str = _REPLACE) -> WeightsError:
    return WeightsError(f"{path}: expected {expected}, got {got}; {remedy}")
