"""What a page is examined for: contrast, names, headings, sizes, and the way of the Tab key.

Each function returns what is wrong, in words: nothing for a page that is as it should be.
"""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import ConsoleMessage, Page

LEAST_CONTRAST = 4.5
# What a page moves by itself is counted from its first moment on.
COUNT_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    const nodes = entry.sources.map((one) => one.node?.outerHTML?.slice(0, 80));
    window.shifts.push([entry.value, nodes]);
  }
}).observe({ type: 'layout-shift', buffered: true });
"""
MOST_SHIFT = 0.02
_LEAST_TARGET_PX = 24
_MOST_TABS = 250

# Contrast as WCAG 2 defines it, of each element that holds text itself, against the nearest
# background that is not clear; what is half clear itself is mixed with that. A control that is
# out of use may be faint.
CONTRASTS = """
(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = rgb => {
    const [r, g, b] = rgb.map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const back = e => {
    for (; e; e = e.parentElement) {
      const parts = parse(getComputedStyle(e).backgroundColor);
      if (parts.length < 4 || parts[3] > .5) return parts.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const clear = e => {
    let all = 1;
    for (; e; e = e.parentElement) all *= getComputedStyle(e).opacity;
    return all;
  };
  return [...document.querySelectorAll("body *")].filter(e => e.getClientRects().length &&
      !e.closest(":disabled, .unseen") && e.checkVisibility() &&
      [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const ground = back(e), share = clear(e);
    const ink = parse(getComputedStyle(e).color).slice(0, 3)
      .map((v, i) => v * share + ground[i] * (1 - share));
    const [a, b] = [light(ink), light(ground)];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    return [ratio, `${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`];
  });
})()
"""
# Wherever the keyboard could be: links, fields and what a script gives a place in the row.
_FOCUSABLE = """
[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
  .filter(e => !e.disabled && e.tabIndex >= 0 && e.type !== 'hidden' && e.checkVisibility())
"""
_FOCUSED = """
(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  e.dataset.reached = 1;
  const b = e.getBoundingClientRect(), s = getComputedStyle(e);
  const isAcross = b.width > 0 && b.right > 0 && b.left < innerWidth;
  const isIn = isAcross && b.bottom > 0 && b.top < innerHeight;
  const isMarked = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2;
  return [e.outerHTML.slice(0, 120), isIn, isMarked, e.matches(':focus-visible')];
})()
"""
_BASICS = """
(() => {
  const wrong = [], all = (s) => [...document.querySelectorAll(s)];
  if (document.documentElement.lang !== 'en') wrong.push('no lang');
  if (!/ · imgsortd$/.test(document.title)) wrong.push(`title ${document.title}`);
  if (all('h1').length !== 1) wrong.push('not one h1');
  if (all('main').length !== 1) wrong.push('not one main');
  let level = 0;
  for (const heading of all('h1, h2, h3, h4, h5, h6')) {
    if (!heading.checkVisibility()) continue;
    const its = Number(heading.tagName[1]);
    if (its > level + 1) wrong.push(`after h${level} ${heading.outerHTML.slice(0, 80)}`);
    level = its;
  }
  for (const image of all('img')) if (!image.hasAttribute('alt')) wrong.push(image.outerHTML);
  const ids = all('[id]').map(e => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`twice: ${id}`);
  for (const name of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'for'])
    for (const e of all(`[${name}]`))
      for (const id of e.getAttribute(name).split(' '))
        if (!document.getElementById(id)) wrong.push(`${name}=${id} leads nowhere`);
  return wrong;
})()
"""
_TOO_WIDE = """
(() => {
  const wide = document.documentElement.scrollWidth, wrong = [];
  if (wide > innerWidth) wrong.push(`${wide} px wide in a window of ${innerWidth}`);
  const isCut = e => e && (getComputedStyle(e).overflowX !== 'visible' || isCut(e.parentElement));
  for (const e of document.querySelectorAll('main *, header *')) {
    const b = e.getBoundingClientRect();
    if (!b.width || !e.checkVisibility() || isCut(e.parentElement)) continue;
    if (b.right > innerWidth + 1 || b.left < -1) wrong.push(e.outerHTML.slice(0, 120));
  }
  return wrong;
})()
"""
# A link inside a line of text may be as high as the line (WCAG 2.5.8).
_SMALL = f"""
[...document.querySelectorAll('a[href], button, input, select, summary, [role=option]')]
  .filter(e => e.checkVisibility() && e.type !== 'hidden' && !e.closest('.unseen, .skip, p'))
  .map(e => [e.closest('label') ?? e, e])
  .map(([box, e]) => [box.getBoundingClientRect(), e.outerHTML.slice(0, 120)])
  .filter(([b]) => b.width < {_LEAST_TARGET_PX} || b.height < {_LEAST_TARGET_PX})
  .map(([b, what]) => `${{b.width}} × ${{b.height}}: ${{what}}`)
"""
_CONTROLS = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "checkbox",
    "combobox",
    "listbox",
    "option",
    "dialog",
    "navigation",
    "group",
    "image",
}


class Complaints:
    """What the browser had to say against pages.

    Errors and warnings of the console, answers that failed, whatever the content security
    policy refused, and whatever else a page has printed.

    Parameters
    ----------
    but
        A pattern: lines in which it is found are none.
    """

    def __init__(self, but: str | None = None) -> None:
        self._but = but
        self._pages: list[Page] = []
        self._lines: list[str] = []

    def listen(self, page: Page) -> None:
        """Take down what is said against a page from now on."""
        page.on("console", self._printed)
        page.on("pageerror", lambda error: self._lines.append(error.stack or error.message))
        issues = page.context.new_cdp_session(page)
        issues.on("Audits.issueAdded", lambda said: self._lines.append(json.dumps(said)))
        issues.send("Audits.enable")
        self._pages.append(page)

    def _printed(self, message: ConsoleMessage) -> None:
        if message.type not in ("verbose", "info"):
            self._lines.append(f"{message.text} {message.location['url']}".strip())

    def take(self) -> list[str]:
        """Return what was said so far, and forget it."""
        for page in self._pages:
            page.evaluate("0")  # what was said before comes before the answer
        taken, self._lines = self._lines, []
        return [line for line in taken if not (self._but and re.search(self._but, line))]


def accessible(page: Page) -> list[dict[str, Any]]:
    """Return the nodes that a screen reader is told of."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [node for node in nodes if not node.get("ignored")]


def faint(page: Page) -> list[str]:
    """Return each text that has too little contrast with what is behind it."""
    return [
        f"{ratio:.2f}: {what}" for ratio, what in page.evaluate(CONTRASTS) if ratio < LEAST_CONTRAST
    ]


def unnamed(page: Page) -> list[str]:
    """Return each control of which a screen reader could not say what it is."""
    return [
        str(node)
        for node in accessible(page)
        if _value(node, "role") in _CONTROLS
        and not _value(node, "name").strip()
        and not _is_plain(node)
    ]


def _value(node: dict[str, Any], key: str) -> str:
    return str(node.get(key, {}).get("value", ""))


def _is_plain(node: dict[str, Any]) -> bool:
    """Tell whether a group is one without a role of its own, as a fieldset would be."""
    return _value(node, "role") == "group" and not node.get("properties")


def basics(page: Page) -> list[str]:
    """Return what is wrong with language, title, headings, texts of pictures, and ids."""
    return list(page.evaluate(_BASICS))


def too_wide(page: Page) -> list[str]:
    """Return what does not fit the width of the window."""
    return list(page.evaluate(_TOO_WIDE))


def too_small(page: Page) -> list[str]:
    """Return what a finger could not hit."""
    return list(page.evaluate(_SMALL))


def shifted(page: Page) -> list[str]:
    """Return what has moved by itself, if that is too much."""
    shifts = page.evaluate("window.shifts")
    total = sum(value for value, _ in shifts)
    return [f"{value:.4f}: {nodes}" for value, nodes in shifts] if total >= MOST_SHIFT else []


def off_the_keyboard(page: Page) -> list[str]:
    """Go through a page by the Tab key; return what it does not reach, or not visibly."""
    page.evaluate("document.activeElement?.blur()")
    wrong = []
    for _ in range(_MOST_TABS):
        page.keyboard.press("Tab")
        where = page.evaluate(_FOCUSED)
        if where is None:
            break
        what, is_in, is_marked, is_visible = where
        if not is_in:
            wrong.append(f"out of sight: {what}")
        if not (is_marked and is_visible):
            wrong.append(f"focus not seen: {what}")
    else:
        wrong.append(f"no end after {_MOST_TABS}")
    missed = f"({_FOCUSABLE}).filter(e => !e.dataset.reached).map(e => e.outerHTML.slice(0, 120))"
    return wrong + [f"not reached: {what}" for what in page.evaluate(missed)]
