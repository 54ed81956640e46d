"""The command line of ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.subject import BACKBONES, ENGINES, PRECISIONS, subjects_of
from benchmarks.targets import Kind
from imgsortd.config_model import NAMED_WEIGHTS

KINDS = {"photos": Kind.PHOTOS, "cameras": Kind.CAMERAS}


class Section(StrEnum):
    """What ``--only`` chooses from."""

    PREPARE = "prepare"
    THROUGHPUT = "throughput"
    MODEL = "model"
    LATENCY = "latency"
    MEMORY = "memory"
    REFIT = "refit"
    QUALITY = "quality"


def choice_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of comma lists such as ``vgg16,efficientnet_lite0``."""

    def read(text: str) -> list[str]:
        values = [value.strip() for value in text.split(",")]
        for value in values:
            if value not in choices:
                raise argparse.ArgumentTypeError(f"expected {', '.join(choices)}, got {value!r}")
        return values

    return read


def counts(text: str) -> list[int]:
    """Read a comma list of counts such as ``10000,100000``."""
    try:
        values = [int(value) for value in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1000:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers from 1000, with commas between them, got {text!r}"
        )
    return values


def folder(text: str) -> Path:
    """Read the path of an existing folder."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected an existing folder, got {text!r}")
    return path


def weights(text: str) -> str:
    """Read a name of weights, or the path of a file."""
    return text if text in NAMED_WEIGHTS else str(file(text).resolve())


def file(text: str) -> Path:
    """Read the path of an existing file."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"expected an existing file, got {text!r}")
    return path


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``subjects`` and ``sections`` are put together from it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.images < 8 or options.rounds < 1 or options.drops < 1:
        parser.error("--images must be 8 or more, --rounds and --drops 1 or more")
    if options.burst is None:
        options.burst = options.images
    if options.burst < 1 or options.rest < 0:
        parser.error("--burst must be 1 or more, --rest 0 or more")
    backbones = _flat(options.backbone) or [BACKBONES[0]]
    engines = _flat(options.engine) or [ENGINES[0]]
    precisions = _flat(options.precision) or [PRECISIONS[0]]
    options.subjects = subjects_of(backbones, engines, precisions, options.weights)
    if not options.subjects:
        parser.error(
            f"{', '.join(engines)} cannot compute in {', '.join(precisions)}; "
            f"int8 needs --engine openvino"
        )
    options.kinds = [KINDS[name] for name in _flat(options.kinds) or KINDS]
    options.sections = [Section(name) for name in _flat(options.only)] or list(Section)
    return options


def _flat(lists: list[list[str]] | None) -> list[str]:
    """Put repeated comma lists together, each value once."""
    return list(dict.fromkeys(value for values in lists or [] for value in values))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure against the article's script and the targets. Lists are written "
        "with commas, and an option with a list may be repeated.",
        allow_abbrev=False,
    )
    _add_pictures(parser)
    _add_extent(parser)
    _add_models(parser)
    add = parser.add_argument
    add("--work", type=Path, metavar="DIR", help="where the work is done; default: build/")
    add("--json", type=Path, metavar="FILE", help="default: bench-DATE.json")
    return parser


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("pictures").add_argument
    add("--photos", type=folder, metavar="DIR", help="500-px photographs; default: made ones")
    add("--cameras", type=folder, metavar="DIR", help="JPEGs of 8-12 megapixels; default: made")
    add("--labelled", type=folder, metavar="DIR", help="class folders, for quality")


def _add_extent(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("extent").add_argument
    sections, kinds = tuple(Section), tuple(KINDS)
    add("--only", type=choice_of(sections), action="append", metavar="LIST", help=_of(sections))
    add("--kinds", type=choice_of(kinds), action="append", metavar="LIST", help=_of(kinds))
    add("--images", type=int, default=96, help="photographs; half as many camera files (96)")
    add("--rounds", type=int, default=3, help="times that each job is done, in turns (3)")
    add("--drops", type=int, default=20, help="single files dropped for the latency (20)")
    add("--burst", type=int, help="files dropped at once; default: as --images")
    add("--rest", type=float, default=45, metavar="S", help="until the daemon is at rest (45)")
    add(
        "--refit-sizes",
        type=counts,
        default=[10_000, 100_000, 1_000_000],
        metavar="LIST",
        help="stored features to refit (10000,100000,1000000)",
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("models").add_argument
    lists = (("--backbone", BACKBONES), ("--engine", ENGINES), ("--precision", PRECISIONS))
    for name, choices in lists:
        reader = choice_of(choices)
        add(name, type=reader, action="append", metavar="LIST", help=_of(choices))
    add(
        "--weights",
        type=weights,
        default="auto",
        help="imgsortd's model.weights for vgg16: auto, imagenet1k_v1 or a file",
    )
    add(
        "--article-weights",
        type=file,
        metavar="PTH",
        help="vgg16-397923af.pth for the article's script; random if not given",
    )


def _of(choices: Sequence[str]) -> str:
    return ", ".join(choices)


def plain(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options as plain values for JSON."""
    values = vars(options) | {"subjects": [subject.name for subject in options.subjects]}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }
