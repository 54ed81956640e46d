"""How soon the web page is there: ``python -m benchmarks.web_page``, with a real Chromium.

A synthetic library (``benchmarks.synthetic``) with one cluster of 10,000 pictures, ``imgsortd
web`` over it as a process of its own, no daemon. The pictures that the grid shows are real JPEGs
on disk: an answer that there is none would be quicker than any picture. Each load has a cache of
its own, which is empty.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from chromium import Browser, Page, running_browser, served
from PIL import Image
from rich.console import Console

from benchmarks.figures import Figure, Part, Unit, figure_of
from benchmarks.machine import describe_machine
from benchmarks.processes import environ, run_module
from benchmarks.report import WIDTH, render, write_json
from benchmarks.running import write_config
from benchmarks.targets import FIRST_PAINT_TARGET, PAGE_WEIGHT_TARGET
from imgsortd.adapters.store import Store, open_store
from imgsortd.adapters.store_web import WebRows
from imgsortd.config import Config, load_config
from imgsortd.web.cluster_facts import Middles, day_edges, look_at
from imgsortd.web.overview import FIRST_SAMPLE, SAMPLE

IMAGES, LOADS, WALL = 100_000, 9, 10_000
_SIZE = (640, 480)
_KB, _MS = 1e3, 1e3
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


def gather_cluster(store: Store, pictures: int) -> None:
    """Put so many pictures into cluster 0."""
    with store.atomic():
        store.connection.execute(
            "UPDATE files SET cluster_id = 0, dst = CAST('cluster_0/' || CAST(src AS TEXT) AS BLOB)"
            " WHERE id <= ?",
            (pictures,),
        )


def make_pictures_real(config: Config, store: Store) -> int:
    """Write the JPEG of every picture that the grid shows; return how many these are."""
    rows = WebRows(store.connection)
    middles, edges = Middles(rows), day_edges(time.time())
    shown = {
        file_id
        for cluster in rows.clusters()
        for sample in (SAMPLE, FIRST_SAMPLE)
        for file_id, _ in look_at(rows, cluster.cluster_id, edges, middles, sample).mosaic
    }
    chance = np.random.default_rng(0)
    with store.atomic():
        for file_id in sorted(shown):
            _write_picture(config.target, store, file_id, chance)
    return len(shown)


def _write_picture(target: Path, store: Store, file_id: int, chance: np.random.Generator) -> None:
    few = chance.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(few).resize(_SIZE, Image.Resampling.BICUBIC)
    picture.save(file, "JPEG", quality=85, comment=b"%d" % file_id)
    data = file.getvalue()
    sha256 = hashlib.sha256(data).digest()
    row = store.connection.execute("SELECT sha256, dst FROM files WHERE id = ?", (file_id,))
    before, dst = row.fetchone()
    for table in ("files", "features"):
        store.connection.execute(
            f"UPDATE {table} SET sha256 = ? WHERE sha256 = ?", (sha256, before)
        )
    path = target / dst.decode()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def load(browser: Browser, address: str) -> dict[str, float]:
    """Load the grid with an empty cache; return its times in seconds and its weight in bytes."""
    page = Page(browser)
    page.open(f"{address}/")
    first_byte, paint = page.wait(_TIMES)
    page.wait("!document.querySelector('[data-rest]')")
    parts = page.run(_WEIGHT)
    page.close()
    sent, raw = (sum(part[column] for part in parts) for column in (0, 1))
    return {
        "first_byte_s": first_byte / _MS,
        "paint_s": paint / _MS,
        "sent_bytes": sent,
        "raw_bytes": raw,
    }


def ask(browser: Browser, address: str, path: str, times: int) -> list[float]:
    """Ask for data from within a page; return the seconds until it is read, each time."""
    page = Page(browser)
    page.open(f"{address}/status")
    seconds = [page.run(_ASK % path) / _MS for _ in range(times)]
    page.close()
    return seconds


def measure(images: int, loads: int, work: Path, say: Callable[[str], None]) -> Part:
    """Fill a store, serve it, and look at it."""
    config_file = write_config(work / "library")
    say(f"web page: writing {images:,} features")
    run_module("benchmarks.synthetic", config_file, "-n", str(images))
    config = load_config(config_file)
    store = open_store(config.database)
    wall = min(WALL, images)
    gather_cluster(store, wall)
    pictures = make_pictures_real(config, store)
    store.close()
    log_file = config_file.with_name("web.log")
    serving = served(config_file, log_file, environ())
    with serving as address, running_browser(work / "profile") as browser:
        say(f"web page: {loads} loads")
        rounds = [load(browser, address) for _ in range(loads + 1)]
        say("web page: walls and neighbours")
        walls = ask(browser, address, "/api/clusters/0/pictures?order=near", loads)
        similar = ask(browser, address, "/api/pictures/1/similar?count=100", loads)
    part = Part("web page", _figures(rounds, walls, similar, wall))
    part.notes = [
        f"{images:,} pictures in 300 clusters, {pictures:,} of them shown in the grid; each load "
        "with an empty cache, the first one after the start of the server apart",
        "weight: the page, its style sheet and its scripts, without pictures; KB = 10³ bytes",
    ]
    part.raw = {"loads": rounds, "wall_s": walls, "similar_s": similar}
    return part


def _figures(
    rounds: list[dict[str, float]], walls: list[float], similar: list[float], wall: int
) -> list[Figure]:
    first, rest = rounds[0], rounds[1:]

    def of(key: str) -> list[float]:
        return [one[key] for one in rest]

    sent, raw = (max(one[key] for one in rounds) / _KB for key in ("sent_bytes", "raw_bytes"))
    return [
        figure_of("first contentful paint", of("paint_s"), Unit.SECONDS, FIRST_PAINT_TARGET),
        figure_of("  first byte", of("first_byte_s"), Unit.SECONDS),
        Figure("  paint of the first load", first["paint_s"], Unit.SECONDS),
        Figure("weight of the grid, as sent", sent, Unit.KILOBYTES, target=PAGE_WEIGHT_TARGET),
        Figure("  before compression", raw, Unit.KILOBYTES),
        figure_of(f"first chunk of a wall of {wall:,}", walls[1:], Unit.SECONDS),
        Figure("  the first time", walls[0], Unit.SECONDS),
        figure_of("similar, 100 of all", similar[1:], Unit.SECONDS),
        Figure("  the first time", similar[0], Unit.SECONDS),
    ]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web_page", description=__doc__)
    parser.add_argument("-n", "--images", type=int, default=IMAGES, help="pictures in the library")
    parser.add_argument("--loads", type=int, default=LOADS, help="loads after the first one")
    parser.add_argument("--json", type=Path, help="write everything that was measured there")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parse()
    notes = Console(stderr=True, highlight=False, soft_wrap=True, style="dim")
    with TemporaryDirectory(prefix="imgsortd-web-page-") as work:
        part = measure(
            options.images, options.loads, Path(work), lambda line: notes.print(line, markup=False)
        )
    machine = describe_machine()
    Console(highlight=False, width=WIDTH).print(render([part], machine))
    if options.json:
        settings: dict[str, Any] = {name: str(value) for name, value in vars(options).items()}
        write_json(options.json, [part], machine, settings)


if __name__ == "__main__":
    main()
