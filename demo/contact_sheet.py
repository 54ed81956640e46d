"""A library on one page: a row for each cluster folder, its most typical pictures first.

The page is one file. Thumbnails are inlined, nothing is loaded from elsewhere, and
its policy (CSP) forbids scripts, whatever a file may be called.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from imgsortd.adapters.images import decode
from imgsortd.adapters.store import Store
from imgsortd.core.records import FileState
from imgsortd.errors import PictureError

_THUMBNAILS = 12
_THUMBNAIL_PX = 176
_QUALITY = 80
_LISTED = 50
_CSS = Path(__file__).with_name("contact_sheet.css")
_CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_contact_sheet(store: Store, target: Path, path: Path, note: str = "") -> None:
    """Write the contact sheet of a library to ``path``.

    Parameters
    ----------
    store
        Opened for reading is enough.
    target
        Where the cluster folders stand.
    note
        A sentence of the caller's for the header, as plain text.
    """
    path.write_text(contact_sheet(store, target, note), encoding="utf-8")


def contact_sheet(store: Store, target: Path, note: str = "") -> str:
    """Return the page as HTML."""
    sizes = _sizes(store)
    largest = max(sizes.values(), default=0)
    rows = [
        _cluster_row(store, target, cluster_id, size, sum(sizes.values()), largest)
        for cluster_id, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    ]
    rows += [_files_row(store, *section) for section in _SECTIONS]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Contact sheet</title>\n<style>\n{_CSS.read_text(encoding='utf-8')}</style>\n"
        f"</head>\n<body>\n<main>\n{_header(sizes, note)}\n"
        + "\n".join(row for row in rows if row)
        + f"\n{_footer(store)}\n</main>\n</body>\n</html>\n"
    )


def _sizes(store: Store) -> dict[int, int]:
    """Return the number of files in each cluster; one that is empty counts too."""
    model = store.fits.current()
    empty = dict.fromkeys(model.cluster_ids if model else (), 0)
    return empty | store.files.cluster_sizes()


def _header(sizes: dict[int, int], note: str) -> str:
    pictures, folders = _number(sum(sizes.values()), "picture"), _number(len(sizes), "folder")
    lead = (
        f"{pictures} in {folders}. Nobody labelled anything: VGG16 looked at each picture, and "
        f"KMeans put those that look alike together. Each row is one folder, the largest first; "
        f"its most typical pictures stand first."
    )
    extra = f'\n<p class="note">{_text(note)}</p>' if note else ""
    return f'<header>\n<h1>Contact sheet</h1>\n<p class="lead">{lead}</p>{extra}\n</header>'


def _cluster_row(
    store: Store, target: Path, cluster_id: int, size: int, total: int, largest: int
) -> str:
    share = f" · {100 * size / total:.0f} %" if total else ""
    width = 100 * size / largest if largest else 0
    return (
        f'<section class="row">\n<div>\n<h2>cluster_{cluster_id}</h2>\n'
        f'<p class="facts">{_number(size, "picture")}{share}</p>\n'
        f'<span class="share"><i style="width:{width:.1f}%"></i></span>\n</div>\n'
        f'<ul class="strip">\n{_strip(store, target, cluster_id, size)}\n</ul>\n</section>'
    )


def _strip(store: Store, target: Path, cluster_id: int, size: int) -> str:
    """Show all pictures of a small cluster; of a large one, the first and how many more."""
    room = _THUMBNAILS if size <= _THUMBNAILS else _THUMBNAILS - 1
    cells = []
    for dst in _nearest_first(store, cluster_id):
        image = _thumbnail(target, dst)
        if image is not None:
            name = _text(os.fsdecode(os.path.basename(dst)))
            side = f'width="{_THUMBNAIL_PX}" height="{_THUMBNAIL_PX}"'
            cells.append(f'<li><img src="{image}" alt="{name}" title="{name}" {side}></li>')
        if len(cells) == room:
            break
    if not cells:
        return '<li class="gone">none of its pictures is there any more</li>' if size else ""
    if size > len(cells):
        cells.append(f'<li class="more"><b>+{size - len(cells):,}</b> more</li>')
    return "\n".join(cells)


def _nearest_first(store: Store, cluster_id: int) -> Iterator[bytes]:
    """Yield the files of a cluster by their distance when they were sorted, duplicates last."""
    rows = store.db.conn.execute(
        "SELECT dst FROM files WHERE cluster_id = ? AND state IN ('sorted', 'duplicate') "
        "AND dst IS NOT NULL ORDER BY state = 'duplicate', distance IS NULL, distance, id",
        (cluster_id,),
    )
    for (dst,) in rows:
        yield dst


def _thumbnail(target: Path, dst: bytes) -> str | None:
    """Return a picture as a data URI, upright and square as VGG16 saw it; None if it cannot be."""
    try:
        pixels = decode(Path(os.fsdecode(os.path.join(os.fsencode(target), dst))).read_bytes())
    except (OSError, PictureError):
        return None
    small = Image.fromarray(pixels).resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


_SECTIONS: Sequence[tuple[FileState, str, str]] = (
    (FileState.REVIEW, "To review", "too far from every cluster"),
    (FileState.SET_ASIDE, "Set aside", "could not be read as a picture"),
    (FileState.DUPLICATE, "Duplicates", "the same bytes as another file"),
)


def _files_row(store: Store, state: FileState, title: str, meaning: str) -> str:
    """Show the files in a state by name and reason; nothing where there are none."""
    files = store.files.with_state(state, _LISTED)
    if not files:
        return ""
    row = store.db.conn.execute("SELECT count(*) FROM files WHERE state = ?", (state,)).fetchone()
    cells = [
        f"<li>{_text(os.fsdecode(dst or src))} <span>{_text(reason)}</span></li>"
        for src, dst, reason in files
    ]
    if row[0] > len(files):
        cells.append(f"<li><span>+{row[0] - len(files):,} more</span></li>")
    return (
        f'<section class="row">\n<div>\n<h2>{title}</h2>\n'
        f'<p class="facts">{_number(row[0], "file")}, {meaning}</p>\n</div>\n'
        f'<ul class="list">\n{chr(10).join(cells)}\n</ul>\n</section>'
    )


def _footer(store: Store) -> str:
    fit = store.fits.current_record()
    if fit is None:
        return "<footer>imgsortd. The clusters are not fitted yet.</footer>"
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(fit.created_at))
    return (
        f"<footer>imgsortd. Clusters fitted {day} on {_number(fit.n_images, 'picture')} "
        f"by {_text(fit.algorithm)}.</footer>"
    )


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def _text(text: str) -> str:
    """Escape for HTML; a character that is not printable (or none at all) becomes its code."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return escape(shown, quote=True)
