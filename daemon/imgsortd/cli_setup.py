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
from imgsortd.config import Config, ModelConfig, load_config, read_config
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
    root: RootOption = Path("/"),
) -> None:
    """Write the systemd unit with the paths of this configuration."""
    from imgsortd.adapters.units import install_units, next_steps

    settings = read_config(config)  # its folders are made by a later step
    executable = Path(sys.executable).parent / "imgsortd"
    written = install_units(
        user=user,
        executable=executable,
        config_file=config.absolute(),
        inbox=settings.inbox,
        target=settings.target,
        state_dir=settings.state_dir,
        environ=os.environ,
        root=root,
        cuda=cuda,
        web=web,
    )
    for path in written:
        out.print(f"written  {path}", markup=False)
    out.print("now type:")
    for line in next_steps(
        user=user, executable=executable, config_file=config.absolute(), web=web
    ):
        out.print(f"  {line}", markup=False)


@service_app.command("uninstall")
def service_uninstall(
    user: Annotated[bool, typer.Option("--user", help="The unit of this user.")] = False,
    root: RootOption = Path("/"),
) -> None:
    """Remove what `service install` wrote; pictures and state stay."""
    from imgsortd.adapters.units import next_steps_after_uninstall, uninstall_units

    removed = uninstall_units(user=user, environ=os.environ, root=root)
    for path in removed:
        out.print(f"removed  {path}", markup=False)
    if not removed:
        out.print("nothing to remove")
        return
    out.print("now type:")
    for line in next_steps_after_uninstall(user=user, removed=removed):
        out.print(f"  {line}", markup=False)
