"""Setting imgsortd up: ``init``, ``weights`` and ``service``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.config import Config, ModelConfig, check_folders, load_config, read_config
from imgsortd.config_text import example_yaml
from imgsortd.core.records import Backbone, Layer
from imgsortd.errors import ConfigError
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json

weights_app = typer.Typer(
    help="Fetch VGG16's weights, or show where they are.", no_args_is_help=True
)
service_app = typer.Typer(help="Install imgsortd as a systemd service.", no_args_is_help=True)

WeightsOption = Annotated[str | None, typer.Option(help="auto, imagenet1k_v1 or a file.")]
WeightsConfigOption = Annotated[
    Path | None, typer.Option("-c", "--config", help="Take model.weights from this file.")
]
RootOption = Annotated[Path, typer.Option(help="Put this before every path (packaging).")]


def init(
    config: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG,
    inbox: Annotated[Path, typer.Option(help="Where pictures arrive.")] = Path("inbox"),
    target: Annotated[Path, typer.Option(help="Where cluster folders stand.")] = Path("sorted"),
    state_dir: Annotated[Path, typer.Option(help="Where the database lives.")] = Path("state"),
) -> None:
    """Write a commented configuration and make its folders."""
    folders = {
        "inbox": str(inbox.absolute()),
        "target": str(target.absolute()),
        "state_dir": str(state_dir.absolute()),
    }
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        with open(config, "x", encoding="utf-8") as file:
            file.write(example_yaml(Config, folders))
        for folder in folders.values():
            Path(folder).mkdir(
                mode=0o700 if folder == folders["state_dir"] else 0o777, parents=True, exist_ok=True
            )
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename}: is there already and is not overwritten; give another name"
        ) from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be made ({error.strerror})") from error
    load_config(config)
    out.print(f"{config}: written; inbox {folders['inbox']}", markup=False)
    out.print(f"start:  imgsortd run -c {config}", markup=False)


@weights_app.command("fetch")
def weights_fetch(
    weights: WeightsOption = None,
    config: WeightsConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Get the weights into the cache, and check them."""
    from imgsortd.adapters.weights import load_weights

    model = read_config(config).model if config else ModelConfig()
    spec = weights or model.weights
    if model.backbone is Backbone.EFFICIENTNET_LITE0:
        _check_lite(model, spec, as_json)
        return
    layer = Layer.LOGITS if spec == "imagenet1k_v1" else model.layer
    bar = Progress(
        TextColumn("fetching weights"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        console=err,
    )
    with bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, visible=True)

        loaded = load_weights(spec, layer, on_progress=show)
    _print_weights(spec, loaded.source, loaded.path, loaded.digest, as_json)


def _check_lite(model: ModelConfig, spec: str, as_json: bool) -> None:
    """EfficientNet-Lite0's weights come with a package or a file: they are only checked."""
    from imgsortd.adapters.efficientnet import efficientnet_lite0_network
    from imgsortd.adapters.extras import require_extras
    from imgsortd.adapters.weight_sources import describe_lite_weights

    require_extras(model)
    digest = efficientnet_lite0_network(spec).id.weights_digest
    place = describe_lite_weights(spec).places[0]
    _print_weights(spec, place.source, place.path, digest, as_json)


def _print_weights(spec: str, source: str, path: Path, digest: str, as_json: bool) -> None:
    if as_json:
        print_json({"weights": spec, "source": source, "path": str(path), "digest": digest})
        return
    out.print(f"{spec}: from {source} {path}", markup=False)
    out.print(f"digest {digest}")


