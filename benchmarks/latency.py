"""From drop to folder: single files into the idle daemon, then many at once.

Most single drops come a few seconds after the one before; some after a long rest, when
the daemon has given memory back to the system and must fetch it again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.burst import burst_figures, drop_at_once
from benchmarks.figures import Figure, Part, Unit, figure_of, percentile_figures
from benchmarks.pictures import PictureSet, picture_paths
from benchmarks.processes import count_sorted, wait_until
from benchmarks.running import RunningDaemon, daemon
from benchmarks.subject import Subject
from benchmarks.targets import LATENCY_TARGET
from imgsortd.config import Config

SETTLE_S = float(Config.model_fields["settle_s"].default)
N_CLUSTERS = 4
# The daemon calls itself idle two seconds after its last work.
_IDLE_AFTER_S = 2.5
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.002


@dataclass(frozen=True, slots=True)
class Drops:
    """How many files are dropped: to make the first fit, singly, after a rest, and at once."""

    first: int
    single: int
    burst: int
    rest_s: float

    @property
    def rested(self) -> int:
        """Drops after a rest: a fifth as many as the others."""
        return max(1, self.single // 5)

    @property
    def images(self) -> int:
        """All of them."""
        return self.first + self.single + self.rested + self.burst


def measure(
    pictures: PictureSet, drops: Drops, subject: Subject, work: Path, say: Callable[[str], None]
) -> Part:
    """Let a daemon sort and fit the first pictures, then drop the others."""
    paths = picture_paths(pictures.folder)
    first, later = paths[: drops.first], paths[drops.first : drops.images - drops.burst]
    clusters = {"n_clusters": N_CLUSTERS, "min_images": len(first), "quiet_s": 0}
    # A refit in the middle would be measured as latency; it is counted in no promise.
    refit = {"interval": "off", "growth": "off"}
    folder = work / f"latency-{subject.file_name}"
    with daemon(folder, clusters=clusters, refit=refit, model=subject.settings) as running:
        for path in first:
            shutil.copy(path, running.inbox)
        running.wait_sorted(len(first))
        say(
            f"latency, {subject.name}: {drops.single} single drops, {drops.rested} after "
            f"{drops.rest_s:g} s of rest, then {drops.burst} at once"
        )
        seconds = _drop_singly(running, later, drops)
        part = summarise(seconds[: drops.single], seconds[drops.single :], drops.rest_s)
        part.name = f"latency, {subject.name}"
        burst = drop_at_once(running, paths[drops.images - drops.burst :])
        if count_sorted(running.target) != drops.images:
            raise SystemExit("a dropped file is not in a cluster folder")
        part.notes.append(f"the model ran as {running.runs_on()}")
    part.figures += burst_figures(burst, SETTLE_S)
    part.notes += burst.notes(SETTLE_S)
    part.raw["burst"] = burst.as_dict()
    return part


def _drop_singly(running: RunningDaemon, paths: Sequence[Path], drops: Drops) -> list[float]:
    chance = random.Random(0)
    waits_s = [_IDLE_AFTER_S + chance.random() for _ in range(drops.single)]
    waits_s += [drops.rest_s] * drops.rested
    seconds = []
    for path, wait_s in zip(paths, waits_s, strict=True):
        time.sleep(wait_s)
        seconds.append(_drop(running, path))
    return seconds


def _drop(running: RunningDaemon, path: Path) -> float:
    """Return the seconds from the beginning of the copy until the file has left the inbox."""
    dropped = running.inbox / path.name
    started = time.perf_counter()
    shutil.copy(path, dropped)
    # A move is one rename: what has left the inbox stands in its folder.
    if not wait_until(lambda: not dropped.exists(), _TIMEOUT_S, _LOOK_EVERY_S):
        raise SystemExit(f"{path.name} was not sorted\n{running.log_file.read_text()}")
    return time.perf_counter() - started


def summarise(seconds: Sequence[float], rested: Sequence[float], rest_s: float) -> Part:
    """Turn drop-to-folder seconds of single drops into figures beyond ``settle_s``."""
    beyond = [value - SETTLE_S for value in seconds]
    beyond_rested = [value - SETTLE_S for value in rested]
    figures: list[Figure] = [
        *percentile_figures("idle", beyond, {50: LATENCY_TARGET}),
        figure_of(f"idle, after {rest_s:g} s of rest, p50", beyond_rested, Unit.SECONDS),
    ]
    notes = [
        f"seconds from drop to folder beyond settle_s={SETTLE_S:g}, op move",
        f"idle: {len(beyond)} single drops, and {len(rested)} after a rest",
    ]
    raw = {"settle_s": SETTLE_S, "drop_to_folder_s": list(seconds), "rested_s": list(rested)}
    return Part("latency", figures, notes, raw)
