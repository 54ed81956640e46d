"""How soon the web page is there: ``python -m benchmarks.page``, with a real Chromium.

A synthetic library with one cluster of 10,000 pictures, ``imgsortd web`` over it as a process
of its own, no daemon. The pictures that the grid shows are real JPEGs on disk: an answer that
there is none would be quicker than any picture. Each load has an empty cache of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from browser import new_page, running_browser, served, wait
from PIL import Image
from playwright.sync_api import Browser

from benchmarks.figures import Figure, Part, Unit, at_most, figure_of, finish, say
from benchmarks.processes import call, environ, write_config
from benchmarks.refit import fill
from imgsortd.config import load_config
from imgsortd.store.database import Store, open_for_writing
from imgsortd.web.clusters import FIRST_SAMPLE, SAMPLE, Middles, day_edges, look_at

_WALL, _SIZE, _KB, _MS = 10_000, (640, 480), 1e3, 1e3
_TIMES = """
(() => {
  const [page] = performance.getEntriesByType('navigation');
  const [paint] = performance.getEntriesByName('first-contentful-paint');
  return paint && [page.responseStart, paint.startTime];
})()
"""
# Everything but pictures and data: the page, its style sheet and scripts.
_WEIGHT = """
performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
  .filter(entry => !/^\\/(pictures|api)\\//.test(new URL(entry.name).pathname))
  .map(entry => [entry.encodedBodySize, entry.decodedBodySize])
"""
_ASK = """
(async () => {
  const start = performance.now();
  await (await fetch('%s')).json();
  return performance.now() - start;
})()
"""


def make_pictures_real(target: Path, store: Store) -> None:
    """Write the JPEG of every picture that the grid shows."""
    rows, chance, ask = store.shown, np.random.default_rng(0), store.connection.execute
    middles, edges = Middles(rows), day_edges(time.time())
    shown = {
        file_id
        for cluster in store.hands.cluster_folders()
        for sample in (SAMPLE, FIRST_SAMPLE)
        for file_id, _ in look_at(rows, cluster.cluster_id, edges, middles, sample).mosaic
    }
    few, file = chance.integers(0, 256, (12, 16, 3)).astype(np.uint8), io.BytesIO()
    Image.fromarray(few).resize(_SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    with store.atomic():
        for file_id in sorted(shown):
            data = file.getvalue() + b"%d" % file_id  # another file, behind the end of the picture
            sha256 = hashlib.sha256(data).digest()
            before, dst = ask("SELECT sha256, dst FROM files WHERE id = ?", (file_id,)).fetchone()
            for table in ("files", "features"):
                ask(f"UPDATE {table} SET sha256 = ? WHERE sha256 = ?", (sha256, before))
            path = target / dst.decode()
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


def load(browser: Browser, address: str) -> list[float]:
    """Load the grid; return seconds to first byte and paint, and KB as sent and as they are."""
    page = new_page(browser)
    page.goto(f"{address}/")
    wait(page, _TIMES)
    first_byte, paint = page.evaluate(_TIMES)
    wait(page, "!document.querySelector('[data-rest]')")
    sent, raw = map(sum, zip(*page.evaluate(_WEIGHT), strict=True))
    page.context.close()
    return [first_byte / _MS, paint / _MS, sent / _KB, raw / _KB]


def ask(browser: Browser, address: str, path: str, times: int) -> list[float]:
    """Ask for data from within a page; return the seconds until it is read, each time."""
    page = new_page(browser)
    page.goto(f"{address}/status")
    seconds = [page.evaluate(_ASK % path) / _MS for _ in range(times)]
    page.context.close()
    return seconds


def measure(images: int, loads: int, work: Path) -> Part:
    """Fill a store, serve it, and look at it; what came first is cold, and told apart."""
    config_file, wall = write_config(work / "library"), min(_WALL, images)
    say(f"web page: writing {images:,} features, then {loads} loads")
    call(fill, config_file, images)
    config = load_config(config_file)
    store = open_for_writing(config.database)
    with store.atomic():  # so many pictures into one cluster
        store.connection.execute(
            "UPDATE files SET cluster_id = 0, dst = CAST('cluster_0/' || CAST(src AS TEXT) AS BLOB)"
            " WHERE id <= ?",
            (wall,),
        )
    make_pictures_real(config.target, store)
    store.close()
    serving = served(config_file, config_file.with_name("web.log"), environ())
    with serving as address, running_browser() as browser:
        rounds = [load(browser, address) for _ in range(loads + 1)]
        walls = ask(browser, address, "/api/clusters/0/pictures?order=near", loads + 1)
        similar = ask(browser, address, "/api/pictures/1/similar?count=100", loads + 1)
    first_bytes, paints, sent, raw = map(list, zip(*rounds, strict=True))
    part = Part("web page", raw={"loads": rounds, "wall_s": walls, "similar_s": similar})
    part.figures = [
        figure_of("first contentful paint", paints[1:], Unit.SECONDS, at_most(0.3)),
        figure_of("  first byte", first_bytes[1:], Unit.SECONDS),
        Figure("  paint of the first load", paints[0], Unit.SECONDS),
        Figure("weight of the grid, as sent", max(sent), Unit.KILOBYTES, at_most(150.0)),
        Figure("  before compression", max(raw), Unit.KILOBYTES),
        figure_of(f"first chunk of a wall of {wall:,}", walls[1:], Unit.SECONDS),
        Figure("  the first time", walls[0], Unit.SECONDS),
        figure_of("similar, 100 of all", similar[1:], Unit.SECONDS),
        Figure("  the first time", similar[0], Unit.SECONDS),
    ]
    part.notes = [
        f"{images:,} pictures in 300 clusters; each load with an empty cache",
        "weight: the page, its style sheet and its scripts, without pictures; KB = 10³ bytes",
    ]
    return part


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser("python -m benchmarks.page", description=__doc__)
    parser.add_argument("-n", "--images", type=int, default=100_000, help="in the library")
    parser.add_argument("--loads", type=int, default=9, help="loads after the first one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: page-DATE.json")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="imgsortd-page-") as work:
        part = measure(options.images, options.loads, Path(work))
    finish([part], vars(options), options.json, "page")


if __name__ == "__main__":
    main()