@weights_app.command("show")
def weights_show(
    weights: WeightsOption = None,
    config: WeightsConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the weights would come from; nothing is fetched."""
    from imgsortd.adapters.weight_sources import describe_model_weights

    model = read_config(config).model if config else ModelConfig()
    spec = weights or model.weights
    plan = describe_model_weights(model.backbone, spec)
    places = [
        {"source": str(p.source), "path": str(p.path), "ready": p.ready, "detail": p.detail}
        for p in plan.places
    ]
    if as_json:
        print_json({"weights": spec, "places": places})
        return
    for place, row in zip(plan.places, places, strict=True):
        mark = "→" if place is plan.used else " "
        out.print(Text.assemble((f"{mark} ", "green"), f"{row['source']:<11}{row['detail']}"))
        if str(row["path"]) not in str(row["detail"]):
            out.print(Text(f"             {row['path']}", style="dim"))


@service_app.command("install")
def service_install(
    config: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[bool, typer.Option("--user", help="For this user only, no root.")] = False,
    cuda: Annotated[bool, typer.Option("--cuda", help="Let the service reach a GPU.")] = False,
    web: Annotated[bool, typer.Option("--web", help="The web page's unit, too.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Run the commands that follow, and start the service.")
    ] = False,
    root: RootOption = Path("/"),
) -> None:
    """Write the systemd unit with the paths of this configuration."""
    from imgsortd.adapters.unit_steps import install_steps, run_steps, watch_line
    from imgsortd.adapters.units import install_units

    if now:
        _check_now("service install --now", root, user=user)
    settings = read_config(config)  # its folders are made by a later step
    if now:
        _check_startable(settings, config, user=user, web=web)
    executable, config_file = Path(sys.executable).parent / "imgsortd", config.absolute()
    written = install_units(
        user=user,
        executable=executable,
        config_file=config_file,
        inbox=settings.inbox,
        target=settings.target,
        state_dir=settings.state_dir,
        environ=os.environ,
        root=root,
        cuda=cuda,
        web=web,
    )
    for path in written:
        _show("written", path)
    steps = install_steps(user=user, executable=executable, config_file=config_file, web=web)
    watch = watch_line(user=user)
    if not now:
        _print_steps(*(step.line for step in steps), watch)
        return
    run_steps(steps, show=lambda line: _show("running", line))
    out.print(f"imgsortd.service runs; put pictures into {settings.inbox}", markup=False)
    if not user:
        out.print(
            "who may do that:  members of the group imgsortd (sudo usermod -aG imgsortd NAME)"
        )
    if web:
        out.print("imgsortd-web.service runs; open http://127.0.0.1:8420")
    out.print(f"to watch it:  {watch}", markup=False)


@service_app.command("uninstall")
def service_uninstall(
    user: Annotated[bool, typer.Option("--user", help="The unit of this user.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Stop the service first.")] = False,
    root: RootOption = Path("/"),
) -> None:
    """Remove what `service install` wrote; pictures, database and weights stay."""
    from imgsortd.adapters.unit_steps import run_steps, uninstall_steps
    from imgsortd.adapters.unit_text import WEB_UNIT
    from imgsortd.adapters.units import find_units, uninstall_units

    if now:
        _check_now("service uninstall --now", root, user=user)
    found = find_units(user=user, environ=os.environ, root=root)
    if not found:
        out.print("nothing to remove")
        return
    web = any(path.name == WEB_UNIT for path in found)
    stop, reload = uninstall_steps(user=user, web=web)
    if now:  # while systemd still finds the units: without them it may refuse
        run_steps([stop], show=lambda line: _show("running", line))
    for path in uninstall_units(user=user, environ=os.environ, root=root):
        _show("removed", path)
    if now:
        run_steps([reload], show=lambda line: _show("running", line))
    else:
        _print_steps(stop.line, reload.line)


def _check_now(command: str, root: Path, *, user: bool) -> None:
    """Refuse what cannot be done at once, before anything is changed."""
    from imgsortd.adapters.unit_steps import require_rights

    if root != Path("/"):
        raise typer.BadParameter(
            f"expected no --root, got {root}: services run on this machine, not in a folder; "
            f"leave one of the two out",
            param_hint="--now",
        )
    require_rights(command, user=user, uid=os.geteuid())


def _check_startable(settings: Config, config: Path, *, user: bool, web: bool) -> None:
    """Refuse here what the started service would refuse, where it can be known before."""
    from imgsortd.adapters.extras import require_extras, require_web

    if user:  # no step makes a person's folders
        check_folders(settings, config)
    require_extras(settings.model)
    if web:
        require_web()


def _show(what: str, of: Path | str) -> None:
    out.print(f"{what}  {of}", markup=False)


def _print_steps(*lines: str) -> None:
    out.print("now type:")
    for line in lines:
        out.print(f"  {line}", markup=False)
