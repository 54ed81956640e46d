"""The keys of the configuration: their types, texts, ranges and defaults.

Units are in the names. What is written here and in :mod:`imgsortd.config_sections` is the
only source: error texts, ``imgsortd init`` and ``config.example.yaml`` come from it
(:mod:`imgsortd.config_text`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from imgsortd.config_sections import (
    BatchConfig,
    ClustersConfig,
    Count,
    ModelConfig,
    Number,
    PicturesConfig,
    RefitConfig,
    Section,
    WebConfig,
    key,
)
from imgsortd.config_values import LogLevel, Polling, on_off, path
from imgsortd.core.lifecycle import RefitRule
from imgsortd.core.records import DuplicatePolicy, Op

__all__ = [
    "DEFAULT_COMPANIONS",
    "DEFAULT_IGNORE",
    "NAMED_WEIGHTS",
    "Config",
    "ModelConfig",
    "Section",
]

NAMED_WEIGHTS = ("auto", "imagenet1k_v1")

DEFAULT_IGNORE = (
    ".*",
    "*~",
    "~*",
    "*.part",
    "*.crdownload",
    "*.tmp",
    "*.partial",
    "*.download",
    "@eaDir",
    "Thumbs.db",
    "lost+found",
)


DEFAULT_COMPANIONS = (
    *(".xmp", ".aae", ".mov", ".thm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
)

FolderPath = Annotated[Path, BeforeValidator(path)]


class Config(Section):
    """The whole configuration file."""

    inbox: FolderPath = key("Where pictures arrive.", "the path of an existing folder")
    target: FolderPath = key(
        "Where the cluster_N folders stand. On the inbox's filesystem a move is one rename.",
        "the path of an existing folder",
    )
    state_dir: FolderPath = key(
        "Where the SQLite file lives. Keep it off network shares.", "the path of a folder"
    )
    recursive: bool = key("Also look into the inbox's subfolders.", "true or false", True)
    op: Op = key("What is done to a sorted file.", "move, copy, hardlink or symlink", Op.MOVE)
    duplicates: DuplicatePolicy = key(
        "A file whose bytes are already in the library: keep (sort it too), set_aside, "
        "or skip (leave it in the inbox). Nothing is ever deleted.",
        "keep, set_aside or skip",
        DuplicatePolicy.KEEP,
    )
    extensions: str | tuple[str, ...] = key(
        "auto = every file that its name or its first bytes call a picture; "
        "or a list such as [.jpg, .png] to take only those.",
        "auto or a list of extensions such as [.jpg, .png]",
        "auto",
    )
    ignore: tuple[str, ...] = key(
        "Shell patterns of names that are never touched: half-written and system files.",
        "a list of shell patterns",
        DEFAULT_IGNORE,
    )
    companions: tuple[str, ...] = key(
        "Extensions of files that go where the picture of the same name goes: raw files, "
        "sidecars, the film of a live photo. [] leaves them in the inbox.",
        "a list of extensions such as [.xmp, .mov]",
        DEFAULT_COMPANIONS,
    )
    settle_s: Number = key(
        "A file is taken when it has not changed for so long.",
        "seconds from 0 to 3600",
        2.0,
        ge=0,
        le=3600,
    )
    rescan_s: Number = key(
        "How often the whole inbox is listed, whatever the events said.",
        "seconds from 1 to 86400",
        60.0,
        ge=1,
        le=86_400,
    )
    polling: Annotated[Polling, BeforeValidator(on_off)] = key(
        "auto watches with inotify and falls back to listing every 5 s on network "
        "shares; on always lists; off insists on inotify.",
        "auto, on or off",
        Polling.AUTO,
    )
    backups: Count = key(
        "Daily copies of the database that are kept in state_dir/backups; 0 makes none.",
        "a whole number from 0 to 365",
        3,
        ge=0,
        le=365,
    )
    log_level: LogLevel = key(
        "The least important line that is logged.", "debug, info, warning or error", LogLevel.INFO
    )
    batch: BatchConfig = BatchConfig()
    model: ModelConfig = ModelConfig()
    clusters: ClustersConfig = ClustersConfig()
    refit: RefitConfig = RefitConfig()
    pictures: PicturesConfig = PicturesConfig()
    web: WebConfig = WebConfig()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "imgsortd.db"

    @property
    def refit_rule(self) -> RefitRule:
        """The reasons for a fit."""
        clusters, refit = self.clusters, self.refit
        return RefitRule(
            clusters.min_images, refit.interval, refit.growth, clusters.quiet_s, clusters.wait_most
        )
