"""Moves, copies and links: what arrives, what is never overwritten, what stays on failure."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir
from dataclasses import replace
from pathlib import Path

import pytest

from bench import Bench, at
from imgsortd.errors import NoSpaceError
from imgsortd.moves import copies as placing
from imgsortd.moves import crossing, ends, mover, staging
from imgsortd.moves.mover import Mover
from imgsortd.records import Move, MovePhase, Op, Root
from imgsortd.system import filesystem
from mounts import remount, tmpfs

AT_WORK: tuple[object, ...] = (mover, ends, placing, crossing, filesystem)
KEEP_SOURCE = [Op.COPY, Op.HARDLINK, Op.SYMLINK]
OPS_ACROSS = [Op.MOVE, Op.COPY, Op.SYMLINK]
WAYS = [(op, "same") for op in Op] + [(op, "across") for op in OPS_ACROSS]
MOVES = [(Op.MOVE, "same"), (Op.MOVE, "across")]

MakeBench = Callable[[str], Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    """Make a bench whose target is on the inbox's filesystem, or ``across``."""
    with ExitStack() as stack:

        def make(where: str) -> Bench:
            if where == "across":
                stack.enter_context(tmpfs(tmp_path / "target", "4m"))
            bench = Bench(tmp_path)
            stack.callback(bench.close)
            return bench

        yield make


def hook(monkeypatch: pytest.MonkeyPatch, label: str, act: Callable[[], object]) -> None:
    """Do something at a fault point, as another program might at that instant."""
    fault_point = at(label, act)
    for module in AT_WORK:
        monkeypatch.setattr(module, "fault_point", fault_point)


def without(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    """Take features of the filesystem away."""
    if "renameat2" in features:
        monkeypatch.setattr(filesystem, "_libc", object())
    if "tmpfile" in features:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    if "links" in features:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_bytes_times_and_mode_arrive(make_bench: MakeBench, op: Op, where: str) -> None:
    bench = make_bench(where)
    source = bench.put("sub/a.png", b"bytes" * 100)
    source.chmod(0o640)
    os.setxattr(source, "user.note", b"kept")
    before = source.stat()
    move = bench.plan("sub/a.png", "cluster_0/a.png", op)

    (result,) = bench.apply(move)

    arrived = bench.target / "cluster_0" / "a.png"
    after = arrived.stat()
    assert result.phase is MovePhase.DONE
    assert arrived.read_bytes() == b"bytes" * 100
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    assert os.getxattr(arrived, "user.note") == b"kept"
    assert bench.names() == ([] if op is Op.MOVE else ["sub/a.png"], ["cluster_0/a.png"])
    assert arrived.is_symlink() == (op is Op.SYMLINK)
    assert (after.st_ino == before.st_ino) == (where == "same" and op is not Op.COPY) or (
        op is Op.SYMLINK
    )


def test_a_hard_link_to_another_filesystem_is_refused_with_what_to_do(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("across")
    bench.put("a.png")

    (result,) = bench.apply(bench.plan("a.png", "cluster_0/a.png", Op.HARDLINK))

    assert result.phase is MovePhase.PLANNED
    assert result.error == (
        "op: hardlink needs inbox and target on one filesystem; use copy (cluster_0/a.png)"
    )


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_a_name_that_is_taken_is_left_alone_and_another_is_journalled(
    make_bench: MakeBench, op: Op, where: str
) -> None:
    bench = make_bench(where)
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    stranger = bench.target / "cluster_0" / "a.png"
    stranger.parent.mkdir()
    stranger.write_bytes(b"stranger")

    (result,) = bench.apply(move)

    assert (result.phase, result.dst) == (MovePhase.DONE, b"cluster_0/a-1.png")
    assert stranger.read_bytes() == b"stranger"
    assert (bench.target / "cluster_0" / "a-1.png").read_bytes() == b"picture"
    assert [dst for _, dst in bench.store.files.placed()] == [b"cluster_0/a-1.png"]


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_another_name_is_none_that_the_same_batch_has_promised(
    make_bench: MakeBench, op: Op, where: str
) -> None:
    bench = make_bench(where)
    bench.put("a.png", b"first")
    bench.put("sub/a.png", b"second")
    moves = [
        bench.plan("a.png", "cluster_0/a.png", op),
        bench.plan("sub/a.png", "cluster_0/a-1.png", op),
    ]
    (bench.target / "cluster_0").mkdir()
    (bench.target / "cluster_0" / "a.png").write_bytes(b"stranger")

    results = bench.apply(*moves)

    assert [result.dst for result in results] == [b"cluster_0/a-2.png", b"cluster_0/a-1.png"]


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_a_name_of_255_bytes_leaves_room_for_the_number(
    make_bench: MakeBench, op: Op, where: str
) -> None:
    bench = make_bench(where)
    name = "n" * 251 + ".png"
    bench.put(name)
    move = bench.plan(name, f"cluster_0/{name}", op)
    (bench.target / "cluster_0").mkdir()
    (bench.target / "cluster_0" / name).write_bytes(b"stranger")

    (result,) = bench.apply(move)

    assert (result.phase, len(result.dst)) == (MovePhase.DONE, len("cluster_0/") + 255)


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_a_source_that_is_gone_ends_its_move(make_bench: MakeBench, op: Op, where: str) -> None:
    bench = make_bench(where)
    move_of = bench.put("sub/a.png")
    move = bench.plan("sub/a.png", "cluster_0/a.png", op)
    move_of.unlink()
    move_of.parent.rmdir()

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.GONE
    assert bench.names() == ([], [])


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_a_source_that_was_written_again_stays(make_bench: MakeBench, op: Op, where: str) -> None:
    bench = make_bench(where)
    source = bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    source.write_bytes(b"another picture")

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a.png"], [])


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_a_source_that_was_only_touched_is_placed(
    make_bench: MakeBench, op: Op, where: str
) -> None:
    bench = make_bench(where)
    source = bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    source.touch()

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.DONE


@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "folder"])
@pytest.mark.parametrize(("op", "where"), WAYS)
def test_what_is_no_longer_a_file_is_not_touched(
    make_bench: MakeBench, tmp_path: Path, op: Op, where: str, kind: str
) -> None:
    bench = make_bench(where)
    source = bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    source.unlink()
    if kind == "symlink":
        source.symlink_to(tmp_path / "config.yaml")
    elif kind == "fifo":
        os.mkfifo(source)
    elif kind == "socket":
        with chdir(source.parent), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(source.name)  # the path of a socket must be short
    else:
        source.mkdir()

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.GONE
    assert os.path.lexists(source)
    assert bench.names()[1] == []


