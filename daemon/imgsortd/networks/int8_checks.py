"""What came of checking an int8 model: a JSON file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from imgsortd.system.filesystem import write_atomically


@dataclass(frozen=True, slots=True)
class Int8Check:
    """What came of comparing int8 with float32 on held-out pictures.

    Attributes
    ----------
    agreement
        Share (0 to 1) of the pictures whose nearest cluster is the same.
    min_cosine
        Of the two features of a picture, the lowest.
    engine
        Version and CPU that it holds for.
    """

    agreement: float
    min_cosine: float
    n_images: int
    passed: bool
    engine: str


def keep_check(model_file: Path, check: Int8Check) -> None:
    """Write a check beside its model, which need not be there."""
    write_atomically(
        model_file.with_suffix(".json"), [json.dumps(asdict(check)).encode()], shared=True
    )


def read_check(model_file: Path) -> Int8Check | None:
    """Return the check of a model, or None where there is none that can be read."""
    try:
        text = model_file.with_suffix(".json").read_text(encoding="utf-8")
        return Int8Check(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def newest_check(folder: Path) -> Int8Check | None:
    """Return the check that was made last in a folder."""
    files = sorted(folder.glob("int8-*.json"), key=lambda path: path.stat().st_mtime)
    return read_check(files[-1]) if files else None
