"""imgsortd's systemd files: their texts, their installation, and the commands that follow it.

The commands are one list, which ``service install`` prints and ``service install --now`` runs.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imgsortd.errors import ConfigError, ImgsortdError

MARKER = "# Written by imgsortd service install; do not edit. sha256 of the rest: "

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

ROOT = "root"
ACCOUNT = "imgsortd"

# What another account's process gets of root's environment: what a terminal, a language and
# a way into the network need. Root's own folders and secrets are none of its business.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_PASSED_ON = {
    *("PATH", "TERM", "COLUMNS", "LANG", "LC_ALL", "LC_CTYPE", "SSL_CERT_FILE"),
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
}


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
        Only units, for a person's own service manager: below ``XDG_CONFIG_HOME`` of ``environ``.
    executable, config_file
        Full paths of the program ``imgsortd`` that the unit starts, and of what it reads.
    root
        Goes before every path, like DESTDIR in a Makefile.
    cuda
        Add the drop-in that lets the system service reach a GPU.

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
    """Return what is there of what `install_units` writes, the unit first, if all of it is ours."""
    found = [path for path in _places(environ, root, user=user).values() if os.path.lexists(path)]
    _refuse_foreign(found)
    return found


def uninstall_units(
    *, user: bool, environ: Mapping[str, str], root: Path = Path("/")
) -> list[Path]:
    """Remove what `install_units` wrote; return what was there, the unit first.

    Pictures, database, cache, folders and the user account stay; so do all files, with a
    ConfigError, where somebody else wrote or changed one.
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
        For a person's own service manager, which needs neither of the folders.
    data_dir
        The one folder above inbox and target (`common_folder`); None: the shipped one.

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
    text = _with_paths(shipped_text(UNIT), command, data_dir, state_dir, SHIPPED_CACHE)
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
    text = _with_paths(shipped_text(WEB_UNIT), command, data_dir, state_dir)
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


def _with_paths(text: str, command: str, data_dir: Path, *others: Path) -> str:
    """Put in what is run, and the folders in which nothing may be: data_dir and others."""
    folders = (data_dir, *others)
    text = _with_value(text, "ExecStart", command)
    text = _with_value(text, "RequiresMountsFor", quoted(data_dir))
    text = _with_value(text, "NoExecPaths", " ".join(map(quoted, folders)))
    if any(_is_below(folder, _HOMES) for folder in folders):
        text = _with_value(text, "ProtectHome", "tmpfs")
    return text


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
    in_tmp = [path for path in (data_dir, state_dir) if _is_below(path, _TEMPORARY)]
    for path in (executable, config_file, *in_tmp):
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


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _is_too_wide(folder: Path) -> bool:
    """Tell whether write access here would reach the system or the whole of somebody's home."""
    whole_home = folder.parent in (Path("/home"), Path("/run/user"))
    shared = folder in (*_SHARED, *_SHARED_IN_VAR, *_HOMES, *_TEMPORARY)
    return whole_home or shared or _is_below(folder, _SYSTEM + _PROGRAMS)


@dataclass(frozen=True, slots=True)
class Command:
    """A command, what a person does when it fails, and whose rights it needs.

    ``account`` is None for those of whoever types it.
    """

    argv: tuple[str, ...]
    advice: str
    account: str | None = None

    @property
    def line(self) -> str:
        """The command as a person types it into a shell."""
        rights = {None: "", ROOT: "sudo "}.get(self.account, f"sudo -u {self.account} ")
        return rights + shlex.join(self.argv)


def install_steps(
    *, user: bool, executable: Path, config_file: Path, web: bool = False
) -> list[Command]:
    """List what starts the service after `install_units`, in the order in which it works.

    The folders need the user who owns them, and the weights need the folders: the service
    has no network, so it cannot get them later.
    """
    fetch = (str(executable), "weights", "fetch", "--config", str(config_file))
    units = (UNIT, WEB_UNIT) if web else (UNIT,)
    return _person_steps(fetch, units) if user else _system_steps(fetch, units, config_file)


def _system_steps(
    fetch: tuple[str, ...], units: tuple[str, ...], config_file: Path
) -> list[Command]:
    return [
        Command(
            ("systemd-sysusers", "imgsortd.conf"),
            f"it makes the user {ACCOUNT}; mend what its message names, most often a disk that "
            f"is full or read-only",
            ROOT,
        ),
        Command(
            ("systemd-tmpfiles", "--create", "imgsortd.conf"),
            "it makes the folders; mend what its message names. An unsafe path transition is "
            "an inbox, target or state_dir inside another user's folder: choose a place that "
            "belongs to root, such as /srv/imgsortd",
            ROOT,
        ),
        Command(
            ("env", f"CACHE_DIRECTORY={SHIPPED_CACHE}", *fetch),
            f"mend what its message names. The user {ACCOUNT} must be allowed to read "
            f"{config_file}, and a download needs the network this one time",
            ACCOUNT,
        ),
        Command(
            ("systemctl", "daemon-reload"),
            "look with `systemctl is-system-running` whether systemd runs this machine; where "
            "it does not, as in most containers, `imgsortd run` runs the daemon in a terminal",
            ROOT,
        ),
        Command(("systemctl", "enable", *units), "mend what its message names", ROOT),
        # Not "enable --now": that leaves a service alone which runs with the former units.
        Command(("systemctl", "restart", *units), _why_not_started(units), ROOT),
    ]


