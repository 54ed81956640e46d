"""Setting imgsortd up: ``init``, ``weights`` and ``service``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from typer import Argument, Option

from imgsortd.cli.shared import ConfigOption, JsonOption
from imgsortd.cli.terminal import DEFAULT_CONFIG, err, out, print_json
from imgsortd.config import check_folders, load_config, read_config
from imgsortd.config.model import Config, ModelConfig
from imgsortd.config.text import example_yaml
from imgsortd.errors import ConfigError
from imgsortd.records import Backbone, Layer

if TYPE_CHECKING:
    from imgsortd.system.units import Command

weights_app = typer.Typer(
    help="Fetch VGG16's weights, or show where they are.", no_args_is_help=True
)
service_app = typer.Typer(help="Install imgsortd as a systemd service.", no_args_is_help=True)

WeightsOption = Annotated[str | None, Option(help="auto, imagenet1k_v1 or a file.")]
WeightsConfigOption = Annotated[
    Path | None, Option("-c", "--config", help="Take model.weights from this file.")
]
RootOption = Annotated[Path, Option(help="Put this before every path (packaging).")]


def init(
    config: Annotated[Path, Argument(help="The file to write.")] = DEFAULT_CONFIG,
    inbox: Annotated[Path, Option(help="Where pictures arrive.")] = Path("inbox"),
    target: Annotated[Path, Option(help="Where cluster folders stand.")] = Path("sorted"),
    state_dir: Annotated[Path, Option(help="Where the database lives.")] = Path("state"),
) -> None:
    """Write a commented configuration and make its folders."""
    paths = {"inbox": inbox, "target": target, "state_dir": state_dir}
    folders = {key: str(path.absolute()) for key, path in paths.items()}
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        with open(config, "x", encoding="utf-8") as file:
            file.write(example_yaml(Config, folders))
        for folder in folders.values():
            mode = 0o700 if folder == folders["state_dir"] else 0o777
            Path(folder).mkdir(mode=mode, parents=True, exist_ok=True)
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
    model, spec = _wanted(weights, config)
    is_lite = model.backbone is Backbone.EFFICIENTNET_LITE0
    source, path, digest = _checked_lite(model, spec) if is_lite else _fetched(model, spec)
    if as_json:
        print_json({"weights": spec, "source": source, "path": str(path), "digest": digest})
        return
    out.print(f"{spec}: from {source} {path}", markup=False)
    out.print(f"digest {digest}")


def _wanted(weights: str | None, config: Path | None) -> tuple[ModelConfig, str]:
    model = read_config(config).model if config else ModelConfig()
    return model, weights or model.weights


def _fetched(model: ModelConfig, spec: str) -> tuple[str, Path, str]:
    from imgsortd.networks.weights import load_weights

    percent = TextColumn("{task.percentage:.0f} %")
    title, left = TextColumn("fetching weights"), TimeRemainingColumn()
    with Progress(title, BarColumn(), percent, left, console=err) as bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, visible=True)

        layer = Layer.LOGITS if spec == "imagenet1k_v1" else model.layer
        loaded = load_weights(spec, layer, on_progress=show)
    return loaded.source, loaded.path, loaded.digest


def _checked_lite(model: ModelConfig, spec: str) -> tuple[str, Path, str]:
    """EfficientNet-Lite0's weights come with a package or a file: they are only checked."""
    from imgsortd.config.extras import require_extras
    from imgsortd.networks.efficientnet import efficientnet_lite0_network
    from imgsortd.networks.sources import describe_lite_weights

    require_extras(model)
    digest = efficientnet_lite0_network(spec).id.weights_digest
    place = describe_lite_weights(spec)[0]
    return place.kind, place.path, digest


@weights_app.command("show")
def weights_show(
    weights: WeightsOption = None,
    config: WeightsConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the weights would come from; nothing is fetched."""
    from imgsortd.networks.sources import describe_model_weights, first_ready

    model, spec = _wanted(weights, config)
    sources = describe_model_weights(model.backbone, spec)
    if as_json:
        places = [
            {"source": one.kind, "path": one.path, "ready": one.ready, "detail": one.detail}
            for one in sources
        ]
        print_json({"weights": spec, "places": places})
        return
    for source in sources:
        mark = "→" if source is first_ready(sources) else " "
        out.print(Text.assemble((f"{mark} ", "green"), f"{source.kind:<11}{source.detail}"))
        if str(source.path) not in source.detail:
            out.print(Text(f"             {source.path}", style="dim"))


@service_app.command("install")
def service_install(
    config: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[bool, Option("--user", help="For this user only, no root.")] = False,
    cuda: Annotated[bool, Option("--cuda", help="Let the service reach a GPU.")] = False,
    web: Annotated[bool, Option("--web", help="The web page's unit, too.")] = False,
    now: Annotated[
        bool, Option("--now", help="Run the commands that follow, and start the service.")
    ] = False,
    root: RootOption = Path("/"),
) -> None:
    """Write the systemd unit with the paths of this configuration."""
    from imgsortd.config.extras import require_extras, require_web
    from imgsortd.system.units import install_steps, install_units, watch_line

    if now:
        _check_now("service install --now", root, user=user)
    settings = read_config(config)  # its folders are made by a later step
    if now:  # refuse here what the started service would refuse, where it can be known before
        if user:  # no step makes a person's folders
            check_folders(settings, config)
        require_extras(settings.model)
        if web:
            require_web()
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
    _run(steps)
    out.print(f"imgsortd.service runs; put pictures into {settings.inbox}", markup=False)
    if not user:
        who = "members of the group imgsortd (sudo usermod -aG imgsortd NAME)"
        out.print(f"who may do that:  {who}")
    if web:
        out.print("imgsortd-web.service runs; open http://127.0.0.1:8420")
    out.print(f"to watch it:  {watch}", markup=False)


@service_app.command("uninstall")
def service_uninstall(
    user: Annotated[bool, Option("--user", help="The unit of this user.")] = False,
    now: Annotated[bool, Option("--now", help="Stop the service first.")] = False,
    root: RootOption = Path("/"),
) -> None:
    """Remove what `service install` wrote; pictures, database and weights stay."""
    from imgsortd.system.units import WEB_UNIT, find_units, uninstall_steps, uninstall_units

    if now:
        _check_now("service uninstall --now", root, user=user)
    found = find_units(user=user, environ=os.environ, root=root)
    if not found:
        out.print("nothing to remove")
        return
    web = any(path.name == WEB_UNIT for path in found)
    stop, reload = uninstall_steps(user=user, web=web)
    if now:  # while systemd still finds the units: without them it may refuse
        _run([stop])
    for path in uninstall_units(user=user, environ=os.environ, root=root):
        _show("removed", path)
    if now:
        _run([reload])
    else:
        _print_steps(stop.line, reload.line)


def _check_now(command: str, root: Path, *, user: bool) -> None:
    """Refuse what cannot be done at once, before anything is changed."""
    from imgsortd.system.units import require_rights

    if root != Path("/"):
        raise typer.BadParameter(
            f"expected no --root, got {root}: services run on this machine, not in a folder; "
            f"leave one of the two out",
            param_hint="--now",
        )
    require_rights(command, user=user, uid=os.geteuid())


def _run(steps: Sequence[Command]) -> None:
    from imgsortd.system.units import run_steps

    run_steps(steps, show=lambda line: _show("running", line))


def _show(what: str, of: Path | str) -> None:
    out.print(f"{what}  {of}", markup=False)


def _print_steps(*lines: str) -> None:
    out.print("now type:")
    for line in lines:
        out.print(f"  {line}", markup=False)