@pytest.mark.parametrize(("op", "where"), MOVES)
def test_a_file_swapped_in_at_the_last_instant_is_given_back(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, op: Op, where: str
) -> None:
    bench = make_bench(where)
    source = bench.put("a.png")
    stranger = bench.put("other.tmp", b"stranger")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    hook(monkeypatch, "opened", lambda: stranger.replace(source))

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a.png"], [])
    assert source.read_bytes() == b"stranger"


@pytest.mark.parametrize("by", ["rename", "link"])
def test_a_file_swapped_in_is_given_back_under_another_name_when_its_own_is_taken_again(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    bench = make_bench("same")
    source = bench.put("a.png")
    stranger = bench.put("other.tmp", b"stranger")
    move = bench.plan("a.png", "cluster_0/a.png")
    if by == "link":
        without(monkeypatch, "renameat2")

    def swap_and_then_upload_again() -> None:
        stranger.replace(source)
        hook(monkeypatch, "renamed", lambda: bench.put("a.png", b"third"))

    hook(monkeypatch, "opened", swap_and_then_upload_again)

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a-1.png", "a.png"], [])
    assert (bench.inbox / "a-1.png").read_bytes() == b"stranger"
    assert source.read_bytes() == b"third"


@pytest.mark.parametrize(("op", "where"), MOVES)
def test_a_symlink_swapped_in_is_given_back_and_not_followed(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, op: Op, where: str
) -> None:
    bench = make_bench(where)
    source = bench.put("a.png")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    move = bench.plan("a.png", "cluster_0/a.png", op)

    def swap() -> None:
        source.unlink()
        source.symlink_to(secret)

    hook(monkeypatch, "opened", swap)

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a.png"], [])
    assert source.is_symlink()


@pytest.mark.parametrize(("op", "where"), MOVES)
def test_a_file_taken_away_at_the_last_instant_is_gone(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, op: Op, where: str
) -> None:
    bench = make_bench(where)
    source = bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    hook(monkeypatch, "opened", source.unlink)

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.GONE
    assert bench.names() == ([], [])
    assert not (bench.inbox / ".imgsortd-claim").exists()


def test_a_hard_link_to_a_file_swapped_in_is_removed_again(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("same")
    source = bench.put("a.png")
    stranger = bench.put("other.tmp", b"stranger")
    move = bench.plan("a.png", "cluster_0/a.png", Op.HARDLINK)
    hook(monkeypatch, "folder_made", lambda: stranger.replace(source))

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.CHANGED
    assert bench.names() == (["a.png"], [])


@pytest.mark.parametrize(("op", "where"), WAYS)
def test_a_cluster_folder_that_leads_outside_is_refused(
    make_bench: MakeBench, tmp_path: Path, op: Op, where: str
) -> None:
    bench = make_bench(where)
    outside = tmp_path / "outside"
    outside.mkdir()
    (bench.target / "cluster_9").symlink_to(outside)
    bench.put("a.png")
    bench.put("b.png", b"other")
    moves = [bench.plan("a.png", "cluster_9/a.png", op), bench.plan("b.png", "cluster_0/b.png", op)]

    refused, placed = bench.apply(*moves)

    assert (refused.phase, placed.phase) == (MovePhase.PLANNED, MovePhase.DONE)
    assert refused.error == "Not a directory (cluster_9/a.png)"
    assert list(outside.iterdir()) == []
    assert "a.png" in bench.names()[0]
    (bench.target / "cluster_9").unlink()
    assert [result.phase for result in bench.recover()] == [MovePhase.DONE]


@pytest.mark.parametrize("op", [Op.MOVE, Op.COPY])
def test_on_a_full_disk_the_file_stays_and_is_placed_when_there_is_room(
    make_bench: MakeBench, op: Op
) -> None:
    bench = make_bench("across")
    filler = bench.target / "filler"
    filler.write_bytes(bytes(3_500_000))
    bench.put("sub/a.png", bytes(1_000_000))
    move = bench.plan("sub/a.png", "cluster_0/a.png", op)

    (result,) = bench.apply(move)

    assert (result.phase, result.no_space) == (MovePhase.PLANNED, True)
    assert result.error == "No space left on device (cluster_0/a.png)"
    assert bench.names() == (["sub/a.png"], ["filler"])
    filler.unlink()
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]
    assert (bench.target / "cluster_0" / "a.png").read_bytes() == bytes(1_000_000)


@pytest.mark.parametrize("op", OPS_ACROSS)
def test_on_a_read_only_target_the_file_stays_and_the_reason_is_told(
    make_bench: MakeBench, op: Op
) -> None:
    bench = make_bench("across")
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    remount(bench.target, "ro")

    (result,) = bench.apply(move)

    assert result.error == "Read-only file system (cluster_0/a.png)"
    assert bench.mover.obstacle([Root.INBOX]) == ""
    assert bench.mover.obstacle([Root.TARGET]) == (
        f"target {bench.target} takes no files: Read-only file system"
    )
    assert bench.names() == (["a.png"], [])
    remount(bench.target, "rw")
    assert bench.mover.obstacle([Root.TARGET, Root.INBOX]) == ""
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("root", ["inbox", "target"])
def test_a_root_that_is_away_makes_no_file_gone(
    make_bench: MakeBench, tmp_path: Path, op: Op, root: str
) -> None:
    bench = make_bench("same")
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    (tmp_path / root).rename(tmp_path / "away")

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.PLANNED
    (tmp_path / "away").rename(tmp_path / root)
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]


