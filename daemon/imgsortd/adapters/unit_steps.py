"""What follows the written units: the commands from there to a running service, and back.

They are one list, which ``service install`` prints and ``service install --now`` runs.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from imgsortd.adapters.unit_text import SHIPPED_CACHE, UNIT, WEB_UNIT
from imgsortd.errors import ImgsortdError

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


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes
    ----------
    argv
        The program and what it is given.
    advice
        What a person does when it fails.
    account
        Whose rights it needs; None: those of whoever types it.
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
) -> list[Step]:
    """List what starts the service after `install_units`, in the order in which it works.

    The folders need the user who owns them, and the weights need the folders: the service
    has no network, so it cannot get them later.

    Parameters
    ----------
    user
        True: for a person's own service manager.
    executable, config_file
        The program that fetches the weights, and the configuration that names them.
    web
        True: the web page is started, too.
    """
    fetch = (str(executable), "weights", "fetch", "--config", str(config_file))
    units = (UNIT, WEB_UNIT) if web else (UNIT,)
    return _person_steps(fetch, units) if user else _system_steps(fetch, units, config_file)


def _system_steps(fetch: tuple[str, ...], units: tuple[str, ...], config_file: Path) -> list[Step]:
    return [
        Step(
            ("systemd-sysusers", "imgsortd.conf"),
            f"it makes the user {ACCOUNT}; mend what its message names, most often a disk that "
            f"is full or read-only",
            ROOT,
        ),
        Step(
            ("systemd-tmpfiles", "--create", "imgsortd.conf"),
            "it makes the folders; mend what its message names. An unsafe path transition is "
            "an inbox, target or state_dir inside another user's folder: choose a place that "
            "belongs to root, such as /srv/imgsortd",
            ROOT,
        ),
        Step(
            ("env", f"CACHE_DIRECTORY={SHIPPED_CACHE}", *fetch),
            f"mend what its message names. The user {ACCOUNT} must be allowed to read "
            f"{config_file}, and a download needs the network this one time",
            ACCOUNT,
        ),
        Step(
            ("systemctl", "daemon-reload"),
            "look with `systemctl is-system-running` whether systemd runs this machine; where "
            "it does not, as in most containers, `imgsortd run` runs the daemon in a terminal",
            ROOT,
        ),
        Step(("systemctl", "enable", *units), "mend what its message names", ROOT),
        # Not "enable --now": that leaves a service alone which runs with the former units.
        Step(("systemctl", "restart", *units), _why_not_started(units), ROOT),
    ]


def _person_steps(fetch: tuple[str, ...], units: tuple[str, ...]) -> list[Step]:
    name, systemctl = _own_name(), ("systemctl", "--user")
    return [
        Step(fetch, "mend what its message names. A download needs the network this one time"),
        Step((*systemctl, "daemon-reload"), _no_manager(name)),
        Step((*systemctl, "enable", *units), "mend what its message names"),
        Step((*systemctl, "restart", *units), _why_not_started(units, "--user")),
        Step(
            ("loginctl", "enable-linger", name),
            f"the service runs, but only while you are logged in; somebody who may use sudo can "
            f"change that with `sudo loginctl enable-linger {name}`",
        ),
    ]


def uninstall_steps(*, user: bool, web: bool = False) -> tuple[Step, Step]:
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
        Step((*systemctl, "disable", "--now", *units), advice, account),
        Step((*systemctl, "daemon-reload"), advice, account),
    )


def watch_line(*, user: bool) -> str:
    """Return the command that shows the daemon's log as it is written."""
    return f"journalctl {'--user ' if user else ''}-u {UNIT} -f"


def require_rights(command: str, *, user: bool, uid: int) -> None:
    """Refuse to begin with steps of which the first would already fail.

    Parameters
    ----------
    command
        What is to be run, for the error.
    user
        True: for a person's own service manager, which needs no root.
    uid
        Who asks.

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


def run_step(step: Step) -> int:
    """Run one command in this terminal, with the rights it needs; return its exit status.

    Root drops its rights itself, as a small system may have no sudo.

    Raises
    ------
    OSError
        The program is not there or cannot be run.
    LookupError
        There is no such account.
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
    steps: Iterable[Step], *, show: Callable[[str], None], run: Callable[[Step], int] = run_step
) -> None:
    """Run the commands one after the other, up to the first that fails.

    Parameters
    ----------
    steps
        In order.
    show
        Told each command's line before it runs.
    run
        Runs one command and returns its exit status, as `run_step` does.

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


def _stopped(step: Step, came: str, advice: str) -> ImgsortdError:
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
