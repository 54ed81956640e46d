"""What a second start finds: weights, calibration, and int8 models that were checked.

It lies in a folder beside the work folders, which stays for the next run of the benchmark;
nothing of the user's own cache is touched. Run as ``python -m benchmarks.prepare PHOTOS …``
it does for one subject what imgsortd does at its first start, and prints JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Part, Unit
from benchmarks.machine import cpu_model
from benchmarks.pictures import PictureSet, find_pictures, picture_paths
from benchmarks.processes import run_module
from benchmarks.subject import Subject, add_subject, model_config
from benchmarks.targets import AGREEMENT_TARGET
from imgsortd.adapters.weight_sources import RELEASES, default_cache_dir
from imgsortd.int8 import TRIAL_IMAGES
from imgsortd.sort_job import PICTURES_A_CLUSTER

_CACHE_VARIABLE = "IMGSORTD_CACHE_DIR"
_DECIDES = ("torch", "openvino", "nncf")
_KEPT = ("calibration.json", "int8-*")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The subjects that can be measured, and what was found on the way to them."""

    subjects: list[Subject]
    parts: list[Part]


def use_cache(folder: Path) -> None:
    """Let all processes keep their cache in ``folder``, with a copy of the weights there are."""
    users = default_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for release in RELEASES.values():
        source, copy = users / release.cache_name, folder / release.cache_name
        if source.is_file() and not copy.exists():
            part = copy.with_suffix(".part")
            shutil.copyfile(source, part)
            part.replace(copy)
    os.environ[_CACHE_VARIABLE] = str(folder)


def keep_in(state_dir: Path) -> None:
    """Copy calibration and int8 models where a daemon looks for them: as at its second start."""
    for pattern in _KEPT:
        for file in default_cache_dir().glob(pattern):
            shutil.copyfile(file, state_dir / file.name)


def prepare(
    subjects: Sequence[Subject],
    photos: Path | None,
    make: Callable[[int], PictureSet],
    say: Callable[[str], None],
) -> Prepared:
    """Prepare each subject; leave out int8 where it cannot be checked or did not pass.

    Parameters
    ----------
    photos
        The photographs given; None: made ones.
    make
        Gathers so many of them.
    """
    done = Prepared([], [])
    pictures: PictureSet | None = None
    for subject in subjects:
        part = Part(f"int8, {subject.name}")
        arguments = subject.arguments
        if subject.is_int8:
            found = TRIAL_IMAGES if photos is None else len(find_pictures(photos))
            if found < TRIAL_IMAGES:
                part.notes.append(
                    f"skipped: int8 is made and checked on {TRIAL_IMAGES} photographs, "
                    f"{photos} has {found}"
                )
                done.parts.append(part)
                say(f"{part.name}: {part.notes[0]}")
                continue
            pictures = pictures or make(TRIAL_IMAGES)
            arguments = [*arguments, "--pictures", str(pictures.folder)]
        values = _first_start(subject, arguments, say)
        if subject.is_int8:
            summarise(part, values)
            done.parts.append(part)
            if not values["check"]["passed"]:
                continue
        done.subjects.append(subject)
    return done


def _first_start(
    subject: Subject, arguments: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Do it in a process of its own; in later runs return what was found then."""
    versions = {name: version(name) for name in _DECIDES if find_spec(name)}
    conditions = json.dumps([asdict(subject), versions, cpu_model(), len(os.sched_getaffinity(0))])
    digest = hashlib.sha256(conditions.encode()).hexdigest()[:16]
    kept = default_cache_dir() / f"first-start-{digest}.json"
    if not kept.exists():
        say(f"first start, {subject.name}")
        kept.write_text(json.dumps(run_module("benchmarks.prepare", *arguments).values))
    values: dict[str, Any] = json.loads(kept.read_text())
    return values


def summarise(part: Part, values: dict[str, Any]) -> None:
    """Turn what was printed about an int8 model into figures."""
    check = values["check"]
    agreement = check["agreement"]
    part.figures = [
        Figure("int8 and fp32 choose the same cluster", agreement, Unit.SHARE, None, None,
               AGREEMENT_TARGET),
        Figure("lowest cosine of int8 and fp32", check["min_cosine"], Unit.INDEX),
    ]  # fmt: skip
    if values["made_s"] is not None:
        part.figures.append(Figure("to make and check it", values["made_s"], Unit.SECONDS))
    part.notes.append(f"checked on {check['n_images']} held-out pictures, {check['engine']}")
    if not check["passed"]:
        part.notes.append("it did not pass, so imgsortd does not compute in int8: not measured")
    part.raw = values


def main() -> None:
    """Build the model once, with int8 if asked for, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare")
    parser.add_argument("--pictures", type=Path)
    add_subject(parser)
    options = parser.parse_args()
    from imgsortd.adapters.features import build_extractor

    started = time.perf_counter()
    extractor = build_extractor(model_config(options), default_cache_dir())
    values: dict[str, Any] = {"build_s": time.perf_counter() - started}
    if options.pictures is not None:
        values |= _int8(extractor, options.pictures)
    print(json.dumps({**values, "runs_on": extractor.describe()}))


def _int8(extractor: Any, folder: Path) -> dict[str, Any]:
    """Make and check an int8 model as ``sort`` does, unless an earlier run has."""
    from imgsortd.adapters.images import decode
    from imgsortd.adapters.int8_checks import read_check
    from imgsortd.adapters.kmeans import fit_kmeans
    from imgsortd.int8 import make_and_check, openvino_of

    engine = openvino_of(extractor)
    if engine is None:
        raise SystemExit(f"expected OpenVINO, got {extractor.describe()}")
    file, made_s = engine.int8_file(default_cache_dir()), None
    check = read_check(file)
    if check is None:
        pixels = [decode(path.read_bytes()) for path in picture_paths(folder)[:TRIAL_IMAGES]]
        started = time.perf_counter()
        exact = engine.extract_exactly(pixels)
        centers = fit_kmeans(exact, TRIAL_IMAGES // PICTURES_A_CLUSTER, random_state=42).centers
        check = make_and_check(engine, pixels, centers, file)
        made_s = time.perf_counter() - started
    return {"check": asdict(check), "made_s": made_s}


if __name__ == "__main__":
    main()
