"""The HTML pages: read what they show, fill in a template.

Everything that a page shows stands in its first answer but the pictures of a wall and of the
review, which its script asks for; ``/parts/…`` is the same HTML once more, for a page that is
open to take what has changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from imgsortd.reports.status import look_ahead
from imgsortd.store.database import open_for_reading
from imgsortd.web.clusters import ShownCluster
from imgsortd.web.health import read_health
from imgsortd.web.live import AT_IT, Live, in_words, read_live
from imgsortd.web.refits import compare, history
from imgsortd.web.review import count_to_review
from imgsortd.web.shown import decimal, encodable
from imgsortd.web.similar import read_picture
from imgsortd.web.site import Site, site_of
from imgsortd.web.static import address
from imgsortd.words import counted, duration_text, printable

_PAGES = (("/", "Clusters"), ("/review", "Review"), ("/refits", "Refits"), ("/status", "Status"))
_ORDERS = {"size": "Largest", "newest": "Newest", "loosest": "Loosest", "name": "Name"}
_COUNTS = (
    ("sorted", "In clusters and folders"),
    ("duplicates", "Duplicates"),
    ("review", "In review"),
    ("pending", "In the inbox, waiting"),
    ("set_aside", "Set aside"),
    ("companions", "Companions of pictures"),
    ("undone", "Put back into the inbox"),
)
_FIRST_TILES = 24  # what a window shows, and some more: the page is there before the rest
_MOST_DIGITS = 8
_SCRIPTS = ("api.js", "live.js", "said.js")


# --- plots as SVG, without a style attribute: the policy allows none --------------------------

_HEIGHT = 30


def spark(days: Sequence[int]) -> Markup:
    """Draw the pictures that came on each day as bars, the oldest first."""
    most = max([*days, 1])
    bars = "".join(
        f"M{day + 0.15:g} 8v-{max(0.6, 7.5 * count / most):.1f}h.7V8z"
        for day, count in enumerate(days)
        if count
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} 8" preserveAspectRatio="none" aria-hidden="true">'
        '<line x1="0" y1="8" x2="{0}" y2="8"/><path d="{1}"/></svg>'
    ).format(len(days), bars)


def plot(rate: Sequence[int]) -> Markup:
    """Draw the pictures of each minute as bars, and say it in words to who cannot see them."""
    most, busy = max([*rate, 1]), sum(1 for count in rate if count)
    heights = ((minute, (_HEIGHT - 1) * count / most) for minute, count in enumerate(rate))
    bars = Markup("").join(
        Markup('<rect x="{:g}" y="{:.2f}" width=".8" height="{:.2f}"/>').format(
            minute + 0.1, _HEIGHT - height, height
        )
        for minute, height in heights
        if height
    )
    words = (
        f"{counted(sum(rate), 'picture')} sorted in {busy} of the last {len(rate)} minutes, "
        f"at most {max(rate, default=0):,} in one"
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {0} {1}" preserveAspectRatio="none" role="img" '
        'aria-label="{2}"><line x1="0" y1="{1}" x2="{0}" y2="{1}"/>{3}</svg>'
    ).format(len(rate), _HEIGHT, words, bars)


# --- templates --------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.globals.update(
        static=address,
        script=_script,
        spark=spark,
        plot=plot,
        number=counted,
        moment=_moment,
        span=duration_text,
    )
    return environment


def warm_up() -> None:
    """Compile the templates, so that who comes first need not wait for it."""
    for name in _environment().list_templates():
        _environment().get_template(name)


def _printable(value: Any) -> Any:
    """Show names that could steer a reader's screen as their codes."""
    return printable(encodable(value)) if type(value) is str else value


def _script(name: str) -> Markup:
    """Return the tags of a page's script; what all scripts share begins to load with it."""
    shared = (
        Markup('<link rel="modulepreload" href="{}">').format(address(one)) for one in _SCRIPTS
    )
    entry = Markup('<script type="module" src="{}"></script>').format(address(name))
    return Markup("\n").join([*shared, entry])


