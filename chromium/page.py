"""One open page: what a person does with it, and what it says of itself."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import Any

from chromium.keys import CTRL, SHIFT, strokes
from chromium.process import Browser, BrowserError

WAIT_S = 60.0
_LOOK_EVERY_S = 0.02
_DOMAINS = ("Page", "Runtime", "Log", "Audits", "Network", "Accessibility")
# What the page moves by itself is counted from its first moment on.
_BEFORE_ALL = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    const nodes = entry.sources.map((one) => one.node?.outerHTML?.slice(0, 80));
    window.shifts.push([entry.value, nodes]);
  }
}).observe({ type: 'layout-shift', buffered: true });
"""
_MIDDLE = """
(() => {
  const e = document.querySelector(%s);
  if (!e) return 'it is not there';
  e.scrollIntoView({ block: 'nearest', inline: 'nearest', behavior: 'instant' });
  const b = e.getBoundingClientRect();
  if (!b.width || !b.height) return 'it is not shown';
  const [x, y] = [b.left + b.width / 2, b.top + b.height / 2];
  const top = document.elementFromPoint(x, y);
  return e.contains(top) ? [x, y] : `it is covered by ${top?.outerHTML.slice(0, 200)}`;
})()
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a page is looked at with.

    Attributes
    ----------
    width, height
        In CSS pixels.
    scale
        Pixels of the screen in one of these.
    scheme
        ``light`` or ``dark``.
    is_phone
        A finger, no mouse.
    """

    width: int = 1280
    height: int = 800
    scale: float = 1
    scheme: str = "light"
    is_phone: bool = False


class Page:
    """A page in a browser, with cookies of its own.

    Attributes
    ----------
    complaints
        What the browser had to say against the page: errors and warnings of its console,
        answers that failed, whatever the content security policy refused.
    """

    def __init__(self, browser: Browser, look: Look | None = None) -> None:
        self.browser = browser
        self._context = browser.ask("Target.createBrowserContext")["browserContextId"]
        target = browser.ask(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = browser.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = str(attached["sessionId"])
        self._loaded: set[str] = set()
        self.complaints: list[str] = []
        browser.listen(self._session, self._happened)
        for domain in _DOMAINS:
            self.ask(f"{domain}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)
        self.ask("Emulation.setScrollbarsHidden", hidden=True)
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=_BEFORE_ALL)
        self.look(look or Look())

    def close(self) -> None:
        """Close it and forget its cookies."""
        self.browser.ask("Target.disposeBrowserContext", browserContextId=self._context)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        return self.browser.ask(method, self._session, **params)

    def _happened(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.add(params["loaderId"])
        elif method == "Log.entryAdded":
            entry = params["entry"]
            if entry["level"] in ("warning", "error"):
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}".strip())
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            said = details.get("exception", {}).get("description", "")
            self.complaints.append(f"{details['text']} {said}".strip())
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Audits.issueAdded":
            self.complaints.append(json.dumps(params["issue"]))

    def take_complaints(self) -> list[str]:
        """Return what was complained of so far, and forget it."""
        self.browser.hear(0)
        taken, self.complaints = self.complaints, []
        return taken

    # --- where one is, and how it looks --------------------------------------------------------

    def look(self, look: Look) -> None:
        """Look at it with another screen."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=look.width,
            height=look.height,
            deviceScaleFactor=look.scale,
            mobile=look.is_phone,
        )
        self.ask(
            "Emulation.setTouchEmulationEnabled",
            enabled=look.is_phone,
            maxTouchPoints=1,
        )
        # What moves is not where it seems to be, and a picture of it is another one each time.
        features = {"prefers-color-scheme": look.scheme, "prefers-reduced-motion": "reduce"}
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        answer = self.ask("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        self._wait_loaded(answer["loaderId"])

    def reload(self) -> None:
        """Load the same page again."""
        self._loaded.clear()
        self.ask("Page.reload")
        self._until(lambda: bool(self._loaded), "the page is loaded again")

    def _wait_loaded(self, loader: str) -> None:
        self._until(lambda: loader in self._loaded, "the page is loaded")

    def _until(self, is_so: Any, what: str, timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {timeout_s:g} s: {what}; {self._where()}")
            self.browser.hear(_LOOK_EVERY_S)

    def _where(self) -> str:
        said = self.run("`${location.href}: ${document.body?.innerText.slice(0, 1500)}`")
        return f"{said}\n{self.complaints}"

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        result = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"{script[:200]}: {json.dumps(result['exceptionDetails'])[:800]}")
        return result["result"].get("value")

    def wait(self, condition: str, timeout_s: float = WAIT_S) -> Any:
        """Wait until a JavaScript expression is true, also on a page to come; return its value."""
        found: list[Any] = [None]
        script = f"(() => {{ const it = {condition}; return it instanceof Node || it; }})()"

        def is_so() -> bool:
            try:
                found[0] = self.run(script)
            except BrowserError as error:
                # The page is being left for another one.
                if not any(word in str(error) for word in ("context", "navigated", "null")):
                    raise
            return bool(found[0])

        self._until(is_so, condition, timeout_s)
        return found[0]

    def text(self, selector: str) -> str:
        """Return what an element says, as it is seen, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        return str(self.wait(f"{found} && [{found}.innerText]")[0])

    # --- hands -------------------------------------------------------------------------------

    def press(self, *keys: str, shift: bool = False, ctrl: bool = False) -> None:
        """Press keys one after another."""
        modifiers = SHIFT * shift + CTRL * ctrl
        for key in keys:
            for stroke in strokes(key, modifiers):
                self.ask("Input.dispatchKeyEvent", **stroke)

    def type(self, text: str) -> None:
        """Write a text key by key."""
        self.press(*text)

    def click(self, selector: str, *, shift: bool = False, ctrl: bool = False) -> None:
        """Click into the middle of an element, once it is there and nothing covers it."""
        x, y = self._middle(selector)
        modifiers = SHIFT * shift + CTRL * ctrl
        at = {"x": x, "y": y, "modifiers": modifiers}
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def tap(self, selector: str) -> None:
        """Touch the middle of an element with a finger."""
        x, y = self._middle(selector)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _middle(self, selector: str) -> tuple[float, float]:
        script = _MIDDLE % json.dumps(selector)
        found: list[Any] = [""]

        def is_so() -> bool:
            found[0] = self.run(script)
            return isinstance(found[0], list)

        try:
            self._until(is_so, f"{selector} can be clicked", 10)
        except BrowserError as error:
            raise BrowserError(f"{selector}: {found[0]}; {error}") from error
        x, y = found[0]
        return x, y

    # --- what it says of itself ----------------------------------------------------------------

    def cookies(self) -> list[dict[str, Any]]:
        """Return its cookies, with their flags."""
        return list(self.ask("Network.getCookies")["cookies"])

    def shifts(self) -> list[tuple[float, list[str]]]:
        """Return each layout shift since it was opened, and what was shifted."""
        return [(value, nodes) for value, nodes in self.run("window.shifts")]

    def accessible(self) -> list[dict[str, Any]]:
        """Return the nodes that a screen reader is told of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node.get("ignored")]

    def screenshot(self) -> bytes:
        """Return a picture of the window, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot")["data"])
