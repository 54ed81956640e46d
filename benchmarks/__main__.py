"""``python -m benchmarks``: measure, print a table with the targets, write JSON."""

from __future__ import annotations

import signal
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import daemon, quality, refit, throughput
from benchmarks.figures import Part, finish
from benchmarks.models import BACKBONES, ENGINES, PRECISIONS, prepare, subjects_of, use_cache
from benchmarks.pictures import Kind
from benchmarks.processes import ROOT
from imgsortd.config.model import NAMED_WEIGHTS

_KINDS = {"photos": Kind.PHOTOS, "cameras": Kind.CAMERAS}
_SECTIONS: dict[str, Callable[[Namespace, Path], list[Part]]] = {
    "prepare": lambda _options, _work: [],  # done first, whatever else is measured
    "throughput": throughput.measure,
    "latency": daemon.measure_latency,
    "memory": daemon.measure_memory,
    "refit": refit.measure,
    "quality": quality.measure_section,
}


def _choice_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of comma lists such as ``vgg16,efficientnet_lite0``."""

    def read(text: str) -> list[str]:
        values = [value.strip() for value in text.split(",")]
        for value in values:
            if value not in choices:
                raise ArgumentTypeError(f"expected {', '.join(choices)}, got {value!r}")
        return values

    return read


def _from(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers that are no less."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return int(text)

    return read


def _counts(text: str) -> list[int]:
    return [_from(1000)(value) for value in text.split(",")]


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise ArgumentTypeError(f"expected an existing folder, got {text!r}")
    return Path(text)


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ArgumentTypeError(f"expected an existing file, got {text!r}")
    return str(Path(text).resolve())


def _weights(text: str) -> str:
    return text if text in NAMED_WEIGHTS else _file(text)


def parse_options(arguments: Sequence[str] | None = None) -> Namespace:
    """Read the command line; ``subjects``, ``kinds`` and ``only`` are put together from it."""
    text = "Measure against the article's script and the targets. Lists are written with commas."
    parser = ArgumentParser("python -m benchmarks", description=text, allow_abbrev=False)
    add = parser.add_argument
    add("--photos", type=_folder, metavar="DIR", help="500-px photographs; default: made ones")
    add("--cameras", type=_folder, metavar="DIR", help="JPEGs of 8-12 megapixels; default: made")
    add("--labelled", type=_folder, metavar="DIR", help="class folders, for quality")
    lists = {"--only": tuple(_SECTIONS), "--kinds": tuple(_KINDS), "--backbone": BACKBONES}
    for name, choices in (lists | {"--engine": ENGINES, "--precision": PRECISIONS}).items():
        reader, text = _choice_of(choices), ", ".join(choices)
        add(name, type=reader, action="extend", metavar="LIST", help=text)
    add("--images", type=_from(8), default=96, help="photographs; half as many camera files (96)")
    add("--rounds", type=_from(1), default=3, help="times that each job is done, in turns (3)")
    add("--drops", type=_from(1), default=20, help="single files dropped for the latency (20)")
    add("--burst", type=_from(1), help="files dropped at once; default: as --images")
    add("--rest", type=_from(0), default=45, metavar="S", help="until the daemon is at rest (45)")
    sizes, text = [10_000, 100_000, 1_000_000], "stored features (10000,100000,1000000)"
    add("--refit-sizes", type=_counts, default=sizes, metavar="LIST", help=text)
    text = "imgsortd's model.weights for vgg16: auto, imagenet1k_v1 or a file"
    add("--weights", type=_weights, default="auto", help=text)
    text = "vgg16-397923af.pth for the article's script; random if not given"
    add("--article-weights", type=_file, metavar="PTH", help=text)
    add("--work", type=Path, metavar="DIR", help="where the work is done; default: build/")
    add("--json", type=Path, metavar="FILE", help="default: bench-DATE.json")
    options = parser.parse_args(arguments)
    options.burst = options.burst or options.images
    engines, precisions = options.engine or ENGINES[:1], options.precision or PRECISIONS[:1]
    backbones = options.backbone or BACKBONES[:1]
    options.subjects = subjects_of(backbones, engines, precisions, options.weights)
    if not options.subjects:
        text = f"{', '.join(engines)} cannot compute in {', '.join(precisions)}"
        parser.error(f"{text}; int8 needs --engine openvino")
    options.kinds = [_KINDS[name] for name in dict.fromkeys(options.kinds or _KINDS)]
    options.only = list(dict.fromkeys(options.only or _SECTIONS))
    return options


def main() -> None:
    """Measure the chosen sections, one after another, with nothing beside them, and report."""
    # Stopped from outside it must still end its daemon and clear its work folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    options, parts = parse_options(), []
    # On a disk as a person's pictures are, not in /tmp, which is often memory.
    parent = (options.work or ROOT / "build").resolve()
    use_cache(parent / "cache")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as work:
        if options.only != ["refit"]:
            parts += prepare(options, Path(work))
        for section in options.only:
            folder = Path(work) / section
            folder.mkdir()
            parts += _SECTIONS[section](options, folder)
    finish(parts, vars(options), options.json, "bench")


if __name__ == "__main__":
    main()
