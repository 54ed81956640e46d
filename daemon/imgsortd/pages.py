"""The sheets as HTML: one file each, that loads nothing and runs nothing.

The policy in its head (CSP) allows pictures that are in the page itself and the one style sheet
whose hash it names, whatever a file may be called. A picture is enlarged by CSS (``:target``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from imgsortd.adapters.thumbnails import Thumbnail, Thumbnails
from imgsortd.contact_sheet import LISTED, ClusterPart, Role, Sheet, Shown
from imgsortd.page_parts import Figures, bar, clipped, head, number_of, shown_text, skip_link, tail
from imgsortd.refit_changes import MoveGroup, RefitChanges

_ROLES = {
    Role.MEDOID: "nearest to the middle of the cluster",
    Role.NEAR: "near the middle of the cluster",
    Role.FAR: "among the farthest from the middle of the cluster",
    Role.ANY: "",
    Role.REVIEW: "to review",
}
_MANY = 300
_BADGES = {Role.MEDOID: "medoid", Role.FAR: "farthest"}


def contact_sheet(sheet: Sheet, made: Thumbnails[int]) -> Iterator[str]:
    """Yield the page of a contact sheet, part by part.

    Parameters
    ----------
    made
        The small pictures, by file id.
    """
    figures = Figures(made.found)
    yield head("Contact sheet", "sheet" if len(sheet.clusters) < _MANY else "sheet large")
    yield skip_link("pictures", "Skip to the pictures")
    yield from _sheet_header(sheet, made)
    yield from _jump_list(sheet)
    yield '<main id="pictures" tabindex="-1">\n'
    for cluster in sheet.clusters:
        yield from _cluster(cluster, figures, made)
    yield from _review(sheet, figures)
    yield from _set_aside(sheet)
    yield "</main>\n"
    yield tail(_fit_line(sheet))


def _sheet_header(sheet: Sheet, made: Thumbnails[int]) -> Iterator[str]:
    facts = [
        f"{number_of(sheet.n_pictures, 'picture')} in {number_of(len(sheet.clusters), 'cluster')}",
        f"{sheet.n_review:,} to review" if sheet.n_review else "",
        f"{sheet.n_set_aside:,} set aside" if sheet.n_set_aside else "",
        number_of(sheet.n_duplicates, "duplicate") if sheet.n_duplicates else "",
    ]
    yield '<header id="top">\n<h1>Contact sheet</h1>\n'
    yield f'<p class="lead">{" · ".join(fact for fact in facts if fact)}</p>\n'
    if sheet.clusters:
        yield (
            '<p class="quiet">The largest cluster first. The large picture is its medoid, the one '
            "nearest to the middle of all its pictures; then the nine next to it, and the three "
            "farthest, where a mistake shows first. Choose a picture to see it larger.</p>\n"
        )
    else:
        yield '<p class="quiet">There are no clusters yet: the first fit is still to come.</p>\n'
    if made.left_out:
        yield (
            f'<p class="warning">{number_of(made.left_out, "picture")} left out, for the sheet '
            "would be larger than its limit. The largest clusters keep theirs.</p>\n"
        )
    if sheet.note:
        yield f'<p class="quiet">{shown_text(sheet.note)}</p>\n'
    yield "</header>\n"


def _jump_list(sheet: Sheet) -> Iterator[str]:
    """Lead to each cluster; a wide window always shows the list, a narrow one on demand."""
    if not sheet.clusters:
        return
    largest = max(1, *(cluster.size for cluster in sheet.clusters), 1)
    yield f"<nav>\n<details>\n<summary>Go to a cluster ({len(sheet.clusters):,})</summary>\n<ol>\n"
    for cluster in sheet.clusters:
        yield (
            f'<li><a href="#c{cluster.cluster_id}"><bdi>{clipped(_title(cluster))}</bdi>'
            f"<span>{cluster.size:,}</span>{bar(cluster.size / largest)}</a></li>\n"
        )
    for count, anchor, title in (
        (sheet.n_review, "review", "To review"),
        (sheet.n_set_aside, "set-aside", "Set aside"),
    ):
        if count:
            yield f'<li><a href="#{anchor}">{title}<span>{count:,}</span></a></li>\n'
    yield "</ol>\n</details>\n</nav>\n"


def _title(cluster: ClusterPart) -> str:
    return cluster.name or cluster.folder


def _cluster(cluster: ClusterPart, figures: Figures[int], made: Thumbnails[int]) -> Iterator[str]:
    facts = [number_of(cluster.size, "picture"), f"{100 * cluster.share:.1f} %"]
    if cluster.duplicates:
        facts.append(f"{number_of(cluster.duplicates, 'duplicate')} among them")
    if _title(cluster) != f"cluster_{cluster.cluster_id}":
        facts.append(f"cluster {cluster.cluster_id}")
    if _title(cluster) != cluster.folder:
        facts.append(f"folder <bdi>{shown_text(cluster.folder)}</bdi>")
    yield (
        f'<section id="c{cluster.cluster_id}">\n'
        f"<h2><bdi>{shown_text(_title(cluster))}</bdi></h2>\n"
        f'<p class="facts">{" · ".join(facts)}</p>\n{bar(cluster.share)}\n'
    )
    shown = [picture for picture in cluster.pictures if picture.file_id in made.found]
    if shown:
        yield '<ul class="strip">\n'
        yield from (_figure(picture, figures) for picture in shown)
        yield "</ul>\n"
    elif cluster.size:
        yield f'<p class="quiet">{_why_none(cluster, made.unread)}</p>\n'
    else:
        yield '<p class="quiet">Its folder is empty.</p>\n'
    yield "</section>\n"


def _why_none(cluster: ClusterPart, unread: Mapping[int, str]) -> str:
    reasons = {unread[p.file_id] for p in cluster.pictures if p.file_id in unread} - {"gone"}
    if reasons:
        return f"None of its pictures can be read: {shown_text('; '.join(sorted(reasons)))}."
    if all(picture.file_id in unread for picture in cluster.pictures):
        return "None of its pictures is there any more."
    return "There was no room for its pictures."


def _figure(picture: Shown, figures: Figures[int]) -> str:
    role = _ROLES[picture.role]
    distance = "" if picture.distance is None else f"distance {picture.distance:.3f}"
    lines = [role, distance, picture.reason if picture.role is Role.REVIEW else ""]
    return figures.figure(
        picture.file_id,
        name=picture.name,
        says=", ".join(line for line in lines if line and line != _ROLES[Role.REVIEW]),
        badge=_BADGES.get(picture.role, ""),
        kind=picture.role.value,
    )


def _review(sheet: Sheet, figures: Figures[int]) -> Iterator[str]:
    if not sheet.n_review:
        return
    shown = [picture for picture in sheet.review if picture.file_id in figures.found]
    yield (
        '<section id="review">\n<h2>To review</h2>\n'
        f'<p class="facts">{number_of(sheet.n_review, "picture")}, for a person to say where '
        "they belong; the newest first</p>\n"
    )
    if shown:
        yield '<ul class="cards">\n'
        yield from (_figure(picture, figures) for picture in shown)
        yield "</ul>\n"
    if sheet.n_review > len(shown):
        yield f'<p class="quiet">{sheet.n_review - len(shown):,} more are not shown.</p>\n'
    yield "</section>\n"


def _set_aside(sheet: Sheet) -> Iterator[str]:
    if not sheet.n_set_aside:
        return
    yield (
        '<section id="set-aside">\n<h2>Set aside</h2>\n'
        f'<p class="facts">{number_of(sheet.n_set_aside, "file")} that cannot be read as pictures'
        '</p>\n<ul class="list">\n'
    )
    for name, reason in sheet.set_aside:
        yield f"<li><bdi>{shown_text(name)}</bdi> <span>{shown_text(reason)}</span></li>\n"
    yield "</ul>\n"
    if sheet.n_set_aside > LISTED:
        yield f'<p class="quiet">{sheet.n_set_aside - LISTED:,} more are not listed.</p>\n'
    yield "</section>\n"


def _fit_line(sheet: Sheet) -> str:
    made = f"Made by imgsortd {_minute(sheet.made_at)}."
    if sheet.fit is None:
        return f"{made} The clusters are not fitted yet."
    return (
        f"{made} Clusters fitted {_minute(sheet.fit.created_at)} on "
        f"{number_of(sheet.fit.n_images, 'picture')} by {shown_text(sheet.fit.algorithm)}."
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
    figures = Figures(found)
    yield head(changes.title, "refit")
    yield skip_link("pictures", "Skip to the pictures")
    yield f'<header id="top">\n<h1>{shown_text(changes.title)}</h1>\n'
    count = f"{number_of(changes.n_files, 'picture')} would change folder"
    yield f'<p class="lead">{count if changes.n_files else "No picture would change folder"}</p>\n'
    if changes.lines:
        yield '<ul class="plain">\n'
        yield from (f"<li>{shown_text(line)}</li>\n" for line in changes.lines)
        yield "</ul>\n"
    yield '</header>\n<main id="pictures" tabindex="-1">\n'
    groups = changes.by_size()
    for group in groups:
        yield from _move_group(group, figures)
    if len(changes.groups) > len(groups):
        more = number_of(len(changes.groups) - len(groups), "smaller group")
        yield f'<p class="quiet">{more} are not shown.</p>\n'
    yield "</main>\n"
    yield tail("Made by imgsortd. Nothing has been moved yet.")


def _move_group(group: MoveGroup, figures: Figures[bytes]) -> Iterator[str]:
    shown = [name for name in group.sample() if name in figures.found]
    more = len(group.names) - len(shown)
    yield (
        f"<section>\n<h2>from <bdi>{shown_text(group.old)}</bdi> to "
        f"<bdi>{shown_text(group.new)}</bdi></h2>\n"
        f'<p class="facts">{number_of(len(group.names), "picture")}'
        + (f", {more:,} of them not shown" if more and shown else "")
        + "</p>\n"
    )
    if shown:
        yield '<ul class="strip">\n'
        for name in shown:
            yield figures.figure(
                name,
                name=figures.base_name(name),
                says=f"from {group.old} to {group.new}",
                badge="",
                kind="moved",
            )
        yield "</ul>\n"
    else:
        yield '<p class="quiet">None of them can be shown.</p>\n'
    yield "</section>\n"
