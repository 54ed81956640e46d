"""The keys of the configuration: their types, texts, ranges and defaults.

Units are in the names. Error texts, ``imgsortd init`` and ``config.example.yaml`` come from here
alone (:mod:`imgsortd.config.text`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from imgsortd.config.values import (
    Device,
    Engine,
    LogLevel,
    Polling,
    Precision,
    duration_not_off,
    duration_s,
    host_name,
    number,
    number_or_off,
    on_off,
    path,
    path_or_off,
)
from imgsortd.records import Backbone, DuplicatePolicy, KRange, Layer, Op

NAMED_WEIGHTS = ("auto", "imagenet1k_v1")

DEFAULT_IGNORE = (
    *(".*", "*~", "~*", "*.part", "*.crdownload", "*.tmp", "*.partial", "*.download"),
    *("@eaDir", "Thumbs.db", "lost+found"),
)
DEFAULT_COMPANIONS = (
    *(".xmp", ".aae", ".mov", ".thm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
)

FolderPath = Annotated[Path, BeforeValidator(path)]

_LEAST = {"from": "ge", "above": "gt"}

Number = Annotated[float, BeforeValidator(number)]
Count = Annotated[int, BeforeValidator(number)]


def key(text: str, expected: str, default: Any = ..., **limits: Any) -> Any:
    """Make a field that knows the text for the example file and for its error."""
    return Field(default, description=text, json_schema_extra={"expected": expected}, **limits)


def within(text: str, expected: str, default: float | None) -> Any:
    """Make a field for a number between the two limits that its ``expected`` names."""
    found = re.search(r"(from|above) ([\d.]+)(?: to|, at most) ([\d.]+)", expected)
    assert found is not None
    least, most = (float(end) if "." in end else int(end) for end in found.group(2, 3))
    return key(text, expected, default, **{_LEAST[found[1]]: least, "le": most})


class Section(BaseModel):
    """Keys that belong together; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchConfig(Section):
    """How files are put together for the model."""

    max_images: Literal["auto"] | Annotated[Count, Field(ge=1, le=1024)] = key(
        "Pictures stored and moved together. auto = what suits model and device.",
        "auto or a whole number from 1 to 1024",
        "auto",
    )
    max_wait_s: Number = within(
        "How long the first file of a batch waits for others.", "seconds above 0, at most 60", 0.1
    )


class ModelConfig(Section):
    """The network that stays in memory."""

    backbone: Backbone = key(
        "vgg16, or efficientnet_lite0, a fortieth of the work, for small machines (extra: lite). "
        "After a change the library's features are extracted anew; clusters keep their numbers.",
        "vgg16 or efficientnet_lite0",
        Backbone.VGG16,
    )
    engine: Engine = key(
        "torch, or openvino for CPUs (extra: openvino).", "torch or openvino", Engine.TORCH
    )
    weights: str = key(
        "auto = the backbone's own (VGG16's original convolutions, 60 MB); imagenet1k_v1 = "
        "torchvision's full VGG16 (528 MB); or the path of a .pth or .safetensors file.",
        "auto, imagenet1k_v1 or the path of a .pth or .safetensors file",
        "auto",
        min_length=1,
    )
    layer: Layer = key(
        "What the features are: pool5 (the last maps averaged, best for sorting), "
        "fc2 (4096) or logits (1000). The last two need VGG16 with full weights.",
        "pool5, fc2 or logits",
        Layer.POOL5,
    )
    device: Annotated[Device, BeforeValidator(on_off)] = key(
        "auto takes a GPU when torch sees one.", "auto, cpu, cuda or mps", Device.AUTO
    )
    precision: Precision = key(
        "auto takes what this machine computes fastest at equal results. int8 (openvino) is "
        "switched on when 98 % of 256 of your pictures keep their cluster.",
        "auto, fp32, bf16, fp16 or int8",
        Precision.AUTO,
    )
    unload_after_s: Annotated[float | None, BeforeValidator(number_or_off)] = within(
        "Free the model's memory when no picture came for so long; the next one waits a few "
        "seconds for it. For a NAS.",
        "seconds from 1 to 86400, or off",
        None,
    )


