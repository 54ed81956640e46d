"""Headless Chromium, driven over its own pipe (DevTools protocol): no package, no network port.

For the tests, the screenshots and the benchmarks; nothing in imgsortd needs it.
"""

from chromium.finding import find_chromium
from chromium.page import Look, Page
from chromium.process import Browser, BrowserError, running_browser
from chromium.serving import served

__all__ = ["Browser", "BrowserError", "Look", "Page", "find_chromium", "running_browser", "served"]
