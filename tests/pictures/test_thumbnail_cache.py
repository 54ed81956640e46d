"""The cache of small pictures: what was kept is found, the file stays small, none is no harm."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from imgsortd.pictures.thumbnail_cache import VERSION, Cached, ThumbnailCache
from mounts import remount, tmpfs
from support import wait_until

MEGABYTE = 1 << 20
HOUR_S = 3600
# A WAL of 4 MiB, which the checkpoint behind it may once have made longer, and its index.
BESIDE_BYTES = 6 * MEGABYTE


class Clock:
    """A clock that goes on when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


MakeCache = Callable[..., ThumbnailCache]


@pytest.fixture
def make_cache(tmp_path: Path) -> Iterator[MakeCache]:
    made: list[ThumbnailCache] = []

    def make(max_bytes: int = 8 * MEGABYTE, clock: Clock | None = None) -> ThumbnailCache:
        made.append(ThumbnailCache(tmp_path / "thumbnails.db", max_bytes, clock or Clock()))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def picture(number: int, size_bytes: int = 10_000) -> Cached:
    """Return bytes that cannot be packed, as those of a picture."""
    return Cached(np.random.default_rng(number).bytes(size_bytes), (4000 + number, 3000))


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_was_kept_is_found_with_the_pictures_size(make_cache: MakeCache) -> None:
    cache = make_cache()

    cache.put(key(1), picture(1))
    cache.put(key(2), picture(2))
    cache.put(key(2), picture(3))

    assert cache.get(key(1)) == picture(1)
    assert cache.get(key(2)) == picture(3)
    assert cache.get(key(9)) is None
    assert cache.sizes([*map(key, range(2000))]) == {key(1): (4001, 3000), key(2): (4003, 3000)}


