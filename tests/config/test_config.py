"""The configuration is checked whole, and each error says file, key, expected, got, what to do."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgsortd.config import check_nesting, load_config, parse_config
from imgsortd.config.model import Config
from imgsortd.config.values import Polling
from imgsortd.errors import EXIT_CONFIG, ConfigError

LEAST = {"inbox": "inbox", "target": "target", "state_dir": "state"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("inbox", "target"):
        (tmp_path / name).mkdir()
    return tmp_path


def load(folder: Path, text: str = "", **keys: Any) -> Config:
    """Load a file with the least keys, ``keys`` and further YAML ``text``."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**LEAST, **keys}) + text)
    return load_config(file)


def error_of(folder: Path, text: str = "", **keys: Any) -> str:
    """Return the error without the file's path, which each line must begin with."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **keys)
    assert caught.value.exit_code == EXIT_CONFIG == 78
    start = f"{folder / 'config.yaml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(start) for line in lines)
    return "\n".join(line.removeprefix(start) for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "settle_s: -5",
            "settle_s must be seconds from 0 to 3600, got -5; "
            "correct it, or delete the line for the default (2)",
        ),
        (
            "settle_s: 2s",
            "settle_s must be seconds from 0 to 3600, got '2s'; "
            "correct it, or delete the line for the default (2)",
        ),
        (
            "batch: {max_wait_s: 0}",
            "batch.max_wait_s must be seconds above 0, at most 60, got 0; "
            "correct it, or delete the line for the default (0.1)",
        ),
        (
            "clusters: {random_state: true}",
            "clusters.random_state must be a whole number from 0 to 4294967295, got True; "
            "correct it, or delete the line for the default (42)",
        ),
        (
            "clusters: {n_clusters: 2.5}",
            "clusters.n_clusters must be auto or a whole number from 1 to 10000, got 2.5; "
            "correct it, or delete the line for the default (30)",
        ),
        (
            "refit: {interval: 36 hours}",
            "refit.interval must be a duration such as 36h, 7d or 90m (at least 1s), or off, "
            "got '36 hours'; correct it, or delete the line for the default (7d)",
        ),
        (
            "op: delete",
            "op must be move, copy, hardlink or symlink, got 'delete'; "
            "correct it, or delete the line for the default (move)",
        ),
        (
            "batch: 16",
            "batch must be a section of keys, got 16; see config.example.yaml",
        ),
        (
            "extensions: jpg",
            "extensions must be auto or a list of extensions such as [.jpg, .png], got 'jpg'; "
            "write auto, or at least one, in brackets",
        ),
        (
            "clusters: {n_clusters: 500}",
            "clusters.min_images must not be below clusters.n_clusters (500), got 300; "
            "a fit needs a picture for each cluster, ten are better",
        ),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected_and_what_to_do(
    folder: Path, text: str, expected: str
) -> None:
    assert error_of(folder, text) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "backbone: efficientnet_lite0, layer: fc2",
            "model.layer must be pool5 with backbone efficientnet_lite0, got fc2; "
            "fc2 and logits are layers of vgg16",
        ),
        (
            "backbone: efficientnet_lite0, weights: imagenet1k_v1",
            "model.weights must be auto or a file with backbone efficientnet_lite0, got "
            "imagenet1k_v1; that is a set of vgg16's weights",
        ),
        (
            "precision: int8",
            "model.precision int8 needs model.engine: openvino, got torch; "
            "pip install 'imgsortd[openvino]' and set the engine, or take precision auto",
        ),
        (
            "engine: openvino, device: cuda",
            "model.device must be auto or cpu with model.engine: openvino, got cuda; "
            "for a GPU set model.engine: torch",
        ),
        (
            "engine: openvino, precision: fp16",
            "model.precision must be auto, fp32, bf16 or int8 with model.engine: openvino, "
            "got fp16; take auto",
        ),
    ],
)
def test_keys_of_the_model_that_no_engine_has_together_are_refused(
    folder: Path, model: str, expected: str
) -> None:
    assert error_of(folder, f"model: {{{model}}}") == expected


@pytest.mark.parametrize(
    "model",
    [
        "backbone: efficientnet_lite0, layer: pool5, weights: lite.pth",
        "backbone: efficientnet_lite0, engine: openvino, precision: int8",
        "layer: logits, weights: imagenet1k_v1",
        "engine: openvino, precision: int8, device: cpu",
        "engine: openvino, precision: bf16",
        "device: cuda, precision: fp16",
    ],
)
def test_keys_of_the_model_that_go_together_are_taken(folder: Path, model: str) -> None:
    wanted = yaml.safe_load(f"{{{model}}}")

    found = load(folder, f"model: {{{model}}}").model

    wanted.update({"weights": str(folder / "lite.pth")} if "lite.pth" in model else {})
    assert {key: str(getattr(found, key)) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("taget: x", "taget is not a known key; did you mean target?"),
        ("clusters: {n_cluster: 5}", "clusters.n_cluster is not a known key; did you mean "),
        ("n_clusters: 5", "n_clusters is not a known key; did you mean clusters.n_clusters?"),
        ("bach: {max_images: 5}", "bach is not a known key; did you mean batch?"),
        ("pictures: {zoom: 5}", "pictures.zoom is not a known key; known here: pictures.max_"),
        ("1: 5", "1 is not a known key; known here: inbox, target"),
    ],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(
    folder: Path, text: str, expected: str
) -> None:
    assert error_of(folder, text).startswith(expected)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "key", ["settle_s: {}", "refit: {{interval: {}}}", "refit: {{growth: {}}}"]
)
def test_what_is_no_finite_number_is_refused(folder: Path, key: str, value: str) -> None:
    assert "must be" in error_of(folder, key.format(value))


@pytest.mark.parametrize("value", ["yes", "'0.25'", "25 %"])
def test_a_share_is_a_number_or_off(folder: Path, value: str) -> None:
    assert error_of(folder, f"refit: {{growth: {value}}}").startswith("refit.growth must be")


def test_every_wrong_key_has_its_own_line(folder: Path) -> None:
    found = error_of(folder, "rescan_s: 0\nop: x\nzzz: 1\nbatch: {max_images: 0, max_wait_s: 99}")

    assert [line.split()[0] for line in found.splitlines()] == [
        "op",
        "rescan_s",
        "batch.max_images",
        "batch.max_wait_s",
        "zzz",
    ]


def test_a_required_key_that_is_missing_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"target must be .*, got nothing; add a line `target: …"):
        parse_config({"inbox": "inbox", "state_dir": "state"}, folder / "config.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"inbox: [1\n", "is not valid YAML at line 2"),
        (b"inbox: \xff\n", "is not valid YAML (invalid start byte)"),
        (b"inbox: 2024-13-45\n", "is not valid YAML (month must be in 1..12)"),
        (b"", "expected keys such as `inbox: /srv/imgsortd/inbox`, got an empty file"),
        (b"- inbox\n", "got a list; `imgsortd init` writes a file to start from"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    tmp_path: Path, text: bytes, expected: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text)

    with pytest.raises(ConfigError) as caught:
        load_config(file)

    assert str(caught.value).startswith(f"{file}: ")
    assert expected in str(caught.value)


def test_a_missing_file_is_told_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\).*init"):
        load_config(tmp_path / "none.yaml")


def test_bare_on_and_off_mean_the_words_though_yaml_reads_booleans(folder: Path) -> None:
    config = load(folder, "polling: on\nrefit: {interval: off, growth: off}")

    assert config.polling is Polling.ON
    assert config.refit.interval is None
    assert config.refit.growth is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 604_800), ("36h", 129_600), ("90 m", 5400), ("1.5h", 5400), ("30s", 30), ("60", 60)],
)
def test_a_duration_is_read_with_its_unit(folder: Path, text: str, seconds: float) -> None:
    assert load(folder, f"refit: {{interval: {text}}}").refit.interval == seconds


def test_relative_paths_are_relative_to_the_file(folder: Path) -> None:
    config = load(folder, model={"weights": "vgg.safetensors"})

    assert config.inbox == folder / "inbox"
    assert config.database == folder / "state" / "imgsortd.db"
    assert config.model.weights == str(folder / "vgg.safetensors")


@pytest.mark.parametrize("weights", ["auto", "imagenet1k_v1", "/srv/vgg.pth"])
def test_named_weights_and_absolute_paths_stay_as_they_are(folder: Path, weights: str) -> None:
    assert load(folder, model={"weights": weights}).model.weights == weights


def test_a_missing_folder_is_told_with_the_command_that_makes_it(folder: Path) -> None:
    (folder / "target").rmdir()

    assert error_of(folder) == (
        f"target must be an existing folder, got {folder}/target (nothing there); "
        f"make it: mkdir -p '{folder}/target'"
    )


def test_a_file_in_place_of_a_folder_is_told(folder: Path) -> None:
    (folder / "inbox").rmdir()
    (folder / "inbox").touch()

    assert "got " in (found := error_of(folder))
    assert "(a file)" in found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_an_inbox_that_cannot_be_listed_is_told(folder: Path) -> None:
    (folder / "inbox").chmod(0)

    found = error_of(folder)

    (folder / "inbox").chmod(0o700)
    assert "cannot be listed by this user" in found


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"target": "inbox"}, "inbox must not be target or inside it"),
        ({"target": "inbox/sorted"}, "target must not be inbox or inside it"),
        ({"inbox": "target/inbox"}, "inbox must not be target or inside it"),
        ({"state_dir": "inbox/deep/state"}, "state_dir must not be inbox or inside it"),
        ({"target": "link/sorted"}, "target must not be inbox or inside it"),
        ({"state_dir": "link/state"}, "state_dir must not be inbox or inside it"),
    ],
)
def test_folders_must_not_contain_one_another_through_a_symlink_neither(
    folder: Path, keys: dict[str, str], expected: str
) -> None:
    (folder / "link").symlink_to(folder / "inbox")
    for name in ("inbox/sorted", "target/inbox"):
        (folder / name).mkdir()

    assert error_of(folder, **keys).startswith(expected)


def test_folders_whose_names_only_begin_alike_are_side_by_side(folder: Path) -> None:
    (folder / "inbox-sorted").mkdir()

    config = load(folder, target="inbox-sorted")

    check_nesting(config, "here")