def test_a_cluster_folder_taken_away_in_the_middle_makes_no_file_gone(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("same")
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    hook(monkeypatch, "folder_made", lambda: (bench.target / "cluster_0").rmdir())

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.PLANNED
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]


@pytest.mark.parametrize("features", [("renameat2",), ("renameat2", "links", "tmpfile")])
@pytest.mark.parametrize(("op", "where"), [*MOVES, (Op.COPY, "same"), (Op.COPY, "across")])
def test_on_plain_filesystems_files_are_placed_and_nothing_is_overwritten(
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    op: Op,
    where: str,
    features: tuple[str, ...],
) -> None:
    bench = make_bench(where)
    bench.put("a.png")
    bench.put("b.png", b"other")
    moves = [bench.plan("a.png", "cluster_0/a.png", op), bench.plan("b.png", "cluster_0/b.png", op)]
    (bench.target / "cluster_0").mkdir()
    (bench.target / "cluster_0" / "a.png").write_bytes(b"stranger")
    without(monkeypatch, *features)

    results = bench.apply(*moves)

    assert [r.dst for r in results] == [b"cluster_0/a-1.png", b"cluster_0/b.png"]
    assert [r.phase for r in results] == [MovePhase.DONE, MovePhase.DONE]
    contents = {p.name: p.read_bytes() for p in (bench.target / "cluster_0").iterdir()}
    assert contents == {"a.png": b"stranger", "a-1.png": b"picture", "b.png": b"other"}
    assert bench.names()[0] == ([] if op is Op.MOVE else ["a.png", "b.png"])


