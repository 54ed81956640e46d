"""Fixtures that cost something, made once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser as chromium
import pytest
from hypothesis import settings
from playwright.sync_api import Browser, Page

import examine
import warm
from debian_packages import install_chromium
from imgsortd.pictures import decoder
from imgsortd.system import filesystem
from inboxes import Inbox
from killed_line import KillServer
from made_once import made_once
from mounts import folder_in_memory, tmpfs
from pace import hurry
from process_state import changes, process_state
from support import DaemonProcess, nest

# Tests run side by side: a thread that waits for another's share of a product is not to
# spin on a CPU that a third could use. Read by OpenMP when it is loaded, also in daemons.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A busy machine is no failure: pytest-timeout ends what hangs.
# The same examples in every run; --hypothesis-profile=explore looks for others.
settings.register_profile("imgsortd", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("imgsortd")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was skipped by the reason, each with its tests."""
    skips: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            skips.setdefault(reason, []).append(report.nodeid)
    if skips:
        terminalreporter.section("skipped, by reason", sep="-")
    for reason, tests in sorted(skips.items()):
        terminalreporter.write_line(f"{len(tests)} x {reason}")
        for test in sorted(tests):
            terminalreporter.write_line(f"    {test}")


def _given_back() -> Iterator[None]:
    before = process_state()
    yield
    left = changes(before, process_state())
    assert not left, "the process is not as it was before: " + "; ".join(left)


# What a test changes, the fixture that changed it gives back; so do fixtures of a module.
test_gives_back = pytest.fixture(autouse=True)(_given_back)
module_gives_back = pytest.fixture(autouse=True, scope="module")(_given_back)


@pytest.fixture(scope="session", autouse=True)
def _decoders_are_forked() -> Iterator[None]:
    """Fork decoding processes from a warm parent: most tests start one, few are about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "subprocess", warm.forking_decoders())
        yield


@pytest.fixture
def started_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start decoding processes as a user's are."""
    monkeypatch.setattr(decoder, "subprocess", subprocess)


@pytest.fixture(scope="session")
def conv_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of seeded random VGG16 convolutions (59 MB): real shapes, no download."""

    def write(folder: Path) -> None:
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
        save_file(tensors, folder / "conv.safetensors")

    return made_once(tmp_path_factory, "random-convolutions", write) / "conv.safetensors"


@pytest.fixture
def threads_given_back() -> Iterator[None]:
    """Take back what `limit_threads` sets for the whole process, as building an extractor does.

    A program computes to its end with the threads it has been limited to; a test is
    followed by others.
    """
    import torch

    before, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    if before is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    else:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """Return a daemon process in ``tmp_path``, killed at the end of the test."""
    process = DaemonProcess(tmp_path)
    yield process
    if process.is_alive():
        process.stop(9)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return another filesystem; asked for before ``make``, it outlives the daemons."""
    with tmpfs(tmp_path / "disk"):
        yield tmp_path / "disk"


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
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the product's intervals in this process to those of a quick daemon."""
    hurry(monkeypatch.setattr)


@pytest.fixture
def leases_allowed() -> Iterator[None]:
    """Let the kernel be asked for open writers, as the daemon does, and take that back."""
    before = signal.getsignal(signal.SIGIO)
    filesystem.allow_leases()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture(scope="session")
def server() -> Iterator[KillServer]:
    """Return a server that sorts in processes that may die."""
    with KillServer() as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder in memory, where there is one: an fsync costs nothing there."""
    with folder_in_memory() as folder:
        yield folder


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
def browser(has_chromium: None) -> Iterator[Browser]:
    """Return a running Chromium, for one module: another one's tests may want to use asyncio."""
    with chromium.running_browser() as browser:
        yield browser


@pytest.fixture
def complaints() -> examine.Complaints:
    """Return what the browser says against the pages of a test."""
    return examine.Complaints()


@pytest.fixture
def new_page(browser: Browser, complaints: examine.Complaints) -> Iterator[Callable[..., Page]]:
    """Return a function that opens an empty page; see at the end that nothing was wrong."""
    opened: list[Page] = []

    def new_page(**look: Any) -> Page:
        page = chromium.new_page(browser, **look)
        opened.append(page)
        page.add_init_script(examine.COUNT_SHIFTS)
        complaints.listen(page)
        return page

    yield new_page
    said = complaints.take()
    for page in opened:
        page.context.close()
    assert said == []


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """Return an empty page in a window of 1280 × 800."""
    return new_page()


@pytest.fixture
def endless_folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with 1,500 more, each in the one before: deeper than Python's stack."""
    root = tmp_path / "endless"
    root.mkdir()
    nest(root, 1500)
    yield root
    subprocess.run(["rm", "-rf", root], check=True)  # pytest's own clean-up would recurse
