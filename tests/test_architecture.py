"""What the source promises about itself: layers, sizes, and calls that never appear."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "daemon").rglob("*.py"))
MAX_FUNCTION_LINES = 60
TOOLS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment in the repository."""
    program = Path(sys.executable).parent / command[0]
    return subprocess.run(
        [str(program), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_imports_run_one_way_and_decisions_are_pure() -> None:
    done = run("lint-imports", "--no-cache")

    assert done.returncode == 0, done.stdout
    assert "Contracts: 3 kept, 0 broken." in done.stdout


# mypy takes half a minute of both CPUs, and tells the same of every order of the tests.
@pytest.mark.parametrize(
    "tool", ["ruff check", "ruff format", pytest.param("mypy", marks=pytest.mark.faults)]
)
def test_the_source_is_clean(tool: str) -> None:
    done = run(*TOOLS[tool])

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and body_lines(node) > MAX_FUNCTION_LINES
    ]

    assert too_long == []


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines; its docstring and, in cli, its table of options are texts."""
    assert node.end_lineno is not None
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return node.end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bimport pickle|\bfrom pickle|pickle\.load|joblib\.load|\bshelve\b|\bmarshal\b",
        r"weights_only\s*=\s*False",
        r"allow_pickle\s*=\s*True",
        r"LOAD_TRUNCATED_IMAGES\s*=\s*True",
        r"\byaml\.(unsafe_load|full_load|load)\(",
        r"shell\s*=\s*True|os\.system\(",
        r"\bprint\(",
    ],
)
def test_what_runs_strangers_code_or_trusts_broken_files_is_nowhere(pattern: str) -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line) and not re.search(r"\b(out|err)\.print\(", line)
    ]

    assert found == []


def test_every_public_function_and_class_says_what_it_does() -> None:
    silent = [
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and "overload" not in map(ast.unparse, node.decorator_list)
    ]

    assert silent == []
