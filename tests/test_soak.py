"""The soak can fail: its verdict sees what is lost, doubled, left over, or grows."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from soak import Sample, Soak, growth, is_known_refusal, verdict
from support import paint_groups, sums


@pytest.fixture
def soak(tmp_path: Path) -> Soak:
    """Return a soak that went well: three files in target, a steady life."""
    inbox, target = tmp_path / "inbox", tmp_path / "target"
    inbox.mkdir()
    paint_groups(target / "cluster_0", 1)
    counts = {"seen": 3, "sorted": 3, "pending": 0}
    one: Any = SimpleNamespace(
        inbox=inbox,
        target=target,
        dropped=sums(target),
        status=lambda: SimpleNamespace(counts=counts),
    )
    made = Soak(one, random.Random(0), 0)
    made.samples = life(1, [100.0] * 30)
    return made


def life(number: int, rss_mb: list[float], fds: int = 10, more_fds: int = 0) -> list[Sample]:
    return [Sample(float(at), number, rss, fds + more_fds * at, 9) for at, rss in enumerate(rss_mb)]


def test_a_soak_that_went_well_has_nothing_wrong(soak: Soak) -> None:
    assert verdict(soak) == []


def test_a_lost_file_is_seen(soak: Soak) -> None:
    next(soak.one.target.rglob("*.png")).unlink()

    assert verdict(soak) == ["lost: 1 files"]


def test_a_doubled_file_is_seen(soak: Soak) -> None:
    path = next(soak.one.target.rglob("*.png"))
    (soak.one.inbox / "again.png").write_bytes(path.read_bytes())

    assert verdict(soak) == ["double or strange: 1 files"]


def test_a_changed_file_is_seen_as_lost_and_strange(soak: Soak) -> None:
    next(soak.one.target.rglob("*.png")).write_bytes(b"other")

    assert verdict(soak) == ["lost: 1 files", "double or strange: 1 files"]


def test_counts_that_do_not_add_up_are_seen(soak: Soak) -> None:
    soak.one.status().counts["seen"] = 4

    assert verdict(soak)[0].startswith("the counts do not add up")


def test_a_part_that_was_left_over_is_seen(soak: Soak) -> None:
    (soak.one.target / ".imgsortd-7.part").mkdir()

    assert verdict(soak) == [f"left over: {soak.one.target / '.imgsortd-7.part'}"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_growth_in_any_life_that_is_long_enough_is_seen(number: int) -> None:
    lives = [sample for each in (1, 2, 3) for sample in life(each, [100.0] * 30)]
    grown = life(number, [100.0 + 12 * at for at in range(30)])

    wrong = growth([sample for sample in lives if sample.life != number] + grown)

    assert wrong == [f"memory grows in life {number}: 328 → 448 MB"]


def test_growth_that_ends_in_the_first_third_is_a_start(soak: Soak) -> None:
    assert growth(life(1, [20.0 * at for at in range(10)] + [200.0] * 20)) == []


def test_descriptors_that_leak_are_seen() -> None:
    assert growth(life(1, [100.0] * 30, more_fds=1)) == ["fds grow in life 1: 29 → 39"]


def test_lives_too_short_to_tell_are_no_proof() -> None:
    short = [sample for number in range(9) for sample in life(number, [100.0] * 5)]

    assert growth(short) == ["no life was long enough to see growth"]


@pytest.mark.parametrize(
    ("code", "said", "known"),
    [
        (0, "", True),
        (1, "imgsortd: there is nothing\nto undo", True),
        (1, "imgsortd: the disk of state_dir is full; free some space there", True),
        (1, "imgsortd: something new", False),
        (1, "Traceback (most recent call last): there is nothing to undo", False),
        (2, "imgsortd: there is nothing to undo", False),
        (-9, "", False),
    ],
)
def test_a_command_may_be_refused_only_for_a_known_reason(
    code: int, said: str, known: bool
) -> None:
    assert is_known_refusal(code, said) is known
