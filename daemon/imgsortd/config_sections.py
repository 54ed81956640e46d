"""The sections of the configuration: model, clusters, refits and the rest, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from imgsortd.config_values import (
    Device,
    Engine,
    Precision,
    duration_not_off,
    duration_s,
    host_name,
    number,
    number_or_off,
    on_off,
    path_or_off,
)
from imgsortd.core.records import Backbone, KRange, Layer

Number = Annotated[float, BeforeValidator(number)]
Count = Annotated[int, BeforeValidator(number)]


def key(text: str, expected: str, default: Any = ..., **limits: Any) -> Any:
    """Make a field that knows the text for the example file and for its error."""
    return Field(default, description=text, json_schema_extra={"expected": expected}, **limits)


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
    max_wait_s: Number = key(
        "How long the first file of a batch waits for others.",
        "seconds above 0, at most 60",
        0.1,
        gt=0,
        le=60,
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
    unload_after_s: Annotated[float | None, BeforeValidator(number_or_off)] = key(
        "Free the model's memory when no picture came for so long; the next one waits a few "
        "seconds for it. For a NAS.",
        "seconds from 1 to 86400, or off",
        None,
        ge=1,
        le=86_400,
    )


class ClustersConfig(Section):
    """How pictures are grouped."""

    n_clusters: Literal["auto"] | Annotated[Count, Field(ge=1, le=10_000)] = key(
        "How many cluster folders; those that a person makes come on top. auto = as many as "
        "set the pictures apart best, see `imgsortd suggest-k`.",
        "auto or a whole number from 1 to 10000",
        30,
    )
    auto_least: Count = key(
        "With n_clusters: auto, the fewest there may be.",
        "a whole number from 1 to 1000, not above clusters.auto_most",
        4,
        ge=1,
        le=1000,
    )
    auto_most: Count = key(
        "With n_clusters: auto, the most there may be.",
        "a whole number from 1 to 1000",
        200,
        ge=1,
        le=1000,
    )
    min_images: Count = key(
        "The first fit waits until so many pictures are in the inbox; "
        "until then files stay there, their features already stored.",
        "a whole number above 0, not below clusters.n_clusters",
        300,
        ge=1,
    )
    quiet_s: Number = key(
        "A fit that is due begins when all pictures in the inbox are read and none has come for "
        "so many seconds: so that it sees the whole of a folder that is being copied in.",
        "seconds from 0 to 3600",
        30.0,
        ge=0,
        le=3600,
    )
    wait_most: Annotated[float, BeforeValidator(duration_not_off)] = key(
        "After so long it begins all the same, with what there is: 2h, 30m, 1d.",
        "a duration such as 2h, 30m or 1d (from 1s to 30d)",
        7200.0,
        ge=1,
        le=30 * 86_400,
    )
    random_state: Count = key(
        "Seed of the fit: the same pictures and seed give the same clusters.",
        "a whole number from 0 to 4294967295",
        42,
        ge=0,
        le=2**32 - 1,
    )
    max_share: Annotated[float | None, BeforeValidator(number_or_off)] = key(
        "A cluster with a larger share of all pictures is warned of, and its split proposed "
        "(0.25 = a quarter), or off.",
        "a share above 0, at most 1 (0.25 = a quarter), or off",
        0.25,
        gt=0,
        le=1,
    )
    review_quantile: Annotated[float | None, BeforeValidator(number_or_off)] = key(
        "A picture farther from every cluster than this share of the pictures at the fit goes "
        "to _review instead of a wrong folder (0.99 = farther than 99 % of them), or off.",
        "a share from 0.5 to 1 (0.99 = farther than 99 % of them), or off",
        0.99,
        ge=0.5,
        le=1,
    )
    review_margin: Annotated[float | None, BeforeValidator(number_or_off)] = key(
        "A picture between two clusters goes to _review: where the second is farther than the "
        "first by less than this share (0.01 = 1 %), or off.",
        "a share above 0, at most 0.5 (0.01 = 1 %), or off",
        0.01,
        gt=0,
        le=0.5,
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
    growth: Annotated[float | None, BeforeValidator(number_or_off)] = key(
        "Refit when so large a share of new pictures came since the last fit "
        "(0.25 = a quarter more), or off.",
        "a share above 0, at most 100 (0.25 = a quarter more), or off",
        0.25,
        gt=0,
        le=100,
    )
    drift: Annotated[int | None, BeforeValidator(number_or_off)] = key(
        "Refit when so many pictures, the latest ones, lie farther from their clusters than "
        "the pictures did at the fit (docs/clustering.md has the test), or off.",
        "a whole number from 50 to 100000, or off",
        200,
        ge=50,
        le=100_000,
    )
    max_churn: Annotated[float | None, BeforeValidator(number_or_off)] = key(
        "A refit that gives a larger share of the pictures another cluster waits as a proposal "
        "(imgsortd refits) until it is accepted (0.1 = a tenth), or off.",
        "a share from 0 to 1 (0.1 = a tenth), or off",
        0.1,
        ge=0,
        le=1,
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

    max_megapixels: Number = key(
        "A picture that would decode to more is set aside as a decompression bomb. "
        "JPEGs are decoded at reduced scale and count at that size.",
        "megapixels above 0, at most 1000",
        100.0,
        gt=0,
        le=1000,
    )
    max_decode_s: Number = key(
        "A picture that takes longer to decode is set aside. Each is decoded in a process of "
        "its own, which is ended then.",
        "seconds from 1 to 600",
        30.0,
        ge=1,
        le=600,
    )
    max_decode_memory_mb: Count = key(
        "A picture that needs more memory to decode is set aside.",
        "megabytes from 128 to 65536",
        2048,
        ge=128,
        le=65_536,
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
    thumbnails_mb: Count = key(
        "What the cache of thumbnails in state_dir may take; the longest unseen go first.",
        "megabytes from 10 to 1000000",
        500,
        ge=10,
        le=1_000_000,
    )
