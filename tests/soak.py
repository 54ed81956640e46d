"""``make soak``: a daemon under a random mix of everything, for twenty minutes.

Drops, slow writers, twins, broken files, kills, stops, refits, reloads, undo and full disks.
Fails on any loss, any double, any growth without bound. The seed is printed; the moments of
kills are not the same in two runs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from inboxes import QUICK, Inbox, quick_cli
from mounts import tmpfs_or_none
from support import BLUE, GREEN, RED, leftovers, paint, sums, wait_until

# Started as a user's daemon is, not forked: its decoders are its own children, and are measured.
STARTED = ("-u", *QUICK)
QUIET_SHARE = 0.3  # of the time, at the end: no kills, so that growth can be seen
SAMPLE_EVERY_S = 2.0
MAX_GROWTH = 1.25
MORE_RSS_MB, MORE_FDS, MORE_THREADS = 16.0, 8, 4
LEAST_A_THIRD = 5  # samples
REFUSALS = (
    *("there is nothing to undo", "nothing was undone", "the rest stays", "is full"),
    *("the daemon stopped before it was done", "another imgsortd is at work"),
    *("locked by another program", "cannot make", "were taken away while they were fitted"),
)


@dataclass(slots=True)
class Sample:
    """What the daemon's process takes, its decoders included."""

    at_s: float
    life: int
    rss_mb: float
    fds: int
    threads: int


