"""Many files dropped at once: when each one arrives in a cluster folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Unit, percentile_figures
from benchmarks.running import RunningDaemon
from benchmarks.targets import BUSY_TARGET

_LOOK_EVERY_S = 0.05
# A burst has ended badly when for so long no further file has arrived.
_STUCK_S = 300.0


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of it.

    Attributes
    ----------
    seconds
        From the drop of each file to its arrival, in the order of the drops.
    whole_s
        From the first drop to the last arrival.
    busy
        The model's busy share, 0..1, as ``status`` tells it; None where it tells nothing.
    logged_busy
        The same by the log's lines of batches, averaged over pictures.
    """

    seconds: tuple[float, ...]
    whole_s: float
    busy: float | None
    logged_busy: float | None

    def images_per_s(self, settle_s: float) -> float:
        """Return the rate while there was something to do: the wait of ``settle_s`` is not."""
        return len(self.seconds) / max(self.whole_s - settle_s, 1e-9)

    def notes(self, settle_s: float) -> list[str]:
        """Say how it was measured."""
        notes = [
            f"burst: {len(self.seconds)} files renamed into the inbox at once, "
            f"looked for every {1000 * _LOOK_EVERY_S:.0f} ms; its rate is without "
            f"settle_s={settle_s:g}"
        ]
        if self.busy is None and self.logged_busy is None:
            notes.append("this imgsortd does not tell the model's busy share")
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "drop_to_folder_s": list(self.seconds),
            "whole_s": self.whole_s,
            "model_busy": self.busy,
            "model_busy_logged": self.logged_busy,
        }


def burst_figures(burst: Burst, settle_s: float) -> list[Figure]:
    """Return the latencies beyond ``settle_s``, the rate and, if told, the busy share."""
    beyond = [seconds - settle_s for seconds in burst.seconds]
    figures = percentile_figures(f"burst of {len(beyond)}", beyond)
    figures.append(Figure("burst, rate", burst.images_per_s(settle_s), Unit.IMAGES_PER_S))
    busy = burst.logged_busy if burst.busy is None else burst.busy
    if busy is not None:
        figures.append(Figure("burst, model busy", busy, Unit.SHARE, target=BUSY_TARGET))
    return figures


def drop_at_once(running: RunningDaemon, paths: Sequence[Path]) -> Burst:
    """Drop all files and wait for the last one; nothing else is asked of the daemon meanwhile."""
    staging = running.inbox.parent / "staging"
    staging.mkdir()
    for path in paths:
        shutil.copy(path, staging)
    there = set(_placed(running.target))
    logged = running.log_size()
    dropped: dict[str, float] = {}
    for path in paths:  # on one filesystem: each is one rename
        dropped[path.name] = time.perf_counter()
        (staging / path.name).rename(running.inbox / path.name)
    arrived = _watch(running, set(dropped), there)
    status = running.status()
    busy = status.get("model_busy")
    return Burst(
        waits(dropped, arrived),
        max(arrived.values()) - min(dropped.values()),
        None if busy is None else float(busy),
        running.logged_busy(logged),
    )


def waits(dropped: Mapping[str, float], arrived: Mapping[str, float]) -> tuple[float, ...]:
    """Return the seconds between drop and arrival of each file, in the order of the drops."""
    return tuple(arrived[name] - at for name, at in dropped.items())


def _watch(running: RunningDaemon, names: set[str], there: set[str]) -> dict[str, float]:
    """Return when each file was first seen in a cluster folder."""
    arrived: dict[str, float] = {}
    last = time.monotonic()
    while len(arrived) < len(names):
        time.sleep(_LOOK_EVERY_S)
        now = time.perf_counter()
        new = {name for name in _placed(running.target) if name not in arrived} - there
        if strange := new - names:
            raise SystemExit(f"expected the files that were dropped, found {sorted(strange)[:3]}")
        arrived |= dict.fromkeys(new, now)
        if new:
            last = time.monotonic()
        elif time.monotonic() - last > _STUCK_S:
            missing = len(names) - len(arrived)
            raise SystemExit(f"{missing} files did not arrive\n{running.log_file.read_text()}")
    return arrived


def _placed(target: Path) -> list[str]:
    return [name for folder in target.glob("cluster_*") for name in os.listdir(folder)]
