"""VGG16 with its classifier: what it has learned the names of. Nothing is fetched here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from imgsortd.adapters.cpus import limit_threads, usable_cpus
from imgsortd.adapters.torch_engine import Arithmetic, TorchExtractor, choose_device
from imgsortd.adapters.vgg16 import vgg16_network
from imgsortd.adapters.weight_sources import RELEASES, Release, WeightsSource, hub_dir
from imgsortd.adapters.weights import Weights, describe_weights, load_weights
from imgsortd.config import ModelConfig, Precision
from imgsortd.core.records import Backbone, Layer
from imgsortd.errors import WeightsError

_FULL = "imagenet1k_v1"
_STEP_IMAGES = 4


def full_weights(
    model: ModelConfig,
    *,
    cache_dir: Path | None = None,
    _releases: Mapping[str, Release] = RELEASES,
) -> Weights:
    """Read VGG16's full weights from this machine: the configured file, our cache, torch's.

    Raises
    ------
    WeightsError
        They are not at hand, with what was looked for and how to get them; or a file that
        should be them is damaged.
    """
    looked = []
    if model.backbone is Backbone.VGG16 and model.weights not in _releases:
        try:
            return load_weights(model.weights, Layer.LOGITS, _releases=_releases)
        except WeightsError as error:
            looked.append(str(error).partition(";")[0])
    places = describe_weights(_FULL, cache_dir=cache_dir, _releases=_releases).places
    here = [place for place in places if place.source is not WeightsSource.DOWNLOAD]
    if any(place.ready for place in here):
        return load_weights(
            _FULL, Layer.LOGITS, cache_dir=cache_dir, allow_download=False, _releases=_releases
        )
    looked += [place.detail for place in here]
    name = _releases[_FULL].file_name
    raise WeightsError(
        f"names --suggest needs VGG16's full weights, with the classifier that knows 1,000 "
        f"names, and they are not on this machine ({'; '.join(looked)}); "
        f"imgsortd weights fetch --weights {_FULL} downloads them (528 MB), or bring "
        f"{name} from elsewhere and put it into {hub_dir()}"
    )


def build_classifier(model: ModelConfig, weights: Weights) -> TorchExtractor:
    """Put the full network on the configured device; its features are the 1,000 logits."""
    limit_threads(usable_cpus())
    network = vgg16_network(weights, Layer.LOGITS)
    arithmetic = Arithmetic(Precision.FP32, step_images=_STEP_IMAGES)
    return TorchExtractor(network, choose_device(model.device), arithmetic)


def class_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the order of the logits."""
    from torchvision.models import VGG16_Weights

    return tuple(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
