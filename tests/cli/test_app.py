"""The command line as a person meets it: help, exit codes, text and JSON."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import warm
from imgsortd.cli.app import app
from support import make_config, paint_groups, run_cli, tree, wait_until

runner = CliRunner()


def every_command() -> list[list[str]]:
    """Return the words of each command, groups resolved."""
    found = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found.extend([[name, word] for word in below] if below else [[name]])
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_explains_itself(words: list[str]) -> None:
    result = runner.invoke(app, [*words, "--help"])

    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_a_wrong_option_is_exit_code_2() -> None:
    result = run_cli("status", "--nonsense")

    assert result.returncode == 2


def test_a_missing_config_is_exit_code_78_and_says_what_to_do(tmp_path: Path) -> None:
    result = run_cli("status", "-c", tmp_path / "none.yaml")

    assert result.returncode == 78
    assert "none.yaml: cannot be read" in result.stderr
    assert "imgsortd init" in result.stderr


def test_init_writes_a_config_that_check_config_accepts(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    folders = ["--inbox", tmp_path / "in", "--target", tmp_path / "out", "--state-dir"]

    made = run_cli("init", file, *folders, tmp_path / "state")
    checked = run_cli("check-config", "-c", file)

    assert (made.returncode, checked.returncode) == (0, 0), made.stderr + checked.stderr
    assert (tmp_path / "in").is_dir()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert "fine" in checked.stdout


def test_init_does_not_overwrite_a_config(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("mine")

    result = run_cli("init", file)

    assert result.returncode == 78
    assert "is not overwritten" in result.stderr
    assert file.read_text() == "mine"


def test_status_of_a_daemon_that_never_ran_says_so(tmp_path: Path) -> None:
    make_config(tmp_path)

    text = run_cli("status", "-c", tmp_path / "config.yaml")
    values = json.loads(run_cli("status", "-c", tmp_path / "config.yaml", "--json").stdout)

    assert text.returncode == 0
    assert "it has never been started" in text.stdout
    assert values["daemon"] == "not running"
    assert values["counts"]["seen"] == 0


def test_refit_without_a_store_says_to_start_the_daemon(tmp_path: Path) -> None:
    make_config(tmp_path)

    result = run_cli("refit", "-c", tmp_path / "config.yaml")

    assert result.returncode == 1
    assert "start the daemon first" in result.stderr


def test_sort_with_vgg16_sorts_and_reports(tmp_path: Path, conv_weights: Path) -> None:
    paint_groups(tmp_path / "in", each=3)

    result = run_cli(
        "sort", tmp_path / "in", tmp_path / "out", "-k", "3", "--weights", conv_weights, "--json"
    )

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sorted"] == 9
    colours = [
        {name.split("-")[0] for name in names}
        for folder, names in tree(tmp_path / "out").items()
        if folder.startswith("cluster_")
    ]
    assert sorted(map(len, colours)) == [1, 1, 1]
    assert len(list((tmp_path / "out").glob("cluster_*/*"))) == 9


def test_sort_stops_on_ctrl_c_and_says_how_to_go_on(tmp_path: Path, conv_weights: Path) -> None:
    paint_groups(tmp_path / "in", each=40)
    command = ["-m", "imgsortd", "sort", str(tmp_path / "in"), str(tmp_path / "out")]
    state = tmp_path / "out" / ".imgsortd" / "imgsortd.db"

    with open(tmp_path / "said", "wb") as said:
        process = warm.start([*command, "-k", "3", "--weights", str(conv_weights)], said)
    wait_until(state.exists, what="sorting begun")
    process.send_signal(signal.SIGINT)

    assert process.wait(120) == 1
    assert "the same command carries on from here" in (tmp_path / "said").read_text()


def test_logits_with_convolutions_only_is_refused(tmp_path: Path, conv_weights: Path) -> None:
    paint_groups(tmp_path / "in", each=1)

    result = run_cli(
        "sort", tmp_path / "in", tmp_path / "out", "--layer", "logits", "--weights", conv_weights
    )

    assert result.returncode == 78
    assert "for layer logits a classifier" in result.stderr
