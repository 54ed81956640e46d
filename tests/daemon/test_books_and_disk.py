"""A real daemon, its books, and what stands on the disk: where they part, the disk is right."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import warm
from imgsortd.daemon.here import ask_daemon
from imgsortd.errors import RequestError
from inboxes import QUICK, Inbox, quick_cli
from support import BLUE, GREEN, RED, each_file_below, paint, sums, wait_until

PLACED = ("sorted", "review", "set_aside", "duplicate", "companion")
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
# Doctor need not read half a gigabyte of them.
NO_WEIGHTS = {"weights": "none.safetensors"}


def sha256_of(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def sorted_inbox(make: Callable[..., Inbox], **changes: Any) -> Inbox:
    """Return an inbox whose daemon has sorted nine pictures of three colours, and runs."""
    one = make(model=NO_WEIGHTS, **changes)
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == 9, what="all sorted\n" + one.daemon.log)
    return one


def start_again(one: Inbox) -> None:
    times = one.daemon.log.count("daemon ready")
    one.daemon.start()
    one.daemon.wait_ready(times + 1)


def waits(one: Inbox, what: Callable[[], object], timeout_s: float = 20) -> None:
    wait_until(what, timeout_s, one.daemon.log)


def rows(one: Inbox) -> list[tuple[int, str, bytes, str, str | None]]:
    """Return (id, src, sha256, state, dst) of all files known."""
    with closing(sqlite3.connect(one.config.database)) as database:
        found = database.execute("SELECT id, src, sha256, state, dst FROM files").fetchall()
    return [
        (file_id, os.fsdecode(src), sha256, state, None if dst is None else os.fsdecode(dst))
        for file_id, src, sha256, state, dst in found
    ]


def states(one: Inbox, sha256: bytes) -> list[tuple[str, str | None]]:
    """Return state and place of each row of a content that has one, or waits for one."""
    return [
        (state, dst)
        for _, _, content, state, dst in rows(one)
        if content == sha256 and state in (*PLACED, "pending", "undone")
    ]


def clusters(one: Inbox) -> dict[str, int]:
    return {cluster.folder: cluster.id for cluster in one.status().clusters}


def folder(one: Inbox, name: str) -> Path:
    """Return the folder of target that a file stands in; there is one."""
    (path,) = one.target.rglob(name)
    return path.parent


def rename(one: Inbox, name: str, new: str) -> int:
    """Name the cluster that a picture stands in by the command; return its number."""
    number = clusters(one)[folder(one, name).name]
    done = quick_cli("rename", one, str(number), new)
    assert done.returncode == 0, done.stderr
    return number


def pins(one: Inbox) -> dict[str, int | None]:
    done = quick_cli("pins", one, "--json")
    assert done.returncode == 0, done.stderr
    return {str(row["file"]): row["cluster"] for row in json.loads(done.stdout)}


def doctor(one: Inbox) -> dict[str, tuple[str, str]]:
    """Return verdict and text of what doctor finds, but for the weights, which are not there."""
    done = quick_cli("doctor", one, "--json")
    findings = json.loads(done.stdout)["findings"]
    return {
        finding["what"]: (finding["verdict"], finding["text"])
        for finding in findings
        if finding["what"] != "weights"
    }


def is_well(one: Inbox) -> bool:
    """Tell whether doctor finds nothing bad."""
    return all(verdict != "bad" for verdict, _ in doctor(one).values())


def names_of(target: Path, source: Path) -> list[str]:
    """Return the names in target that are a file of the inbox, or lead to it."""
    return sorted(
        str(path.relative_to(target))
        for path in each_file_below(target)
        if os.path.samefile(path, source)
    )


# --- twins -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["in place", "by a rename"])
def test_bytes_whose_sorted_original_was_overwritten_are_no_duplicate(
    make: Callable[..., Inbox], way: str
) -> None:
    one = sorted_inbox(make, duplicates="skip")
    (original,) = one.target.rglob("10000-red-0.png")
    data, other = original.read_bytes(), paint(one.folder / "other.png", RED, 777)
    if way == "in place":
        original.write_bytes(other.read_bytes())
    else:
        other.rename(original)

    (one.folder / "twin.png").write_bytes(data)
    (one.folder / "twin.png").rename(one.inbox / "twin.png")
    waits(one, lambda: not list(one.inbox.glob("*.png")) and not waiting(one))

    assert sums(one.target)[hashlib.sha256(data).hexdigest()] == 1
    assert sha256_of(original) != hashlib.sha256(data).digest()


def waiting(one: Inbox) -> int:
    return one.status().counts["pending"]


def test_a_twin_that_was_skipped_is_sorted_when_its_original_is_deleted(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make, duplicates="skip")
    (original,) = one.target.rglob("10000-red-0.png")
    red = original.parent
    (one.folder / "twin.png").write_bytes(original.read_bytes())
    (one.folder / "twin.png").rename(one.inbox / "twin.png")
    waits(one, lambda: one.status().counts["duplicates"] == 1)

    original.unlink()

    waits(one, lambda: not (one.inbox / "twin.png").exists(), 15)
    assert (red / "twin.png").exists()
    waits(one, lambda: one.status().counts["duplicates"] == 0)
    assert sums(one.target) == one.dropped


def test_a_skipped_twin_is_sorted_where_its_original_was_deleted_while_no_daemon_ran(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make, duplicates="skip")
    (original,) = one.target.rglob("10000-red-0.png")
    (one.folder / "twin.png").write_bytes(original.read_bytes())
    (one.folder / "twin.png").rename(one.inbox / "twin.png")
    waits(one, lambda: one.status().counts["duplicates"] == 1)
    assert one.daemon.stop() == 0

    original.unlink()
    start_again(one)

    waits(one, lambda: not (one.inbox / "twin.png").exists(), 15)
    assert (folder(one, "twin.png") / "10000-red-1.png").exists()
    waits(one, lambda: sums(one.target) == one.dropped)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_link_whose_source_was_renamed_in_the_inbox_leads_to_it_again_or_is_named(
    make: Callable[..., Inbox], is_running: bool
) -> None:
    one = sorted_inbox(make, op="symlink", polling="on")
    red = folder(one, "10000-red-0.png")
    if not is_running:
        assert one.daemon.stop() == 0

    (one.inbox / "10000-red-0.png").rename(one.inbox / "another name.png")
    if not is_running:
        start_again(one)

    def is_settled() -> bool:
        leads = names_of(one.target, one.inbox / "another name.png")
        dangling = [path for path in links(one.target) if not path.exists()]
        finding = doctor(one)["target"]
        is_named = finding[0] == "bad" and all(path.name in finding[1] for path in dangling)
        return not waiting(one) and (
            (len(leads) == 1 and not dangling) or (len(dangling) == 1 and not leads and is_named)
        )

    waits(one, is_settled, 15)
    one.drop(1)  # and so it stays
    waits(one, lambda: (red / "20000-red-0.png").exists() and not waiting(one))
    assert is_settled()


def links(target: Path) -> list[Path]:
    return [path for path in target.rglob("*") if path.is_symlink()]


# --- folders ---------------------------------------------------------------------------------


def test_what_is_done_in_a_clusters_folder_that_ignore_would_name_is_understood(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make, ignore=[".*", "Screenshot*"])
    number = rename(one, "10000-red-0.png", "Screenshots")
    screenshots = one.target / "Screenshots"
    green = folder(one, "10000-green-0.png")

    (green / "10000-green-0.png").rename(screenshots / "10000-green-0.png")
    (screenshots / "10000-red-0.png").unlink()
    waits(one, lambda: one.status().counts["seen"] <= 8, 15)
    waits(one, lambda: pins(one) or one.status().counts["seen"] < 8, 15)

    assert pins(one) == {"Screenshots/10000-green-0.png": number}
    assert one.status().counts["seen"] == 8
    waits(one, lambda: is_well(one))
    one.drop(1)
    waits(one, lambda: (screenshots / "20000-red-0.png").exists())


@pytest.mark.parametrize("first", ["red", "blue"])
@pytest.mark.parametrize("change", ["chain", "swap"])
def test_names_that_clusters_hand_on_while_no_daemon_runs_go_with_their_pictures(
    make: Callable[..., Inbox], change: str, first: str
) -> None:
    one = sorted_inbox(make)
    ids = {name: clusters(one)[folder(one, f"10000-{name}-0.png").name] for name in COLOURS}
    low, high = sorted((ids["red"], ids["blue"]))
    colour = {number: name for name, number in ids.items()}
    alpha, beta = (low, high) if first == "red" else (high, low)
    rename(one, f"10000-{colour[alpha]}-0.png", "Alpha")
    rename(one, f"10000-{colour[beta]}-0.png", "Beta")
    assert one.daemon.stop() == 0

    new = "Gamma" if change == "chain" else "Alpha"
    (one.target / "Beta").rename(one.target / "held")
    (one.target / "Alpha").rename(one.target / "Beta")
    (one.target / "held").rename(one.target / new)
    start_again(one)
    one.drop(1)
    waits(one, lambda: one.status().counts["sorted"] == 12)

    assert clusters(one) == {
        "Beta": alpha,
        new: beta,
        folder(one, "10000-green-0.png").name: ids["green"],
    }
    assert sorted(os.listdir(one.target / "Beta")) == [
        *(f"10000-{colour[alpha]}-{number}.png" for number in range(3)),
        f"20000-{colour[alpha]}-0.png",
    ]
    assert sorted(os.listdir(one.target / new)) == [
        *(f"10000-{colour[beta]}-{number}.png" for number in range(3)),
        f"20000-{colour[beta]}-0.png",
    ]
    assert (one.target / "Alpha").exists() == (change == "swap")
    assert pins(one) == {}
    one.check()


COLOURS = ("red", "green", "blue")


# --- companions ------------------------------------------------------------------------------


def ask(one: Inbox, verb: str, **params: Any) -> dict[str, Any]:
    """Ask the daemon, as the page does, and wait for its answer."""
    return ask_daemon(one.config, verb, params, lambda _: None)


def id_of(one: Inbox, name: str) -> int:
    (file_id,) = (file_id for file_id, src, _, _, _ in rows(one) if src == name)
    return file_id


POINTS = [
    "planned",
    "opened",
    "folder_made",
    "renamed",
    "verified",
    "moves_synced",
    "closed",
    "opened:2",
    "folder_made:2",
    "renamed:2",
    "verified:2",
    "moves_synced:2",
    "closed:2",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_placing_cut_off_by_a_crash_is_made_whole_by_a_repair_its_companion_with_it(
    make: Callable[..., Inbox], point: str
) -> None:
    one = sorted_inbox(make)
    made = one.folder / "10000-red-0.xmp"
    made.write_bytes(XMP)
    one.bring(made, made.name)
    one.wait_sorted()
    number = clusters(one)[folder(one, "10000-green-0.png").name]
    assert one.daemon.stop() == 0
    one.daemon.start(IMGSORTD_FAULT_POINT=point)
    one.daemon.wait_ready(2)

    with pytest.raises(RequestError):
        ask(one, "place", files=[id_of(one, "10000-red-0.png")], to={"cluster": number})
    assert one.daemon.process is not None
    assert one.daemon.process.wait(20) == -signal.SIGKILL
    quick_cli("doctor", one, "--repair")

    assert folder(one, "10000-red-0.png") == folder(one, "10000-red-0.xmp")
    assert is_well(one)
    one.check()


# --- moves that fail -------------------------------------------------------------------------


def test_one_run_ends_where_a_picture_cannot_be_moved_and_names_it(
    make: Callable[..., Inbox],
) -> None:
    one = make(settle_s=0)
    one.drop(2)
    for picture in sorted(one.inbox.glob("*.png")):
        made = one.folder / picture.with_suffix(".xmp").name
        made.write_bytes(XMP + picture.name.encode())
        one.bring(made, made.name)
    (one.target / "cluster_1").write_text("no folder")

    done = warm.run([*QUICK, "run", "--once", "-c", str(one.folder / "config.yaml")], timeout_s=15)

    held_up = sorted(path.name for path in one.inbox.glob("*.png"))
    assert len(held_up) == 2
    assert done.returncode == 1
    assert any(name in done.stderr.splitlines()[-1] for name in held_up), done.stderr
    assert sorted(path.name for path in one.inbox.glob("*.xmp")) == [
        name.replace(".png", ".xmp") for name in held_up
    ]
    assert sums(one.inbox, *one.target.glob("cluster_?/")) == one.dropped


# --- undone in turn --------------------------------------------------------------------------


def newest_batch(one: Inbox) -> int:
    with closing(sqlite3.connect(one.config.database)) as database:
        return int(database.execute("SELECT max(batch) FROM moves").fetchone()[0])


def take_back(one: Inbox, batch: int) -> list[dict[str, str]]:
    """Undo a batch; return what was left."""
    done = quick_cli("undo", one, "--batch", str(batch), "--json")
    assert done.returncode == 0, done.stderr
    left: list[dict[str, str]] = json.loads(done.stdout)["left"]
    return left


def test_a_placed_picture_comes_back_step_by_step_though_its_first_place_was_taken(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    one.bring(paint(one.folder / "IMG_1.png", RED, 42), "IMG_1.png")
    one.wait_sorted()
    first, red = newest_batch(one), folder(one, "IMG_1.png")
    picture, green = sha256_of(red / "IMG_1.png"), folder(one, "10000-green-0.png")
    number = clusters(one)[green.name]
    placed = ask(one, "place", files=[id_of(one, "IMG_1.png")], to={"cluster": number})
    (red / "IMG_1.png").write_text("a stranger's")
    other = sha256_of(red / "IMG_1.png")
    everything = sums(one.target)

    left = [take_back(one, batch) for batch in (placed["batch"], first)]

    assert left == [[], []]
    assert [path.name for path in one.inbox.glob("*.png")] == ["IMG_1.png"]
    assert sha256_of(one.inbox / "IMG_1.png") == picture
    assert sha256_of(red / "IMG_1.png") == other
    assert sums(one.inbox, one.target) == everything
    assert states(one, picture) == [("undone", None)]


def test_a_picture_that_followed_a_fit_comes_back_though_its_first_place_was_taken(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    names = [f"IMG_{name}.png" for name in COLOURS]
    for number, (name, colour) in enumerate(zip(names, (RED, GREEN, BLUE), strict=True)):
        one.bring(paint(one.folder / name, colour, 42 + number), name)
    one.wait_sorted()
    first = batches_of(one, names)
    before = {name: folder(one, name) for name in names}
    pictures = {name: sha256_of(before[name] / name) for name in names}
    done = quick_cli("refit", one, "-k", "1", "--accept", "--json")
    assert done.returncode == 0, done.stderr
    waits(one, lambda: len({folder(one, name) for name in names}) == 1)
    second = newest_batch(one)
    moved = [name for name in names if folder(one, name) != before[name]]
    for name in moved:
        before[name].mkdir(exist_ok=True)
        (before[name] / name).write_text("a stranger's " + name)
    everything = sums(one.target)

    left = [take_back(one, batch) for batch in (second, *first)]

    assert len(moved) == 2
    assert [files for files in left if files] == []
    assert {path.name: sha256_of(path) for path in one.inbox.glob("*.png")} == pictures
    assert sums(one.inbox, one.target) == everything


def batches_of(one: Inbox, names: Sequence[str]) -> list[int]:
    """Return the batches in which files of the inbox were moved, newest first."""
    with closing(sqlite3.connect(one.config.database)) as database:
        found = database.execute(
            "SELECT files.src, moves.batch FROM moves JOIN files ON files.id = file_id"
        ).fetchall()
    return sorted({batch for src, batch in found if os.fsdecode(src) in names}, reverse=True)


# --- sources that stay -----------------------------------------------------------------------


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("op", ["hardlink", "symlink"])
def test_a_source_edited_in_place_has_one_name_in_target_and_is_counted_once(
    make: Callable[..., Inbox], op: str, is_running: bool
) -> None:
    one = sorted_inbox(make, op=op)
    before, source = one.status().counts, one.inbox / "10000-red-0.png"
    edited = paint(one.folder / "edited.png", GREEN, 99).read_bytes()
    if not is_running:
        assert one.daemon.stop() == 0

    with open(source, "r+b") as file:
        file.write(edited)
        file.truncate()
    if not is_running:
        start_again(one)
    waits(one, lambda: states(one, hashlib.sha256(edited).digest()) and not waiting(one))
    one.drop(1)
    waits(one, lambda: one.status().counts["sorted"] >= before["sorted"] + 3 and not waiting(one))

    (name,) = names_of(one.target, source)
    assert states(one, hashlib.sha256(edited).digest()) == [("sorted", name)]
    assert one.status().counts == {**before, "seen": 12, "sorted": 12}
    assert sum(cluster.files for cluster in one.status().clusters) == 12
    assert is_well(one)
