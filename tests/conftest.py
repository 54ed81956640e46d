"""Fixtures that cost something, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from inboxes import Inbox
from support import DaemonProcess

# A busy machine is no failure: pytest-timeout ends what hangs.
settings.register_profile("imgsortd", deadline=None)
settings.load_profile("imgsortd")


@pytest.fixture(scope="session")
def conv_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of seeded random VGG16 convolutions (59 MB): real shapes, no download."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import vgg16

    with torch.device("meta"):
        shapes = {name: t.shape for name, t in vgg16().features.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        fan_in = torch.Size(shape[1:]).numel()
        scale = (2 / fan_in) ** 0.5 if name.endswith("weight") else 0.0
        tensors[f"features.{name}"] = torch.randn(shape, generator=generator) * scale
    path = tmp_path_factory.mktemp("weights") / "conv.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """Return a daemon process in ``tmp_path``, killed at the end of the test."""
    process = DaemonProcess(tmp_path)
    yield process
    if process.is_alive():
        process.stop(9)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Inbox]]:
    """Make an inbox with a quick daemon, killed at the end of the test."""
    made: list[Inbox] = []

    def make(name: str = "", **changes: Any) -> Inbox:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        made.append(Inbox(folder, **changes))
        return made[-1]

    yield make
    for one in made:
        if one.daemon.is_alive():
            one.daemon.stop(9)
