"""The resident model as the configuration asks for it: backbone, engine, device, arithmetic."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from imgsortd.adapters.calibration import CalibrationFile, calibrate, calibration_key
from imgsortd.adapters.cpus import limit_threads, usable_cpus
from imgsortd.adapters.extras import require_extras
from imgsortd.adapters.networks import Network
from imgsortd.adapters.resident import Extractor, Resident
from imgsortd.adapters.torch_engine import GPU_IMAGES, Arithmetic, TorchExtractor, choose_device
from imgsortd.adapters.weights import Progress, load_weights
from imgsortd.config import Engine, ModelConfig, Precision
from imgsortd.core.records import Backbone

log = logging.getLogger(__name__)


def build_extractor(
    model: ModelConfig, folder: Path | None = None, on_progress: Progress | None = None
) -> Resident:
    """Load the configured weights and put the network on its device.

    Parameters
    ----------
    folder
        Where the calibration and an int8 model that was checked are kept (``state_dir``);
        None: the calibration is made anew each time.

    Raises
    ------
    WeightsError
        The weights cannot be had or do not fit the backbone and layer.
    ConfigError
        The configured device or a package that the configuration needs is not there.
    """
    return Resident(lambda: _build(model, folder, on_progress))


def _build(model: ModelConfig, folder: Path | None, on_progress: Progress | None) -> Extractor:
    started = time.perf_counter()
    require_extras(model)
    cpus = usable_cpus()
    limit_threads(cpus)
    network = _network(model, on_progress)
    if model.engine is Engine.OPENVINO:
        from imgsortd.adapters.openvino_engine import OpenVinoExtractor

        extractor: Extractor = OpenVinoExtractor(network, model.precision, cpus, folder)
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


def _network(model: ModelConfig, on_progress: Progress | None) -> Network:
    if model.backbone is Backbone.EFFICIENTNET_LITE0:
        from imgsortd.adapters.efficientnet import efficientnet_lite0_network

        return efficientnet_lite0_network(model.weights)
    from imgsortd.adapters.vgg16 import vgg16_network

    weights = load_weights(model.weights, model.layer, on_progress=on_progress)
    return vgg16_network(weights, model.layer)


def _arithmetic(
    network: Network, device: torch.device, precision: Precision, cpus: int, folder: Path | None
) -> Arithmetic:
    if device.type != "cpu":
        chosen = Precision.FP16 if precision is Precision.AUTO else precision
        return Arithmetic(chosen, step_images=GPU_IMAGES)
    key = calibration_key(network, precision, cpus)
    file = CalibrationFile(folder) if folder is not None else None
    known = file.recall(key) if file is not None else None
    if known is not None:
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
