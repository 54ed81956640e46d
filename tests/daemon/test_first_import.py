"""The first import with real daemons: whatever order pictures come in, killed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL

import numpy as np
import pytest

from imgsortd.store.database import open_for_reading
from inboxes import Inbox, quick_cli
from support import each_file_below, paint, wait_until

KINDS = {
    "apple": (200, 30, 30),
    "birch": (30, 200, 30),
    "canal": (30, 30, 200),
    "desert": (200, 200, 30),
    "evening": (200, 30, 200),
    "fjord": (30, 200, 200),
}
EACH = 40
FIRST = 80  # clusters.min_images: the first two kinds alone
# As by default but for the size: what goes to review, how much may change, who is asked.
DEFAULTS = {
    "clusters": {
        "n_clusters": len(KINDS),
        "min_images": FIRST,
        "quiet_s": 1.0,
        "review_quantile": 0.99,
        "review_margin": 0.01,
    },
    "refit": {"max_churn": 0.1, "drift": 200},
}


def names_in(order: str) -> list[str]:
    names = [f"{kind}-{number:02d}.png" for kind in KINDS for number in range(EACH)]
    if order == "random":
        return [names[at] for at in np.random.default_rng(3).permutation(len(names))]
    return names


def paint_all(one: Inbox, names: Sequence[str]) -> list[Path]:
    made = []
    for name in names:
        kind, number = name.removesuffix(".png").split("-")
        seed = 1000 * list(KINDS).index(kind) + int(number)
        made.append(paint(one.folder / "made" / name, KINDS[kind], seed))
    return made


def bring(one: Inbox, pictures: Sequence[Path]) -> None:
    for path in pictures:
        one.bring(path, path.name)


def drop(one: Inbox, names: Sequence[str]) -> None:
    bring(one, paint_all(one, names))


def places(one: Inbox) -> dict[str, str]:
    """Return the folder of each picture."""
    return {
        path.name: path.parent.name
        for path in each_file_below(one.target)
        if ".imgsortd" not in str(path)
    }


def kinds_of(found: dict[str, str]) -> list[set[str]]:
    """Return the kinds that each cluster's folder holds."""
    kinds: dict[str, set[str]] = {}
    for name, folder in found.items():
        if folder != "_review":
            kinds.setdefault(folder, set()).add(name.split("-")[0])
    return sorted(kinds.values(), key=min)


def read(one: Inbox) -> int:
    store = open_for_reading(one.config.database)
    try:
        return store.records.count_features()
    finally:
        store.close()


@pytest.mark.parametrize("order", ["random", "by kind"])
def test_a_folder_is_sorted_as_a_whole_in_any_order_and_though_the_daemon_is_killed_twice(
    order: str, make: Callable[..., Inbox]
) -> None:
    one = make(**{**DEFAULTS, "clusters": {**DEFAULTS["clusters"], "quiet_s": 4.0}})
    names = names_in(order)
    pictures = paint_all(one, names)

    for part in (slice(0, 100), slice(100, 180)):
        one.daemon.start()
        one.daemon.wait_ready(1)
        bring(one, pictures[part])
        wait_until(lambda: read(one) > FIRST, what="more than min_images read")
        one.daemon.stop(SIGKILL)
    one.daemon.start()
    bring(one, pictures[180:])
    one.wait_sorted()

    assert kinds_of(places(one)) == [{kind} for kind in KINDS]
    assert one.daemon.log.count("fit started") == 1
    assert one.status().counts["review"] <= 0.03 * len(names)
    one.check()


def test_until_the_first_fit_status_says_what_it_waits_for(make: Callable[..., Inbox]) -> None:
    clusters = {**DEFAULTS["clusters"], "quiet_s": 600, "wait_most": "3s"}
    one = make(**{**DEFAULTS, "clusters": clusters})
    one.daemon.start()
    one.daemon.wait_ready()
    names = names_in("by kind")

    drop(one, names[:30])
    wait_until(lambda: read(one) == 30, what="30 read")
    few = one.status().next_fit
    drop(one, names[30:FIRST])
    wait_until(lambda: read(one) == FIRST, what="all read")
    enough = one.status()
    one.wait_sorted()

    assert few == "first fit at 80 pictures, 30 so far"
    assert enough.next_fit == "all 80 pictures are looked at; sorted when none has come for 10 min"
    assert enough.counts["pending"] == FIRST
    assert "fit started trigger=bootstrap images=80" in one.daemon.log
    one.check()


def test_a_file_that_cannot_be_read_yet_does_not_hold_up_the_first_fit(
    make: Callable[..., Inbox],
) -> None:
    one = make(**DEFAULTS)
    whole = paint(one.folder / "whole.jpg", KINDS["apple"], 9, size=256).read_bytes()
    (one.inbox / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    one.daemon.start()

    drop(one, names_in("random"))
    wait_until(lambda: len(places(one)) == len(KINDS) * EACH, what="all others")

    (left,) = [path for path in each_file_below(one.inbox) if path.suffix == ".jpg"]
    assert left.name == "torn.jpg"
    assert "unfinished" in one.status().unread[0].reason


def test_what_comes_after_the_first_import_is_sorted_with_it_and_can_be_taken_back(
    make: Callable[..., Inbox],
) -> None:
    one = make(**{**DEFAULTS, "clusters": {**DEFAULTS["clusters"], "n_clusters": 4}})
    one.daemon.start()
    names = names_in("by kind")
    drop(one, names[:80])
    one.wait_sorted()
    first = places(one)

    drop(one, names[80:160])
    wait_until(lambda: "sorted moved" in one.daemon.log, what="files that follow a refit")
    one.wait_sorted()
    second, age = places(one), one.status().age_text
    rolled = quick_cli("rollback", one)
    back = places(one)

    assert len(kinds_of(first)) == 4
    assert kinds_of(second) == [{kind} for kind in list(KINDS)[:4]]
    assert age.startswith("young: no two refits in a row have changed less than 10 % of it yet")
    assert "fit 2 rolled back; fit 1 is in force" in rolled.stdout
    assert {name: place for name, place in back.items() if name in first} == first
    one.check()
