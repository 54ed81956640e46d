"""Load the configuration: one YAML file, checked whole before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from imgsortd.config.model import NAMED_WEIGHTS, Config, ModelConfig
from imgsortd.config.text import explain
from imgsortd.config.values import Device, Engine, Precision
from imgsortd.errors import ConfigError
from imgsortd.records import Backbone, Layer, Op

_NAMES = {name: name for name in ("inbox", "target", "state_dir")}


def load_config(path: Path) -> Config:
    """Read and check a configuration file, the folders it names included.

    Relative paths in it are relative to the file's own folder.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or one or more keys are wrong; the
        text has a line for each, with file, key, expected, got and what to do.
    """
    config = read_config(path)
    check_folders(config, path)
    return config


def read_config(path: Path) -> Config:
    """Read and check a configuration file whose folders may not be there yet.

    Raises
    ------
    ConfigError
        As :func:`load_config`, but for missing folders.
    """
    return parse_config(_read_yaml(path), path)


def _read_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); "
            f"give an existing file with -c, or make one with `imgsortd init`"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8; a date such as 2024-13-45
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{path}: is not valid YAML{line} ({what}); correct it there") from error


def parse_config(data: object, path: Path) -> Config:
    """Check parsed YAML against the model; no folder is looked at."""
    if not isinstance(data, dict):
        came = "an empty file" if data is None else f"a {type(data).__name__}"
        raise ConfigError(
            f"{path}: expected keys such as `inbox: /srv/imgsortd/inbox`, got {came}; "
            f"`imgsortd init` writes a file to start from"
        )
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(Config, error, path))) from error
    config = _resolve_paths(config, path.resolve().parent)
    _check_together(config, path)
    return config


def _resolve_paths(config: Config, folder: Path) -> Config:
    changes: dict[str, object] = {
        key: folder / getattr(config, key) for key in ("inbox", "target", "state_dir")
    }
    weights = config.model.weights
    if weights not in NAMED_WEIGHTS:
        weights = str(folder / Path(weights).expanduser())
        changes["model"] = config.model.model_copy(update={"weights": weights})
    if config.web.token_file is not None:
        token_file = folder / config.web.token_file
        changes["web"] = config.web.model_copy(update={"token_file": token_file})
    return config.model_copy(update=changes)


def _check_together(config: Config, path: Path) -> None:
    clusters = config.clusters
    if clusters.auto_least > clusters.auto_most:
        raise ConfigError(
            f"{path}: clusters.auto_least must not be above clusters.auto_most "
            f"({clusters.auto_most}), got {clusters.auto_least}; exchange the two"
        )
    if isinstance(clusters.n_clusters, int) and clusters.min_images < clusters.n_clusters:
        raise ConfigError(
            f"{path}: clusters.min_images must not be below clusters.n_clusters "
            f"({clusters.n_clusters}), got {clusters.min_images}; "
            f"a fit needs a picture for each cluster, ten are better"
        )
    check_model(config.model, path)
    if config.refit.move_sorted is True and config.op is Op.SYMLINK:
        raise ConfigError(
            f"{path}: refit.move_sorted must be auto or false with op: symlink, got true; "
            f"links are not moved after a refit, use hardlink or copy"
        )
    if not config.extensions or (
        config.extensions != "auto" and isinstance(config.extensions, str)
    ):
        raise ConfigError(
            f"{path}: extensions must be auto or a list of extensions such as [.jpg, .png], "
            f"got {config.extensions!r}; write auto, or at least one, in brackets"
        )


def check_model(model: ModelConfig, where: Path | str) -> None:
    """Refuse combinations of model keys that no network or engine has.

    Raises
    ------
    ConfigError
        With both keys and what to do.
    """
    lite = model.backbone is not Backbone.VGG16
    openvino = model.engine is Engine.OPENVINO
    if lite and model.layer is not Layer.POOL5:
        raise ConfigError(
            f"{where}: model.layer must be pool5 with backbone {model.backbone}, got "
            f"{model.layer}; fc2 and logits are layers of vgg16"
        )
    if lite and model.weights == "imagenet1k_v1":
        raise ConfigError(
            f"{where}: model.weights must be auto or a file with backbone {model.backbone}, got "
            f"imagenet1k_v1; that is a set of vgg16's weights"
        )
    if model.precision is Precision.INT8 and not openvino:
        raise ConfigError(
            f"{where}: model.precision int8 needs model.engine: openvino, got {model.engine}; "
            f"pip install 'imgsortd[openvino]' and set the engine, or take precision auto"
        )
    if openvino and model.device not in (Device.AUTO, Device.CPU):
        raise ConfigError(
            f"{where}: model.device must be auto or cpu with model.engine: openvino, got "
            f"{model.device}; for a GPU set model.engine: torch"
        )
    if openvino and model.precision is Precision.FP16:
        raise ConfigError(
            f"{where}: model.precision must be auto, fp32, bf16 or int8 with model.engine: "
            f"openvino, got fp16; take auto"
        )


def check_folders(config: Config, path: Path | str) -> None:
    """Check that the folders exist and do not contain one another.

    Raises
    ------
    ConfigError
        With the key, the folder and what to do.
    """
    for key in ("inbox", "target"):
        folder: Path = getattr(config, key)
        if not folder.is_dir():
            came = "a file" if folder.exists() else "nothing there"
            raise ConfigError(
                f"{path}: {key} must be an existing folder, got {folder} ({came}); "
                f"make it: mkdir -p '{folder}'"
            )
    if not os.access(config.inbox, os.R_OK | os.X_OK):
        raise ConfigError(
            f"{path}: inbox {config.inbox} cannot be listed by this user "
            f"(uid {os.geteuid()}); give it read and execute permission"
        )
    check_nesting(config, path)


def check_nesting(config: Config, where: Path | str, names: Mapping[str, str] = _NAMES) -> None:
    """Refuse folders that contain one another, however they are reached.

    Parameters
    ----------
    names
        What the error calls each of the three folders.

    Raises
    ------
    ConfigError
        With both folders and what to do.
    """
    for inner, outer in (("inbox", "target"), ("target", "inbox"), ("state_dir", "inbox")):
        inside, around = getattr(config, inner), getattr(config, outer)
        if _is_within(inside, around):
            raise ConfigError(
                f"{where}: {names[inner]} must not be {names[outer]} or inside it, got {inside} "
                f"in {around}; put the folders side by side"
            )


def _is_within(inner: Path, outer: Path) -> bool:
    """Compare by inode, not by name: a symlink or bind mount is the same folder."""
    try:
        wanted = os.stat(outer)
    except OSError:
        return False
    resolved = inner.resolve()
    for folder in (resolved, *resolved.parents):
        try:
            found = os.stat(folder)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
