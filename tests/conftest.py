"""Fixtures that cost something, made once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from chromium import Browser, Page, running_browser
from chromium.finding import install_chromium
from hypothesis import settings

from imgsortd.adapters import leases
from inboxes import Inbox
from killed_line import KillServer
from mounts import tmpfs
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


@pytest.fixture
def leases_allowed() -> Iterator[None]:
    """Let the kernel be asked for open writers, as the daemon does, and take that back."""
    before = signal.getsignal(signal.SIGIO)
    leases.allow_leases()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture(scope="session")
def server() -> Iterator[KillServer]:
    """Return a server that sorts in processes that may die."""
    with KillServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where there is one: an fsync costs nothing there."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else tmp_path
    with TemporaryDirectory(prefix="imgsortd-test-", dir=where) as folder:
        yield Path(folder)


@pytest.fixture
def folder_across(folder: Path) -> Iterator[Path]:
    """Return a folder whose ``target`` is another filesystem."""
    with tmpfs(folder / "target"):
        yield folder


@pytest.fixture(scope="session")
def has_chromium() -> None:
    """Skip where there is no Chromium and none can be installed; say why."""
    missing = install_chromium(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())))
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def browser(has_chromium: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a running Chromium."""
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return an empty page with cookies of its own; see at the end that nothing was wrong."""
    page = Page(browser)
    yield page
    complaints = page.take_complaints()
    page.close()
    assert complaints == []
