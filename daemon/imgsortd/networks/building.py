"""The resident model as the configuration asks for it: backbone, engine, device, arithmetic."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from imgsortd.config.extras import require_extras
from imgsortd.config.model import ModelConfig
from imgsortd.config.values import Engine, Precision
from imgsortd.networks.calibration import CalibrationFile, calibrate, calibration_key
from imgsortd.networks.network import Network
from imgsortd.networks.resident import FeatureExtractor, Resident
from imgsortd.networks.torch_engine import GPU_IMAGES, Arithmetic, TorchExtractor, choose_device
from imgsortd.networks.weights import load_weights
from imgsortd.records import Backbone
from imgsortd.system.resources import limit_threads, usable_cpus

log = logging.getLogger(__name__)


def build_extractor(model: ModelConfig, folder: Path | None = None) -> Resident:
    """Load the configured weights and put the network on its device.

    The calibration and an int8 model that was checked are kept in ``folder`` (``state_dir``);
    where it is None, the calibration is made anew each time.

    Raises
    ------
    WeightsError
        The weights cannot be had or do not fit the backbone and layer.
    ConfigError
        The configured device or a package that the configuration needs is not there.
    """
    return Resident(lambda: _build(model, folder))


def _build(model: ModelConfig, folder: Path | None) -> FeatureExtractor:
    started = time.perf_counter()
    require_extras(model)
    cpus = usable_cpus()
    limit_threads(cpus)
    network = _network(model)
    if model.engine is Engine.OPENVINO:
        from imgsortd.networks.openvino_engine import OpenVinoExtractor

        extractor: FeatureExtractor = OpenVinoExtractor(network, model.precision, cpus, folder)
    else:
        device = choose_device(model.device)
        arithmetic = _arithmetic(network, device, model.precision, cpus, folder)
        extractor = TorchExtractor(network, device, arithmetic)
    log.info(
        "model ready weights=%s digest=%s layer=%s runs_on=%r cpus=%d load_s=%.1f",
        network.source,
        network.id.weights_digest[:12],
        network.id.layer,
        extractor.describe(),
        cpus,
        time.perf_counter() - started,
    )
    return extractor


def _network(model: ModelConfig) -> Network:
    if model.backbone is Backbone.EFFICIENTNET_LITE0:
        from imgsortd.networks.efficientnet import efficientnet_lite0_network

        return efficientnet_lite0_network(model.weights)
    from imgsortd.networks.vgg16 import vgg16_network

    return vgg16_network(load_weights(model.weights, model.layer), model.layer)


def _arithmetic(
    network: Network, device: torch.device, precision: Precision, cpus: int, folder: Path | None
) -> Arithmetic:
    if device.type != "cpu":
        chosen = Precision.FP16 if precision is Precision.AUTO else precision
        return Arithmetic(chosen, step_images=GPU_IMAGES)
    key = calibration_key(network, precision, cpus)
    file = CalibrationFile(folder) if folder is not None else None
    if file is not None and (known := file.recall(key)) is not None:
        return known
    started = time.perf_counter()
    arithmetic = calibrate(network, precision, cpus)
    log.info(
        "model calibrated precision=%s kernel=%s step_images=%d workers=%d calibrate_s=%.1f",
        arithmetic.precision,
        arithmetic.kernel,
        arithmetic.step_images,
        arithmetic.workers,
        time.perf_counter() - started,
    )
    if file is not None:
        file.keep(key, arithmetic)
    return arithmetic
