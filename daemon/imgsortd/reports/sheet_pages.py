"""The sheets as HTML: one file each, that loads nothing and runs nothing.

The policy in its head (CSP) allows pictures that are in the page itself and the one style sheet
whose hash it names, whatever a file may be called. A picture is enlarged by CSS (``:target``).
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Generic, TypeVar

from imgsortd.names import base_name
from imgsortd.pictures.thumbnails import Thumbnail, Thumbnails
from imgsortd.refits.changes import ChangedGroup, RefitChanges
from imgsortd.reports.sheet import LISTED, ClusterPart, Role, Sheet, Shown
from imgsortd.words import counted, printable

_ROLES = {
    Role.MEDOID: "nearest to the middle of the cluster",
    Role.NEAR: "near the middle of the cluster",
    Role.FAR: "among the farthest from the middle of the cluster",
    Role.ANY: "",
    Role.REVIEW: "to review",
}
_BADGES = {Role.MEDOID: "medoid", Role.FAR: "farthest"}
_MANY, _LINE_CHARS = 300, 60

Key = TypeVar("Key", bound=Hashable)

MARK = '<meta name="generator" content="imgsortd">'
"""Stands in the head of each page of ours."""


def contact_sheet(sheet: Sheet, made: Thumbnails[int]) -> Iterator[str]:
    """Yield the page of a contact sheet, part by part.

    Parameters
    ----------
    made
        The small pictures, by file id.
    """
    figures = _Figures(made.found)
    yield _head("Contact sheet", "sheet" if len(sheet.clusters) < _MANY else "sheet large")
    yield from _sheet_header(sheet, made)
    yield from _jump_list(sheet)
    yield '<main id="pictures" tabindex="-1">\n'
    for cluster in sheet.clusters:
        yield from _cluster(cluster, figures, made)
    yield from _review(sheet, figures)
    yield from _set_aside(sheet)
    yield "</main>\n"
    yield _tail(_fit_line(sheet))


def _sheet_header(sheet: Sheet, made: Thumbnails[int]) -> Iterator[str]:
    facts = [
        f"{counted(sheet.n_pictures, 'picture')} in {counted(len(sheet.clusters), 'cluster')}",
        f"{sheet.n_review:,} to review" if sheet.n_review else "",
        f"{sheet.n_set_aside:,} set aside" if sheet.n_set_aside else "",
        counted(sheet.n_duplicates, "duplicate") if sheet.n_duplicates else "",
    ]
    yield '<header id="top">\n<h1>Contact sheet</h1>\n'
    yield f'<p class="lead">{" · ".join(fact for fact in facts if fact)}</p>\n'
    if sheet.clusters:
        yield _quiet(
            "The largest cluster first. The large picture is its medoid, the one nearest to the "
            "middle of all its pictures; then the nine next to it, and the three farthest, where "
            "a mistake shows first. Choose a picture to see it larger."
        )
    else:
        yield _quiet("There are no clusters yet: the first fit is still to come.")
    if made.left_out:
        yield (
            f'<p class="warning">{counted(made.left_out, "picture")} left out, for the sheet '
            "would be larger than its limit. The largest clusters keep theirs.</p>\n"
        )
    if sheet.note:
        yield _quiet(_shown_text(sheet.note))
    yield "</header>\n"


def _jump_list(sheet: Sheet) -> Iterator[str]:
    """Lead to each cluster; a wide window always shows the list, a narrow one on demand."""
    if not sheet.clusters:
        return
    largest = max(1, *(cluster.size for cluster in sheet.clusters), 1)
    yield f"<nav>\n<details>\n<summary>Go to a cluster ({len(sheet.clusters):,})</summary>\n<ol>\n"
    for cluster in sheet.clusters:
        yield (
            f'<li><a href="#c{cluster.cluster_id}"><bdi>{_clipped(cluster.title)}</bdi>'
            f"<span>{cluster.size:,}</span>{_bar(cluster.size / largest)}</a></li>\n"
        )
    for count, anchor, title in (
        (sheet.n_review, "review", "To review"),
        (sheet.n_set_aside, "set-aside", "Set aside"),
    ):
        if count:
            yield f'<li><a href="#{anchor}">{title}<span>{count:,}</span></a></li>\n'
    yield "</ol>\n</details>\n</nav>\n"


def _cluster(cluster: ClusterPart, figures: _Figures[int], made: Thumbnails[int]) -> Iterator[str]:
    facts = [counted(cluster.size, "picture"), f"{100 * cluster.share:.1f} %"]
    if cluster.duplicates:
        facts.append(f"{counted(cluster.duplicates, 'duplicate')} among them")
    if cluster.title != f"cluster_{cluster.cluster_id}":
        facts.append(f"cluster {cluster.cluster_id}")
    if cluster.title != cluster.folder:
        facts.append(f"folder <bdi>{_shown_text(cluster.folder)}</bdi>")
    yield (
        f'<section id="c{cluster.cluster_id}">\n'
        f"<h2><bdi>{_shown_text(cluster.title)}</bdi></h2>\n"
        f'<p class="facts">{" · ".join(facts)}</p>\n{_bar(cluster.share)}\n'
    )
    shown = [picture for picture in cluster.pictures if picture.file_id in made.found]
    if shown:
        yield from _list("strip", (_figure(picture, figures) for picture in shown))
    else:
        yield _quiet(_why_none(cluster, made.unread) if cluster.size else "Its folder is empty.")
    yield "</section>\n"


def _why_none(cluster: ClusterPart, unread: Mapping[int, str]) -> str:
    reasons = {unread[p.file_id] for p in cluster.pictures if p.file_id in unread} - {"gone"}
    if reasons:
        return f"None of its pictures can be read: {_shown_text('; '.join(sorted(reasons)))}."
    if all(picture.file_id in unread for picture in cluster.pictures):
        return "None of its pictures is there any more."
    return "There was no room for its pictures."


def _figure(picture: Shown, figures: _Figures[int]) -> str:
    role = _ROLES[picture.role]
    distance = "" if picture.distance is None else f"distance {picture.distance:.3f}"
    lines = [role, distance, picture.reason if picture.role is Role.REVIEW else ""]
    says = ", ".join(line for line in lines if line and line != _ROLES[Role.REVIEW])
    kind, badge = picture.role.value, _BADGES.get(picture.role, "")
    return figures.figure(picture.file_id, picture.name, says, kind=kind, badge=badge)


def _review(sheet: Sheet, figures: _Figures[int]) -> Iterator[str]:
    if not sheet.n_review:
        return
    shown = [picture for picture in sheet.review if picture.file_id in figures.found]
    yield (
        '<section id="review">\n<h2>To review</h2>\n'
        f'<p class="facts">{counted(sheet.n_review, "picture")}, for a person to say where '
        "they belong; the newest first</p>\n"
    )
    if shown:
        yield from _list("cards", (_figure(picture, figures) for picture in shown))
    if sheet.n_review > len(shown):
        yield _quiet(f"{sheet.n_review - len(shown):,} more are not shown.")
    yield "</section>\n"


def _set_aside(sheet: Sheet) -> Iterator[str]:
    if not sheet.n_set_aside:
        return
    yield (
        '<section id="set-aside">\n<h2>Set aside</h2>\n'
        f'<p class="facts">{counted(sheet.n_set_aside, "file")} that cannot be read as pictures'
        "</p>\n"
    )
    files = (
        f"<li><bdi>{_shown_text(name)}</bdi> <span>{_shown_text(reason)}</span></li>\n"
        for name, reason in sheet.set_aside
    )
    yield from _list("list", files)
    if sheet.n_set_aside > LISTED:
        yield _quiet(f"{sheet.n_set_aside - LISTED:,} more are not listed.")
    yield "</section>\n"


def _fit_line(sheet: Sheet) -> str:
    made = f"Made by imgsortd {_minute(sheet.made_at)}."
    if sheet.fit is None:
        return f"{made} The clusters are not fitted yet."
    return (
        f"{made} Clusters fitted {_minute(sheet.fit.created_at)} on "
        f"{counted(sheet.fit.n_images, 'picture')} by {_shown_text(sheet.fit.algorithm)}."
    )


def _minute(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def refit_sheet(changes: RefitChanges, found: Mapping[bytes, Thumbnail]) -> Iterator[str]:
    """Yield the page that shows what a proposed refit would change, part by part.

    Parameters
    ----------
    found
        Small pictures by their names below target; those of files that are gone are missing.
    """
    figures = _Figures(found)
    yield _head(changes.title, "refit")
    yield f'<header id="top">\n<h1>{_shown_text(changes.title)}</h1>\n'
    count = f"{counted(changes.n_files, 'picture')} would change folder"
    yield f'<p class="lead">{count if changes.n_files else "No picture would change folder"}</p>\n'
    if changes.lines:
        yield from _list("plain", (f"<li>{_shown_text(line)}</li>\n" for line in changes.lines))
    yield '</header>\n<main id="pictures" tabindex="-1">\n'
    groups = changes.by_size()
    for group in groups:
        yield from _move_group(group, figures)
    if len(changes.groups) > len(groups):
        more = counted(len(changes.groups) - len(groups), "smaller group")
        yield _quiet(f"{more} are not shown.")
    yield "</main>\n"
    yield _tail("Made by imgsortd. Nothing has been moved yet.")


def _move_group(group: ChangedGroup, figures: _Figures[bytes]) -> Iterator[str]:
    old, new = os.fsdecode(group.old_folder), os.fsdecode(group.new_folder)
    shown = [name for name in group.sample() if name in figures.found]
    more = group.total - len(shown)
    yield (
        f"<section>\n<h2>from <bdi>{_shown_text(old)}</bdi> to <bdi>{_shown_text(new)}</bdi></h2>\n"
        f'<p class="facts">{counted(group.total, "picture")}'
        + (f", {more:,} of them not shown" if more and shown else "")
        + "</p>\n"
    )
    if shown:
        says = f"from {old} to {new}"
        yield from _list(
            "strip",
            (
                figures.figure(name, os.fsdecode(base_name(name)), says, kind="moved")
                for name in shown
            ),
        )
    else:
        yield _quiet("None of them can be shown.")
    yield "</section>\n"


def _head(title: str, kind: str) -> str:
    """Return the beginning of a page, with the link that is seen only while it has the focus."""
    style = files("imgsortd.reports").joinpath("sheet.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_shown_text(title)}</title>\n<style>{style}</style>\n</head>\n"
        f'<body class="{kind}">\n<a class="skip" href="#pictures">Skip to the pictures</a>\n'
    )


def _tail(line: str) -> str:
    """Return the end of a page; ``line`` is HTML."""
    return (
        f'<footer>{line}</footer>\n<a class="up" href="#top" aria-label="Back to the top">'
        '<span aria-hidden="true">↑</span></a>\n</body>\n</html>\n'
    )


def _list(kind: str, items: Iterable[str]) -> Iterator[str]:
    yield f'<ul class="{kind}">\n'
    yield from items
    yield "</ul>\n"


def _quiet(html: str) -> str:
    return f'<p class="quiet">{html}</p>\n'


def _shown_text(text: str) -> str:
    """Escape for HTML; a character that is not printable (or none at all) becomes its code."""
    return escape(printable(text), quote=True)


def _clipped(text: str) -> str:
    """Return escaped text of at most a line."""
    return _shown_text(text if len(text) <= _LINE_CHARS else f"{text[: _LINE_CHARS - 1]}…")


def _bar(share: float) -> str:
    """Return a bar as long as ``share`` (0 to 1) of its room."""
    # A rectangle, for the policy allows no style attribute.
    return (
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * share:.2f}" height="1"/></svg>'
    )


class _Figures(Generic[Key]):
    """Numbers the small pictures of a page, each shown at most once: it leads to its neighbours."""

    def __init__(self, found: Mapping[Key, Thumbnail]) -> None:
        self.found = found
        self._number = 0

    def figure(self, key: Key, name: str, says: str, *, kind: str, badge: str = "") -> str:
        """Return a picture as a list item: a link that enlarges it, and what it is.

        Parameters
        ----------
        name, says
            Its file's name, and why it is here; as plain text.
        kind
            Its class in the style sheet.
        badge
            A word on the picture itself.
        """
        self._number += 1
        number, image = self._number, self.found[key]
        # Pictures that turn out unreadable are known by now: the numbers have no gaps.
        turns = [f'<a class="turn close" href="#f{number}">Close</a>']
        if number > 1:
            turns.append(_turn("previous", number - 1, "‹"))
        if number < len(self.found):
            turns.append(_turn("next", number + 1, "›"))
        mark = f'<span class="badge">{badge}</span>' if badge else ""
        alt = f"{name}, {says}" if says else name
        return (
            f'<li id="f{number}" class="{kind}" tabindex="-1">'
            f'<figure id="p{number}" tabindex="-1">{"".join(turns)}'
            f'<a class="open" href="#p{number}"><img src="{image.uri}" alt="{_shown_text(alt)}" '
            f'width="{image.width_px}" height="{image.height_px}" decoding="async">{mark}</a>'
            f"<figcaption><b><bdi>{_shown_text(name)}</bdi></b>"
            + (f" <span>{_shown_text(says)}</span>" if says else "")
            + "</figcaption></figure></li>\n"
        )


def _turn(word: str, number: int, sign: str) -> str:
    return (
        f'<a class="turn {word}" href="#p{number}" aria-label="The {word} picture">'
        f'<span aria-hidden="true">{sign}</span></a>'
    )
