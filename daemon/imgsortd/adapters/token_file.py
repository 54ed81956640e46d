"""The file with the token that opens the web page."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from imgsortd.adapters.fsops import closing
from imgsortd.errors import ConfigError

LEAST_CHARS = 16
_MOST_BYTES = 4096
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
_MAKE = "make one: (umask 077; openssl rand -hex 32 > FILE)"


def read_token(path: Path) -> str:
    """Read the token; white space around it does not count.

    Raises
    ------
    ConfigError
        It cannot be read, others may read it, or it is none; the text says what to do.
    """
    text = _read(path).decode("utf-8", "replace").strip()
    if not all("!" <= char <= "~" for char in text):
        raise ConfigError(
            f"web.token_file {path}: expected one word of printable ASCII, got other characters; "
            f"{_MAKE}"
        )
    if len(text) < LEAST_CHARS:
        raise ConfigError(
            f"web.token_file {path}: expected at least {LEAST_CHARS} characters, got "
            f"{len(text)}; {_MAKE}"
        )
    return text


def _read(path: Path) -> bytes:
    try:
        # A fifo would wait for its writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"web.token_file {path}: cannot be read by uid {os.geteuid()} ({error.strerror}); "
            f"give the path of a file with the token in it; {_MAKE}"
        ) from error
    with closing(fd):
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"web.token_file {path}: expected a regular file; {_MAKE}")
        if status.st_mode & _OTHERS:
            raise ConfigError(
                f"web.token_file {path}: expected a file that others cannot read, got mode "
                f"{stat.S_IMODE(status.st_mode):04o}; chmod 640 '{path}'"
            )
        return os.read(fd, _MOST_BYTES)
