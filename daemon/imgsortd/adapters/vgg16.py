"""VGG16 as far as its features: torchvision's layers around the loaded tensors."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import vgg16

from imgsortd.adapters.networks import MeanOfMaps, Network
from imgsortd.adapters.weights import Weights
from imgsortd.core.records import Backbone, ExtractorId, Layer

DIMS = {Layer.POOL5: 512, Layer.FC2: 4096, Layer.LOGITS: 1000}
# The first two blocks' activations are 13 MB an image: they fit a cache one by one. The
# others' weights are 58 MB: they are read once for many images.
_POOLS_OF_SHALLOW_BLOCKS = 2
_CONVOLUTIONS_GFLOP = 30.7
_CLASSIFIER_GFLOP = 0.25
_BATCH_IMAGES = 16


def vgg16_network(weights: Weights, layer: Layer) -> Network:
    """Build VGG16 up to a layer, without initialising it first.

    Parameters
    ----------
    weights
        As loaded by :func:`imgsortd.adapters.weights.load_weights` for this layer.
    layer
        ``pool5``: mean of the last pooling layer over its 7x7 places. ``fc2``: the
        second 4096-wide layer after ReLU. ``logits``: the 1000 outputs.
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
        gflop_per_image=_CONVOLUTIONS_GFLOP + (0 if layer is Layer.POOL5 else _CLASSIFIER_GFLOP),
        batch_images=_BATCH_IMAGES,
        source=weights.source,
    )
