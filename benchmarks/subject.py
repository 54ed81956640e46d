"""What of imgsortd is measured: a backbone on an engine.

The defaults are never passed on, so that a measurement of them asks imgsortd for
nothing but its own defaults.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from imgsortd.config import ModelConfig

BACKBONES = ("vgg16", "efficientnet_lite0")
ENGINES = ("torch", "openvino")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as imgsortd is asked for it. ``weights`` is imgsortd's ``model.weights``."""

    backbone: str = BACKBONES[0]
    engine: str = ENGINES[0]
    weights: str = "auto"

    @property
    def name(self) -> str:
        """Backbone and engine, as the table shows them."""
        return f"{self.backbone} on {self.engine}"

    @property
    def file_name(self) -> str:
        """The same for a folder's name."""
        return f"{self.backbone}-{self.engine}"

    @property
    def changes(self) -> dict[str, str]:
        """Backbone and engine where they are not the defaults."""
        asked = {"backbone": self.backbone, "engine": self.engine}
        usual = {"backbone": BACKBONES[0], "engine": ENGINES[0]}
        return {key: value for key, value in asked.items() if value != usual[key]}

    @property
    def settings(self) -> dict[str, str]:
        """The section ``model`` of a configuration file."""
        return {"weights": self.weights, **self.changes}

    @property
    def arguments(self) -> list[str]:
        """Options of ``imgsortd sort``, and of the processes in here that build a model."""
        return [part for key, value in self.settings.items() for part in (f"--{key}", value)]


def subjects_of(backbones: list[str], engines: list[str], weights: str) -> list[Subject]:
    """Return every asked backbone on every asked engine.

    ``weights`` are VGG16's; another backbone takes its own.
    """
    return [
        Subject(backbone, engine, weights if backbone == BACKBONES[0] else "auto")
        for backbone in backbones
        for engine in engines
    ]


def unknown_keys(subject: Subject) -> list[str]:
    """Return the keys of ``model`` that this subject needs and this imgsortd does not have."""
    return [f"model.{key}" for key in subject.changes if key not in ModelConfig.model_fields]


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the options that :attr:`Subject.arguments` gives."""
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--backbone", default=BACKBONES[0])
    parser.add_argument("--engine", default=ENGINES[0])


def model_config(options: argparse.Namespace) -> ModelConfig:
    """Turn the options of :func:`add_subject` into imgsortd's section ``model``."""
    weights = options.weights
    if weights not in ("auto", "imagenet1k_v1"):
        weights = str(Path(weights).resolve())
    settings = Subject(options.backbone, options.engine, weights).settings
    return ModelConfig.model_validate(settings)
