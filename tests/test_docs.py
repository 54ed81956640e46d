"""The documents say what is: every command exists, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from imgsortd.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("service/*.md"))
    if path.is_file()
)


def commands_in(text: str) -> list[list[str]]:
    """Return the words of every ``imgsortd …`` command line in a document."""
    blocks = re.findall(r"```(?:console|sh)\n(.*?)```", text, re.S)
    prose = re.sub(r"```.*?```", "", text, flags=re.S).splitlines()
    quoted = [span for line in prose for span in line.split("`")[1::2]]
    lines = [*quoted, *(line for block in blocks for line in block.splitlines())]
    found = []
    for line in lines:
        match = re.match(r"(?:sudo +)?(?:\S*/)?imgsortd((?: +[^#\s]+)+)", line.strip())
        if match:
            found.append(match[1].split())
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_exists_with_its_options(document: Path) -> None:
    root = get_command(app)

    unknown = []
    for words in commands_in(document.read_text()):
        command = root
        for word in words:
            subcommands = getattr(command, "commands", {})
            if word in subcommands:
                command = subcommands[word]
            elif word.startswith("-"):
                known = {name for option in command.params for name in option.opts}
                if word.split("=")[0] not in known | {"--help"}:
                    unknown.append((" ".join(words), word))
            elif subcommands:
                unknown.append((" ".join(words), word))
                break

    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_local_link_in_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())

    missing = [
        link
        for link in links
        if "://" not in link and not (document.parent / link.strip()).exists()
    ]

    assert missing == []


def test_the_readme_names_every_command() -> None:
    root = get_command(app)
    text = (ROOT / "README.md").read_text()

    names = [
        f"{name} {below}" if below else name
        for name, command in root.commands.items()
        for below in getattr(command, "commands", {"": None})
    ]

    assert [name for name in names if f"imgsortd {name}" not in text] == []


def test_the_readme_names_every_section_of_the_configuration() -> None:
    from imgsortd.config.model import Config

    text = (ROOT / "README.md").read_text()

    assert [name for name in Config.model_fields if f"`{name}" not in text] == []


@pytest.mark.parametrize("document", ["reliability", "threat-model"])
def test_every_test_that_a_promise_names_is_there(document: str) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text()

    named = set(re.findall(r"`((?:\w+/)?test_\w+)(?:\.py)?(?:::[^`]+)?`", text))

    assert len(named) > 10
    missing = [name for name in named if not list((ROOT / "tests").rglob(f"{name}.py"))]
    assert missing == []


@pytest.mark.parametrize("document", ["reliability", "threat-model"])
def test_every_case_that_a_promise_names_is_a_test_of_that_file(document: str) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text()

    cases = re.findall(r"`((?:\w+/)?test_\w+)(?:\.py)?::([^`]+)`", text)

    assert cases or document != "reliability"
    assert [f"{file}::{words}" for file, words in cases if not has_case(file, words)] == []


def has_case(file: str, words: str) -> bool:
    """Tell whether a file of the tests has one whose name holds these words."""
    slug = re.sub(r"\W+", "_", words.strip().lower())
    return any(
        re.search(rf"^def test_\w*{slug}", path.read_text(), re.M)
        for path in (ROOT / "tests").rglob(f"{file}.py")
    )


def test_a_case_that_is_not_there_is_noticed() -> None:
    assert has_case("test_docs", "a case that is not there")
    assert not has_case("test_docs", "no such " + "case")
