"""OpenVINO gives torch's features; int8 is made of pictures; nothing is sent anywhere."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imgsortd.config.values import Precision
from imgsortd.errors import EXIT_CONFIG, ConfigError
from imgsortd.networks.network import Network
from imgsortd.records import Pixels, Vectors
from made_once import made_once
from networks import small_network
from photographs import bundled_paths, caltech_paths, cosines, look_at

pytest.importorskip("openvino", reason="the extra openvino is not installed")

from imgsortd.networks import openvino_engine
from imgsortd.networks.openvino_engine import OpenVinoExtractor

needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="nncf (the extra: openvino) is not installed"
)


def has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def noise(count: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module", autouse=True)
def converted_once() -> Iterator[None]:
    """Convert each network once: what is made of it by OpenVINO is only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_engine, "_convert", functools.cache(openvino_engine._convert))
        yield


@pytest.fixture(scope="module")
def small() -> Network:
    """Return the same small network to all tests, so that it is converted once."""
    return small_network()


@pytest.fixture(scope="module")
def small_exact(small: Network) -> OpenVinoExtractor:
    """Return the small network in float32."""
    return OpenVinoExtractor(small, Precision.FP32, 2)


@pytest.fixture(scope="module")
def exact(vgg16: Network) -> OpenVinoExtractor:
    """Return real VGG16 in float32."""
    return OpenVinoExtractor(vgg16, Precision.FP32, 2)


@pytest.fixture(scope="module")
def int8(exact: OpenVinoExtractor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder with real VGG16's int8 model, made of 12 pictures, and its file."""
    pytest.importorskip("nncf", reason="nncf (the extra: openvino) is not installed")

    def make(folder: Path) -> None:
        exact.make_int8(look_at(bundled_paths()[6:]), exact.int8_file(folder))

    folder = made_once(tmp_path_factory, "vgg16-int8", make)
    return folder, exact.int8_file(folder)


@pytest.fixture(scope="module")
def made(small_exact: OpenVinoExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the int8 file of the small network, made once."""
    pytest.importorskip("nncf", reason="nncf (the extra: openvino) is not installed")

    def make(folder: Path) -> None:
        small_exact.make_int8(noise(4), small_exact.int8_file(folder))

    return small_exact.int8_file(made_once(tmp_path_factory, "small-int8", make))


@pytest.fixture
def small_int8(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the small network's int8 file, in ``tmp_path``."""
    for file in (made, made.with_suffix(".bin")):
        shutil.copy(file, tmp_path)
    return tmp_path / made.name


# --- float32 and bf16 -----------------------------------------------------------------


def test_float32_gives_the_features_of_torch(
    exact: OpenVinoExtractor, photographs: list[Pixels], vgg16_features: Vectors
) -> None:
    ours = exact.extract(photographs)

    assert exact.describe() == "vgg16 openvino cpu fp32"
    assert ours.shape == vgg16_features.shape
    assert ours.dtype == np.float32
    assert cosines(ours, vgg16_features).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)


@pytest.mark.faults
def test_efficientnet_lite0_gives_the_features_of_torch(
    lite0: Network, photographs: list[Pixels]
) -> None:
    import torch

    from imgsortd.networks.torch_engine import Arithmetic, TorchExtractor

    expected = TorchExtractor(lite0, torch.device("cpu"), Arithmetic(Precision.FP32))

    ours = OpenVinoExtractor(lite0, Precision.FP32, 2).extract(photographs[:3])

    assert cosines(ours, expected.extract(photographs[:3])).min() > 0.9999


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_any_number_of_pictures_gives_as_many_rows_in_order(
    count: int, small_exact: OpenVinoExtractor
) -> None:
    pictures = noise(count)

    together = small_exact.extract(pictures)

    alone = [small_exact.extract([picture])[0] for picture in pictures]
    assert together.shape == (count, 16)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, np.reshape(alone, (count, 16)), atol=1e-6)


@pytest.mark.skipif(has_bf16(), reason="this CPU has bf16")
def test_bf16_on_a_cpu_without_it_is_told_with_what_to_do(small: Network) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenVinoExtractor(small, Precision.BF16, 2)

    assert caught.value.exit_code == EXIT_CONFIG
    assert str(caught.value) == (
        "model.precision must be auto, fp32 or int8 with model.engine: openvino on this CPU, "
        "got bf16; it has no instructions for bf16, take auto"
    )
    assert OpenVinoExtractor(small, Precision.AUTO, 2).describe().endswith("cpu fp32")


@pytest.mark.faults
@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bf16")
def test_bf16_keeps_the_direction_of_the_features(
    vgg16: Network, photographs: list[Pixels], vgg16_features: Vectors
) -> None:
    extractor = OpenVinoExtractor(vgg16, Precision.AUTO, 2)

    assert extractor.describe() == "vgg16 openvino cpu bf16"
    assert cosines(extractor.extract(photographs), vgg16_features).min() >= 0.999
    assert cosines(extractor.extract_exactly(photographs), vgg16_features).min() > 0.9999


# --- int8; VGG16's is made in half a minute of both CPUs ------------------------------


@pytest.mark.faults
def test_int8_keeps_the_direction_of_the_features_of_other_pictures(
    int8: tuple[Path, Path],
    exact: OpenVinoExtractor,
    photographs: list[Pixels],
    vgg16_features: Vectors,
) -> None:
    _, path = int8
    exact_now = exact.extract(photographs)

    ours = exact.extract_int8(path, photographs)

    assert 0.99 <= cosines(ours, vgg16_features).min() < 0.99999  # int8 was indeed used
    np.testing.assert_array_equal(exact.extract(photographs), exact_now)  # and is not in use


