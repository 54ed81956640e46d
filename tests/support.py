"""What the tests share: pictures to sort, a quick extractor, a real daemon process."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import warm
from imgsortd.clusters.fit import FitSource, fit_source
from imgsortd.config import parse_config
from imgsortd.config.model import Config
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.library import Library, open_library
from imgsortd.moves.roots import MARKER, Roots
from imgsortd.networks.model_thread import Computed
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.flow import Flow
from imgsortd.pipeline.line import Line, end
from imgsortd.records import (
    Arrivals,
    Backbone,
    BatchReport,
    Candidate,
    ExtractorId,
    Layer,
    Pixels,
    ReadResult,
    Start,
    Vectors,
)
from imgsortd.refits.adopting import Adoption
from imgsortd.refits.background import BackgroundFits
from imgsortd.refits.decisions import Decisions
from imgsortd.store.database import Store, open_for_writing
from imgsortd.target.watch import TargetWatch

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def paint(path: Path, colour: Sequence[int], seed: int, size: int = 64) -> Path:
    """Write a noisy picture of one colour; each seed gives other bytes."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-25, 26, (size, size, 3))
    pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def paint_groups(folder: Path, each: int, suffix: str = ".png", seed: int = 0) -> list[Path]:
    """Write ``each`` pictures of three colours: red-0.png, green-0.png, blue-0.png …"""
    colours = {"red": RED, "green": GREEN, "blue": BLUE}
    return [
        paint(folder / f"{name}-{number}{suffix}", colour, seed + 1000 * index + number)
        for index, (name, colour) in enumerate(colours.items())
        for number in range(each)
    ]


def each_file_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, while a daemon may take some away, and folders too.

    What is written in a target of whose it is is left out.
    """
    for where, _, names in os.walk(folder):  # unlike rglob, it goes on where a folder is gone
        paths = (Path(where) / name for name in names if name != MARKER)
        yield from (path for path in paths if path.is_file())


def sums(*folders: Path) -> dict[str, int]:
    """Return how often each content (sha256) is there, below the folders; state is left out."""
    found: dict[str, int] = {}
    for folder in folders:
        for path in each_file_below(folder):
            if not path.is_symlink() and ".imgsortd/" not in str(path) + "/":
                with suppress(FileNotFoundError):  # moved meanwhile
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    found[digest] = found.get(digest, 0) + 1
    return found


def leftovers(*folders: Path) -> list[Path]:
    """Return what a move makes on its way and drops at its end: claims, copies, tries."""
    found = [path for folder in folders for path in folder.rglob(".imgsortd*")]
    return sorted(path for path in found if path.name != MARKER)


def nest(folder: Path, deep: int) -> None:
    """Make folders, each in the one before; they may lie deeper than Python's stack."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(deep):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def tree(folder: Path) -> dict[str, list[str]]:
    """Return the files of each direct subfolder, by name."""
    return {
        below.name: sorted(os.listdir(below))
        for below in sorted(folder.iterdir())
        if below.is_dir()
    }


