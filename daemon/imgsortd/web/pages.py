"""The HTML pages: read what they show, fill in a template.

Everything that a page shows stands in its first answer but the pictures of a wall and of the
review, which its script asks for; ``/parts/…`` is the same HTML once more, for a page that is
open to take what has changed.
"""

from __future__ import annotations

import re
import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from imgsortd.adapters.store_opening import open_if_there
from imgsortd.core.lifecycle import duration_text
from imgsortd.outlook import look_ahead
from imgsortd.page_parts import number_of
from imgsortd.subjects import open_for_reading
from imgsortd.terminal import printable
from imgsortd.web import comparing, health, resemblance
from imgsortd.web.drawing import plot, spark
from imgsortd.web.pulse_reader import read_pulse
from imgsortd.web.review_queue import count_to_review
from imgsortd.web.site import Site, site_of
from imgsortd.web.static import address
from imgsortd.web.words import in_words

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
_MOST_DIGITS = 9
_SCRIPTS = ("api.js", "live.js", "said.js")


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
        static=address, script=_script, spark=spark, plot=plot, number=number_of
    )
    environment.globals.update(moment=_moment, span=duration_text)
    return environment


def warm_up() -> None:
    """Compile the templates, so that who comes first need not wait for it."""
    for name in _environment().list_templates():
        _environment().get_template(name)


def _printable(value: Any) -> Any:
    """Show names that could steer a reader's screen as their codes."""
    return printable(value) if type(value) is str else value


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
    return _page(request, "clusters.html", "/", **_grid(site_of(request), request), most=most)


def part_clusters(request: Request) -> HTMLResponse:
    """Return the tiles alone; with ``from``, without so many that one has."""
    site = site_of(request)
    summary = _fill("summary.html", **(grid := _grid(site, request)))
    start = request.query_params.get("from", "0")
    if start.isascii() and start.isdecimal() and len(start) < _MOST_DIGITS:
        grid["tiles"] = grid["tiles"][int(start) :]
    tiles = _fill("tiles.html", **grid, most=None)
    return HTMLResponse(
        f'<p class="quiet" id="summary">{summary}</p><div id="clusters">{tiles}</div>'
    )


def _grid(site: Site, request: Request) -> dict[str, Any]:
    with open_if_there(site.config.database) as store:
        grid = site.overview.read(site.config, store)
    order = request.query_params.get("sort", "size")
    order = order if order in _ORDERS else "size"
    by_name = sorted(grid["clusters"], key=lambda one: (_natural(one["folder"]), one["id"]))
    placed = [{**one, "place": place} for place, one in enumerate(by_name)]
    return {
        "grid": grid,
        "tiles": sorted((one for one in placed if one["files"]), key=_ORDER_BY[order]),
        "empty": [one for one in placed if not one["files"]],
        "waits_for": _first_fit(grid["next_fit"]),
        "total": sum(cluster["files"] for cluster in grid["clusters"]),
        "week": sum(cluster["week"] for cluster in grid["clusters"]),
        "orders": _ORDERS.items(),
        "order": order,
        "query": request.query_params.get("q", "")[:100],
        "nothing": _nothing(grid),
    }


_ORDER_BY = {
    "size": lambda c: (-c["files"], c["id"]),
    "newest": lambda c: (-(c["newest"] or 0), c["id"]),
    "loosest": lambda c: (-(c["loose"] or 0), c["id"]),
    "name": lambda c: c["place"],
}


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what a name is ordered by: cluster_9 comes before cluster_10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _nothing(grid: dict[str, Any]) -> dict[str, str]:
    waiting = grid["pending"]
    title = f"{number_of(waiting, 'picture')} so far" if waiting else "No picture yet"
    return {"title": title, "text": _next_fit(grid["next_fit"])}


_OF_THE_FIRST = ("first ", "looking ", "all ")  # what core/lifecycle.py says before it


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
    with open_if_there(site.config.database) as store:
        found = None if store is None else site.overview.cluster(store, cluster_id)
    if found is None:
        raise HTTPException(404, f"There is no cluster {cluster_id}.")
    return _page(request, "cluster.html", "", cluster=found, order=order)


def similar(request: Request) -> HTMLResponse:
    """Show the pictures most like one."""
    site = site_of(request)
    with open_for_reading(site.config) as store:
        picture = resemblance.picture(site.config, store, request.path_params["id"])
    return _page(request, "similar.html", "", picture=picture)


def review(request: Request) -> HTMLResponse:
    """Show the pictures that wait for a person's word, one at a time."""
    site = site_of(request)
    with open_if_there(site.config.database) as store:
        total = 0 if store is None else count_to_review(store)
    return _page(request, "review.html", "/review", total=total)


def refits(request: Request) -> HTMLResponse:
    """Show the proposal that waits, and the fits there were."""
    return _page(request, "refits.html", "/refits", **_refits(site_of(request)))


def part_refits(request: Request) -> HTMLResponse:
    """Return the inner part of :func:`refits`."""
    return HTMLResponse(_fill("refits_part.html", **_refits(site_of(request))))


def _refits(site: Site) -> dict[str, Any]:
    with open_if_there(site.config.database) as store:
        kept = comparing.history(site.config, store)
        proposal, waiting = None, kept["waiting"]
        if store is not None and waiting is not None:
            proposal = comparing.compare(site.config, store, waiting)
        record = None if store is None else store.records.current_record()
        outlook = look_ahead(site.config, store, record)
    return {
        "proposal": proposal,
        "history": kept["history"],
        "next_fit": _next_fit(outlook.text),
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
    state = health.read_health(site.config)
    next_fit = _next_fit(state["next_fit"])
    age = _age(state["age_text"])
    live = in_words(state)
    return {"status": state, "counts": _COUNTS, "live": live, "next_fit": next_fit, "age": age}


def login_form(request: Request, failed: bool) -> HTMLResponse:
    """Ask for the token."""
    return HTMLResponse(
        _fill("login.html", csrf="", after=getattr(request.state, "next", "/"), failed=failed)
    )


def error_page(status_code: int, title: str, text: str) -> HTMLResponse:
    """Say what went wrong; the text is made for persons."""
    return HTMLResponse(_fill("error.html", csrf="", title=title, text=text), status_code)


# --- what they share ----------------------------------------------------------------------------


def _page(request: Request, template: str, here: str, **values: Any) -> HTMLResponse:
    site = site_of(request)
    pulse = read_pulse(site.config)
    counts = {"Review": pulse["review"], "Refits": int(pulse["waiting"] is not None)}
    shared = {
        "csrf": site.csrf(request),
        "has_token": site.wants_token,
        "pages": [(path, text, counts.get(text)) for path, text in _PAGES],
        "here": here,
        "live": pulse,
    }
    return HTMLResponse(_fill(template, **{**shared, **values}))


def _fill(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
