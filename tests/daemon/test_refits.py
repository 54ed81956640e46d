"""Proposals with a running daemon: made, shown, accepted, rolled back, and killed in between."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import warm
from imgsortd.reports.status import DriftShare, Giant
from imgsortd.store.database import open_for_reading, open_for_writing
from imgsortd.store.fits import KeptFit
from inboxes import QUICK, Inbox
from support import BLUE, GREEN, RED, make_grown, paint, sums, tree, wait_until

CYAN = (30, 200, 200)
PALE = {"a": (200, 160, 160), "b": (160, 200, 160), "c": (160, 160, 200)}
BRIGHT = {"x": RED, "y": GREEN, "z": BLUE}
WAITS = {
    "refit": {"max_churn": 0.1, "growth": 1, "interval": "off"},
    "clusters": {"min_images": 60},
}


def cli(one: Inbox, *words: str) -> subprocess.CompletedProcess[str]:
    config = str(one.folder / "config.yaml")
    return warm.run([*QUICK, *words, "-c", config], {"COLUMNS": "120"})


def answer(one: Inbox, *words: str) -> Any:
    done = cli(one, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def drop(one: Inbox, colours: dict[str, tuple[int, int, int]], each: int = 20) -> None:
    """Drop pictures; the bright ones leave the pale ones so close that they become one cluster."""
    for name, colour in colours.items():
        for number in range(each):
            path = paint(one.folder / "made" / f"{name}-{number}.png", colour, number)
            one.bring(path, path.name)


def fits(one: Inbox) -> list[KeptFit]:
    """Return the fits that the daemon has made, the newest first."""
    store = open_for_reading(one.config.database)
    try:
        return [fit for fit in store.records.list_fits() if fit.fit_id > 0]
    finally:
        store.close()


def young(make: Callable[..., Inbox]) -> Inbox:
    """Return a library of pale pictures, sorted by a daemon."""
    one = make(**WAITS)
    drop(one, PALE)
    one.daemon.start()
    one.wait_sorted()
    return one


def grown(make: Callable[..., Inbox]) -> Inbox:
    """Return the same, but grown: its refits are asked about when they change much."""
    one = young(make)
    store = open_for_writing(one.config.database)
    make_grown(store)
    store.close()
    return one


def test_another_mix_is_proposed_shown_accepted_and_rolled_back(
    make: Callable[..., Inbox],
) -> None:
    one = grown(make)

    drop(one, BRIGHT)
    one.wait_sorted()
    wait_until(lambda: one.status().proposal is not None, what="a proposal")
    status, text = answer(one, "status"), cli(one, "status").stdout
    shown, shown_text = answer(one, "refits", "show"), cli(one, "refits", "show", "--files", "1")
    page = one.folder / "fit-2.html"
    cli(one, "refits", "show", "--html", str(page))
    before, places = sums(one.target), tree(one.target)
    accepted = answer(one, "refits", "accept", "2")
    shown_places = tree(one.target)
    listed = [fit for fit in answer(one, "refits") if fit["fit_id"] > 0]
    dry = answer(one, "rollback", "--dry-run")
    rolled = cli(one, "rollback")
    places_back = tree(one.target)
    one.drop(1)
    one.wait_sorted()

    assert status["proposal"]["fit_id"] == 2
    assert status["next_refit"]["growth_missing"] == 120
    share = f"{100 * status['proposal']['churn']:.0f} % of 120 pictures would change cluster"
    assert f"proposal 2 waits: {share}; imgsortd refits show 2" in text
    assert shown["state"] == "proposed"
    assert shown["would_move"] == accepted["moved"] > 0
    assert "imgsortd refits accept 2, or imgsortd refits reject 2" in shown_text.stdout
    assert f"{shown['would_move']} pictures would change folder" in page.read_text()
    assert page.read_text().count("data:image/") == 24  # the first dozen of each group
    assert [(fit["fit_id"], fit["in_force"]) for fit in listed] == [(2, True), (1, False)]
    assert (dry["dry_run"], dry["in_force"], dry["changed"]) == (True, 1, accepted["changed"])
    assert "fit 2 rolled back; fit 1 is in force" in rolled.stdout
    assert f"imgsortd undo --batch {accepted['batch'] + 1}" in rolled.stdout
    assert f"--batch {accepted['batch']}\n" not in rolled.stdout  # these are back already
    sizes = {folder: len(names) for folder, names in shown_places.items()}
    after = {f"cluster_{change['cluster_id']}": change["after"] for change in shown["changes"]}
    assert {folder: sizes.get(folder, 0) for folder in after} == after != {}
    assert filled(places_back) == filled(places)
    assert [(fit.fit_id, fit.in_force) for fit in fits(one)] == [(2, False), (1, True)]
    assert {content: one.dropped[content] for content in before} == before
    one.check()
    log = one.daemon.log
    assert "proposal waits fit=2" in log
    assert log.count("fit proposed") == 1


def test_a_young_library_is_not_asked_and_undo_takes_fit_and_moves_back_while_it_runs(
    make: Callable[..., Inbox],
) -> None:
    one = young(make)
    places = filled(tree(one.target))

    drop(one, BRIGHT)
    wait_until(lambda: len(fits(one)) == 2, what="a refit")
    one.wait_sorted()
    wait_until(lambda: batch_of_refit(one) is not None, what="files follow")
    moved = filled(tree(one.target))
    undone = answer(one, "undo", "--batch", str(batch_of_refit(one)))
    back = filled(tree(one.target))
    in_force = [fit.in_force for fit in fits(one)]
    one.drop(1)
    one.wait_sorted()
    again = answer(one, "undo", "--batch", str(undone["made"][0]))

    assert [fit.state for fit in fits(one)] == ["adopted", "adopted"]
    assert undone["placed"] > 0
    assert (undone["fit_in_force"], in_force) == (1, [False, True])
    assert all(set(names) <= set(back[folder]) for folder, names in places.items())
    assert again["fit_in_force"] == 2
    assert all(
        set(names) <= set(filled(tree(one.target))[folder]) for folder, names in moved.items()
    )
    one.check()


def filled(places: dict[str, list[str]]) -> dict[str, list[str]]:
    """Leave out the folders that are empty."""
    return {folder: names for folder, names in places.items() if names}


def test_a_rejected_refit_is_not_proposed_again_until_it_has_grown_anew(
    make: Callable[..., Inbox],
) -> None:
    one = grown(make)
    drop(one, BRIGHT)
    wait_until(lambda: one.status().proposal is not None, what="a proposal")

    rejected = cli(one, "refits", "reject")
    again = cli(one, "refits", "reject")
    drop(one, {"late": RED}, 119)
    one.wait_sorted()

    assert "fit 2 rejected; fit 1 is in force" in rejected.stdout
    assert (again.returncode, "no proposal waits" in again.stderr) == (1, True)
    assert one.status().next_refit.growth_missing == 1
    assert len(fits(one)) == 2
    drop(one, {"last": GREEN}, 1)
    wait_until(lambda: len(fits(one)) == 3, what="the next fit")
    one.wait_sorted()
    one.check()


def test_a_requested_refit_obeys_max_churn_unless_it_is_accepted(
    make: Callable[..., Inbox],
) -> None:
    one = make(**{**WAITS, "clusters": {"min_images": 12}})
    one.drop(4)
    one.daemon.start()
    one.wait_sorted()

    asked, told = answer(one, "refit", "-k", "1"), cli(one, "refit", "-k", "1")
    at_once = answer(one, "refit", "-k", "1", "--accept")

    assert (asked["state"], at_once["state"]) == ("proposed", "adopted")
    assert "above refit.max_churn (0.1), so it waits as proposal 3" in told.stdout
    assert [fit.state for fit in fits(one)] == ["adopted", "replaced", "replaced", "adopted"]


def test_without_a_daemon_the_commands_do_it_themselves(make: Callable[..., Inbox]) -> None:
    one = make(**{**WAITS, "clusters": {"min_images": 12}})
    one.drop(4)
    one.daemon.start()
    one.wait_sorted()
    assert one.daemon.stop() == 0

    proposed = cli(one, "refit", "-k", "1", "--json")
    accepted = cli(one, "refits", "accept")
    rolled = cli(one, "rollback")

    assert json.loads(proposed.stdout)["state"] == "proposed"
    assert "8 files moved; to return them: imgsortd undo --batch 2" in accepted.stdout
    assert "8 files moved; to return them: imgsortd undo --batch 3" in rolled.stdout
    first = cli(one, "rollback")
    assert (first.returncode, "fit 1 is the first one" in first.stderr) == (1, True)
    one.check()


def test_killed_while_it_accepts_the_daemon_finishes_the_moves_at_its_next_start(
    make: Callable[..., Inbox],
) -> None:
    one = grown(make)
    drop(one, BRIGHT)
    one.wait_sorted()
    wait_until(lambda: one.status().proposal is not None, what="a proposal")
    assert one.daemon.stop() == 0
    would_move = answer(one, "refits", "show")["would_move"]

    one.daemon.start(IMGSORTD_FAULT_POINT="fit_saved")
    one.daemon.wait_ready(2)
    killed = cli(one, "refits", "accept")
    wait_until(lambda: not one.daemon.is_alive(), what="killed")
    between = open_for_reading(one.config.database)
    planned = len(between.journal.unfinished())
    between.close()
    one.daemon.start()
    one.daemon.wait_ready(3)
    one.drop(1)
    one.wait_sorted()

    assert killed.returncode == 1
    assert "accept: the daemon stopped before it was done" in killed.stderr
    assert planned == would_move > 0
    assert [fit.in_force for fit in fits(one)] == [True, False]
    assert answer(one, "undo", "--batch", str(batch_of_refit(one)))["placed"] == would_move
    one.check()


def batch_of_refit(one: Inbox) -> int | None:
    store = open_for_reading(one.config.database)
    try:
        return next(iter(store.records.batches_of(2)), None)
    finally:
        store.close()


def test_arrivals_of_another_kind_trigger_a_refit_by_drift(make: Callable[..., Inbox]) -> None:
    one = make(refit={"growth": "off", "interval": "off", "drift": 50, "max_churn": "off"})
    one.drop(5)
    one.daemon.start()
    one.wait_sorted()
    early = one.status()

    drop(one, {"cyan": CYAN}, 50)
    wait_until(lambda: len(fits(one)) == 2, what="a fit by drift")
    one.wait_sorted()

    assert early.next_refit.drift == DriftShare(50, 0, None, share_that_triggers=0.28)
    assert "when 28 % of 50 arrivals lie far out (50 still to come)" in early.next_fit
    assert fits(one)[0].trigger == "drift"
    one.check()


def test_a_giant_cluster_is_warned_of_and_its_split_proposed_once(
    make: Callable[..., Inbox],
) -> None:
    one = make(
        clusters={"n_clusters": 1, "max_share": 0.4, "min_images": 18},
        refit={"growth": "off", "interval": "off", "max_churn": 0.1},
    )
    one.drop(6)
    one.daemon.start()
    wait_until(lambda: one.status().proposal is not None, what="a split")

    status, text = one.status(), cli(one, "status").stdout
    cli(one, "refits", "reject")
    one.drop(1)
    one.wait_sorted()

    assert status.giants == [Giant(id=0, fitted=18, share=1.0)]
    assert status.proposal is not None
    assert (status.proposal.trigger, status.proposal.about_id) == ("split", 0)
    assert "cluster_0 has 100 % of all pictures, above clusters.max_share" in text
    assert "split of cluster_0, " in text
    assert one.daemon.log.count("cluster too large cluster=0 images=18 share=1.000") == 1
    assert len(fits(one)) == 2
    one.check()


def test_a_group_in_review_is_proposed_and_sorted_when_accepted(
    make: Callable[..., Inbox],
) -> None:
    one = make(
        clusters={"review_quantile": 1, "review_margin": "off"},
        refit={"growth": "off", "interval": "off", "max_churn": 0.1},
    )
    one.drop(5)
    one.daemon.start()
    one.wait_sorted()
    drop(one, {"cyan": CYAN}, 6)
    one.wait_sorted()
    wait_until(lambda: one.status().proposal is not None, what="a new cluster")

    text = cli(one, "status").stdout
    accepted = answer(one, "refits", "accept")

    assert "new cluster of pictures in review, " in text
    assert accepted["moved"] >= 5
    assert len(list((one.target / "cluster_3").glob("cyan-*"))) == accepted["moved"]
    one.check()
