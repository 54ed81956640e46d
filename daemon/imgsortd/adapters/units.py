"""Writing imgsortd's systemd files into the system, and removing them again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from imgsortd.adapters.unit_text import (
    UNIT,
    WEB_UNIT,
    check_seen,
    common_folder,
    render_folders,
    render_unit,
    render_web_unit,
    shipped_text,
)
from imgsortd.errors import ConfigError, ImgsortdError

MARKER = "# Written by imgsortd service install; do not edit. sha256 of the rest: "


def install_units(
    *,
    user: bool,
    executable: Path,
    config_file: Path,
    inbox: Path,
    target: Path,
    state_dir: Path,
    environ: Mapping[str, str],
    root: Path = Path("/"),
    cuda: bool = False,
    web: bool = False,
) -> list[Path]:
    """Write the unit and what belongs to it; on a refusal nothing is written.

    Parameters
    ----------
    user
        True: only units, for a person's own service manager.
    executable
        The program ``imgsortd`` that the unit starts.
    config_file, inbox, target, state_dir
        Absolute paths, as the configuration gives them.
    environ
        ``XDG_CONFIG_HOME`` and ``HOME`` say where a person's units are.
    root
        Goes before every path that is written, and before ``executable`` when it is
        looked for, like DESTDIR in a Makefile.
    cuda
        True: add the drop-in that lets the system service reach a GPU.
    web
        True: add the unit of the web page.

    Raises
    ------
    ConfigError
        The paths cannot work, or somebody else wrote or changed a file that is in the way.
    ImgsortdError
        A file cannot be written.
    """
    _check_program(executable, root, user=user)
    data_dir = None if user else common_folder(inbox, target)
    texts = {
        UNIT: render_unit(
            user=user,
            executable=executable,
            config_file=config_file,
            data_dir=data_dir,
            state_dir=state_dir,
        )
    }
    if data_dir:
        texts["sysusers"] = shipped_text("sysusers.d/imgsortd.conf")
        texts["tmpfiles"] = render_folders(data_dir, inbox, target, state_dir)
        if cuda:
            texts["cuda"] = shipped_text("imgsortd-cuda.conf")
    if web:
        texts[WEB_UNIT] = render_web_unit(
            user=user,
            executable=executable,
            config_file=config_file,
            data_dir=data_dir,
            state_dir=state_dir,
        )
    places = _places(environ, root, user=user)
    _refuse_foreign(places[name] for name in texts)
    for name, text in texts.items():
        _write(places[name], text)
    return [places[name] for name in texts]


def find_units(*, user: bool, environ: Mapping[str, str], root: Path = Path("/")) -> list[Path]:
    """Return what is there of what `install_units` writes, the unit first.

    Raises
    ------
    ConfigError
        Somebody else wrote or changed one of the files.
    """
    found = [path for path in _places(environ, root, user=user).values() if os.path.lexists(path)]
    _refuse_foreign(found)
    return found


def uninstall_units(
    *, user: bool, environ: Mapping[str, str], root: Path = Path("/")
) -> list[Path]:
    """Remove what `install_units` wrote; return what was there, the unit first.

    Pictures, database, cache, folders and the user account stay.

    Raises
    ------
    ConfigError
        Somebody else wrote or changed one of the files; then nothing is removed.
    ImgsortdError
        A file cannot be removed.
    """
    found = find_units(user=user, environ=environ, root=root)
    for path in found:
        try:
            path.unlink()
        except OSError as error:
            raise _failed("remove", path, error) from error
    return found


def _places(environ: Mapping[str, str], root: Path, *, user: bool) -> dict[str, Path]:
    """Say where each file belongs, ``root`` included."""
    if user:
        home = Path(environ.get("HOME") or Path.home())
        config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        folder = _under(root, config_home / "systemd/user")
        return {UNIT: folder / UNIT, WEB_UNIT: folder / WEB_UNIT}
    etc = _under(root, Path("/etc"))
    return {
        UNIT: etc / "systemd/system" / UNIT,
        "sysusers": etc / "sysusers.d/imgsortd.conf",
        "tmpfiles": etc / "tmpfiles.d/imgsortd.conf",
        "cuda": etc / "systemd/system" / f"{UNIT}.d" / "cuda.conf",
        WEB_UNIT: etc / "systemd/system" / WEB_UNIT,
    }


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to(path.anchor)


def _check_program(executable: Path, root: Path, *, user: bool) -> None:
    """Refuse a program that is not there, or whose Python the system service cannot see."""
    found = _under(root, executable)
    if not executable.is_absolute() or not found.is_file() or not os.access(found, os.X_OK):
        raise ConfigError(
            f"{found}: expected the full path of the program imgsortd, got nothing that can be "
            f"run; install the package there first (pip makes the program beside its python)"
        )
    if not user:
        check_seen(executable)
        check_seen(_without(root, found))
        # uv and pyenv keep the interpreter itself in the home folder of whoever ran them.
        check_seen(_without(root, found.with_name("python")))


def _without(root: Path, path: Path) -> Path:
    """Follow symlinks, then take ``root`` off again."""
    real, real_root = (Path(os.path.realpath(each)) for each in (path, root))
    return Path("/") / real.relative_to(real_root) if real.is_relative_to(real_root) else real


def _refuse_foreign(paths: Iterable[Path]) -> None:
    for path in paths:
        if os.path.lexists(path) and not _is_ours(path):
            raise ConfigError(
                f"{path}: expected a file as `imgsortd service install` wrote it, got one that "
                f"somebody else wrote or changed; it is left alone. Keep your changes with "
                f"`systemctl edit` (a drop-in), move this file away, and run the command again"
            )


def _is_ours(path: Path) -> bool:
    """Tell whether a file is, to the byte, what `_write` left there."""
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
    except OSError:
        return False
    return first == _marker(rest)


def _marker(rest: bytes) -> bytes:
    return MARKER.encode() + hashlib.sha256(rest).hexdigest().encode()


def _write(path: Path, text: str) -> None:
    """Put a text under its name in one step: systemd never reads half a unit."""
    rest = text.encode()
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".imgsortd-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_marker(rest) + b"\n" + rest)
            file.flush()
            # mkstemp gives 0600, but systemctl of every user reads units.
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.rename(part, path)
    except OSError as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise _failed("write", path, error) from error


def _failed(what: str, path: Path, error: OSError) -> ImgsortdError:
    advice = "make room or make the disk writable, and run the command again"
    if isinstance(error, PermissionError):
        advice = "run the command with sudo, or use --user for a service of your own"
    return ImgsortdError(f"cannot {what} {path}: {error.strerror or error}; {advice}")
