"""Moves between two filesystems: claims, files that grow meanwhile, claims without a row."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import Bench, at
from imgsortd.moves import crossing
from imgsortd.moves.crossing import CLAIM_FOLDER, Known, find_orphans, return_orphans
from imgsortd.records import Move, MovePhase, Op
from imgsortd.system import filesystem
from mounts import tmpfs

CLAIMS = CLAIM_FOLDER.decode()
NOTHING = Known([], lambda _: False)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a bench whose target is another filesystem."""
    with tmpfs(tmp_path / "target", "4m"):
        bench = Bench(tmp_path)
        yield bench
        bench.close()


def known(bench: Bench) -> Known:
    """Return what a library knows of claims."""
    return Known(bench.store.journal.unfinished(), bench.store.library.is_ours)


def hook(monkeypatch: pytest.MonkeyPatch, label: str, act: object) -> None:
    assert callable(act)
    monkeypatch.setattr(crossing, "fault_point", at(label, act))


def copied(bench: Bench, move: Move) -> None:
    """Bring a move to where its copy is whole and journalled, and its claim still there."""
    claims = bench.inbox / CLAIMS
    claims.mkdir()
    (bench.inbox / "a.png").rename(claims / f"{move.mark}-a.png")
    (bench.target / "cluster_0").mkdir()
    (bench.target / "cluster_0" / "a.png").write_bytes(b"picture")
    with bench.store.atomic():
        bench.store.journal.mark_copied(move.move_id)


