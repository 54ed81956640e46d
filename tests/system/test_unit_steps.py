"""The commands from written units to a running service: what is printed is what is run."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsortd.errors import ImgsortdError
from imgsortd.system.units import (
    Command,
    install_steps,
    require_rights,
    run_step,
    run_steps,
    uninstall_steps,
    watch_line,
)
from support import wait_until

PROGRAM = Path("/usr/lib/imgsortd/venv/bin/imgsortd")
CONFIG = Path("/etc/my config.yaml")
NAME = pwd.getpwuid(os.getuid()).pw_name

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def lines(*, user: bool, web: bool = False) -> list[str]:
    steps = install_steps(user=user, executable=PROGRAM, config_file=CONFIG, web=web)
    return [step.line for step in steps]


def ending_with(statuses: dict[str, int], called: list[str]) -> Callable[[Command], int]:
    """Make a runner that runs nothing: each command ends as its second word is listed."""

    def run(step: Command) -> int:
        called.append(step.line)
        return statuses.get(step.argv[1], 0)

    return run


def test_the_system_s_steps_go_from_the_user_to_the_start() -> None:
    assert lines(user=False) == [
        "sudo systemd-sysusers imgsortd.conf",
        "sudo systemd-tmpfiles --create imgsortd.conf",
        "sudo -u imgsortd env CACHE_DIRECTORY=/var/cache/imgsortd "
        f"{PROGRAM} weights fetch --config '/etc/my config.yaml'",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable imgsortd.service",
        "sudo systemctl restart imgsortd.service",
    ]


def test_a_person_s_steps_need_no_root_and_name_the_person() -> None:
    assert lines(user=True) == [
        f"{PROGRAM} weights fetch --config '/etc/my config.yaml'",
        "systemctl --user daemon-reload",
        "systemctl --user enable imgsortd.service",
        "systemctl --user restart imgsortd.service",
        f"loginctl enable-linger {NAME}",
    ]


@pytest.mark.parametrize(
    ("user", "before"), [(False, "sudo systemctl"), (True, "systemctl --user")]
)
def test_the_page_is_started_with_the_daemon(user: bool, before: str) -> None:
    both = "imgsortd.service imgsortd-web.service"

    found = [line for line in lines(user=user, web=True) if "web" in line]

    assert found == [f"{before} enable {both}", f"{before} restart {both}"]


def test_the_services_are_stopped_and_then_forgotten() -> None:
    system = [step.line for step in uninstall_steps(user=False, web=True)]
    person = [step.line for step in uninstall_steps(user=True)]

    assert system == [
        "sudo systemctl disable --now imgsortd.service imgsortd-web.service",
        "sudo systemctl daemon-reload",
    ]
    assert person == [
        "systemctl --user disable --now imgsortd.service",
        "systemctl --user daemon-reload",
    ]


def test_the_log_is_that_of_the_right_manager() -> None:
    assert watch_line(user=False) == "journalctl -u imgsortd.service -f"
    assert watch_line(user=True) == "journalctl --user -u imgsortd.service -f"


def test_each_step_is_shown_before_it_runs() -> None:
    told: list[str] = []
    steps = install_steps(user=False, executable=PROGRAM, config_file=CONFIG)

    run_steps(steps, show=lambda line: told.append(f"shown {line}"), run=ending_with({}, told))

    expected = [each for step in steps for each in (f"shown {step.line}", step.line)]
    assert told == expected


def test_the_first_step_that_fails_is_the_last_and_says_what_to_do() -> None:
    called: list[str] = []
    steps = install_steps(user=False, executable=PROGRAM, config_file=CONFIG)

    with pytest.raises(ImgsortdError) as caught:
        run_steps(steps, show=lambda _: None, run=ending_with({"--create": 73}, called))

    assert called == [step.line for step in steps[:2]]
    assert str(caught.value).splitlines() == [
        "stopped at `sudo systemd-tmpfiles --create imgsortd.conf`: it ended with exit status "
        "73, and what it said is above",
        f"what to do: {steps[1].advice}",
        "then run the same command again; what was done so far stays, the rest was not begun",
    ]
    assert caught.value.exit_code == 1


def test_a_service_that_does_not_start_is_looked_up_in_status_and_log() -> None:
    steps = install_steps(user=False, executable=PROGRAM, config_file=CONFIG, web=True)

    with pytest.raises(ImgsortdError) as caught:
        run_steps(steps, show=lambda _: None, run=ending_with({"restart": 1}, []))

    assert (
        "`systemctl status imgsortd.service imgsortd-web.service` and "
        "`journalctl -u imgsortd.service -u imgsortd-web.service -n 20`" in str(caught.value)
    )


def test_a_person_without_a_service_manager_learns_how_to_get_one() -> None:
    steps = install_steps(user=True, executable=PROGRAM, config_file=CONFIG)

    def run(step: Command) -> int:
        return 1 if step.argv[:2] == ("systemctl", "--user") else 0

    with pytest.raises(ImgsortdError) as caught:
        run_steps(steps, show=lambda _: None, run=run)

    assert "stopped at `systemctl --user daemon-reload`" in str(caught.value)
    assert f"log in directly as {NAME}" in str(caught.value)
    assert f"export XDG_RUNTIME_DIR=/run/user/{os.getuid()}" in str(caught.value)


def test_a_program_that_is_not_there_is_told_as_no_systemd() -> None:
    steps = [Command(("no-such-program-of-systemd",), "unused", "root")]

    with pytest.raises(ImgsortdError) as caught:
        run_steps(steps, show=lambda _: None)

    assert "there is no program no-such-program-of-systemd on this machine" in str(caught.value)
    assert "a service needs systemd" in str(caught.value)


def test_a_program_that_cannot_be_run_is_told_with_the_reason(tmp_path: Path) -> None:
    steps = [Command((str(tmp_path),), "look at it")]

    with pytest.raises(ImgsortdError, match=r"cannot be run \(Permission denied\)") as caught:
        run_steps(steps, show=lambda _: None)

    assert "what to do: look at it" in str(caught.value)


def test_a_user_that_is_not_there_is_told() -> None:
    steps = [Command(("true",), "make it", "nobody-of-this-name")]

    with pytest.raises(ImgsortdError, match="there is no user nobody-of-this-name"):
        run_steps(steps, show=lambda _: None)


@pytest.mark.parametrize(
    ("script", "told"),
    [("exit 3", "it ended with exit status 3"), ("kill -KILL $$", "signal SIGKILL ended it")],
)
def test_how_a_command_ended_is_told(script: str, told: str) -> None:
    with pytest.raises(ImgsortdError, match=told):
        run_steps([Command(("sh", "-c", script), "")], show=lambda _: None)


@needs_root
def test_the_service_s_command_has_its_user_s_rights_and_nothing_of_root_s(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_ROOT", "1")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    script = "id -un; id -Gn; pwd; test $(ps -o sid= -p $$) = $$ && echo alone; env"

    status = run_step(Command(("env", "CACHE_DIRECTORY=/cache", "sh", "-c", script), "", "nobody"))

    told = capfd.readouterr().out.splitlines()
    assert status == 0
    assert told[:4] == ["nobody", "nogroup", "/", "alone"]
    assert {"USER=nobody", "CACHE_DIRECTORY=/cache", "https_proxy=http://proxy:3128"} <= set(told)
    assert not any(line.startswith(("SECRET", "HOME=/root")) for line in told)


@needs_root
def test_ctrl_c_reaches_the_service_s_command_and_is_waited_for() -> None:
    script = "trap 'echo tidied; exit 1' INT; echo begun; for _ in $(seq 400); do sleep 0.05; done"
    # In the background of a script, as tests may run, Ctrl-C is ignored, and that is inherited.
    program = (
        "import signal\n"
        "from imgsortd.system.units import Command, run_step\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"run_step(Command(('sh', '-c', {script!r}), '', 'nobody'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        # Only there is it told of Ctrl-C; a busy machine may still be on the way.
        wait_until(lambda: " S " in Path(f"/proc/{process.pid}/stat").read_text())

        process.send_signal(signal.SIGINT)

        assert process.stdout.readline() == "tidied\n"
        assert process.wait(timeout=30) != 0


def test_the_system_service_is_root_s_to_start() -> None:
    with pytest.raises(ImgsortdError, match=r"got user id 1000; run the command with sudo"):
        require_rights("service install --now", user=False, uid=1000)

    require_rights("service install --now", user=False, uid=0)
    require_rights("service install --now", user=True, uid=1000)
