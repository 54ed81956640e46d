"""What a confined process can no longer do, tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("started_decoders")

_CONFINED = """
import os, signal, socket, sys
from pathlib import Path
from imgsortd.pictures import worker as confinement
outside = socket.socket()
outside.bind(("127.0.0.1", 0))
outside.listen()
confinement.limit_memory(256 << 20)
measures = confinement.confine([Path(sys.prefix), Path(sys.base_prefix)])
def attempt(name, deed):
    try:
        deed()
        print(name, "done")
    except BaseException as error:
        print(name, type(error).__name__)
"""


def confined(tmp_path: Path, deed: str) -> tuple[str, str]:
    """Return what came of a deed in a confined process, and the measures in force."""
    code = _CONFINED + f"folder = Path({str(tmp_path)!r})\nattempt('it:', lambda: {deed})\n"
    code += "print('measures:', *measures)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    outcome, measures = done.stdout.splitlines()
    return outcome.removeprefix("it: "), measures


@pytest.mark.parametrize(
    "deed",
    [
        "(folder / 'secret').read_bytes()",
        "(folder / 'new').write_bytes(b'')",
        "(folder / 'secret').unlink()",
        "(folder / 'secret').rename(folder / 'other')",
        "os.listdir(folder)",
        "os.open('/etc/passwd', os.O_RDONLY)",
        "os.execv('/bin/true', ['true'])",
        "socket.create_connection(outside.getsockname())",
        "os.kill(os.getppid(), 0)",
    ],
)
def test_it_cannot(tmp_path: Path, deed: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")

    outcome, measures = confined(tmp_path, deed)

    if "landlock" not in measures:
        pytest.skip("this kernel has no Landlock")
    assert outcome == "PermissionError"
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_it_cannot_take_more_memory(tmp_path: Path) -> None:
    assert confined(tmp_path, "bytearray(300 << 20)")[0] == "MemoryError"
    assert confined(tmp_path, "bytearray(200 << 20)")[0] == "done"


def test_it_can_still_import(tmp_path: Path) -> None:
    assert confined(tmp_path, "__import__('xml.dom.minidom')")[0] == "done"
