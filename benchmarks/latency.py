"""From the drop of one file into the idle daemon's inbox to its cluster folder.

Most drops come a few seconds after the one before; some after a long rest, when the
daemon has given memory back to the system and must fetch it again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.pictures import PictureSet, picture_paths
from benchmarks.processes import RunningDaemon, count_sorted, daemon, wait_until
from benchmarks.report import LATENCY_TARGET, Figure, Part, Unit, figure_of
from imgsortd.config import Config

SETTLE_S = float(Config.model_fields["settle_s"].default)
# The daemon calls itself idle two seconds after its last work.
_IDLE_AFTER_S = 2.5
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.002


def rested_drops(drops: int) -> int:
    """Return how many drops come after a rest: a fifth as many as the others."""
    return max(1, drops // 5)


def measure(
    pictures: PictureSet,
    drops: int,
    rest_s: float,
    weights: str,
    work: Path,
    say: Callable[[str], None],
) -> Part:
    """Let a daemon sort and fit all but the last pictures, then drop those one by one."""
    paths = picture_paths(pictures.folder)
    rested = rested_drops(drops)
    first, later = paths[: -drops - rested], paths[-drops - rested :]
    clusters = {"n_clusters": 4, "min_images": len(first)}
    # A refit in the middle would be measured as latency; it is counted in no promise.
    refit = {"interval": "off", "growth": "off"}
    model = {"weights": weights}
    with daemon(work / "latency", clusters=clusters, refit=refit, model=model) as running:
        for path in first:
            shutil.copy(path, running.inbox)
        running.wait_sorted(len(first))
        say(f"latency: {drops} drops, and {rested} after {rest_s:g} s of rest")
        chance = random.Random(0)
        waits_s = [_IDLE_AFTER_S + chance.random() for _ in range(drops)] + [rest_s] * rested
        seconds = []
        for path, wait_s in zip(later, waits_s, strict=True):
            time.sleep(wait_s)
            seconds.append(_drop(running, path))
        if count_sorted(running.target) != len(paths):
            raise SystemExit("a dropped file is not in a cluster folder")
        runs_on = running.runs_on()
    part = summarise(seconds[:drops], seconds[drops:], rest_s)
    part.notes.append(f"the model ran as {runs_on}")
    return part


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
    """Turn drop-to-folder seconds into figures beyond ``settle_s``."""
    beyond = [value - SETTLE_S for value in seconds]
    p50, p95 = (float(np.percentile(beyond, share)) for share in (50, 95))
    beyond_rested = [value - SETTLE_S for value in rested]
    name = "drop to folder beyond settle_s"
    return Part(
        "latency",
        [
            Figure(f"{name}, p50", p50, Unit.SECONDS, min(beyond), max(beyond), LATENCY_TARGET),
            Figure(f"{name}, p95", p95, Unit.SECONDS),
            figure_of(f"  after {rest_s:g} s of rest, p50", beyond_rested, Unit.SECONDS),
        ],
        [f"{len(beyond)} single drops into the idle daemon, settle_s={SETTLE_S:g}, op move"],
        {"settle_s": SETTLE_S, "drop_to_folder_s": list(seconds), "rested_s": list(rested)},
    )
