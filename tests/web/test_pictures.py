"""Pictures on the page: only those of the library, only as they were sorted, each made once."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra web is not installed")
pytest.importorskip("httpx", reason="the tests of the page need httpx")
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from imgsortd.config.model import Config
from imgsortd.errors import StoreError
from imgsortd.pictures.decoder import NoDecoderError
from imgsortd.pictures.thumbnail_cache import Cached, ThumbnailCache
from imgsortd.web import pictures as web
from imgsortd.web.pictures import PREVIEW, THUMBNAIL, CrowdedError, NotShownError, Pictures
from line import Line
from support import RED, make_config, paint, paint_groups

pytestmark = pytest.mark.usefixtures("started_decoders")

PLENTY = 64 << 20
SORTED = "red-0.png"


class HeldCache(ThumbnailCache):
    """A cache that holds up whoever has made a picture until a test lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, PLENTY)
        self.may_go_on = threading.Event()
        self.made: list[bytes] = []

    def put(self, sha256: bytes, cached: Cached) -> None:
        self.made.append(sha256)
        assert self.may_go_on.wait(60)
        super().put(sha256, cached)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a library of twelve pictures in three clusters."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    yield line
    line.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[HeldCache]:
    cache = HeldCache(tmp_path / "state" / "thumbnails.db")
    cache.may_go_on.set()
    yield cache
    cache.may_go_on.set()
    cache.close()


@pytest.fixture
def client(line: Line, cache: HeldCache) -> Iterator[TestClient]:
    with serve(line.config, cache) as client:
        yield client


@contextmanager
def serve(config: Config, cache: ThumbnailCache, **options: Any) -> Iterator[TestClient]:
    pictures = Pictures(config, cache, **options)
    app = Starlette(
        routes=[
            Route("/pictures/{id:row}/thumbnail", web.thumbnail),
            Route("/pictures/{id:row}/preview", web.preview),
        ]
    )
    app.state.site = SimpleNamespace(pictures=pictures)
    with TestClient(app) as client:
        yield client
        assert client.portal is not None
        client.portal.call(pictures.close)


async def thumbnail(pictures: Pictures, file_id: int) -> Cached:
    return await pictures.make(await pictures.find(file_id), THUMBNAIL)


async def preview(pictures: Pictures, file_id: int) -> Cached:
    return await pictures.make(await pictures.find(file_id), PREVIEW)


def row_of(line: Line, name: str) -> tuple[int, bytes]:
    """Return the id and the SHA-256 of the file that came under a name."""
    (row,) = line.store.connection.execute(
        "SELECT id, sha256 FROM files WHERE CAST(src AS TEXT) = ?", (name,)
    )
    return row[0], row[1]


def ids_of(line: Line) -> list[int]:
    rows = line.store.connection.execute("SELECT id FROM files WHERE state = 'sorted' ORDER BY id")
    return [row[0] for row in rows]


def stored(line: Line, name: str) -> Path:
    return next(line.config.target.rglob(name))


def opened(webp: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(webp))
    assert image.format == "WEBP"
    return image


