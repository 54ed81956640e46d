"""VGG16 as far as its features: torchvision's layers around the loaded tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torchvision.models import VGG16_Weights, vgg16

from imgsortd.config.model import ModelConfig
from imgsortd.config.values import Precision
from imgsortd.errors import WeightsError
from imgsortd.networks.network import MeanOfMaps, Network
from imgsortd.networks.sources import (
    RELEASES,
    Release,
    WeightsSource,
    describe_weights,
    first_ready,
    hub_dir,
)
from imgsortd.networks.torch_engine import Arithmetic, TorchExtractor, choose_device
from imgsortd.networks.weights import Weights, load_weights
from imgsortd.records import Backbone, ExtractorId, Layer
from imgsortd.system.resources import limit_threads, usable_cpus

DIMS = {Layer.POOL5: 512, Layer.FC2: 4096, Layer.LOGITS: 1000}
# The first two blocks' activations are 13 MB an image: they fit a cache one by one. The
# others' weights are 58 MB: they are read once for many images.
_POOLS_OF_SHALLOW_BLOCKS = 2
_BATCH_IMAGES = 16
_FULL = "imagenet1k_v1"
_STEP_IMAGES = 4


def vgg16_network(weights: Weights, layer: Layer) -> Network:
    """Build VGG16 up to a layer, without initialising it first.

    The weights are those that ``load_weights`` read for this layer. ``pool5``: mean of the
    last pooling layer over its 7x7 places. ``fc2``: the second 4096-wide layer after ReLU.
    ``logits``: the 1000 outputs.
    """
    with torch.device("meta"):
        model = vgg16()
    if layer is Layer.POOL5:
        head = nn.Sequential(MeanOfMaps())
        model.classifier = nn.Sequential()
    else:
        model.classifier = model.classifier[: 5 if layer is Layer.FC2 else None]
        head = nn.Sequential(model.avgpool, nn.Flatten(), *model.classifier)
    used = {name: weights.tensors[name] for name in model.state_dict()}
    model.load_state_dict(used, assign=True)
    model.to(memory_format=torch.channels_last)  # as it is computed: in memory once
    ends = [at + 1 for at, part in enumerate(model.features) if isinstance(part, nn.MaxPool2d)]
    end = ends[_POOLS_OF_SHALLOW_BLOCKS - 1]
    return Network(
        id=ExtractorId(weights.digest, layer, DIMS[layer], Backbone.VGG16),
        stages=(model.features[:end].eval(), nn.Sequential(*model.features[end:], *head).eval()),
        shallow_stages=1,
        mean=weights.mean,
        std=weights.std,
        batch_images=_BATCH_IMAGES,
        source=weights.source,
    )


def full_weights(model: ModelConfig, *, _releases: Mapping[str, Release] = RELEASES) -> Weights:
    """Read VGG16's full weights from this machine: the configured file, our cache, torch's.

    Raises
    ------
    WeightsError
        They are not at hand, or damaged.
    """
    looked = []
    if model.backbone is Backbone.VGG16 and model.weights not in _releases:
        try:
            return load_weights(model.weights, Layer.LOGITS, _releases=_releases)
        except WeightsError as error:
            looked.append(str(error).partition(";")[0])
    sources = describe_weights(_FULL, _releases=_releases)
    here = [source for source in sources if source.kind is not WeightsSource.DOWNLOAD]
    if first_ready(here):
        return load_weights(_FULL, Layer.LOGITS, allow_download=False, _releases=_releases)
    looked += [source.detail for source in here]
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
    return tuple(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
