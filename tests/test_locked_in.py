"""VGG16 on torch sorts pictures under the unit's system-call filter and view of the disk."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from imgsortd.reports.status import read_status
from imgsortd.store.database import open_for_writing
from support import make_config, paint_groups, sums

ROOT = Path(__file__).parents[1]
UNIT = (ROOT / "service" / "imgsortd.service").read_text()
WEB_UNIT = (ROOT / "service" / "imgsortd-web.service").read_text()


def members(group: str) -> set[str]:
    """Return the system calls of a group such as ``@system-service``, those below it too."""
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", group],
        capture_output=True,
        text=True,
        check=True,
    )
    found: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= members(word)
        elif re.fullmatch(r"[a-z0-9_]+", word):
            found.add(word)
    return found


def allowed_calls(unit: str) -> set[str]:
    """Return what a unit's ``SystemCallFilter=`` lines come to, in their order."""
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        words = line.removeprefix("~").split()
        named = set().union(*(members(w) if w.startswith("@") else {w} for w in words))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed | members("@default")  # systemd always allows these


@pytest.fixture(scope="module", params=[UNIT], ids=["daemon"])
def calls(request: pytest.FixtureRequest) -> set[str]:
    try:
        return allowed_calls(request.param)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"systemd-analyze cannot name the calls here: {error}")


def locked_in(
    folder: Path, calls: set[str], *program: str | Path
) -> subprocess.CompletedProcess[str]:
    names = folder / "calls"
    names.write_text("\n".join(sorted(calls)))
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "locked_in.py", folder, names, *program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("namespaces or system-call filters are not permitted here")
    return done


# With the quick daemon's stand-ins there would be nothing of torch's that could be refused.
@pytest.mark.faults
def test_pictures_are_sorted_by_vgg16_locked_in(
    tmp_path: Path, calls: set[str], conv_weights: Path
) -> None:
    config = make_config(tmp_path, model={"weights": str(conv_weights)})
    paint_groups(config.inbox, 2)
    before = sums(config.inbox)

    done = locked_in(
        tmp_path,
        calls,
        *(sys.executable, "-m", "imgsortd", "run", "--once", "-c", tmp_path / "config.yaml"),
    )

    assert done.returncode == 0, done.stderr
    assert sums(config.target) == before
    assert read_status(config).counts["sorted"] == 6


@pytest.mark.parametrize("calls", [WEB_UNIT], ids=["web"], indirect=True)
def test_the_page_is_served_locked_in_and_without_code_made_at_run_time(
    tmp_path: Path, calls: set[str]
) -> None:
    config = make_config(tmp_path)
    open_for_writing(config.database).close()
    client = ROOT / "tests" / "asks_a_page.py"

    done = locked_in(tmp_path, calls, sys.executable, client, tmp_path / "config.yaml")

    assert (done.returncode, done.stdout.split()) == (0, ["404", "200"]), done.stderr


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        ("open('/etc/imgsortd-was-here', 'w')", "Read-only file system"),
        ("__import__('socket').create_connection(('192.0.2.1', 80), 3)", "unreachable"),
        ("__import__('os').setpriority(0, 0, -5)", "not permitted"),
        ("__import__('os').chroot('/')", "not permitted"),
    ],
)
def test_what_the_unit_forbids_is_refused(
    tmp_path: Path, calls: set[str], deed: str, error: str
) -> None:
    done = locked_in(tmp_path, calls, sys.executable, "-c", deed)

    assert done.returncode == 1
    assert error in done.stderr