def test_only_the_claim_is_removed_not_a_second_upload(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    hook(monkeypatch, "copied", lambda: bench.put("a.png", b"second upload"))

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.DONE
    assert bench.names() == (["a.png"], ["cluster_0/a.png"])
    assert (bench.inbox / "a.png").read_bytes() == b"second upload"


def test_the_copy_is_journalled_before_its_claim_is_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("a.png")
    phases: list[MovePhase] = []
    move = bench.plan("a.png", "cluster_0/a.png")
    hook(monkeypatch, "copied", lambda: phases.append(bench.store.journal.unfinished()[0].phase))

    bench.apply(move)

    assert phases == [MovePhase.COPIED]


def test_a_file_that_is_open_for_writing_goes_back(bench: Bench, leases_allowed: None) -> None:
    source = bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")

    with open(source, "ab"):
        (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a.png"], [])


def test_what_grew_while_it_was_copied_goes_back_as_a_file_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")

    def append() -> None:
        (claim,) = (bench.inbox / CLAIMS).iterdir()
        with open(claim, "ab") as file:
            file.write(b" and more")

    hook(monkeypatch, "copied", append)

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.DONE
    assert (bench.target / "cluster_0" / "a.png").read_bytes() == b"picture"
    assert (bench.inbox / "a.png").read_bytes() == b"picture and more"


def test_a_claim_that_grew_before_a_crash_is_not_dropped(bench: Bench) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    copied(bench, move)
    (bench.inbox / CLAIMS / f"{move.mark}-a.png").write_bytes(b"picture and more")

    (result,) = bench.recover()

    assert result.phase is MovePhase.DONE
    assert (bench.inbox / "a.png").read_bytes() == b"picture and more"
    assert bench.names() == (["a.png"], ["cluster_0/a.png"])


def test_a_copy_taken_away_before_its_claim_was_dropped_makes_the_claim_a_file_again(
    bench: Bench,
) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    copied(bench, move)
    (bench.target / "cluster_0" / "a.png").unlink()

    (result,) = bench.recover()

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a.png"], [])


def test_a_copy_taken_away_after_its_claim_was_dropped_is_its_owners(bench: Bench) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    copied(bench, move)
    (bench.target / "cluster_0" / "a.png").unlink()
    (bench.inbox / CLAIMS / f"{move.mark}-a.png").unlink()

    (result,) = bench.recover()

    assert result.phase is MovePhase.GONE


def test_a_file_given_back_takes_another_name_when_its_own_is_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("a.png", b"first")
    move = replace(bench.plan("a.png", "cluster_0/a.png"), sha256=bytes(32))
    hook(monkeypatch, "claimed", lambda: bench.put("a.png", b"second"))

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert (bench.inbox / "a.png").read_bytes() == b"second"
    assert (bench.inbox / "a-1.png").read_bytes() == b"first"


def test_a_name_of_255_bytes_can_be_claimed(bench: Bench) -> None:
    name = "n" * 251 + ".png"
    bench.put(name)

    (result,) = bench.apply(bench.plan(name, f"cluster_0/{name}"))

    assert result.phase is MovePhase.DONE
    assert bench.names() == ([], [f"cluster_0/{name}"])


def test_the_claim_folder_is_gone_after_each_batch(bench: Bench) -> None:
    moves = []
    for number in range(3):
        bench.put(f"sub/{number}.png", b"%d" % number)
        moves.append(bench.plan(f"sub/{number}.png", f"cluster_0/{number}.png"))

    bench.apply(*moves)

    assert list((bench.inbox / "sub").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_stranger_in_place_of_the_claim_folder_keeps_the_file_where_it_is(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    if kind == "file":
        (bench.inbox / CLAIMS).touch()
    else:
        (bench.inbox / CLAIMS).symlink_to(tmp_path)

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.PLANNED
    assert (bench.inbox / "a.png").exists()
    assert bench.names()[1] == []
    (bench.inbox / CLAIMS).unlink()
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]


def test_files_are_never_without_a_name_while_they_move(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        bench.put(f"{number}.png", b"%d" % number * 1000)
    moves = [bench.plan(f"{number}.png", f"cluster_0/{number}.png") for number in range(20)]
    missing: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for number in range(20):
                # Against the way of a file: what is met at neither end had no name between.
                seen = (bench.inbox / f"{number}.png").exists() or any(
                    path.name.endswith(f"-{number}.png") for path in _listing(bench.inbox / CLAIMS)
                )
                if not seen and not (bench.target / "cluster_0" / f"{number}.png").exists():
                    missing.append(number)

    watcher = threading.Thread(target=watch)
    watcher.start()
    bench.apply(*moves)
    stop.set()
    watcher.join()

    assert missing == []


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def test_a_claim_linked_before_a_crash_leaves_no_second_name(bench: Bench) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    (bench.inbox / CLAIMS).mkdir()
    os.link(bench.inbox / "a.png", bench.inbox / CLAIMS / f"{move.mark}-a.png")

    (result,) = bench.recover()

    assert result.phase is MovePhase.DONE
    assert bench.names() == ([], ["cluster_0/a.png"])


def test_claims_without_a_row_go_back_under_their_names(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "sub", tmp_path / ".hidden"):
        (folder / CLAIMS).mkdir(parents=True)
        (folder / CLAIMS / "7-a.png").write_bytes(b"claimed")
    (tmp_path / "a.png").write_bytes(b"stranger")

    returned = return_orphans(tmp_path, NOTHING)

    assert sorted(returned) == [b".hidden/a.png", b"a-1.png", b"sub/a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"stranger"
    assert (tmp_path / "a-1.png").read_bytes() == b"claimed"
    assert not (tmp_path / CLAIMS).exists()


def test_claims_of_open_moves_are_left_to_recovery(bench: Bench) -> None:
    bench.put("a.png")
    bench.put("b.png", b"other")
    move = bench.plan("a.png", "cluster_0/a.png")
    (bench.inbox / CLAIMS).mkdir()
    (bench.inbox / "a.png").rename(bench.inbox / CLAIMS / f"{move.mark}-a.png")
    # The same number, of a row in a database that is lost.
    (bench.inbox / "b.png").rename(bench.inbox / CLAIMS / f"{move.mark}-b.png")

    returned = return_orphans(bench.inbox, known(bench))

    assert returned == [b"b.png"]
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]
    assert bench.names() == (["b.png"], ["cluster_0/a.png"])


def test_claims_without_a_row_can_be_named_and_left_where_they_are(bench: Bench) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    claims = bench.inbox / "sub" / CLAIMS
    claims.mkdir(parents=True)
    (claims / "7-b.png").touch()
    (bench.inbox / CLAIMS).mkdir()
    (bench.inbox / "a.png").rename(bench.inbox / CLAIMS / f"{move.mark}-a.png")

    found = find_orphans(bench.inbox, known(bench))

    assert found == [b"sub/" + CLAIM_FOLDER + b"/7-b.png"]
    assert (claims / "7-b.png").exists()


def test_a_strangers_claim_folder_hides_nothing_else_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "closed", tmp_path / "sub"):
        (folder / CLAIMS).mkdir(parents=True)
        (folder / CLAIMS / "7-a.png").touch()
    real = os.listdir

    def listdir(path: bytes) -> list[bytes]:  # root may read everything
        if b"closed" in path:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)

    assert return_orphans(tmp_path, NOTHING) == [b"sub/a.png"]
    assert find_orphans(tmp_path, NOTHING) == [b"closed/" + CLAIM_FOLDER]
    assert caplog.messages == [
        f"claim folder not read name='closed/{CLAIMS}' reason=Permission denied"
    ]


def test_folders_nested_without_end_hide_no_claim_above_them(endless_folder: Path) -> None:
    (endless_folder / CLAIMS).mkdir()
    (endless_folder / CLAIMS / "7-a.png").touch()

    assert return_orphans(endless_folder, NOTHING) == [b"a.png"]


def test_what_is_no_claim_stays_in_the_claim_folder(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / "notes.txt").touch()

    assert return_orphans(tmp_path, NOTHING) == []
    assert (tmp_path / CLAIMS / "notes.txt").exists()


def test_a_claim_that_cannot_be_given_back_is_told_and_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / "1-a.png").touch()
    (tmp_path / CLAIMS / "2-b.png").touch()
    real = filesystem.return_to

    def return_to(src_fd: int, src: bytes, folder_fd: int, name: bytes) -> bytes:
        if name == b"a.png":
            raise OSError(5, "Input/output error")
        return real(src_fd, src, folder_fd, name)

    monkeypatch.setattr(filesystem, "return_to", return_to)

    assert return_orphans(tmp_path, NOTHING) == [b"b.png"]
    assert "claim not given back name='1-a.png' reason=[Errno 5]" in caplog.text


def test_equal_bytes_that_a_stranger_put_there_after_a_crash_do_not_cost_the_claim(
    bench: Bench,
) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    claims = bench.inbox / CLAIMS
    claims.mkdir()
    (bench.inbox / "a.png").rename(claims / f"{move.mark}-a.png")
    (bench.target / "cluster_0").mkdir()
    (bench.target / "cluster_0" / "a.png").write_bytes(b"picture")

    (result,) = bench.recover()

    assert (result.phase, result.dst) == (MovePhase.DONE, b"cluster_0/a-1.png")
    assert bench.names() == ([], ["cluster_0/a-1.png", "cluster_0/a.png"])


def test_a_copy_that_is_to_end_leaves_the_file_in_the_inbox_and_its_row_open(
    bench: Bench,
) -> None:
    bench.put("a.png", b"x" * (3 << 20))
    move = bench.plan("a.png", "cluster_0/a.png")
    asked = iter([False, False, True])  # before the move, and at its second megabyte
    bench.mover.stopping = lambda: next(asked, True)

    (result,) = bench.apply(move)

    assert (result.phase, result.error) == (MovePhase.PLANNED, "")
    assert bench.names() == (["a.png"], [])
    bench.mover.stopping = lambda: False
    (again,) = bench.recover()
    assert again.phase is MovePhase.DONE
    assert bench.names() == ([], ["cluster_0/a.png"])


@pytest.mark.parametrize("op", [Op.MOVE, Op.COPY])
def test_moves_that_are_not_begun_when_it_is_to_end_stay_open(bench: Bench, op: Op) -> None:
    for name in ("a.png", "b.png"):
        bench.put(name)
    moves = [bench.plan(name, f"cluster_0/{name}", op=op) for name in ("a.png", "b.png")]
    bench.mover.stopping = lambda: bool(bench.names()[1]) or op is Op.COPY

    results = bench.apply(*moves)

    done = [MovePhase.DONE] if op is Op.MOVE else [MovePhase.PLANNED]
    assert [result.phase for result in results] == [*done, MovePhase.PLANNED]
    assert not any(result.error for result in results)
    assert len(bench.store.journal.unfinished()) == 2 - done.count(MovePhase.DONE)


def test_a_copy_that_takes_long_tells_that_it_goes_on(bench: Bench) -> None:
    bench.put("a.mov", b"f" * (3 << 20))
    told: list[int] = []
    bench.mover.after_each = lambda: told.append(len(told))

    (result,) = bench.apply(bench.plan("a.mov", "cluster_0/a.mov"))

    assert result.phase is MovePhase.DONE
    assert len(told) == 4  # after each megabyte, and the move
