"""The configuration in words: the commented example, and errors that say what to do."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_EXAMPLE_FOLDERS = {
    "inbox": "/srv/imgsortd/inbox",
    "target": "/srv/imgsortd/target",
    "state_dir": "/var/lib/imgsortd",
}
_HEAD = """\
# imgsortd: an image inbox that sorts itself.
# Every key is here with its meaning, unit, range and default; a key that is left
# out has its default. Check a changed file:  imgsortd check-config -c config.yaml
# A running daemon reads it again on SIGHUP (systemctl reload imgsortd).

"""


def explain(model: type[BaseModel], error: ValidationError, path: Path) -> list[str]:
    """Turn pydantic's findings into one line a key: file, key, expected, got, what to do."""
    lines = []
    for finding in error.errors(include_url=False):
        where = [str(part) for part in finding["loc"]]
        while where and _field(model, where) is None and finding["type"] != "extra_forbidden":
            where.pop()  # union branches and list positions are not keys
        key = ".".join(where)
        if finding["type"] == "invalid_key":  # a number, or a bare on, which YAML reads as true
            lines.append(f"{path}: {finding['input']!r} is not a known key{_hint(model, [''])}")
        elif finding["type"] == "extra_forbidden":
            lines.append(f"{path}: {key} is not a known key{_hint(model, where)}")
        else:
            lines.append(_wrong_value(path, key, _field(model, where), finding))
    return list(dict.fromkeys(lines))


def _wrong_value(path: Path, key: str, field: FieldInfo | None, finding: Mapping[str, Any]) -> str:
    if field is None or not _expected(field):
        got = finding["input"]
        return f"{path}: {key} must be a section of keys, got {got!r}; see config.example.yaml"
    expected = _expected(field)
    if finding["type"] == "missing":
        return f"{path}: {key} must be {expected}, got nothing; add a line `{key}: …`"
    if field.is_required():
        remedy = "correct it"
    else:
        remedy = (
            f"correct it, or delete the line for the default ({yaml_value(field.default, key)})"
        )
    return f"{path}: {key} must be {expected}, got {finding['input']!r}; {remedy}"


def _expected(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["expected"]) if isinstance(extra, dict) and "expected" in extra else ""


def _field(model: type[BaseModel], where: list[str]) -> FieldInfo | None:
    field: FieldInfo | None = None
    for part in where:
        field = model.model_fields.get(part) if model else None
        if field is None:
            return None
        model = _section(field)  # type: ignore[assignment]
    return field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _hint(model: type[BaseModel], where: list[str]) -> str:
    keys = list(_keys(model))
    sections = dict.fromkeys(key.partition(".")[0] for key in keys if "." in key)
    known = [*keys, *sections] if len(where) == 1 else keys
    key = ".".join(where)
    close = [name for name in known if name.rsplit(".", 1)[-1] == where[-1]][:1]
    close = close or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    section = ".".join(where[:-1])
    here = [name for name in known if name.rpartition(".")[0] == section]
    return f"; known here: {', '.join(here)}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = _section(field)
        if section:
            yield from _keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def yaml_value(value: object, key: str) -> str:
    """Write a default as it stands in YAML; durations come out as ``7d`` or ``90m``."""
    if value is None:
        return "off"
    if key.endswith(("interval", "wait_most")) and isinstance(value, float):
        for unit, seconds in (("d", 86_400), ("h", 3600), ("m", 60)):
            if value % seconds == 0:
                return f"{int(value // seconds)}{unit}"
        return f"{value:g}s"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return json.dumps(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def example_yaml(model: type[BaseModel], folders: Mapping[str, str] | None = None) -> str:
    """Write the commented configuration: every key with unit, range and default.

    Parameters
    ----------
    folders
        Values for ``inbox``, ``target`` and ``state_dir``.
    """
    values = {**_EXAMPLE_FOLDERS, **(folders or {})}
    return _HEAD + "".join(_example_section(model, "", values)).rstrip("\n") + "\n"


def _example_section(model: type[BaseModel], indent: str, values: Mapping[str, str]) -> list[str]:
    out = []
    for name, field in model.model_fields.items():
        section = _section(field)
        if section:
            out.append(f"# {(section.__doc__ or '').strip()}\n{name}:\n")
            out.extend([*_example_section(section, "  ", {}), "\n"])
            continue
        required = field.is_required()
        value = json.dumps(values[name]) if required else yaml_value(field.default, name)
        default = "required" if required else f"default {value}"
        comment = f"{field.description} ({_expected(field)}; {default})"
        for line in textwrap.wrap(comment, 88 - len(indent), break_long_words=False):
            out.append(f"{indent}# {line}\n")
        out.append(f"{indent}{name}: {value}\n")
        if not indent:
            out.append("\n")
    return out
