"""What of imgsortd is measured: a backbone on an engine, in an arithmetic, as at a second start.

Weights, calibration and checked int8 models lie in a folder beside the work folders, which
stays for the next run of the benchmark; nothing of the user's own cache is touched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Part, Unit, at_least, say
from benchmarks.pictures import find_pictures, photographs, picture_paths
from benchmarks.processes import call
from imgsortd.config import check_model
from imgsortd.config.model import ModelConfig
from imgsortd.errors import ConfigError
from imgsortd.networks.int8_checks import read_check
from imgsortd.networks.sources import RELEASES, default_cache_dir
from imgsortd.pictures.pixels import decode
from imgsortd.pipeline.int8 import MIN_AGREEMENT, TRIAL_IMAGES, make_and_check, openvino_of
from imgsortd.sort import PICTURES_A_CLUSTER

BACKBONES = ("vgg16", "efficientnet_lite0")
ENGINES = ("torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as imgsortd is asked for it. ``weights`` is imgsortd's ``model.weights``."""

    backbone: str = BACKBONES[0]
    engine: str = ENGINES[0]
    precision: str = PRECISIONS[0]
    weights: str = "auto"

    @property
    def name(self) -> str:
        """Backbone and engine, and the precision that was asked for, as the table shows them."""
        asked = "" if self.precision == PRECISIONS[0] else f" {self.precision}"
        return f"{self.backbone} on {self.engine}{asked}"

    @property
    def settings(self) -> dict[str, str]:
        """The section ``model`` of a configuration file: what is not the default."""
        asked, usual = asdict(self), asdict(Subject())
        return {key: asked[key] for key in asked if asked[key] != usual[key]}

    @property
    def arguments(self) -> list[str]:
        """Options of ``imgsortd sort``."""
        return [part for key, value in self.settings.items() for part in (f"--{key}", value)]


def subjects_of(
    backbones: Sequence[str], engines: Sequence[str], precisions: Sequence[str], weights: str
) -> list[Subject]:
    """Return every asked backbone on every asked engine in every precision the engine has.

    ``weights`` are VGG16's; another backbone takes its own.
    """
    found: list[Subject] = []
    for backbone, engine, precision in itertools.product(backbones, engines, precisions):
        own = weights if backbone == BACKBONES[0] else "auto"
        subject = Subject(backbone, engine, precision, own)
        with contextlib.suppress(ConfigError):
            check_model(ModelConfig.model_validate(subject.settings), "benchmarks")
            found.append(subject)
    return list(dict.fromkeys(found))


def build(settings: dict[str, str]) -> Any:
    """Load a model as a second start does; only in a process that may have torch."""
    from imgsortd.networks.building import build_extractor

    return build_extractor(ModelConfig.model_validate(settings), default_cache_dir())


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
    os.environ["IMGSORTD_CACHE_DIR"] = str(folder)


def prepare(options: Namespace, work: Path) -> list[Part]:
    """Do for each subject what imgsortd does at its first start, unless an earlier run has.

    int8 is left out of ``options.subjects`` where it cannot be checked or did not pass.
    """
    parts, usable, folder = [], [], work / "trial"
    for subject in options.subjects:
        say(f"first start, {subject.name}")
        if subject.precision != "int8":
            call(_first_start, subject.settings)
            usable.append(subject)
            continue
        part = Part(f"int8, {subject.name}")
        found = len(find_pictures(options.photos)) if options.photos else TRIAL_IMAGES
        if found < TRIAL_IMAGES:
            part.notes = [f"skipped: it is checked on {TRIAL_IMAGES} photographs, given: {found}"]
        else:
            if not folder.exists():
                photographs(options.photos, TRIAL_IMAGES, folder)
            part = int8_part(part.name, call(_first_int8, subject.settings, folder).values)
            usable += [subject] if part.raw["passed"] else []
        parts.append(part)
    options.subjects = usable
    return parts


def int8_part(name: str, check: dict[str, Any]) -> Part:
    """Turn what was found about an int8 model into figures."""
    same = "int8 and fp32 choose the same cluster"
    figures = [
        Figure(same, check["agreement"], Unit.SHARE, at_least(MIN_AGREEMENT)),
        Figure("lowest cosine of int8 and fp32", check["min_cosine"], Unit.INDEX),
    ]
    notes = [f"checked on {check['n_images']} held-out pictures, {check['engine']}"]
    if not check["passed"]:
        notes.append("it did not pass, so imgsortd does not compute in int8: not measured")
    return Part(name, figures, notes, check)


def _first_start(settings: dict[str, str]) -> dict[str, Any]:
    """Load the model, which is calibrated if it never was."""
    return {"runs_on": build(settings).describe()}


def _first_int8(settings: dict[str, str], folder: str) -> dict[str, Any]:
    """Make and check an int8 model as ``sort`` does, unless an earlier run has."""
    from imgsortd.clusters.kmeans import fit_kmeans

    engine = openvino_of(build(settings))
    assert engine is not None
    file = engine.int8_file(default_cache_dir())
    check = read_check(file)
    if check is None:
        pixels = [decode(path.read_bytes()) for path in picture_paths(Path(folder))]
        exact = engine.extract_exactly(pixels)
        centers = fit_kmeans(exact, TRIAL_IMAGES // PICTURES_A_CLUSTER, random_state=42).centers
        check = make_and_check(engine, pixels, centers, file)
    return asdict(check)
