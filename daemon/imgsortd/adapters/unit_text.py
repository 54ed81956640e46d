"""The texts of the systemd files: the shipped ones, with one installation's paths put in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from imgsortd.errors import ConfigError

UNIT = "imgsortd.service"
WEB_UNIT = "imgsortd-web.service"
SHIPPED_DATA = Path("/srv/imgsortd")
SHIPPED_STATE = Path("/var/lib/imgsortd")
SHIPPED_CACHE = Path("/var/cache/imgsortd")

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
_SYSTEM = tuple(Path("/", name) for name in ("boot", "dev", "etc", "proc", "sys", "usr"))
_PROGRAMS = tuple(Path("/", name) for name in ("bin", "lib", "lib32", "lib64", "sbin"))
_SHARED = tuple(Path("/", name) for name in ("", "media", "mnt", "opt", "run", "srv", "var"))
_SHARED_IN_VAR = tuple(Path("/var", name) for name in ("cache", "lib", "log", "spool"))


def common_folder(inbox: Path, target: Path) -> Path:
    """Find the one folder that the system service may write: above inbox and target.

    Symlinks are followed first, as the service writes where they lead.

    Raises
    ------
    ConfigError
        The deepest folder that the two share holds more than pictures.
    """
    folder = Path(os.path.commonpath([os.path.realpath(inbox), os.path.realpath(target)]))
    if _is_too_wide(folder):
        raise ConfigError(
            f"inbox {inbox} and target {target}: expected both below one folder of their own, "
            f"got {folder} as the deepest folder they share, which holds more than pictures; the "
            f"service may write below one folder only (two ReadWritePaths= are two mounts, and "
            f"each move becomes a copy), so put both below, for example, {SHIPPED_DATA}, "
            f"or install with --user"
        )
    return folder


def render_unit(
    *, user: bool, executable: Path, config_file: Path, data_dir: Path | None, state_dir: Path
) -> str:
    """Put the paths of one installation into the shipped unit.

    Parameters
    ----------
    user
        True: for a person's own service manager, which needs neither of the folders.
    executable, config_file
        The unit runs ``executable run --config config_file``.
    data_dir
        The one folder above inbox and target (`common_folder`); None: the shipped one.
    state_dir
        Where the database is.

    Raises
    ------
    ConfigError
        A path cannot stand in a unit, or the service could not use it.
    """
    _check_program_name(executable)
    command = f"{quoted(executable)} run --config {quoted(config_file, in_command=True)}"
    if user:
        return _with_value(shipped_text("imgsortd-user.service"), "ExecStart", command)
    data_dir = data_dir or SHIPPED_DATA
    _check_usable(executable, config_file, data_dir, state_dir)
    no_exec = " ".join(map(quoted, (data_dir, state_dir, SHIPPED_CACHE)))
    text = _with_value(shipped_text(UNIT), "ExecStart", command)
    text = _with_value(text, "RequiresMountsFor", quoted(data_dir))
    text = _with_value(text, "NoExecPaths", no_exec)
    if _is_below(data_dir, _HOMES) or _is_below(state_dir, _HOMES):
        text = _with_value(text, "ProtectHome", "tmpfs")
    text = text.replace(_writable(SHIPPED_DATA), _writable(data_dir))
    return text if state_dir == SHIPPED_STATE else _with_state_dir(text, state_dir, data_dir)


def render_web_unit(
    *, user: bool, executable: Path, config_file: Path, data_dir: Path | None, state_dir: Path
) -> str:
    """Put the paths of one installation into the shipped unit of the web page.

    Parameters and errors are those of `render_unit`; the page may only read ``data_dir``.
    """
    _check_program_name(executable)
    command = f"{quoted(executable)} web --config {quoted(config_file, in_command=True)}"
    if user:
        return _with_value(shipped_text("imgsortd-web-user.service"), "ExecStart", command)
    data_dir = data_dir or SHIPPED_DATA
    _check_usable(executable, config_file, data_dir, state_dir)
    text = _with_value(shipped_text(WEB_UNIT), "ExecStart", command)
    text = _with_value(text, "RequiresMountsFor", quoted(data_dir))
    text = _with_value(text, "NoExecPaths", f"{quoted(data_dir)} {quoted(state_dir)}")
    if _is_below(data_dir, _HOMES) or _is_below(state_dir, _HOMES):
        text = _with_value(text, "ProtectHome", "tmpfs")
    readable = "BindReadOnlyPaths" if _is_below(data_dir, _HOMES) else "ReadOnlyPaths"
    line = f"{readable}={quoted(data_dir)}"
    text = text.replace(f"ReadOnlyPaths={quoted(SHIPPED_DATA)}", line)
    if state_dir == SHIPPED_STATE:
        return text
    reason = "# The database, and beside it the cache of thumbnails."
    return _without_state_directory(text).replace(line, f"{line}\n{reason}\n{_writable(state_dir)}")


def render_folders(data_dir: Path, inbox: Path, target: Path, state_dir: Path) -> str:
    """Put this installation's folders into the tmpfiles.d text."""
    ours = {
        SHIPPED_DATA: data_dir,
        SHIPPED_DATA / "inbox": inbox,
        SHIPPED_DATA / "target": target,
        SHIPPED_STATE: state_dir,
        SHIPPED_CACHE: SHIPPED_CACHE,
    }
    text = shipped_text("tmpfiles.d/imgsortd.conf")
    return re.sub(r"(?m)^d (\S+)", lambda line: f"d {quoted(ours[Path(line[1])])}", text)


