"""config.example.yaml is the code's own words."""

from itertools import pairwise
from pathlib import Path

import yaml

from imgsortd.config import parse_config
from imgsortd.config.model import Config, Section
from imgsortd.config.text import example_yaml

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def keys_of(model: type[Section]) -> dict[str, object]:
    """Return every key of a model as the example has to hold it, with None for each value."""
    return {
        name: keys_of(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        else None
        for name, field in model.model_fields.items()
    }


def without_values(data: dict[str, object]) -> dict[str, object]:
    return {
        key: without_values(value) if isinstance(value, dict) else None
        for key, value in data.items()
    }


def test_the_example_is_what_init_writes() -> None:
    assert EXAMPLE.read_text() == example_yaml(Config)


def test_the_example_loads_and_holds_the_defaults() -> None:
    data = yaml.safe_load(EXAMPLE.read_text())
    least = {key: data[key] for key in ("inbox", "target", "state_dir")}

    assert parse_config(data, EXAMPLE) == parse_config(least, EXAMPLE)


def test_the_example_holds_every_key_in_the_order_of_the_code() -> None:
    data = yaml.safe_load(EXAMPLE.read_text())

    assert without_values(data) == keys_of(Config)
    assert list(data) == list(Config.model_fields)


def test_every_key_is_explained_right_above_its_line() -> None:
    lines = EXAMPLE.read_text().splitlines()

    for above, line in pairwise(lines):
        if line.strip() and not line.strip().startswith("#"):
            assert above.strip().startswith("#") or above == line.partition(":")[0], line


def test_other_folders_are_written_so_that_they_are_read_back(tmp_path: Path) -> None:
    folders = {
        "inbox": f"{tmp_path}/in: box #1",
        "target": f"{tmp_path}/'quoted' \"ziel\"",
        "state_dir": f"{tmp_path}/ständig",
    }

    config = parse_config(yaml.safe_load(example_yaml(Config, folders)), tmp_path / "c.yaml")

    assert {key: str(getattr(config, key)) for key in folders} == folders