@pytest.mark.faults
def test_int8_keeps_the_direction_of_the_features_of_photographs_of_other_kinds(
    int8: tuple[Path, Path], exact: OpenVinoExtractor
) -> None:
    names = ("Faces", "airplanes", "bonsai", "umbrella")
    pictures = look_at([path for name in names for path in caltech_paths(name, 1)])

    ours = exact.extract_int8(int8[1], pictures)

    assert cosines(ours, exact.extract(pictures)).min() >= 0.99


@pytest.mark.faults
def test_a_checked_int8_model_is_used_from_the_start_and_says_so(
    int8: tuple[Path, Path], vgg16: Network, photographs: list[Pixels]
) -> None:
    folder, path = int8

    extractor = OpenVinoExtractor(vgg16, Precision.INT8, 2, folder)

    assert extractor.describe() == "vgg16 openvino cpu int8"
    pictures = photographs[:2]
    np.testing.assert_allclose(
        extractor.extract(pictures), extractor.extract_int8(path, pictures), atol=1e-6
    )
    exactly = extractor.extract_exactly(pictures)
    assert np.abs(exactly - extractor.extract(pictures)).max() > 1e-5


@pytest.mark.faults
def test_an_int8_model_is_two_files_and_nothing_half_made(int8: tuple[Path, Path]) -> None:
    folder, path = int8

    assert sorted(os.listdir(folder)) == sorted([path.name, path.with_suffix(".bin").name])
    assert path.name.startswith("int8-vgg16-")


def test_another_precision_does_not_look_for_an_int8_model(
    small: Network, small_int8: Path
) -> None:
    extractor = OpenVinoExtractor(small, Precision.FP32, 2, small_int8.parent)

    assert extractor.describe() == "vgg16 openvino cpu fp32"


def test_switching_to_int8_changes_what_it_says(small: Network, small_int8: Path) -> None:
    extractor = OpenVinoExtractor(small, Precision.INT8, 2)
    before = extractor.describe()

    extractor.use_int8(small_int8)

    assert before != extractor.describe() == "vgg16 openvino cpu int8"
    assert extractor.extract(noise(3)).shape == (3, 16)


@pytest.mark.parametrize("damage", ["no bin", "cut bin", "empty bin", "cut xml", "text"])
def test_a_damaged_int8_model_does_not_stop_the_start(
    damage: str, small: Network, small_int8: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = small_int8.with_suffix(".bin")
    if damage == "no bin":
        weights.unlink()
    elif damage.endswith("bin"):
        weights.write_bytes(weights.read_bytes()[: 100 if damage == "cut bin" else 0])
    else:
        text = small_int8.read_text()
        small_int8.write_text(text[: len(text) // 2] if damage == "cut xml" else "not a model")

    extractor = OpenVinoExtractor(small, Precision.INT8, 2, small_int8.parent)

    assert extractor.precision is not Precision.INT8
    assert extractor.extract(noise(2)).shape == (2, 16)
    assert caplog.messages[0].startswith(f"int8 model not used path={small_int8} reason=")


def test_without_an_int8_model_the_start_says_nothing_of_it(
    small: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extractor = OpenVinoExtractor(small, Precision.INT8, 2, tmp_path)

    assert extractor.precision is not Precision.INT8
    assert not caplog.messages


def test_a_missing_int8_model_leaves_the_model_in_use(small: Network, tmp_path: Path) -> None:
    extractor = OpenVinoExtractor(small, Precision.FP32, 2)

    with pytest.raises(FileNotFoundError):
        extractor.use_int8(tmp_path / "none.xml")

    assert extractor.describe() == "vgg16 openvino cpu fp32"
    assert extractor.extract(noise(1)).shape == (1, 16)


@needs_nncf
def test_a_model_that_cannot_be_written_leaves_no_files(
    small_exact: OpenVinoExtractor, tmp_path: Path
) -> None:
    path = tmp_path / "int8.xml"
    path.write_text("an older one")
    path.with_suffix(".bin").mkdir()  # in the way

    with pytest.raises(OSError, match="directory"):
        small_exact.make_int8(noise(4), path)

    assert os.listdir(tmp_path) == ["int8.bin"]  # no .xml that would go with another .bin


# --- nothing is sent anywhere, nor written to the terminal ------------------------------

SENDS_NOTHING = """
import socket, sys
tried = []
def refuse(*args, **_):
    tried.append(args)
    raise OSError("no network in this test")
for name in ("connect", "connect_ex", "sendto", "sendmsg"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
import numpy as np
from pathlib import Path
from imgsortd.config.values import Precision
from imgsortd.networks.openvino_engine import OpenVinoExtractor
from networks import small_network
extractor = OpenVinoExtractor(small_network(), Precision.FP32, 1)
pixels = [np.full((224, 224, 3), value, dtype=np.uint8) for value in (0, 99, 255)]
extractor.make_int8(pixels, Path(sys.argv[1]))
extractor.use_int8(Path(sys.argv[1]))
extractor.extract(pixels)
assert "nncf" in sys.modules
assert sys.modules["openvino_telemetry"] is None
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
assert not tried, tried
"""


@needs_nncf
def test_converting_and_quantising_sends_and_says_nothing_and_keeps_nothing_at_home(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD")}
    paths = os.pathsep.join(path for path in sys.path if path)

    done = subprocess.run(
        [sys.executable, "-c", SENDS_NOTHING, tmp_path / "int8.xml"],
        env={**environ, "HOME": str(home), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not [path for path in home.rglob("*") if "telemetry" in str(path).lower()]
    assert not [path for path in home.rglob("*") if path.name == "openvino_ga_cid"]