@dataclass(slots=True)
class Soak:
    """One run and its books."""

    one: Inbox
    rng: random.Random
    disk_mb: int
    life: int = 0
    ready: int = 1
    deeds: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    number: int = 0

    def drop(self) -> None:
        """Bring some new pictures, now and then a twin or a broken file."""
        made = self.one.folder / "made"
        made.mkdir(exist_ok=True)
        for _ in range(self.rng.randint(1, 24)):
            self.number += 1
            path = made / f"{self.number}.png"
            kind = self.rng.random()
            if kind < 0.03:
                path.write_bytes(b"\x89PNG\r\n\x1a\n broken %d IEND" % self.number)
            else:
                seed = self.number if kind < 0.93 else self.rng.randint(1, self.number)
                paint(path, self.rng.choice((RED, GREEN, BLUE)), seed)
            self.one.bring(path, self.rng.choice(("", "sub/", "sub/deep/")) + path.name)

    def write_slowly(self) -> None:
        """Write a picture into the inbox itself, in pieces."""
        self.number += 1
        made = paint(self.one.folder / "slow.png", RED, self.number)
        data = made.read_bytes()
        with open(self.one.inbox / f"slow-{self.number}.png", "wb", buffering=0) as file:
            for start in range(0, len(data), 1 + len(data) // 10):
                file.write(data[start : start + 1 + len(data) // 10])
                time.sleep(0.05)
        digest = next(iter(sums(self._alone(made))))
        self.one.dropped[digest] = self.one.dropped.get(digest, 0) + 1
        made.unlink()

    def _alone(self, path: Path) -> Path:
        folder = self.one.folder / "alone"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(path, folder)
        return folder

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self.one.daemon.stop(number, timeout_s=60)
        self.start()

    def start(self) -> None:
        log = self.one.folder / "daemon.log"
        self.ready = 1 + (self.one.daemon.log.count("daemon ready") if log.exists() else 0)
        self.life += 1
        self.one.daemon.start()

    def reload(self) -> None:
        file = self.one.folder / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["batch"] = {"max_images": self.rng.choice((4, 16, 64)), "max_wait_s": 0.2}
        file.write_text(yaml.safe_dump(config))
        # Not by the line of a life before: one that begins has no ear for it yet, and dies of it.
        self.one.daemon.wait_ready(self.ready)
        self.one.daemon.send(signal.SIGHUP)

    def refit(self) -> None:
        self._command("refit")

    def undo(self) -> None:
        self._command("undo", "--last")

    def _command(self, *words: str) -> None:
        """Run a command; it may be refused for a reason that is known, never crash."""
        done = quick_cli(words[0], self.one, *words[1:])
        assert is_known_refusal(done.returncode, done.stderr), done.stderr
        self.deeds[f"{words[0]} refused"] += done.returncode

    def fill_the_disk(self) -> None:
        """Leave no room in target, drop more, wait, and make room again."""
        filler = self.one.target / "filler"
        try:
            with open(filler, "wb", buffering=0) as file:
                for _ in range(self.disk_mb):
                    file.write(bytes(1 << 20))
        except OSError:
            pass
        self.drop()
        time.sleep(self.rng.uniform(1, 6))
        filler.unlink()

    def sample(self, at_s: float) -> None:
        """Look at the daemon's memory, descriptors and threads."""
        assert self.one.daemon.process is not None
        try:
            process = psutil.Process(self.one.daemon.process.pid)
            family = [process, *process.children()]
            rss = sum(each.memory_info().rss for each in family) / 1e6
            found = Sample(at_s, self.life, rss, process.num_fds(), process.num_threads())
        except psutil.NoSuchProcess:
            return
        self.samples.append(found)

    def run(self, minutes: float) -> None:
        """Do deeds for so long; the last ones without kills."""
        begun, total_s = time.monotonic(), minutes * 60
        self.start()
        next_sample_s = 0.0
        while (now_s := time.monotonic() - begun) < total_s:
            if now_s >= next_sample_s:
                self.sample(now_s)
                next_sample_s = now_s + SAMPLE_EVERY_S
            self._deed(may_kill=now_s < (1 - QUIET_SHARE) * total_s)
            assert self.one.daemon.is_alive(), self.one.daemon.log[-3000:]
            time.sleep(self.rng.uniform(0.05, 0.8))

    def _deed(self, *, may_kill: bool) -> None:
        deeds: list[tuple[Callable[[], None], float]] = [
            (self.drop, 40),
            (self.write_slowly, 6),
            (self.refit, 2),
            (self.undo, 3),
            (self.reload, 2),
        ]
        if may_kill:
            deeds += [(self.kill, 6), (self.stop, 2)]
        if self.disk_mb:
            deeds.append((self.fill_the_disk, 1.5))
        (deed,) = self.rng.choices([d for d, _ in deeds], [weight for _, weight in deeds])
        self.deeds[deed.__name__] += 1
        deed()

    def settle(self) -> None:
        """Wait until every file is where it stays."""
        expected = sum(self.one.dropped.values())

        def is_done() -> bool:
            counts = self.one.status().counts
            return counts["seen"] == expected and counts["pending"] == 0

        wait_until(is_done, 300, f"all {expected} settled: {self.one.status().counts}")
        assert self.one.daemon.stop(timeout_s=60) == 0


def verdict(soak: Soak) -> list[str]:
    """Return what is wrong; empty where nothing is."""
    one, wrong = soak.one, []
    there = sums(one.inbox, one.target)
    lost = {k: n - there.get(k, 0) for k, n in one.dropped.items() if there.get(k, 0) < n}
    double = {k: n - one.dropped.get(k, 0) for k, n in there.items() if n > one.dropped.get(k, 0)}
    wrong += [f"lost: {sum(lost.values())} files"] * bool(lost)
    wrong += [f"double or strange: {sum(double.values())} files"] * bool(double)
    counts = one.status().counts
    if counts["seen"] != sum(n for state, n in counts.items() if state != "seen"):
        wrong.append(f"the counts do not add up: {counts}")
    wrong += [f"left over: {path}" for path in leftovers(one.inbox, one.target)]
    return wrong + growth(soak.samples)


def growth(samples: Sequence[Sample]) -> list[str]:
    """Return what grew without bound in any life that is long enough to tell."""
    wrong, judged = [], 0
    for life in sorted({sample.life for sample in samples}):
        of_life = [sample for sample in samples if sample.life == life]
        third = len(of_life) // 3
        if third < LEAST_A_THIRD:
            continue
        judged += 1
        # The first third is no measure: there libraries load and pools fill.
        early, late = of_life[third : 2 * third], of_life[-third:]
        before, after = _most(early, "rss_mb"), _most(late, "rss_mb")
        if after > MAX_GROWTH * before + MORE_RSS_MB:
            wrong.append(f"memory grows in life {life}: {before:.0f} → {after:.0f} MB")
        for what, more in (("fds", MORE_FDS), ("threads", MORE_THREADS)):
            before, after = _most(early, what), _most(late, what)
            if after > before + more:
                wrong.append(f"{what} grow in life {life}: {before:.0f} → {after:.0f}")
    return wrong if judged else ["no life was long enough to see growth"]


def is_known_refusal(code: int, said: str) -> bool:
    """Tell whether a command was done, or refused for want of files, clusters, space or time."""
    if code == 0:
        return True
    text = " ".join(said.split())
    return code == 1 and "Traceback" not in text and any(reason in text for reason in REFUSALS)


def _most(samples: list[Sample], what: str) -> float:
    return float(max(getattr(sample, what) for sample in samples))


def report(soak: Soak, seconds: float, wrong: list[str]) -> str:
    """Lay out what came of it, as a table for docs/reliability.md."""
    one, counts = soak.one, soak.one.status().counts
    files_in, files_out = sum(one.dropped.values()), sum(sums(one.inbox, one.target).values())
    rows = [
        ("minutes", f"{seconds / 60:.1f}"),
        ("files in", f"{files_in:,}"),
        ("files out (inbox and target)", f"{files_out:,}"),
        ("counts", ", ".join(f"{state} {n:,}" for state, n in counts.items() if n)),
        ("lives of the daemon", f"{soak.life:,}"),
        ("deeds", ", ".join(f"{deed} {n:,}" for deed, n in sorted(soak.deeds.items()))),
    ]
    quiet = [sample for sample in soak.samples if sample.life == soak.life]
    for number in range(4):
        part = quiet[number * len(quiet) // 4 : (number + 1) * len(quiet) // 4]
        if part:
            text = f"{_most(part, 'rss_mb'):.0f} MB, {_most(part, 'fds'):.0f} descriptors, "
            text += f"{_most(part, 'threads'):.0f} threads"
            rows.append((f"last life, quarter {number + 1}: at most", text))
    rows.append(("wrong", "; ".join(wrong) or "nothing"))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> int:
    """Run it; the exit code is 1 where something was lost, doubled or grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", type=Path, help="Keep the samples in this file.")
    arguments = parser.parse_args()
    print(f"soak: {arguments.minutes:g} minutes, seed {arguments.seed}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgsortd-soak-")))
        disk_mb = 512
        if not tmpfs_or_none(stack, folder / "target", f"{disk_mb}m"):
            print("soak: mounts are not permitted here, so no disk is filled", flush=True)
            disk_mb = 0
        one = Inbox(folder, STARTED, settle_s=0.2, clusters={"n_clusters": 3, "min_images": 12})
        soak = Soak(one, random.Random(arguments.seed), disk_mb)
        begun = time.monotonic()
        try:
            soak.run(arguments.minutes)
            soak.settle()
            wrong = verdict(soak)
            print(report(soak, time.monotonic() - begun, wrong))
        except BaseException:
            print(one.daemon.log[-4000:], file=sys.stderr)
            raise
        finally:
            if one.daemon.is_alive():
                one.daemon.stop(signal.SIGKILL)
    if arguments.json:
        samples = [[s.at_s, s.life, s.rss_mb, s.fds, s.threads] for s in soak.samples]
        arguments.json.write_text(json.dumps(samples))
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.TimeoutExpired as error:
        sys.exit(f"soak: {error}")
