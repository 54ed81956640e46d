"""What of imgsortd is measured: a backbone on an engine, in an arithmetic.

The defaults are never passed on, so that a measurement of them asks imgsortd for
nothing but its own defaults.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from imgsortd.config import ModelConfig, check_model
from imgsortd.config_model import NAMED_WEIGHTS
from imgsortd.errors import ConfigError

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
    def file_name(self) -> str:
        """The same for a folder's name."""
        return self.name.replace(" on ", "-").replace(" ", "-")

    @property
    def changes(self) -> dict[str, str]:
        """Backbone, engine and precision where they are not the defaults."""
        asked = {"backbone": self.backbone, "engine": self.engine, "precision": self.precision}
        usual = Subject()
        return {key: value for key, value in asked.items() if value != getattr(usual, key)}

    @property
    def is_int8(self) -> bool:
        """Whether it needs a checked int8 model."""
        return self.precision == "int8"

    @property
    def settings(self) -> dict[str, str]:
        """The section ``model`` of a configuration file."""
        return {"weights": self.weights, **self.changes}

    @property
    def arguments(self) -> list[str]:
        """Options of ``imgsortd sort``, and of the processes in here that build a model."""
        return [part for key, value in self.settings.items() for part in (f"--{key}", value)]


def subjects_of(
    backbones: list[str], engines: list[str], precisions: list[str], weights: str
) -> list[Subject]:
    """Return every asked backbone on every asked engine in every precision the engine has.

    ``weights`` are VGG16's; another backbone takes its own.
    """
    asked = [
        Subject(backbone, engine, precision, weights if backbone == BACKBONES[0] else "auto")
        for backbone in backbones
        for engine in engines
        for precision in precisions
    ]
    return [subject for subject in asked if _is_possible(subject)]


def _is_possible(subject: Subject) -> bool:
    try:
        check_model(ModelConfig.model_validate(subject.settings), "benchmarks")
    except ConfigError:
        return False
    return True


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the options that :attr:`Subject.arguments` gives."""
    for name, value in asdict(Subject()).items():
        parser.add_argument(f"--{name}", default=value)


def model_config(options: argparse.Namespace) -> ModelConfig:
    """Turn the options of :func:`add_subject` into imgsortd's section ``model``."""
    weights = options.weights
    if weights not in NAMED_WEIGHTS:
        weights = str(Path(weights).resolve())
    subject = Subject(options.backbone, options.engine, options.precision, weights)
    return ModelConfig.model_validate(subject.settings)
