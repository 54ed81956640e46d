"""``service install --now`` and ``service uninstall --now``, with stand-ins for systemd's programs.

They run as a person's own service: the system's would write into this machine's /etc.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import warm
from support import make_config

NAME = pwd.getpwuid(os.getuid()).pw_name
STARTED = [
    "systemctl --user daemon-reload",
    "systemctl --user enable imgsortd.service",
    "systemctl --user restart imgsortd.service",
    f"loginctl enable-linger {NAME}",
]


@dataclass(frozen=True, slots=True)
class Machine:
    """A home, and a folder of programs that note how they were called."""

    home: Path

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.home / "config.yaml"

    @property
    def unit(self) -> Path:
        """Where the person's unit is written."""
        return self.home / "conf/systemd/user/imgsortd.service"

    def put_program(self, name: str, fails_at: str = "no word") -> None:
        """Make a stand-in; called with the word, it complains and ends with status 5."""
        program = self.home / "bin" / name
        program.parent.mkdir(exist_ok=True)
        there = f"test -e {self.unit} && echo unit || echo no unit"
        program.write_text(
            "#!/bin/sh\n"
            f'echo "{name} $*" >> {self.home}/calls\n'
            f"({there}) >> {self.home}/found\n"
            f'case " $* " in *" {fails_at} "*) echo "{name} is not content" >&2; exit 5;; esac\n'
        )
        program.chmod(0o755)

    def type(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Type ``imgsortd service`` and the words; only the stand-ins are found."""
        environ = {"XDG_CONFIG_HOME": str(self.home / "conf"), "PATH": str(self.home / "bin")}
        return warm.run([warm.QUICK, "service", *map(str, words)], {"COLUMNS": "120", **environ})

    def calls(self) -> list[str]:
        """How the programs were called, in order."""
        told = self.home / "calls"
        return told.read_text().splitlines() if told.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    for name in ("systemctl", "loginctl"):
        machine.put_program(name)
    make_config(tmp_path)
    return machine


def with_weights(machine: Machine, weights: Path) -> None:
    make_config(machine.home, model={"weights": str(weights)})


def test_install_now_runs_the_steps_that_it_else_prints_up_to_the_first_that_fails(
    machine: Machine, conv_weights: Path
) -> None:
    with_weights(machine, conv_weights)
    machine.put_program("systemctl", fails_at="restart")

    printed = machine.type("install", "--user", "-c", machine.config)
    calls_before = machine.calls()
    failed = machine.type("install", "--user", "--now", "-c", machine.config)
    machine.put_program("systemctl")
    again = machine.type("install", "--user", "--now", "-c", machine.config)

    assert calls_before == []
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-4:] == [
        "systemctl is not content",
        "imgsortd: stopped at `systemctl --user restart imgsortd.service`: it ended with exit "
        "status 5, and what it said is above",
        "imgsortd: what to do: `systemctl --user status imgsortd.service` and "
        "`journalctl --user -u imgsortd.service -n 20` say why it did not start; mend that",
        "imgsortd: then run the same command again; what was done so far stays, the rest was "
        "not begun",
    ]
    assert "imgsortd.service runs" not in failed.stdout
    assert again.returncode == 0, again.stderr
    assert machine.calls() == [*STARTED[:3], *STARTED]
    to_type = [line.strip() for line in printed.stdout.partition("now type:\n")[2].splitlines()]
    run = [
        line.removeprefix("running  ")
        for line in again.stdout.splitlines()
        if line.startswith("running")
    ]
    assert run == to_type[:-1]
    assert run[1:] == STARTED
    assert f"from file {conv_weights}" in again.stdout
    assert again.stdout.splitlines()[-2:] == [
        f"imgsortd.service runs; put pictures into {machine.home / 'inbox'}",
        f"to watch it:  {to_type[-1]}",
    ]


def test_weights_that_are_not_there_stop_it_before_systemd(machine: Machine) -> None:
    with_weights(machine, machine.home / "none.safetensors")

    result = machine.type("install", "--user", "--now", "-c", machine.config)

    assert result.returncode == 1
    assert "none.safetensors" in result.stderr
    assert "weights fetch" in result.stderr.partition("stopped at")[2]
    assert machine.calls() == []


def test_folders_that_are_not_there_are_found_before_anything_is_written(machine: Machine) -> None:
    (machine.home / "target").rmdir()

    result = machine.type("install", "--user", "--now", "-c", machine.config)

    assert result.returncode == 78
    assert "mkdir -p" in result.stderr
    assert (machine.unit.exists(), machine.calls()) == (False, [])


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_now_in_another_root_is_wrong_usage(machine: Machine, command: str) -> None:
    config = ["-c", machine.config] if command == "install" else []

    result = machine.type(command, "--now", "--root", machine.home / "root", *config)

    assert result.returncode == 2
    assert "expected no --root" in result.stderr
    assert not (machine.home / "root").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="asks what somebody without root is told")
@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_the_system_service_without_root_is_refused_at_once(machine: Machine, command: str) -> None:
    config = ["-c", machine.config] if command == "install" else []

    result = machine.type(command, "--now", *config)

    assert result.returncode == 1
    assert "run the command with sudo, or use --user" in result.stderr
    assert machine.calls() == []


def test_uninstall_now_stops_the_service_while_systemd_still_finds_it(machine: Machine) -> None:
    machine.type("install", "--user", "--web", "-c", machine.config)

    result = machine.type("uninstall", "--user", "--now")

    assert result.returncode == 0, result.stderr
    assert machine.calls() == [
        "systemctl --user disable --now imgsortd.service imgsortd-web.service",
        "systemctl --user daemon-reload",
    ]
    assert (machine.home / "found").read_text() == "unit\nno unit\n"
    assert list(machine.unit.parent.iterdir()) == []
    assert all((machine.home / name).is_dir() for name in ("inbox", "state", "target"))
    assert machine.type("uninstall", "--user", "--now").stdout == "nothing to remove\n"


def test_a_service_that_cannot_be_stopped_is_not_removed(machine: Machine) -> None:
    machine.type("install", "--user", "-c", machine.config)
    machine.put_program("systemctl", fails_at="disable")

    result = machine.type("uninstall", "--user", "--now")

    assert result.returncode == 1
    assert "stopped at `systemctl --user disable --now imgsortd.service`" in result.stderr
    assert machine.unit.exists()


def test_uninstall_without_now_prints_the_steps(machine: Machine) -> None:
    machine.type("install", "--user", "-c", machine.config)

    result = machine.type("uninstall", "--user")

    assert result.stdout.splitlines() == [
        f"removed  {machine.unit}",
        "now type:",
        "  systemctl --user disable --now imgsortd.service",
        "  systemctl --user daemon-reload",
    ]
    assert machine.calls() == []
