"""What must never appear in the code, and what the running daemon never does."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inboxes import Inbox
from support import paint_groups

PACKAGE = Path(__file__).parents[1] / "daemon" / "imgsortd"
MODULES = sorted(PACKAGE.rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_pickle_no_code_from_data_and_no_shell(module: Path) -> None:
    tree = ast.parse(module.read_text())

    assert not imported(tree) & {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
    for name, call in calls(tree):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in ("eval", "exec", "os.system", "os.popen", "yaml.load", "joblib.load")
        assert keywords.get("shell", "False") == "False"
        assert keywords.get("allow_pickle", "False") == "False"
        if name == "torch.load":
            assert keywords.get("weights_only") == "True"
        if name == "Image.open":
            assert "formats" in keywords


def test_truncated_pictures_are_never_accepted() -> None:
    assert not [path for path in MODULES if "LOAD_TRUNCATED_IMAGES" in path.read_text()]


def test_nothing_in_the_state_folder_can_be_read_by_others(make: Callable[..., Inbox]) -> None:
    one = make()
    one.config.state_dir.mkdir(mode=0o755, exist_ok=True)
    before = os.umask(0)
    try:
        one.daemon.start()
    finally:
        os.umask(before)
    one.drop(3)
    one.wait_sorted()

    folders = [one.config.state_dir, *one.config.state_dir.rglob("*/")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert stat.S_IMODE(one.config.database.stat().st_mode) == 0o600


def test_the_daemon_starts_no_program_but_its_decoders(make: Callable[..., Inbox]) -> None:
    if subprocess.run(["strace", "-V"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed")
    one = make()
    paint_groups(one.inbox, 2)
    for name, data in {
        "a.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        "b.jpg": b"\xc5\xd0\xd3\xc6" + bytes(60),
        "c.png": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "d.gif": b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
    }.items():
        (one.inbox / name).write_bytes(data)
    trace = one.folder / "trace"
    done = subprocess.run(
        [
            *("strace", "-f", "-q", "-e", "trace=execve", "-o", trace),
            *(sys.executable, *one.daemon.program, "run", "--once"),
            *("-c", one.folder / "config.yaml"),
        ],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if b"ptrace" in done.stderr:
        pytest.skip("processes may not be traced here")

    assert one.status().counts["set_aside"] == 4
    started = [line for line in trace.read_text().splitlines() if " execve(" in line]
    assert len(started) > 1
    assert all("decode_worker" in line for line in started[1:]), started
