"""``make screenshots``: the pictures of the page in docs/web/, of the demo's own photographs.

Real photographs, real VGG16, the real daemon, and a real Chromium in front of ``imgsortd web``.
What they need is made in a temporary folder, which is gone afterwards.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from browser import new_page, press, running_browser, served, wait
from daemon_process import listen, running_daemon
from gallery import DARK, DESK, PHONE, Gallery
from playwright.sync_api import Browser, Page
from playwright.sync_api import Error as BrowserError
from progress import look
from run import EXIT_INTERRUPTED, get_weights
from scenes import crop_of, crops, find_scenes, scene_of
from screen import out, say
from workspace import Workspace, claim

from imgsortd.config import load_config
from imgsortd.errors import EXIT_FAILED, ImgsortdError

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "web"
# Crops of each scene when a fit has been made: the first, and two by growth that change little,
# after which the library is grown, and a refit that changes more than MAX_CHURN waits.
FITS = (15, 22, 30)
EACH = FITS[-1]
MAX_CHURN = 0.05
CLUSTERS, CLUSTERS_OF_THE_REFIT = 12, 15
NAMES = {
    "astronaut": "Portraits",
    "bricks": "Brick walls",
    "cameraman": "At the tripod",
    "cat": "Cats",
    "coffee": "Coffee",
    "coins": "Coins",
    "grass": "Meadows",
    "gravel": "Gravel paths",
    "galaxies": "Deep sky",
    "motorcycle": "Motorcycles",
    "retina": "Retina",
    "rocket": "Rockets",
}
# Of scikit-image's too, and like nothing that is in a cluster.
ODD = ("moon.png", "ihc.png", "clock_motion.png", "page.png", "horse.png", "cell.png")
TOKEN = "only-for-this-picture"
LOG = "web.log"
_DAY_S = 86_400
_WAIT_S = 300.0
_TILES = "document.querySelectorAll('.tile').length"
_SAID = "document.querySelector('.said:not([hidden]) p')?.innerText"


def write_config(workspace: Workspace, n_clusters: int, **web: str) -> Path:
    """Write a configuration over the same folders."""
    data: dict[str, Any] = {
        "inbox": str(workspace.inbox),
        "target": str(workspace.target),
        "state_dir": str(workspace.root / "state"),
        "settle_s": 1.0,
        "clusters": {
            "n_clusters": n_clusters,
            "min_images": FITS[0] * len(find_scenes()),
            "quiet_s": 1,
        },
        "refit": {"max_churn": MAX_CHURN},
        "web": web,
    }
    file = workspace.root / "login.yaml" if web else workspace.config_file
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file


def drop_crops(workspace: Workspace, each: int, first: int = 1) -> int:
    """Drop crops of each scene, all at once; return how many."""
    made = [
        (name, data)
        for name, data in crops(find_scenes(), first + each - 1)
        if int(name.rpartition("-")[2].removesuffix(".jpg")) >= first
    ]
    for name, data in made:
        _drop(workspace, name, data)
    return len(made)


def drop_odd(workspace: Workspace) -> int:
    """Drop what no cluster is made for, and a file that cannot be read; return how many."""
    data = next(iter(find_scenes().values())).parent
    for file in ODD:
        _drop(workspace, f"{Path(file).stem}.jpg", crop_of(data / file))
    _drop(workspace, "from-the-old-phone.jpg", b"\xff\xd8 this card was not read to its end")
    return len(ODD) + 1


def _drop(workspace: Workspace, name: str, data: bytes) -> None:
    part = workspace.root / "new.part"
    part.write_bytes(data)
    part.rename(workspace.inbox / name)


def wait_placed(workspace: Workspace, expected: int) -> None:
    """Wait until so many files have their place."""
    config, deadline = load_config(workspace.config_file), time.monotonic() + _WAIT_S
    while look(config).placed < expected:
        if time.monotonic() > deadline:
            raise ImgsortdError(
                f"not all were sorted within {_WAIT_S:g} s:\n{workspace.log_tail()}"
            )
        time.sleep(0.2)


def wait_fitted(workspace: Workspace, images: int) -> None:
    """Wait until a fit of so many pictures is in force."""
    config, deadline = load_config(workspace.config_file), time.monotonic() + _WAIT_S
    while not look(config).last_fit.startswith(f"{images:,} pictures"):
        if time.monotonic() > deadline:
            raise ImgsortdError(
                f"no fit of {images:,} pictures within {_WAIT_S:g} s:\n{workspace.log_tail()}"
            )
        time.sleep(0.2)


def spread_over_weeks(workspace: Workspace) -> None:
    """Let what was sorted just now have come over four weeks, a little more each week."""
    chance = random.Random(16)
    database = sqlite3.connect(load_config(workspace.config_file).database)
    with database:
        ids = [row[0] for row in database.execute("SELECT id FROM files ORDER BY id")]
        for file_id in ids:
            back_s = min(27, int(chance.expovariate(1 / 9))) * _DAY_S
            database.execute(
                "UPDATE files SET done_at = done_at - ?1, seen_at = seen_at - ?1 WHERE id = ?2",
                (back_s, file_id),
            )
    database.close()


def names_of_clusters(workspace: Workspace) -> dict[int, str]:
    """Return a name for each cluster: of the scene that is commonest in its folder."""
    found = {}
    for folder in sorted(workspace.target.glob("cluster_*")):
        scenes = Counter(scene_of(path.name) for path in folder.iterdir())
        scene, count = scenes.most_common(1)[0]
        found[int(folder.name.removeprefix("cluster_"))] = (scene, count)
    best: dict[str, int] = {}
    for number, (scene, count) in found.items():
        if scene not in best or count > found[best[scene]][1]:
            best[scene] = number
    return {number: NAMES[scene] for scene, number in best.items() if scene in NAMES}


class Tour:
    """Goes through the pages and takes their pictures."""

    def __init__(self, browser: Browser, base: str, gallery: Gallery) -> None:
        self._browser, self.base, self._gallery = browser, base, gallery

    @contextmanager
    def page(self, path: str, until: str, look: dict[str, Any] = DESK) -> Iterator[Page]:
        """Open a page and wait until a condition holds; close it at the end."""
        page = new_page(self._browser, **look)
        page.goto(self.base + path)
        wait(page, until)
        yield page
        page.context.close()

    def take(self, page: Page, name: str) -> None:
        """Take a picture; the pointer and the focus are where they were left."""
        self._gallery.take(page, name)
        say("picture", name)

    def sorting(self, workspace: Workspace) -> int:
        """Visit the page for the first time, while the daemon sorts; return how many it gets."""
        with self.page("/", "document.querySelector('h1')") as page:
            dropped = drop_crops(workspace, FITS[0])
            filled = "document.querySelectorAll('.mosaic:has(img)').length"
            wait(page, f"{filled} === {CLUSTERS}", _WAIT_S)
            dropped += drop_crops(workspace, FITS[1] - FITS[0], FITS[0] + 1)
            wait(page, "document.querySelector('[data-live]').innerText.includes('waiting')")
            self.take(page, "sorting.png")
        wait_fitted(workspace, dropped)
        dropped += drop_crops(workspace, FITS[2] - FITS[1], FITS[1] + 1)
        wait_fitted(workspace, dropped)
        return dropped

    def name(self, names: dict[int, str]) -> None:
        """Give the clusters names, each on its page."""
        for number, name in names.items():
            with self.page(f"/clusters/{number}", "document.querySelector('h1')") as page:
                page.keyboard.press("F2")
                page.keyboard.type(name)
                page.keyboard.press("Enter")
                wait(page, f"({_SAID})?.startsWith('Renamed')")

    def clusters(self) -> None:
        """Show the grid by day and by night."""
        for look_at, name in ((DESK, "clusters.png"), (DARK, "clusters-dark.png")):
            with self.page("/", f"{_TILES} >= {CLUSTERS}", look_at) as page:
                self.take(page, name)

    def cluster(self, number: int) -> None:
        """Show a cluster with three pictures selected, then the list to move them to."""
        shots = "document.querySelectorAll('#wall .shot').length > 9"
        with self.page(f"/clusters/{number}", shots) as page:
            press(page, "ArrowRight", "ArrowRight", "ArrowRight")
            page.keyboard.press("x")
            press(page, "Shift+ArrowRight", "Shift+ArrowRight")
            self.take(page, "cluster.png")
            page.keyboard.press("m")
            page.keyboard.type("c")
            wait(page, "document.querySelectorAll('.picker li').length > 2")
            self.take(page, "move.png")

    def review(self) -> None:
        """Show a picture in review."""
        with self.page("/review", "document.querySelector('#picture').naturalWidth > 0") as page:
            self.take(page, "review.png")

    def refits(self) -> None:
        """Ask for a fit, and show it while it waits."""
        with self.page("/refits", "document.querySelector('[data-ask=refit]')") as page:
            page.click("[data-ask=refit]")
            wait(page, f"({_SAID})?.endsWith('waits for your word')", _WAIT_S)
            page.click(".said .icon")
            wait(page, "document.querySelector('#waiting')")
            wait(page, "document.querySelector('[data-count=refits]').innerText === '1'")
            self.take(page, "refits.png")

    def similar(self, picture: int) -> None:
        """Show what is most like a picture."""
        shots = "document.querySelectorAll('#wall .shot').length > 9"
        with self.page(f"/similar/{picture}", shots) as page:
            self.take(page, "similar.png")

    def status(self) -> None:
        """Show the status."""
        with self.page("/status", "document.querySelector('.plot')") as page:
            self.take(page, "status.png")

    def phone(self) -> None:
        """Show the grid and the review on a phone."""
        shown = "document.querySelector('#picture').naturalWidth > 0"
        with (
            self.page("/", f"{_TILES} >= {CLUSTERS}", PHONE) as grid,
            self.page("/review", shown, PHONE) as review,
        ):
            self._gallery.take_together([grid, review], "phone.png")
            say("picture", "phone.png")

    def login(self) -> None:
        """Show the login."""
        with self.page("/", "document.activeElement.id === 'token'") as page:
            self.take(page, "login.png")


def take_all(workspace: Workspace, browser: Browser, gallery: Gallery) -> None:
    """Sort, look, and take a picture of each page."""
    config = write_config(workspace, CLUSTERS)
    with running_daemon(workspace), served(config, workspace.root / LOG) as base:
        dropped = Tour(browser, base, gallery).sorting(workspace)
        wait_placed(workspace, dropped)
    spread_over_weeks(workspace)
    write_config(workspace, CLUSTERS_OF_THE_REFIT)
    with running_daemon(workspace), served(config, workspace.root / LOG) as base:
        tour = Tour(browser, base, gallery)
        more = drop_odd(workspace) + drop_crops(workspace, 2, EACH + 1)
        wait_placed(workspace, dropped + more)
        names = names_of_clusters(workspace)
        tour.name(names)
        tour.clusters()
        tour.cluster(_number(names, "Rockets"))
        tour.review()
        tour.similar(_picture(workspace, "coffee-03.jpg"))
        tour.status()
        tour.phone()
        tour.refits()
    token = workspace.root / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with_token = write_config(workspace, CLUSTERS, token_file=str(token))
    with served(with_token, workspace.root / LOG) as base:
        Tour(browser, base, gallery).login()


def _number(names: dict[int, str], name: str) -> int:
    return next(number for number, its in names.items() if its == name)


def _picture(workspace: Workspace, name: str) -> int:
    database = sqlite3.connect(load_config(workspace.config_file).database)
    [(number,)] = database.execute("SELECT id FROM files WHERE src = ?", (name.encode(),))
    database.close()
    return int(number)


def main() -> int:
    """Take them all, and say how large they are."""
    listen()
    try:
        gallery = Gallery(FOLDER)
        with (
            running_browser() as browser,
            TemporaryDirectory(prefix="imgsortd-screenshots-") as folder,
        ):
            get_weights()
            workspace = claim(Path(folder) / "library")
            try:
                take_all(workspace, browser, gallery)
            finally:
                workspace.release()
    except KeyboardInterrupt:
        out.print("\nstopped")
        return EXIT_INTERRUPTED
    except (ImgsortdError, BrowserError) as error:
        out.print(f"screenshots: {error}", markup=False, style="red")
        return EXIT_FAILED
    for name, size_bytes in gallery.sizes.items():
        say("written", f"{FOLDER / name}, {size_bytes / 1000:,.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
