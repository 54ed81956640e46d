"""The machine's own Chromium, driven by Playwright: for tests, screenshots and benchmarks.

Nothing in imgsortd needs it, and Playwright fetches no browser of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Error, Page, sync_playwright

from imgsortd.errors import ImgsortdError

WAIT_S = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Beside those that Playwright gives itself, which keep it from updating, reporting and syncing.
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--font-render-hinting=none",
    # No page may reach anything but this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def find_chromium() -> str | None:
    """Return the path of an installed Chromium."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium with a fresh profile; end it at the end.

    As long as it runs, an asyncio loop counts as running in this thread.

    Raises
    ------
    ImgsortdError
        There is none on this machine.
    """
    program = find_chromium()
    if program is None:
        raise ImgsortdError("Chromium is not installed; apt-get install chromium, or the like")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=_FLAGS, handle_sigint=False
        )
        try:
            yield browser
        finally:
            browser.close()


def new_page(
    browser: Browser,
    width: int = 1280,
    height: int = 800,
    *,
    scale: float = 1,
    scheme: Literal["light", "dark"] = "light",
    is_phone: bool = False,
) -> Page:
    """Open an empty page with cookies and a cache of its own; its context is to be closed.

    Parameters
    ----------
    width, height
        In CSS pixels.
    scale
        Pixels of the screen in one of these.
    is_phone
        A finger, no mouse.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        color_scheme=scheme,
        is_mobile=is_phone,
        has_touch=is_phone,
        # What moves is not where it seems to be, and a picture of it is another one each time.
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_S * 1000)
    return context.new_page()


def press(page: Page, *keys: str) -> None:
    """Press keys one after another, such as ``x`` or ``Shift+ArrowRight``."""
    for key in keys:
        page.keyboard.press(key)


def wait(page: Page, condition: str, timeout_s: float = WAIT_S) -> None:
    """Wait until a JavaScript expression is true, also on a page to come.

    Playwright's own ``wait_for_function`` is refused by a page whose policy forbids ``eval``.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if page.evaluate(f"Boolean({condition})"):
                return
        except Error as error:
            # An element is not there yet, or the page is being left for another one.
            if not any(word in str(error) for word in ("null", "context", "navigat")):
                raise
        if time.monotonic() > deadline:
            seen = page.inner_text("body")[:1500]
            raise Error(f"not within {timeout_s:g} s: {condition}; {page.url}: {seen}")
        page.wait_for_timeout(20)


@contextmanager
def served(
    config_file: Path, log_file: Path, environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run ``imgsortd web`` on a free port beside the block; yield its address.

    Raises
    ------
    ImgsortdError
        It does not come up; the text has what it said.
    """
    with (
        log_file.open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "imgsortd", "web", "-c", str(config_file), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environ,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            said = process.stdout.readline().decode().strip()
            if not said.startswith("open "):
                raise ImgsortdError(f"the page does not come up: {said}\n{log_file.read_text()}")
            yield said.removeprefix("open ").rstrip("/")
        finally:
            process.terminate()
