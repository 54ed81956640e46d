"""What a program sees and may do inside the unit: run there by its Python, prints JSON."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path

import torch


def main() -> None:
    """Write the findings to a file; the arguments are a port to try and the file."""
    findings = json.dumps(
        {
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "proc": _readable_in_proc(),
            "writable": _writable(),
            "network": _network(int(sys.argv[1])),
        }
    )
    Path(sys.argv[2]).write_text(findings)


def _readable_in_proc() -> list[str]:
    names = []
    for name in os.listdir("/proc"):
        path = Path("/proc", name)
        with suppress(OSError):
            if path.is_dir():
                os.listdir(path)
            else:
                path.read_bytes()[:1]
            names.append(name)
    return sorted(name for name in names if not name.isdigit())


def _writable() -> list[str]:
    """The folders and files that may be written, each folder for all that is in it."""
    found = []
    for folder, folders, files in os.walk("/"):
        if folder in ("/proc", "/sys", "/opt/borrowed"):
            folders[:] = []
        elif os.access(folder, os.W_OK):
            found.append(folder)
            folders[:] = []
        else:
            paths = [os.path.join(folder, name) for name in files]
            found += [path for path in paths if _is_file(path) and os.access(path, os.W_OK)]
    return sorted(found)


def _is_file(path: str) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _network(port: int) -> dict[str, str]:
    """What comes of a connection to a listener on loopback, and which interfaces are there."""
    said = {}
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as ours:
                ours.connect((address, port))
            said[family.name] = "connected"
        except OSError as error:
            said[family.name] = type(error).__name__
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    said["interfaces"] = " ".join(line.partition(":")[0].strip() for line in lines)
    return said


main()