class ClustersConfig(Section):
    """How pictures are grouped."""

    n_clusters: Literal["auto"] | Annotated[Count, Field(ge=1, le=10_000)] = key(
        "How many cluster folders; those that a person makes come on top. auto = as many as "
        "set the pictures apart best, see `imgsortd suggest-k`.",
        "auto or a whole number from 1 to 10000",
        30,
    )
    auto_least: Count = within(
        "With n_clusters: auto, the fewest there may be.",
        "a whole number from 1 to 1000, not above clusters.auto_most",
        4,
    )
    auto_most: Count = within(
        "With n_clusters: auto, the most there may be.", "a whole number from 1 to 1000", 200
    )
    min_images: Count = key(
        "The first fit waits until so many pictures are in the inbox; "
        "until then files stay there, their features already stored.",
        "a whole number above 0, not below clusters.n_clusters",
        300,
        ge=1,
    )
    quiet_s: Number = within(
        "A fit that is due begins when all pictures in the inbox are read and none has come for "
        "so many seconds: so that it sees the whole of a folder that is being copied in.",
        "seconds from 0 to 3600",
        30.0,
    )
    wait_most: Annotated[float, BeforeValidator(duration_not_off)] = key(
        "After so long it begins all the same, with what there is: 2h, 30m, 1d.",
        "a duration such as 2h, 30m or 1d (from 1s to 30d)",
        7200.0,
        ge=1,
        le=30 * 86_400,
    )
    random_state: Count = within(
        "Seed of the fit: the same pictures and seed give the same clusters.",
        "a whole number from 0 to 4294967295",
        42,
    )
    max_share: Annotated[float | None, BeforeValidator(number_or_off)] = within(
        "A cluster with a larger share of all pictures is warned of, and its split proposed "
        "(0.25 = a quarter), or off.",
        "a share above 0, at most 1 (0.25 = a quarter), or off",
        0.25,
    )
    review_quantile: Annotated[float | None, BeforeValidator(number_or_off)] = within(
        "A picture farther from every cluster than this share of the pictures at the fit goes "
        "to _review instead of a wrong folder (0.99 = farther than 99 % of them), or off.",
        "a share from 0.5 to 1 (0.99 = farther than 99 % of them), or off",
        0.99,
    )
    review_margin: Annotated[float | None, BeforeValidator(number_or_off)] = within(
        "A picture between two clusters goes to _review: where the second is farther than the "
        "first by less than this share (0.01 = 1 %), or off.",
        "a share above 0, at most 0.5 (0.01 = 1 %), or off",
        0.01,
    )

    @property
    def wanted(self) -> int | KRange:
        """How many clusters a fit is to make."""
        if isinstance(self.n_clusters, int):
            return self.n_clusters
        return KRange(self.auto_least, self.auto_most)


class RefitConfig(Section):
    """When the clusters are fitted anew, from the stored features."""

    interval: Annotated[float | None, BeforeValidator(duration_s)] = key(
        "Longest time between two fits while new pictures came: 36h, 7d, 90m, or off.",
        "a duration such as 36h, 7d or 90m (at least 1s), or off",
        7 * 86400.0,
        ge=1,
    )
    growth: Annotated[float | None, BeforeValidator(number_or_off)] = within(
        "Refit when so large a share of new pictures came since the last fit "
        "(0.25 = a quarter more), or off.",
        "a share above 0, at most 100 (0.25 = a quarter more), or off",
        0.25,
    )
    drift: Annotated[int | None, BeforeValidator(number_or_off)] = within(
        "Refit when so many pictures, the latest ones, lie farther from their clusters than "
        "the pictures did at the fit (docs/clustering.md has the test), or off.",
        "a whole number from 50 to 100000, or off",
        200,
    )
    max_churn: Annotated[float | None, BeforeValidator(number_or_off)] = within(
        "A refit that gives a larger share of the pictures another cluster waits as a proposal "
        "(imgsortd refits) until it is accepted (0.1 = a tenth), or off.",
        "a share from 0 to 1 (0.1 = a tenth), or off",
        0.1,
    )
    move_sorted: Literal["auto"] | bool = key(
        "Whether files that were sorted before follow a refit. auto = where its clusters are new, "
        "or a person has accepted it; where the former clusters go on, they stay. true = always; "
        "false = never.",
        "auto, true or false",
        "auto",
    )


class PicturesConfig(Section):
    """What is accepted as a picture."""

    max_megapixels: Number = within(
        "A picture that would decode to more is set aside as a decompression bomb. "
        "JPEGs are decoded at reduced scale and count at that size.",
        "megapixels above 0, at most 1000",
        100.0,
    )
    max_decode_s: Number = within(
        "A picture that takes longer to decode is set aside. Each is decoded in a process of "
        "its own, which is ended then.",
        "seconds from 1 to 600",
        30.0,
    )
    max_decode_memory_mb: Count = within(
        "A picture that needs more memory to decode is set aside.",
        "megabytes from 128 to 65536",
        2048,
    )


class WebConfig(Section):
    """The page that `imgsortd web` serves."""

    token_file: Annotated[Path | None, BeforeValidator(path_or_off)] = key(
        "A file with the token that one has to give to see the page, readable for nobody else; "
        "needed where others can reach it. off = only this machine reaches it, and all on it may.",
        "the path of a file, or off",
        None,
    )
    allowed_hosts: tuple[Annotated[str, BeforeValidator(host_name)], ...] = key(
        "Names under which a reverse proxy passes requests on; others are refused.",
        "a list of host names such as [pictures.example.org]",
        (),
    )
    thumbnails_mb: Count = within(
        "What the cache of thumbnails in state_dir may take; the longest unseen go first.",
        "megabytes from 10 to 1000000",
        500,
    )


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
    settle_s: Number = within(
        "A file is taken when it has not changed for so long.", "seconds from 0 to 3600", 2.0
    )
    rescan_s: Number = within(
        "How often the whole inbox is listed, whatever the events said.",
        "seconds from 1 to 86400",
        60.0,
    )
    polling: Annotated[Polling, BeforeValidator(on_off)] = key(
        "auto watches with inotify and falls back to listing every 5 s on network "
        "shares; on always lists; off insists on inotify.",
        "auto, on or off",
        Polling.AUTO,
    )
    backups: Count = within(
        "Daily copies of the database that are kept in state_dir/backups; 0 makes none.",
        "a whole number from 0 to 365",
        3,
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
