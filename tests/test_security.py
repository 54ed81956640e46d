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


FORBIDDEN_MODULES = {
    *("pickle", "_pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"),
    *("pickletools", "copyreg", "torch.package", "torch.serialization", "torch.jit", "torch.hub"),
}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"),
    *("yaml.unsafe_load", "yaml.full_load", "joblib.load", "torch.jit.load"),
    *("torch.hub.load", "torch.package.PackageImporter", "pandas.read_pickle"),
}
ALLOWED_KEYWORDS = {"shell": "False", "allow_pickle": "False"}


def full_names(tree: ast.AST) -> dict[str, str]:
    """Return what each name that an import binds stands for, ``as`` and ``from`` resolved."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def modules_of(tree: ast.AST) -> set[str]:
    """Return every module that is imported, and every name from one, in full."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call with the full name of what is called."""
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, dot, rest = ast.unparse(node.func).partition(".")
            yield names.get(head, head) + dot + rest, node


def dangers(source: str) -> list[str]:
    """Return what in a module could run a stranger's code."""
    tree = ast.parse(source)
    found = [
        module
        for module in modules_of(tree)
        if any(module == bad or module.startswith(bad + ".") for bad in FORBIDDEN_MODULES)
    ]
    for name, call in calls(tree):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        found += [name] * (name in FORBIDDEN_CALLS)
        found += [
            f"{name}({keyword}={keywords[keyword]})"
            for keyword, wanted in ALLOWED_KEYWORDS.items()
            if keywords.get(keyword, wanted) != wanted
        ]
        found += [name] * (name == "torch.load" and keywords.get("weights_only") != "True")
        found += [name] * (name == "PIL.Image.open" and "formats" not in keywords)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_pickle_no_code_from_data_and_no_shell(module: Path) -> None:
    assert dangers(module.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as harmless",
        "from pickle import loads as parse",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "from torch import load as read\nread(path)",
        "from torch import serialization",
        "import torch.jit",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from numpy import load\nload(path, allow_pickle=flag)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "from os import system as run\nrun(text)",
        "from yaml import load\nload(text)",
        "from PIL import Image\nImage.open(file)",
        "from PIL.Image import open as read\nread(file)",
        "eval(text)",
    ],
)
def test_what_would_run_a_strangers_code_is_noticed_under_any_name(source: str) -> None:
    assert dangers(source) != []


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
    assert all("pictures.worker" in line for line in started[1:]), started