def wait_until(
    predicate: Callable[[], object], timeout_s: float = 60.0, what: str = "condition"
) -> None:
    """Wait for something to come true; fail with its name when it does not."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class ColourExtractor:
    """A FeatureExtractor without VGG16: the mean colour, length 1. Quick and exact."""

    def __init__(
        self,
        digest: str = "colour",
        layer: Layer = Layer.POOL5,
        backbone: Backbone = Backbone.VGG16,
    ) -> None:
        self.id = ExtractorId(digest, layer, 3, backbone)
        self.batch_images = 16
        self.on_cpu = True
        self.extracted = 0
        self.unloaded = False

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map pictures to float32 [n, 3]."""
        self.extracted += len(pixels)
        if not pixels:
            return np.empty((0, 3), dtype=np.float32)
        means = np.stack([picture.mean(axis=(0, 1)) for picture in pixels]).astype(np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def describe(self) -> str:
        return "colours"

    def unload(self) -> None:
        self.unloaded = True


class TurnedColours(ColourExtractor):
    """Another network: the same colours in another order, so that no old center fits."""

    def __init__(self) -> None:
        super().__init__("turned", backbone=Backbone.EFFICIENTNET_LITE0)

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        return super().extract(pixels)[:, [1, 2, 0]]


def make_config(folder: Path, **changes: Any) -> Config:
    """Make folders and a configuration in ``folder``; three clusters, quick settling."""
    data: dict[str, Any] = {
        "inbox": str(folder / "inbox"),
        "target": str(folder / "target"),
        "state_dir": str(folder / "state"),
        "settle_s": 0.2,
        "rescan_s": 2,
        "clusters": {
            "n_clusters": 3,
            "min_images": 6,
            "review_quantile": "off",
            "review_margin": "off",
            "max_share": "off",
            "quiet_s": 0,
        },
        "refit": {"max_churn": "off", "drift": "off"},
    }
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    for name in ("inbox", "target", "state_dir"):
        Path(data[name]).mkdir(parents=True, exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(data))
    return parse_config(data, file)


def make_library(config: Config, extractor: ColourExtractor | None = None) -> tuple[Library, Store]:
    """Open a library on a configuration, with the quick extractor."""
    store = open_for_writing(config.database)
    roots = roots_of(config, store)
    return open_library(config, store, extractor or ColourExtractor(), roots), store


def roots_of(config: Config, store: Store) -> Roots:
    """Put the folders of a configuration in use, as a start does; no lock is taken."""
    roots = Roots(config, store, lambda: None)
    roots.enter_inbox()
    roots.claim_target()
    return roots


def whereabouts_of(roots: Roots, inbox: Path) -> Whereabouts:
    """Return what meets the inbox, and takes whatever folder is there for it."""
    whereabouts = Whereabouts(inbox, roots, lambda: None, lambda _: False)
    whereabouts.accept()
    return whereabouts


def intake_of(library: Library, inbox: Inbox | None = None, **changes: Any) -> Intake:
    """Return the intake of a library, as the loop makes it."""
    config = library.config
    inbox = inbox or Inbox(
        config.inbox, config.recursive, config.ignore, config.extensions, config.companions
    )
    settings = {"settle_s": config.settle_s, **changes}
    whereabouts = whereabouts_of(library.roots, config.inbox)
    return Intake(inbox, library.store, whereabouts, library.companions, **settings)


def line_of(library: Library) -> Line:
    """Return the straight line of a library, as the loop makes it."""
    in_force, moves, companions = library.in_force, library.moves, library.companions
    return Line(library.store, library.extractor, in_force, moves, companions, lambda: False)


def source_of(library: Library, start: Start = Start.FORMER) -> FitSource:
    """Return what the next fit of a library is made of."""
    return fit_source(library.store, library.extractor.id, library.in_force, start)


def adoption_of(library: Library) -> Adoption:
    """Return what puts fits of a library in force."""
    extractor = library.extractor.id
    return Adoption(library.config, library.store, extractor, library.in_force, library.moves)


def decisions_of(library: Library) -> Decisions:
    """Return what takes a person's word on fits of a library."""
    extractor, adoption = library.extractor.id, adoption_of(library)
    return Decisions(library.store, extractor, library.in_force, library.moves, adoption)


def fits_of(
    library: Library,
    on_error: Callable[[str, str], None] = lambda *_: None,
    arrivals: Callable[[float], Arrivals] = lambda _: Arrivals(),
) -> BackgroundFits:
    """Return what makes fits of a library in the background."""
    return BackgroundFits(
        library.config,
        library.store,
        library.extractor.id,
        library.in_force,
        adoption_of(library),
        lambda *_: None,
        on_error,
        arrivals=arrivals,
    )


def watch_of(library: Library, is_fitting: Callable[[], bool] = lambda: False) -> TargetWatch:
    """Return what watches the target of a library, as the loop makes it."""
    return TargetWatch(
        library.config,
        library.store,
        library.in_force,
        library.folders,
        library.mover.after_each,
        is_fitting,
    )


def flow_of(
    library: Library, reader: PictureReader, on_computed: Callable[[], None] = lambda: None
) -> Flow:
    """Return what reads ahead for a library, as the loop makes it."""
    line = line_of(library)
    return Flow(line.way, reader, library.extractor, library.config, on_computed)


def process_batch(library: Library, results: Sequence[ReadResult]) -> BatchReport:
    """Take a batch its whole way, with no model's thread between its two halves."""
    line = line_of(library)
    way = line.way(results)
    return end(way, Computed(library.extractor.extract(next(way)), 0.0))


def make_grown(store: Store) -> None:
    """Let the last whole fit be the second calm refit of a library: what changes much is asked.

    The first fit, and the first calm refit, get numbers below those that are there.
    """
    with store.atomic():
        last = store.records.adopted()[-1]
        fit_id, images = last.fit_id, last.n_images
        (least,) = store.connection.execute("SELECT min(id) FROM fits").fetchone()
        before = int(images / 1.25)
        for number, count, churn in ((-2, int(before / 1.25), None), (-1, before, 0.0)):
            store.connection.execute(
                "INSERT INTO fits(id, extractor_id, fit_trigger, algorithm, n_clusters, n_images, "
                "random_state, inertia, churn, fit_s, created_at) SELECT ?, extractor_id, "
                "'growth', algorithm, n_clusters, ?, random_state, inertia, ?, fit_s, created_at "
                "FROM fits WHERE id = ?",
                (min(least, 1) + number, count, churn, fit_id),
            )
        store.connection.execute("UPDATE fits SET churn = 0 WHERE id = ?", (fit_id,))


@dataclass
class DaemonProcess:
    """``imgsortd run`` as a process of its own, with real VGG16."""

    folder: Path
    process: warm.Process | subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)
    program: Sequence[str] = ("-m", "imgsortd")

    @property
    def log(self) -> str:
        """All that every run in this folder has logged."""
        return (self.folder / "daemon.log").read_text(errors="replace")

    def start(self, *options: str, **environ: str) -> None:
        """Start it; ``environ`` is added to the environment."""
        command = [*self.program, "run", "-c", str(self.folder / "config.yaml"), *options]
        with open(self.folder / "daemon.log", "ab") as log:
            self.process = warm.start(command, log, environ={**self.environ, **environ})

    def wait_ready(self, times: int = 1) -> None:
        """Wait for the ``times``-th "daemon ready" line in the log."""
        wait_until(
            lambda: self.log.count("daemon ready") >= times or not self.is_alive(),
            what="daemon ready\n" + self.log,
        )
        assert self.is_alive(), self.log

    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


def run_cli(
    *arguments: str | Path, environ: dict[str, str] | None = None, timeout_s: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would."""
    environ = {"COLUMNS": "120", **(environ or {})}
    return warm.run(["-m", "imgsortd", *map(str, arguments)], environ, timeout_s)


def read_all(reader: PictureReader, candidates: Sequence[Candidate]) -> list[ReadResult]:
    """Read several files and wait for all of them."""
    return [future.result() for future in [reader.submit(candidate) for candidate in candidates]]