def check_seen(path: Path) -> None:
    """Refuse a file that the system service needs and its sandbox hides.

    Raises
    ------
    ConfigError
        The file is below a home folder or a folder for temporary files.
    """
    cause = "ProtectHome=yes hides home folders" if _is_below(path, _HOMES) else ""
    if _is_below(path, _TEMPORARY):
        cause = "PrivateTmp=yes gives it an empty /tmp"
    if cause:
        raise ConfigError(
            f"{path}: expected a path that the system service can see, but {cause}; put the "
            f"configuration in /etc/imgsortd, the virtual environment and its Python below /usr "
            f"or /opt (for example /usr/lib/imgsortd/venv), or install with --user"
        )


def shipped_text(name: str) -> str:
    """Read a shipped file: from the wheel, else from the checkout's ``service`` folder."""
    here = Path(__file__).resolve()
    wheel, checkout = here.parents[1] / "units", here.parents[3] / "service"
    return ((wheel if wheel.is_dir() else checkout) / name).read_text(encoding="utf-8")


def quoted(path: Path, *, in_command: bool = False) -> str:
    """Write a path so that systemd reads back the same; ``in_command``: after the program.

    Raises
    ------
    ConfigError
        The path is relative, no UTF-8, or holds a control character.
    """
    text = str(path)
    if not path.is_absolute() or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ConfigError(
            f"expected an absolute path in UTF-8 without control characters, got {text!r}: "
            f"a systemd unit can name no other; give the full path, or rename the folder"
        )
    text = text.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    if in_command:
        text = text.replace("$", "$$")
    return text if re.fullmatch(r"[\w./+@%,=$-]+", text) else f'"{text}"'


def _with_value(text: str, key: str, value: str) -> str:
    """Replace the value of a setting that stands in the unit once."""
    return re.sub(rf"(?m)^{key}=.*$", lambda _: f"{key}={value}", text)


def _with_state_dir(text: str, state_dir: Path, data_dir: Path) -> str:
    """Open another folder for the database: StateDirectory= is always below /var/lib."""
    text = _without_state_directory(text)
    if state_dir.is_relative_to(data_dir):
        return text
    data_line = _writable(data_dir)
    reason = "# The database: a path of its own, as nothing is renamed between it and the inbox."
    return text.replace(data_line, f"{data_line}\n{reason}\n{_writable(state_dir)}")


def _without_state_directory(text: str) -> str:
    return re.sub(r"(?m)^#.*\nStateDirectory(Mode)?=.*\n", "", text)


def _writable(folder: Path) -> str:
    # ProtectHome=tmpfs lays an empty folder over /home: only a bind mount shows through it.
    key = "BindPaths" if _is_below(folder, _HOMES) else "ReadWritePaths"
    return f"{key}={quoted(folder)}"


def _check_program_name(executable: Path) -> None:
    # systemd reads quotes and backslashes in every path but that of the program.
    if set(str(executable)) & set("\\\"'"):
        raise ConfigError(
            f"{executable}: expected a program whose path has no quotes and no backslashes, as "
            f"systemd starts no other; install imgsortd in another folder"
        )


def _check_usable(executable: Path, config_file: Path, data_dir: Path, state_dir: Path) -> None:
    """Refuse paths that the sandbox would hide, or that would open too much of the system."""
    for path in (executable, config_file, *filter(_in_tmp, (data_dir, state_dir))):
        check_seen(path)
    if _is_too_wide(state_dir):
        raise ConfigError(
            f"state_dir: expected a folder of its own, such as {SHIPPED_STATE}, got {state_dir}, "
            f"which holds more than the database; the service may write all of it"
        )
    for folder in (data_dir, state_dir):
        if executable.is_relative_to(folder):
            raise ConfigError(
                f"{executable}: expected the program outside {folder}, where the service may "
                f"write and therefore nothing may run (NoExecPaths=); move it, for example to "
                f"/usr/lib/imgsortd/venv"
            )


def _in_tmp(path: Path) -> bool:
    return _is_below(path, _TEMPORARY)


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _is_too_wide(folder: Path) -> bool:
    """Tell whether write access here would reach the system or the whole of somebody's home."""
    whole_home = folder.parent in (Path("/home"), Path("/run/user"))
    shared = folder in (*_SHARED, *_SHARED_IN_VAR, *_HOMES, *_TEMPORARY)
    return whole_home or shared or _is_below(folder, _SYSTEM + _PROGRAMS)
