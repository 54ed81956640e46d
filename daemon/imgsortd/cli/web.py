"""``imgsortd web``: the library in a browser."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from imgsortd.cli.shared import ConfigOption
from imgsortd.cli.terminal import DEFAULT_CONFIG, out
from imgsortd.config import load_config


def web(
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[
        str, Option(help="Where to listen; beyond this machine needs web.token_file.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65_535, help="0 takes a free one.")] = 8420,
) -> None:
    """Show the library in a browser: clusters, review, refits, status."""
    from imgsortd.config.extras import require_web

    require_web()

    from imgsortd.system.logs import set_up_logs
    from imgsortd.web.server import find_address, serve

    try:
        address = find_address(host)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--host") from error
    settings = load_config(config)
    set_up_logs(settings.log_level)
    serve(
        settings, config, address, port, on_ready=lambda url: out.print(f"open {url}", markup=False)
    )