def _moment(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


# --- pages ------------------------------------------------------------------------------------


def clusters(request: Request) -> HTMLResponse:
    """Show the grid of clusters."""
    most = None if "all" in request.query_params else _FIRST_TILES
    return _page(request, "clusters.html", "/", **_grid(request), most=most)


def part_clusters(request: Request) -> HTMLResponse:
    """Return the tiles alone; with ``from``, without so many that one has."""
    grid = _grid(request)
    summary = _fill("summary.html", **grid)
    start = decimal(request.query_params.get("from", "0"), _MOST_DIGITS)
    grid["tiles"] = grid["tiles"][start:]
    tiles = _fill("tiles.html", **grid, most=None)
    return HTMLResponse(
        f'<p class="quiet" id="summary">{summary}</p><div id="clusters">{tiles}</div>'
    )


def _grid(request: Request) -> dict[str, Any]:
    site = site_of(request)
    with open_for_reading(site.config.database, if_there=True) as store:
        grid = site.overview.read(site.config, store)
    order = request.query_params.get("sort", "size")
    order = order if order in _ORDERS else "size"
    by_name = sorted(grid.clusters, key=lambda one: (_natural(one.folder), one.id))
    placed = list(enumerate(by_name))
    waiting = counted(grid.pending, "picture")
    nothing = f"{waiting} so far" if grid.pending else "No picture yet"
    return {
        "grid": grid,
        "tiles": sorted((one for one in placed if one[1].files), key=_ORDER_BY[order]),
        "empty": [one for one in by_name if not one.files],
        "waits_for": _first_fit(grid.next_fit),
        "nothing": {"title": nothing, "text": _next_fit(grid.next_fit)},
        "total": sum(cluster.files for cluster in grid.clusters),
        "week": sum(cluster.week for cluster in grid.clusters),
        "orders": _ORDERS.items(),
        "order": order,
        "query": request.query_params.get("q", "")[:100],
    }


_ORDER_BY: dict[str, Callable[[tuple[int, ShownCluster]], Any]] = {
    "size": lambda tile: (-tile[1].files, tile[1].id),
    "newest": lambda tile: (-(tile[1].newest or 0), tile[1].id),
    "loosest": lambda tile: (-(tile[1].loose or 0), tile[1].id),
    "name": lambda tile: tile[0],
}


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what a name is ordered by: cluster_9 comes before cluster_10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


_OF_THE_FIRST = ("first ", "looking ", "all ")  # what refits/due.py says before it


def _next_fit(text: str) -> str:
    """Make a sentence of what triggers the next fit, without a terminal's quotes."""
    text = text.replace("`", "")
    return _first_fit(text) or f"Next fit {text}."


def _first_fit(text: str) -> str:
    """Make a sentence of what the first fit waits for; empty where there was one."""
    return f"{text[0].upper()}{text[1:]}." if text.startswith(_OF_THE_FIRST) else ""


def _age(text: str) -> str:
    """Make a sentence of whether the library is young or grown; empty before the first fit."""
    return f"The library is {text}." if text else ""


def cluster(request: Request) -> HTMLResponse:
    """Show one cluster: its head; the script asks for the pictures."""
    site, cluster_id = site_of(request), request.path_params["id"]
    order = "new" if request.query_params.get("order") == "new" else "near"
    with open_for_reading(site.config.database, if_there=True) as store:
        found = None if store is None else site.overview.cluster(store, cluster_id)
    if found is None:
        raise HTTPException(404, f"There is no cluster {cluster_id}.")
    return _page(request, "cluster.html", "", cluster=found, order=order)


def similar(request: Request) -> HTMLResponse:
    """Show the pictures most like one."""
    site = site_of(request)
    with open_for_reading(site.config.database) as store:
        picture = read_picture(site.config, store, request.path_params["id"])
    return _page(request, "similar.html", "", picture=picture)


def review(request: Request) -> HTMLResponse:
    """Show the pictures that wait for a person's word, one at a time."""
    site = site_of(request)
    with open_for_reading(site.config.database, if_there=True) as store:
        total = 0 if store is None else count_to_review(store)
    return _page(request, "review.html", "/review", total=total)


def refits(request: Request) -> HTMLResponse:
    """Show the proposal that waits, and the fits there were."""
    return _page(request, "refits.html", "/refits", **_refits(site_of(request)))


def part_refits(request: Request) -> HTMLResponse:
    """Return the inner part of :func:`refits`."""
    return HTMLResponse(_fill("refits_part.html", **_refits(site_of(request))))


def _refits(site: Site) -> dict[str, Any]:
    with open_for_reading(site.config.database, if_there=True) as store:
        kept = history(store)
        proposal = None if store is None or kept.waiting is None else compare(store, kept.waiting)
        record = None if store is None else store.records.current_record()
        outlook = look_ahead(site.config, store, record)
    return {
        "proposal": proposal,
        "history": kept.history,
        "next_fit": _next_fit(outlook.next_fit),
        "age": _age(outlook.age_text),
        "is_kept_in_place": site.config.refit.move_sorted is False,
    }


def status(request: Request) -> HTMLResponse:
    """Show how the daemon is."""
    return _page(request, "status.html", "/status", **_status(site_of(request)))


def part_status(request: Request) -> HTMLResponse:
    """Return the inner part of :func:`status`."""
    return HTMLResponse(_fill("status_part.html", **_status(site_of(request))))


def _status(site: Site) -> dict[str, Any]:
    found = read_health(site.config)
    live = Live(fit=found.fit, **{name: getattr(found, name) for name in AT_IT})
    return {
        "report": found,
        "counts": _COUNTS,
        "live": in_words(live),
        "next_fit": _next_fit(found.next_fit),
        "age": _age(found.age_text),
    }


def login_form(after: str, failed: bool) -> HTMLResponse:
    """Ask for the token, once more with the status 401 where it was wrong."""
    form = _fill("login.html", csrf="", after=after, failed=failed)
    return HTMLResponse(form, 401 if failed else 200)


def error_page(status_code: int, title: str, text: str) -> HTMLResponse:
    """Say what went wrong; the text is made for persons."""
    return HTMLResponse(_fill("error.html", csrf="", title=title, text=text), status_code)


# --- what they share ----------------------------------------------------------------------------


def _page(request: Request, template: str, here: str, **values: Any) -> HTMLResponse:
    site = site_of(request)
    live = read_live(site.config)
    counts = {"Review": live.review, "Refits": int(live.waiting is not None)}
    shared = {
        "csrf": site.csrf(request),
        "has_token": site.wants_token,
        "pages": [(path, text, counts.get(text)) for path, text in _PAGES],
        "here": here,
        "live": live,
    }
    return HTMLResponse(_fill(template, **{**shared, **values}))


def _fill(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