def test_it_is_there_after_a_restart_and_nobody_else_may_read_it(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    first = make_cache()
    first.put(key(1), picture(1))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    first.close()

    found = make_cache().get(key(1))

    assert found == picture(1)
    assert modes == {0o600}
    assert first.get(key(1)) is None


def test_no_file_is_made_before_there_is_something_to_keep(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    cache = make_cache()

    assert cache.get(key(1)) is None
    assert cache.sizes([key(1)]) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_cap_of_nothing_keeps_nothing(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache(max_bytes=0)

    cache.put(key(1), picture(1))

    assert cache.get(key(1)) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_last_stays_and_the_file_stays_near_its_cap(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    clock = Clock()
    cache = make_cache(2 * MEGABYTE, clock)
    sizes = []

    for number in range(1000):
        clock.now_s += HOUR_S + 1
        cache.put(key(number), picture(number, 5_000 + 20 * number % 10_000))
        assert cache.get(key(0)) is not None  # looked at again and again
        sizes.append((tmp_path / "thumbnails.db").stat().st_size)

    kept = cache.sizes(map(key, range(1000)))
    newest = [key(number) for number in range(1001 - len(kept), 1000)]
    assert sorted(kept) == [key(0), *newest]
    assert len(kept) > 100
    assert max(sizes) <= 2 * MEGABYTE + 64_000
    assert disk_bytes(tmp_path) <= 2 * MEGABYTE + BESIDE_BYTES


def test_a_lower_cap_makes_the_file_smaller(make_cache: MakeCache, tmp_path: Path) -> None:
    large = make_cache(8 * MEGABYTE)
    for number in range(600):
        large.put(key(number), picture(number))
    large.close()
    before = disk_bytes(tmp_path)

    small = make_cache(MEGABYTE)
    small.put(key(1000), picture(1000))
    small.close()

    assert before > 5 * MEGABYTE
    assert disk_bytes(tmp_path) <= MEGABYTE
    assert make_cache(MEGABYTE).get(key(1000)) == picture(1000)


def test_far_too_much_goes_a_part_at_a_time(make_cache: MakeCache, tmp_path: Path) -> None:
    large = make_cache(64 * MEGABYTE)
    for number in range(50):
        large.put(key(number), picture(number, MEGABYTE))
    large.close()
    small = make_cache(8 * MEGABYTE)
    kept = []

    for number in range(100, 110):
        small.put(key(number), picture(number))
        kept.append(len(small.sizes(map(key, range(50)))))

    assert kept[0] > 10
    assert kept[-1] <= 8
    small.close()
    assert disk_bytes(tmp_path) <= 8 * MEGABYTE
    assert make_cache(8 * MEGABYTE).get(key(109)) == picture(109)


def test_a_picture_that_would_take_half_of_all_is_not_kept(make_cache: MakeCache) -> None:
    cache = make_cache(MEGABYTE)
    cache.put(key(1), picture(1))

    cache.put(key(2), picture(2, MEGABYTE // 2 + 1))

    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is not None


def test_reading_does_not_write_each_time(make_cache: MakeCache, tmp_path: Path) -> None:
    clock = Clock()
    cache = make_cache(clock=clock)
    for number in range(150):
        cache.put(key(number), picture(number))
    wal = tmp_path / "thumbnails.db-wal"
    before = wal.stat()

    for _ in range(3):
        clock.now_s += 2 * HOUR_S
        for number in range(150):
            assert cache.get(key(number)) is not None

    assert (wal.stat().st_size, wal.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    cache.close()
    with sqlite3.connect(tmp_path / "thumbnails.db") as connection:
        rows = connection.execute("SELECT DISTINCT used_at FROM thumbnails").fetchall()
    assert rows == [(clock.now_s,)]


def test_threads_may_use_it_at_once(make_cache: MakeCache) -> None:
    cache = make_cache(MEGABYTE)

    def work(number: int) -> bool:
        cache.put(key(number), picture(number))
        found = cache.get(key(number % 7))
        return found is None or found == picture(number % 7)

    with ThreadPoolExecutor(8) as pool:
        right = list(pool.map(work, range(400)))

    assert all(right)


def write_text(path: Path) -> None:
    path.write_text("a stranger's notes\n" * 100)


def write_nothing_of_ours(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE thumbnails(sha256 BLOB PRIMARY KEY, webp BLOB)")
    connection.close()


def write_another_version(path: Path) -> None:
    cache = ThumbnailCache(path, MEGABYTE)
    cache.put(key(1), picture(1))
    cache.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()


def write_a_start_that_was_killed(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def write_damage(path: Path) -> None:
    cache = ThumbnailCache(path, 8 * MEGABYTE)
    for number in range(50):
        cache.put(key(number), picture(number))
    cache.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def write_a_log_alone(path: Path) -> None:
    write_text(path)
    Path(f"{path}-wal").write_bytes(os.urandom(5000))


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_nothing_of_ours,
        write_another_version,
        write_a_start_that_was_killed,
        write_damage,
        write_a_log_alone,
    ],
)
def test_a_file_that_is_not_what_was_kept_is_made_anew_and_the_log_says_so(
    make_cache: MakeCache,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    write: Callable[[Path], None],
) -> None:
    path = tmp_path / "thumbnails.db"
    write(path)
    cache = make_cache()

    assert cache.get(key(1)) is None
    cache.put(key(2), picture(2))

    assert cache.get(key(2)) == picture(2)
    (warning,) = warnings(caplog)
    assert warning.startswith(f"thumbnail cache is made anew path={path} reason=")


def test_a_picture_whose_bytes_were_overwritten_is_never_shown(
    make_cache: MakeCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache()
    cache.put(key(1), picture(1))
    cache.close()
    path = tmp_path / "thumbnails.db"
    data = bytearray(path.read_bytes())
    at = data.index(picture(1).webp[-2000:-1900])
    data[at] ^= 1
    path.write_bytes(data)
    cache = make_cache()

    assert cache.get(key(1)) is None
    assert warnings(caplog) == [
        f"thumbnail cache is made anew path={path} reason='a picture in it is not what was kept'"
    ]


def test_a_full_disk_costs_the_cache_alone_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "full", size="1m") as folder:
        cache = ThumbnailCache(folder / "thumbnails.db", 8 * MEGABYTE)
        for number in range(300):
            cache.put(key(number), picture(number))
        told = warnings(caplog)
        found = [number for number in range(300) if cache.get(key(number)) is not None]

        remount(folder, "size=16m")
        cache.put(key(999), picture(999))

        assert cache.get(key(999)) == picture(999)
        assert all(cache.get(key(number)) == picture(number) for number in found)
        cache.close()
    (text,) = told
    assert text.startswith(f"thumbnail cache cannot be used path={folder}/thumbnails.db reason=")
    assert warnings(caplog) == told


def test_a_disk_that_is_read_only_costs_the_cache_alone_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "fixed", size="1m") as folder:
        remount(folder, "ro")
        cache = ThumbnailCache(folder / "thumbnails.db", 8 * MEGABYTE)

        for number in range(5):
            cache.put(key(number), picture(number))
            assert cache.get(key(number)) is None

        cache.close()
    assert warnings(caplog) == [
        f"thumbnail cache cannot be used path={folder}/thumbnails.db "
        f"reason=\"[Errno 30] Read-only file system: '{folder}/thumbnails.db'\""
    ]


def test_a_link_in_its_place_is_not_followed(
    make_cache: MakeCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("not ours")
    (tmp_path / "thumbnails.db").symlink_to(precious)
    cache = make_cache()

    cache.put(key(1), picture(1))

    assert precious.read_text() == "not ours"
    assert cache.get(key(1)) is None
    assert len(warnings(caplog)) == 1


def test_a_file_that_somebody_deletes_meanwhile_is_made_anew(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    cache = make_cache()
    cache.put(key(1), picture(1))
    for path in tmp_path.glob("thumbnails.db*"):
        path.unlink()

    found = cache.get(key(1))
    cache.put(key(2), picture(2))

    assert found is None
    assert cache.get(key(2)) == picture(2)
    assert make_cache().get(key(2)) == picture(2)


def test_a_file_that_somebody_puts_in_its_place_is_the_one_that_is_used(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    other = ThumbnailCache(tmp_path / "other.db", 8 * MEGABYTE, Clock())
    other.put(key(2), picture(2))
    other.close()
    cache = make_cache()
    cache.put(key(1), picture(1))

    for path in tmp_path.glob("thumbnails.db-*"):
        path.unlink()
    (tmp_path / "other.db").replace(tmp_path / "thumbnails.db")

    assert (cache.get(key(1)), cache.get(key(2))) == (None, picture(2))


@pytest.mark.parametrize("wait_for", [1, 40, 200])
def test_a_process_that_is_killed_leaves_a_file_that_can_be_used(
    make_cache: MakeCache, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_for: int
) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from imgsortd.pictures.thumbnail_cache import Cached, ThumbnailCache\n"
        "cache = ThumbnailCache(Path(sys.argv[1]), 1 << 20)\n"
        "for number in range(10**9):\n"
        "    webp = np.random.default_rng(number).bytes(10_000)\n"
        "    cache.put(number.to_bytes(32, 'big'), Cached(webp, (4000 + number, 3000)))\n"
        "    print(number, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "thumbnails.db")], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    for _ in range(wait_for):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    last = int((writer.stdout.read().splitlines() or [b"%d" % last])[-1])
    wait_until(lambda: writer.poll() is not None, what="the writer is dead")
    writer.stdout.close()

    cache = make_cache(MEGABYTE)

    kept = cache.sizes(map(key, range(last + 2)))
    assert key(last) in kept
    assert all(cache.get(name) == picture(int.from_bytes(name, "big")) for name in kept)
    cache.put(key(5000), picture(5000))
    assert cache.get(key(5000)) == picture(5000)
    assert warnings(caplog) == []