def _person_steps(fetch: tuple[str, ...], units: tuple[str, ...]) -> list[Command]:
    name, systemctl = _own_name(), ("systemctl", "--user")
    return [
        Command(fetch, "mend what its message names. A download needs the network this one time"),
        Command((*systemctl, "daemon-reload"), _no_manager(name)),
        Command((*systemctl, "enable", *units), "mend what its message names"),
        Command((*systemctl, "restart", *units), _why_not_started(units, "--user")),
        Command(
            ("loginctl", "enable-linger", name),
            f"the service runs, but only while you are logged in; somebody who may use sudo can "
            f"change that with `sudo loginctl enable-linger {name}`",
        ),
    ]


def uninstall_steps(*, user: bool, web: bool = False) -> tuple[Command, Command]:
    """Return what stops the services for good, and what makes systemd forget their units."""
    systemctl = ("systemctl", "--user") if user else ("systemctl",)
    account = None if user else ROOT
    units = (UNIT, WEB_UNIT) if web else (UNIT,)
    advice = (
        _no_manager(_own_name())
        if user
        else "mend what its message names. Where systemd does not run, leave --now out"
    )
    return (
        Command((*systemctl, "disable", "--now", *units), advice, account),
        Command((*systemctl, "daemon-reload"), advice, account),
    )


def watch_line(*, user: bool) -> str:
    """Return the command that shows the daemon's log as it is written."""
    return f"journalctl {'--user ' if user else ''}-u {UNIT} -f"


def require_rights(command: str, *, user: bool, uid: int) -> None:
    """Refuse to begin with steps of which the first would already fail.

    Raises
    ------
    ImgsortdError
        The system service was meant, and it is not root who asks.
    """
    if not user and uid != 0:
        raise ImgsortdError(
            f"{command}: expected root, got user id {uid}; run the command with sudo, or use "
            f"--user for a service of your own. Nothing was changed"
        )


def run_step(step: Command) -> int:
    """Run one command in this terminal, with the rights it needs; return its exit status.

    Root drops its rights itself, as a small system may have no sudo.
    """
    if step.account in (None, ROOT):
        return subprocess.run(step.argv, check=False).returncode
    person = pwd.getpwnam(step.account)
    passed_on = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    process = subprocess.Popen(
        step.argv,
        user=person.pw_uid,
        group=person.pw_gid,
        extra_groups=os.getgrouplist(person.pw_name, person.pw_gid),
        env=passed_on | {"HOME": person.pw_dir, "USER": person.pw_name, "LOGNAME": person.pw_name},
        cwd="/",
        stdin=subprocess.DEVNULL,
        # In root's own session it could type commands into root's terminal (TIOCSTI).
        start_new_session=True,
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        # There it does not hear Ctrl-C either; killed, it would leave half a download behind.
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def run_steps(
    steps: Iterable[Command],
    *,
    show: Callable[[str], None],
    run: Callable[[Command], int] = run_step,
) -> None:
    """Run the commands one after the other, up to the first that fails.

    Parameters
    ----------
    show
        Told each command's line before it runs.

    Raises
    ------
    ImgsortdError
        A command failed; with what it was, how it ended and what to do.
    """
    for step in steps:
        show(step.line)
        try:
            status = run(step)
        except FileNotFoundError as error:
            advice = (
                "a service needs systemd, which brings this program; where there is none, "
                "`imgsortd run` runs the daemon in a terminal"
            )
            came = f"there is no program {error.filename} on this machine"
            raise _stopped(step, came, advice) from error
        except OSError as error:
            raise _stopped(step, f"cannot be run ({error.strerror})", step.advice) from error
        except LookupError as error:
            came = f"there is no user {step.account} on this machine"
            raise _stopped(step, came, step.advice) from error
        if status:
            raise _stopped(step, _how_it_ended(status), step.advice)


def _stopped(step: Command, came: str, advice: str) -> ImgsortdError:
    return ImgsortdError(
        f"stopped at `{step.line}`: {came}\n"
        f"what to do: {advice}\n"
        f"then run the same command again; what was done so far stays, the rest was not begun"
    )


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name} ended it"
    return f"it ended with exit status {status}, and what it said is above"


def _why_not_started(units: tuple[str, ...], *manager: str) -> str:
    status = " ".join(("systemctl", *manager, "status", *units))
    log = " ".join(("journalctl", *manager, *(f"-u {unit}" for unit in units), "-n 20"))
    return f"`{status}` and `{log}` say why it did not start; mend that"


def _no_manager(name: str) -> str:
    return (
        f"if it cannot connect, you have no service manager of your own here, as after sudo, su "
        f"or in a cron job: log in directly as {name}. Or type "
        f"`sudo loginctl enable-linger {name}` and `export XDG_RUNTIME_DIR=/run/user/{os.getuid()}`"
    )


def _own_name() -> str:
    """Return the name of who runs this; loginctl takes the number of somebody without one."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
