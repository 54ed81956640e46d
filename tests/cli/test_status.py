"""A plain ``status`` goes past the parser of the command line, and says the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imgsortd.cli.status import plain_status
from imgsortd.cli.terminal import DEFAULT_CONFIG
from support import make_config, run_cli


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("status", (DEFAULT_CONFIG, False)),
        ("status --json", (DEFAULT_CONFIG, True)),
        ("status -c a.yaml", (Path("a.yaml"), False)),
        ("status --json --config a.yaml", (Path("a.yaml"), True)),
    ],
)
def test_a_plain_status_is_read_as_the_parser_reads_it(
    arguments: str, expected: tuple[Path, bool]
) -> None:
    assert plain_status(arguments.split()) == expected


@pytest.mark.parametrize(
    "arguments",
    ["", "run", "status --help", "status --watch", "status -c", "status -c --json", "status x"],
)
def test_all_else_is_left_to_the_parser(arguments: str) -> None:
    assert plain_status(arguments.split()) is None


def test_a_plain_status_imports_neither_the_parser_nor_the_model(tmp_path: Path) -> None:
    make_config(tmp_path)
    heavy = "typer", "torch", "numpy", "sklearn", "scipy", "PIL", "watchdog", "sqlite_utils"
    script = (
        "import sys; from imgsortd.__main__ import main\n"
        "try: main()\n"
        f"finally: print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "status", "-c", str(tmp_path / "config.yaml")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "never been started" in done.stdout
    assert done.stderr.strip() == "[]"


def test_a_wrong_configuration_is_told_with_its_exit_code(tmp_path: Path) -> None:
    done = run_cli("status", "-c", tmp_path / "none.yaml")

    assert done.returncode == 78
    assert "cannot be read" in done.stderr


def test_a_wrong_option_is_a_usage_error() -> None:
    done = run_cli("status", "--jsn")

    assert done.returncode == 2
    assert "--jsn" in done.stderr