@pytest.mark.parametrize(("op", "where"), MOVES)
def test_after_a_crash_an_upload_under_the_old_name_is_a_file_of_its_own(
    make_bench: MakeBench, op: Op, where: str
) -> None:
    bench = make_bench(where)
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    bench.mover.apply([move])  # and dies before the row is closed
    bench.put("a.png")

    (result,) = bench.recover()

    assert (result.phase, result.dst) == (MovePhase.DONE, b"cluster_0/a.png")
    if where == "same":
        assert bench.names() == (["a.png"], ["cluster_0/a.png"])


def test_a_folder_removed_after_a_crash_does_not_keep_its_move_open(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("same")
    bench.put("sub/a.png")
    move = bench.plan("sub/a.png", "cluster_0/a.png")
    bench.mover.apply([move])
    (bench.inbox / "sub").rmdir()

    (result,) = bench.recover()

    assert result.phase is MovePhase.DONE


@pytest.mark.parametrize("op", KEEP_SOURCE)
def test_a_copy_or_link_that_is_there_is_not_made_twice(make_bench: MakeBench, op: Op) -> None:
    bench = make_bench("same")
    bench.put("a.png")
    bench.mover.apply([bench.plan("a.png", "cluster_0/a.png", op)])

    (result,) = bench.recover()

    assert result.phase is MovePhase.DONE
    assert bench.names() == (["a.png"], ["cluster_0/a.png"])


def test_a_journal_that_cannot_be_written_leaves_no_descriptor_open(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("same")
    moves = []
    for number in range(5):
        bench.put(f"{number}.png", b"%d" % number)
        moves.append(bench.plan(f"{number}.png", f"cluster_0/{number}.png", Op.COPY))
    (bench.target / "cluster_0").mkdir()
    (bench.target / "cluster_0" / "0.png").write_bytes(b"stranger")
    full = Mover(bench.inbox, bench.target, FullJournal(), bench.roots)
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(NoSpaceError):
        full.apply(moves)

    assert len(os.listdir("/proc/self/fd")) == before


class FullJournal:
    """A journal on a full disk."""

    def rename(self, move_id: int, dst: bytes) -> None:
        raise NoSpaceError("full")

    def mark_copied(self, move_id: int) -> None:
        raise NoSpaceError("full")


@pytest.mark.parametrize("op", OPS_ACROSS)
def test_when_a_folder_cannot_be_synced_every_row_stays_open(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, op: Op
) -> None:
    bench = make_bench("same")
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", op)
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(bench.target / "cluster_0"):
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.PLANNED
    assert result.error == "Input/output error (cluster_0/a.png)"
    monkeypatch.setattr(os, "fsync", real)
    assert [r.phase for r in bench.recover()] == [MovePhase.DONE]
    assert bench.names()[1] == ["cluster_0/a.png"]


def test_a_copy_that_cannot_be_synced_is_dropped_and_made_anew(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("same")
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png", Op.COPY)
    monkeypatch.setattr(staging, "sync", lambda copies: [OSError(5, "EIO") for _ in copies])

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.PLANNED
    assert bench.names() == (["a.png"], [])


def test_after_each_move_the_daemon_is_told(make_bench: MakeBench) -> None:
    bench = make_bench("same")
    told: list[int] = []
    bench.mover.after_each = lambda: told.append(1)
    moves: list[Move] = []
    for number, op in enumerate(Op):
        bench.put(f"{number}.png", b"%d" % number)
        moves.append(bench.plan(f"{number}.png", f"cluster_0/{number}.png", op))

    bench.apply(*moves)

    assert len(told) == len(Op) + 1  # and after the one piece that was copied


def test_a_name_that_leaves_target_is_refused(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench("same")
    bench.put("a.png")
    move = replace(bench.plan("a.png", "cluster_0/a.png"), dst=b"../a.png")

    (result,) = bench.apply(move)

    assert result.phase is MovePhase.PLANNED
    assert not (tmp_path / "a.png").exists()


def test_a_file_that_cannot_be_read_is_taken_for_another(tmp_path: Path) -> None:
    unreadable = Path("/proc/self")  # mem there is a regular file whose first byte is EIO
    a_mover = Mover(tmp_path, unreadable, None, None)  # type: ignore[arg-type]
    with (
        filesystem.Folders(unreadable) as folders,
        pytest.raises(OSError, match="Input/output error"),
    ):
        filesystem.holds_bytes(folders, b"mem", 0, bytes(32))

    assert not a_mover.holds_bytes(b"mem", 0, bytes(32))
