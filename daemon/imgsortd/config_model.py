"""The keys of the configuration: their types, texts, ranges and defaults.

Units are in the names. What is written here is the only source: error texts,
``imgsortd init`` and ``config.example.yaml`` come from it (:mod:`imgsortd.config_text`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from imgsortd.config_values import (
    Device,
    Engine,
    LogLevel,
    Polling,
    Precision,
    duration_s,
    number,
    number_or_off,
    on_off,
    path,
)
from imgsortd.core.records import Backbone, DuplicatePolicy, Layer, Op

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


Number = Annotated[float, BeforeValidator(number)]
Count = Annotated[int, BeforeValidator(number)]
FolderPath = Annotated[Path, BeforeValidator(path)]


def _key(text: str, expected: str, default: Any = ..., **limits: Any) -> Any:
    """Make a field that knows the text for the example file and for its error."""
    return Field(default, description=text, json_schema_extra={"expected": expected}, **limits)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchConfig(_Section):
    """How files are put together for the model."""

    max_images: Literal["auto"] | Annotated[Count, Field(ge=1, le=1024)] = _key(
        "Pictures stored and moved together. auto = what suits model and device.",
        "auto or a whole number from 1 to 1024",
        "auto",
    )
    max_wait_s: Number = _key(
        "How long the first file of a batch waits for others.",
        "seconds above 0, at most 60",
        0.1,
        gt=0,
        le=60,
    )


class ModelConfig(_Section):
    """The network that stays in memory."""

    backbone: Backbone = _key(
        "vgg16, or efficientnet_lite0, a fortieth of the work, for small machines (extra: lite). "
        "After a change the library's features are extracted anew; clusters keep their numbers.",
        "vgg16 or efficientnet_lite0",
        Backbone.VGG16,
    )
    engine: Engine = _key(
        "torch, or openvino for CPUs (extra: openvino).", "torch or openvino", Engine.TORCH
    )
    weights: str = _key(
        "auto = the backbone's own (VGG16's original convolutions, 60 MB); imagenet1k_v1 = "
        "torchvision's full VGG16 (528 MB); or the path of a .pth or .safetensors file.",
        "auto, imagenet1k_v1 or the path of a .pth or .safetensors file",
        "auto",
        min_length=1,
    )
    layer: Layer = _key(
        "What the features are: pool5 (the last maps averaged, best for sorting), "
        "fc2 (4096) or logits (1000). The last two need VGG16 with full weights.",
        "pool5, fc2 or logits",
        Layer.POOL5,
    )
    device: Annotated[Device, BeforeValidator(on_off)] = _key(
        "auto takes a GPU when torch sees one.", "auto, cpu, cuda or mps", Device.AUTO
    )
    precision: Precision = _key(
        "auto takes what this machine computes fastest at equal results. int8 (openvino) is "
        "switched on when 98 % of 256 of your pictures keep their cluster.",
        "auto, fp32, bf16, fp16 or int8",
        Precision.AUTO,
    )
    unload_after_s: Annotated[float | None, BeforeValidator(number_or_off)] = _key(
        "Free the model's memory when no picture came for so long; the next one waits a few "
        "seconds for it. For a NAS.",
        "seconds from 1 to 86400, or off",
        None,
        ge=1,
        le=86_400,
    )


class ClustersConfig(_Section):
    """KMeans."""

    n_clusters: Count = _key(
        "How many cluster folders.", "a whole number from 1 to 10000", 30, ge=1, le=10_000
    )
    min_images: Count = _key(
        "The first fit waits until so many pictures are in the inbox; "
        "until then files stay there, their features already stored.",
        "a whole number above 0, not below clusters.n_clusters",
        300,
        ge=1,
    )
    random_state: Count = _key(
        "Seed of KMeans: the same pictures and seed give the same clusters.",
        "a whole number from 0 to 4294967295",
        42,
        ge=0,
        le=2**32 - 1,
    )


class RefitConfig(_Section):
    """When the clusters are fitted anew, from the stored features."""

    interval: Annotated[float | None, BeforeValidator(duration_s)] = _key(
        "Longest time between two fits while new pictures came: 36h, 7d, 90m, or off.",
        "a duration such as 36h, 7d or 90m (at least 1s), or off",
        7 * 86400.0,
        ge=1,
    )
    growth: Annotated[float | None, BeforeValidator(number_or_off)] = _key(
        "Refit when so large a share of new pictures came since the last fit "
        "(0.25 = a quarter more), or off.",
        "a share above 0, at most 100 (0.25 = a quarter more), or off",
        0.25,
        gt=0,
        le=100,
    )
    move_sorted: bool = _key(
        "After a refit, also move files that were sorted before and now lie nearer "
        "to another cluster. Off: they stay where they are.",
        "true or false",
        False,
    )


class PicturesConfig(_Section):
    """What is accepted as a picture."""

    max_megapixels: Number = _key(
        "A picture that would decode to more is set aside as a decompression bomb. "
        "JPEGs are decoded at reduced scale and count at that size.",
        "megapixels above 0, at most 1000",
        100.0,
        gt=0,
        le=1000,
    )
    max_decode_s: Number = _key(
        "A picture that takes longer to decode is set aside. Each is decoded in a process of "
        "its own, which is ended then.",
        "seconds from 1 to 600",
        30.0,
        ge=1,
        le=600,
    )
    max_decode_memory_mb: Count = _key(
        "A picture that needs more memory to decode is set aside.",
        "megabytes from 128 to 65536",
        2048,
        ge=128,
        le=65_536,
    )


class Config(_Section):
    """The whole configuration file."""

    inbox: FolderPath = _key("Where pictures arrive.", "the path of an existing folder")
    target: FolderPath = _key(
        "Where the cluster_N folders stand. On the inbox's filesystem a move is one rename.",
        "the path of an existing folder",
    )
    state_dir: FolderPath = _key(
        "Where the SQLite file lives. Keep it off network shares.", "the path of a folder"
    )
    recursive: bool = _key("Also look into the inbox's subfolders.", "true or false", True)
    op: Op = _key("What is done to a sorted file.", "move, copy, hardlink or symlink", Op.MOVE)
    duplicates: DuplicatePolicy = _key(
        "A file whose bytes are already in the library: keep (sort it too), set_aside, "
        "or skip (leave it in the inbox). Nothing is ever deleted.",
        "keep, set_aside or skip",
        DuplicatePolicy.KEEP,
    )
    extensions: str | tuple[str, ...] = _key(
        "auto = every file that its name or its first bytes call a picture; "
        "or a list such as [.jpg, .png] to take only those.",
        "auto or a list of extensions such as [.jpg, .png]",
        "auto",
    )
    ignore: tuple[str, ...] = _key(
        "Shell patterns of names that are never touched: half-written and system files.",
        "a list of shell patterns",
        DEFAULT_IGNORE,
    )
    settle_s: Number = _key(
        "A file is taken when it has not changed for so long.",
        "seconds from 0 to 3600",
        2.0,
        ge=0,
        le=3600,
    )
    rescan_s: Number = _key(
        "How often the whole inbox is listed, whatever the events said.",
        "seconds from 1 to 86400",
        60.0,
        ge=1,
        le=86_400,
    )
    polling: Annotated[Polling, BeforeValidator(on_off)] = _key(
        "auto watches with inotify and falls back to listing every 5 s on network "
        "shares; on always lists; off insists on inotify.",
        "auto, on or off",
        Polling.AUTO,
    )
    backups: Count = _key(
        "Daily copies of the database that are kept in state_dir/backups; 0 makes none.",
        "a whole number from 0 to 365",
        3,
        ge=0,
        le=365,
    )
    log_level: LogLevel = _key(
        "The least important line that is logged.", "debug, info, warning or error", LogLevel.INFO
    )
    batch: BatchConfig = BatchConfig()
    model: ModelConfig = ModelConfig()
    clusters: ClustersConfig = ClustersConfig()
    refit: RefitConfig = RefitConfig()
    pictures: PicturesConfig = PicturesConfig()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "imgsortd.db"