def run(
    config: Config,
    cache: ThumbnailCache,
    work: Callable[[Pictures], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    """Let a test work with pictures in an event loop, and close them."""

    async def main() -> None:
        pictures = Pictures(config, cache, **options)
        try:
            await asyncio.wait_for(work(pictures), 60)
        finally:
            await pictures.close()

    asyncio.run(main())


async def until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not predicate():
            await asyncio.sleep(0.01)


def decoders() -> set[psutil.Process]:
    """Return the decoding processes that this process has."""
    found = set()
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # it ends in this instant
            if "imgsortd.pictures.worker" in process.cmdline():
                found.add(process)
    return found


# --- what is shown


def test_a_small_and_a_large_picture_are_shown_upright_and_carry_nothing_of_the_file(
    line: Line, client: TestClient
) -> None:
    exif = Image.Exif()
    exif[270] = "a note that is nobody's business"
    exif[274] = 6
    file = io.BytesIO()
    Image.new("RGB", (2000, 1000), RED).save(file, "JPEG", exif=exif)
    line.put("turned.jpg", file.getvalue())
    line.run()
    file_id, _ = row_of(line, "turned.jpg")

    small = client.get(f"/pictures/{file_id}/thumbnail")
    large = client.get(f"/pictures/{file_id}/preview")

    assert (small.status_code, large.status_code) == (200, 200)
    assert opened(small.content).size == (160, 320)
    assert opened(large.content).size == (800, 1600)
    assert b"nobody" not in small.content + large.content


def test_a_small_file_is_not_made_larger(line: Line, client: TestClient) -> None:
    file_id, _ = row_of(line, SORTED)

    assert opened(client.get(f"/pictures/{file_id}/preview").content).size == (64, 64)


def test_a_shot_tells_the_size_of_the_picture_in_its_file(line: Line, cache: HeldCache) -> None:
    paint(line.config.inbox / "large.png", RED, 77, size=500)
    line.run()
    file_id, sha256 = row_of(line, "large.png")

    async def work(pictures: Pictures) -> None:
        for shot in (await thumbnail(pictures, file_id), await thumbnail(pictures, file_id)):
            assert shot.size_px == (500, 500)
            assert opened(shot.webp).size == (320, 320)
        assert cache.sizes([sha256]) == {sha256: (500, 500)}

    run(line.config, cache, work)


@pytest.mark.parametrize("kind", ["thumbnail", "preview"])
def test_the_address_with_the_key_may_be_kept_for_good_and_any_other_is_asked_again(
    line: Line, client: TestClient, kind: str
) -> None:
    file_id, sha256 = row_of(line, SORTED)

    right, wrong, none = (
        client.get(f"/pictures/{file_id}/{kind}{query}").headers
        for query in (f"?v={sha256.hex()[:8]}", "?v=00000000", "")
    )

    assert right["cache-control"] == "private, max-age=31536000, immutable"
    assert wrong["cache-control"] == none["cache-control"] == "private, no-cache"
    for headers in (right, wrong, none):
        assert headers["content-type"] == "image/webp"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["etag"] == f'"{sha256.hex()}-{kind}-{320 if kind == "thumbnail" else 1600}"'


def test_a_browser_that_has_the_picture_is_told_so_and_nothing_is_made(
    line: Line, client: TestClient, cache: HeldCache
) -> None:
    file_id, _ = row_of(line, SORTED)
    path = f"/pictures/{file_id}/thumbnail"
    etag = client.get(path).headers["etag"]
    cache.made.clear()

    answers = [
        client.get(path, headers={"If-None-Match": known})
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*", '"other"')
    ]

    assert [answer.status_code for answer in answers] == [304, 304, 304, 304, 200]
    assert {answer.headers["etag"] for answer in answers} == {etag}
    assert answers[0].content == b""
    assert cache.made == []


def test_a_small_picture_is_made_once_and_kept_and_a_large_one_is_not(
    line: Line, client: TestClient, cache: HeldCache
) -> None:
    file_id, sha256 = row_of(line, SORTED)
    first = client.get(f"/pictures/{file_id}/thumbnail")
    client.get(f"/pictures/{file_id}/preview")
    stored(line, SORTED).unlink()

    again = client.get(f"/pictures/{file_id}/thumbnail")
    large = client.get(f"/pictures/{file_id}/preview")

    assert again.content == first.content
    assert cache.made == [sha256]
    assert large.status_code == 404


# --- what is not shown


def reason_of(client: TestClient, file_id: object, kind: str = "thumbnail") -> str:
    answer = client.get(f"/pictures/{file_id}/{kind}")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/json"
    text: str = answer.json()["error"]
    start = "this picture cannot be shown: "
    assert text.startswith(start)
    return text.removeprefix(start)


@pytest.mark.parametrize("kind", ["thumbnail", "preview"])
def test_a_file_that_was_changed_is_not_shown_and_nothing_is_kept_under_its_old_hash(
    line: Line, client: TestClient, cache: HeldCache, kind: str
) -> None:
    file_id, sha256 = row_of(line, SORTED)
    paint(stored(line, SORTED), (1, 2, 3), 5)

    assert reason_of(client, file_id, kind) == "changed since it was sorted"
    assert cache.get(sha256) is None


def test_a_file_that_was_taken_away_is_gone(line: Line, client: TestClient) -> None:
    stored(line, SORTED).unlink()

    assert reason_of(client, row_of(line, SORTED)[0]) == "gone"


@pytest.mark.parametrize("file_id", [0, 999, -1, 2**63, 10**40, "x", "1.0", "²", "1%2F..%2F2"])
def test_a_number_that_no_file_has_shows_nothing(
    line: Line, client: TestClient, file_id: object
) -> None:
    answer = client.get(f"/pictures/{file_id}/thumbnail")

    assert answer.status_code == 404
    assert answer.text in ('{"error":"this picture cannot be shown: gone"}', "Not Found")


def test_what_is_set_aside_or_goes_along_is_not_shown(line: Line, client: TestClient) -> None:
    line.put("text.png", b"no picture")
    line.put("new.png", paint(line.config.target.parent / "n.png", RED, 99).read_bytes())
    line.put("new.png.xmp", b"<x/>")
    line.run()

    reasons = [reason_of(client, row_of(line, name)[0]) for name in ("text.png", "new.png.xmp")]

    assert reasons == [
        "set aside: not a picture: it begins like text",
        "goes along with a picture, and is none itself",
    ]


def test_a_link_that_took_the_place_of_a_file_is_not_followed(
    line: Line, client: TestClient, tmp_path: Path
) -> None:
    path = stored(line, SORTED)
    path.rename(tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")

    assert reason_of(client, row_of(line, SORTED)[0]) == "gone"


# --- where files stand


def test_pictures_that_wait_for_the_first_fit_are_shown_from_the_inbox(
    tmp_path: Path, cache: HeldCache
) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 1)
    line.run()
    assert line.counts()["pending"] == 3
    paint(line.config.inbox / "unread.png", RED, 50)
    line.intake.scan(line.now_s)
    line.intake.settle(line.now_s)

    with serve(line.config, cache) as client:
        read = client.get(f"/pictures/{row_of(line, SORTED)[0]}/thumbnail")
        unread = reason_of(client, row_of(line, "unread.png")[0])

    assert read.status_code == 200
    assert unread == "not read yet"
    line.close()


@pytest.mark.parametrize("op", ["symlink", "copy", "hardlink"])
def test_pictures_that_stay_in_the_inbox_are_shown(
    tmp_path: Path, cache: HeldCache, op: str
) -> None:
    line = Line(tmp_path, op=op)
    paint_groups(line.config.inbox, 4)
    line.run()
    if op == "copy":
        stored(line, SORTED).unlink()
    assert stored(line, "red-1.png").is_symlink() == (op == "symlink")

    with serve(line.config, cache) as client:
        answers = [client.get(f"/pictures/{one}/thumbnail") for one in ids_of(line)]

    assert [answer.status_code for answer in answers] == [200] * 12
    line.close()


def test_without_a_database_the_answer_says_so(tmp_path: Path, cache: HeldCache) -> None:
    config = make_config(tmp_path)

    async def work(pictures: Pictures) -> None:
        with pytest.raises(StoreError, match="no such database"):
            await thumbnail(pictures, 1)

    run(config, cache, work)
    with serve(config, cache) as client:
        answer = client.get("/pictures/1/thumbnail")

        assert answer.status_code == 503
        assert "no such database" in answer.json()["error"]


# --- the making


def test_a_picture_that_several_ask_for_at_once_is_made_once(line: Line, cache: HeldCache) -> None:
    file_id, sha256 = row_of(line, SORTED)
    cache.may_go_on.clear()

    async def work(pictures: Pictures) -> None:
        first = asyncio.create_task(thumbnail(pictures, file_id))
        await until(lambda: cache.made)
        others = [asyncio.create_task(thumbnail(pictures, file_id)) for _ in range(9)]
        asyncio.get_running_loop().call_later(0.2, cache.may_go_on.set)
        shots = await asyncio.gather(first, *others)
        assert len({shot.webp for shot in shots}) == 1

    run(line.config, cache, work)

    assert cache.made == [sha256]


def test_who_leaves_before_a_picture_was_begun_has_it_not_made(
    line: Line, cache: HeldCache
) -> None:
    first, second, third = ids_of(line)[:3]
    cache.may_go_on.clear()

    async def work(pictures: Pictures) -> None:
        begun = asyncio.create_task(thumbnail(pictures, first))
        await until(lambda: cache.made)
        left = asyncio.create_task(thumbnail(pictures, second))
        stays = [asyncio.create_task(thumbnail(pictures, third)) for _ in range(2)]
        await until(lambda: len(pictures._jobs) == 3)
        for task in (begun, left, stays[0]):
            task.cancel()
        await asyncio.gather(begun, left, stays[0], return_exceptions=True)
        cache.may_go_on.set()
        assert opened((await stays[1]).webp).size == (64, 64)
        assert opened((await thumbnail(pictures, first)).webp).size == (64, 64)  # it was kept

    run(line.config, cache, work, threads=1)

    assert len(cache.made) == 2


def test_a_large_picture_goes_before_small_ones_that_wait(line: Line, cache: HeldCache) -> None:
    ids, order = ids_of(line), list[str]()
    cache.may_go_on.clear()

    async def note(name: str, shot: Awaitable[object]) -> None:
        await shot
        order.append(name)

    async def work(pictures: Pictures) -> None:
        tasks = [asyncio.create_task(note("first", thumbnail(pictures, ids[0])))]
        await until(lambda: cache.made)
        tasks += [asyncio.create_task(note("small", thumbnail(pictures, one))) for one in ids[1:4]]
        await until(lambda: len(pictures._jobs) == 4)
        tasks.append(asyncio.create_task(note("large", preview(pictures, ids[5]))))
        await until(lambda: len(pictures._jobs) == 5)
        cache.may_go_on.set()
        await asyncio.gather(*tasks)

    run(line.config, cache, work, threads=1)

    assert order == ["first", "large", "small", "small", "small"]


def test_more_than_may_wait_are_refused(line: Line, cache: HeldCache) -> None:
    first, second = ids_of(line)[:2]
    cache.may_go_on.clear()

    async def work(pictures: Pictures) -> None:
        begun = asyncio.create_task(thumbnail(pictures, first))
        await until(lambda: cache.made)
        with pytest.raises(CrowdedError, match="1 pictures are being made"):
            await thumbnail(pictures, second)
        cache.may_go_on.set()
        await begun
        await thumbnail(pictures, second)

    run(line.config, cache, work, max_waiting=1)
    with serve(line.config, cache, max_waiting=0) as client:
        answer = client.get(f"/pictures/{ids_of(line)[5]}/preview")

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["cache-control"] == "no-store"


def test_decoding_processes_start_when_needed_rest_and_end_with_the_page(
    line: Line, cache: HeldCache
) -> None:
    ids, of_others = ids_of(line), decoders()

    async def work(pictures: Pictures) -> None:
        assert decoders() == of_others
        await thumbnail(pictures, ids[0])
        await until(lambda: decoders() == of_others)
        await thumbnail(pictures, ids[1])

    async def work_on(pictures: Pictures) -> None:
        await thumbnail(pictures, ids[2])
        assert len(decoders() - of_others) == 1

    run(line.config, cache, work, rest_s=0.01, threads=1)
    run(line.config, cache, work_on, threads=1)

    assert decoders() == of_others


def test_a_page_that_is_closed_makes_no_more_and_says_so(line: Line, cache: HeldCache) -> None:
    first, second = ids_of(line)[:2]
    cache.may_go_on.clear()

    async def work(pictures: Pictures) -> None:
        begun = asyncio.create_task(thumbnail(pictures, first))
        await until(lambda: cache.made)
        waits = asyncio.create_task(thumbnail(pictures, second))
        await until(lambda: len(pictures._jobs) == 2)
        asyncio.get_running_loop().call_later(0.1, cache.may_go_on.set)
        await pictures.close()
        with pytest.raises(NoDecoderError, match="the page is being closed"):
            await waits
        with pytest.raises(NoDecoderError, match="the page is being closed"):
            await preview(pictures, second)
        await begun

    run(line.config, cache, work, threads=1)

    assert len(cache.made) == 1


def test_a_picture_whose_reader_has_left_is_not_made(line: Line, cache: HeldCache) -> None:
    first, second = ids_of(line)[:2]
    cache.may_go_on.clear()
    app = Starlette(routes=[Route("/pictures/{id:row}/thumbnail", web.thumbnail)])

    async def work(pictures: Pictures) -> None:
        app.state.site = SimpleNamespace(pictures=pictures)
        begun = asyncio.create_task(thumbnail(pictures, first))
        await until(lambda: cache.made)
        left = asyncio.Event()
        request = asyncio.create_task(ask(app, f"/pictures/{second}/thumbnail", left))
        await until(lambda: len(pictures._jobs) == 2)
        left.set()
        await request
        cache.may_go_on.set()
        await begun

    run(line.config, cache, work, threads=1)

    assert len(cache.made) == 1


async def ask(app: Starlette, path: str, left: asyncio.Event) -> None:
    """Send a request as a server does, for a reader that leaves when it is said."""
    begun = False

    async def receive() -> dict[str, Any]:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    scope = {
        **{"type": "http", "method": "GET", "path": path, "raw_path": path.encode()},
        **{"query_string": b"", "headers": [], "root_path": "", "scheme": "http"},
        **{"server": ("localhost", 80), "client": ("127.0.0.1", 1), "http_version": "1.1"},
    }
    await app(scope, receive, send)


def test_what_cannot_be_shown_is_told_to_each_who_asks(line: Line, cache: HeldCache) -> None:
    file_id, _ = row_of(line, SORTED)
    stored(line, SORTED).unlink()

    async def work(pictures: Pictures) -> None:
        found = await asyncio.gather(
            *[thumbnail(pictures, file_id) for _ in range(5)], return_exceptions=True
        )
        assert [type(error) for error in found] == [NotShownError] * 5

    run(line.config, cache, work)


def test_the_page_shows_pictures_without_the_libraries_of_the_model() -> None:
    code = "import json, sys, imgsortd.web.pictures\nprint(json.dumps(sorted(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"torch", "torchvision", "sklearn", "scipy", "openvino"} == set()
