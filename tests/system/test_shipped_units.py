"""The shipped systemd files: what systemd says of them, and what they promise."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from imgsortd.system.units import render_unit, render_web_unit

SERVICE = Path(__file__).parents[2] / "service"
SYSTEM_UNIT = (SERVICE / "imgsortd.service").read_text()
USER_UNIT = (SERVICE / "imgsortd-user.service").read_text()
WEB_UNIT = (SERVICE / "imgsortd-web.service").read_text()
WEB_USER_UNIT = (SERVICE / "imgsortd-web-user.service").read_text()
CUDA = (SERVICE / "imgsortd-cuda.conf").read_text()
# On every machine and no shell built-in: verify only asks whether the program can be run.
PROGRAM = Path("/bin/true")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def rendered(
    data_dir: str, state_dir: str = "/var/lib/imgsortd", user: bool = False, web: bool = False
) -> str:
    return (render_web_unit if web else render_unit)(
        user=user,
        executable=PROGRAM,
        config_file=Path("/etc/imgsortd/100% odd $HOME.yaml"),
        data_dir=Path(data_dir),
        state_dir=Path(state_dir),
    )


def runnable(text: str) -> str:
    """Name a program that is there, as imgsortd itself is not installed in a test."""
    return re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={PROGRAM}", text)


def analyze(*arguments: str, runtime_dir: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ |= {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(runtime_dir), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def complaints(text: str, tmp_path: Path, user: bool = False) -> list[str]:
    """What verify says of this unit; lines on units of the machine itself are not ours."""
    unit = tmp_path / ("imgsortd-web.service" if "web page" in text else "imgsortd.service")
    unit.write_text(text)
    done = analyze("verify", *(["--user"] if user else []), str(unit), runtime_dir=tmp_path)
    said = [line for line in done.stderr.splitlines() if "imgsortd" in line]
    return said or ([done.stderr] if done.returncode else [])


def exposure(text: str, tmp_path: Path, threshold: int) -> float:
    """The measure of systemd, from 0 (locked in) to 10; above threshold/10 it also fails."""
    unit = tmp_path / "imgsortd.service"
    unit.write_text(text)
    done = analyze(
        "security", "--offline=true", f"--threshold={threshold}", str(unit), runtime_dir=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


SYSTEM_UNITS = {
    "shipped": SYSTEM_UNIT,
    "other paths": rendered("/data/our pictures", "/data/state"),
    "inbox in a home": rendered("/home/ann/pictures"),
}


WEB_UNITS = {
    "shipped": WEB_UNIT,
    "other paths": rendered("/data/our pictures", "/data/state", web=True),
    "state among the pictures": rendered("/data/pictures", "/data/pictures/state", web=True),
    "inbox in a home": rendered("/home/ann/pictures", web=True),
    "all in a home": rendered("/home/ann/pictures", "/home/ann/pictures/state", web=True),
}


@needs_systemd
@pytest.mark.parametrize("text", WEB_UNITS.values(), ids=WEB_UNITS)
def test_systemd_has_nothing_to_say_about_the_web_unit(text: str, tmp_path: Path) -> None:
    assert complaints(runnable(text), tmp_path) == []


@needs_systemd
@pytest.mark.parametrize("text", WEB_UNITS.values(), ids=WEB_UNITS)
def test_the_exposure_of_the_web_unit_is_at_most_one_point(text: str, tmp_path: Path) -> None:
    assert exposure(text, tmp_path, threshold=10) <= 1.0


@pytest.mark.parametrize("text", WEB_UNITS.values(), ids=WEB_UNITS)
def test_the_page_may_write_its_state_alone_and_is_reached_from_this_machine_alone(
    text: str,
) -> None:
    settings = [line for line in text.splitlines() if "=" in line and line[0] != "#"]

    writable = [
        line for line in settings if line.startswith(("ReadWritePaths=", "BindPaths=", "StateDir"))
    ]
    assert len([line for line in writable if "Mode" not in line]) == 1
    assert all("state" in line.lower() for line in writable)
    readable = [line for line in settings if "ReadOnlyPaths=" in line]
    assert len(readable) == 2
    assert "ReadOnlyPaths=/run" in readable
    assert {"IPAddressDeny=any", "IPAddressAllow=localhost", "MemoryDenyWriteExecute=yes"} <= set(
        settings
    )
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6" in settings
    assert "imgsortd web --config" in text or "/bin/true web --config" in text


@needs_systemd
@pytest.mark.parametrize("text", SYSTEM_UNITS.values(), ids=SYSTEM_UNITS)
def test_systemd_has_nothing_to_say_about_the_system_unit(text: str, tmp_path: Path) -> None:
    assert complaints(runnable(text), tmp_path) == []


@needs_systemd
@pytest.mark.parametrize(
    "text",
    [USER_UNIT, rendered("/", user=True), WEB_USER_UNIT, rendered("/", user=True, web=True)],
    ids=["shipped", "rendered", "shipped web", "rendered web"],
)
def test_systemd_has_nothing_to_say_about_the_user_unit(text: str, tmp_path: Path) -> None:
    assert complaints(runnable(text), tmp_path, user=True) == []


@needs_systemd
def test_the_check_sees_a_wrong_setting(tmp_path: Path) -> None:
    wrong = runnable(SYSTEM_UNIT).replace("ProtectSystem=strict", "ProtectSystem=strickt")

    assert "strickt" in " ".join(complaints(wrong, tmp_path))


def lines_read(text: str, tmp_path: Path) -> list[str]:
    """Each setting as systemd understood it: with debug logs, verify dumps the unit."""
    unit = tmp_path / "imgsortd.service"
    unit.write_text(text)
    done = analyze("verify", str(unit), runtime_dir=tmp_path, SYSTEMD_LOG_LEVEL="debug")
    return [line.strip() for line in done.stdout.splitlines()]


@needs_systemd
def test_systemd_reads_back_the_oddest_path(tmp_path: Path) -> None:
    odd = "o d%d\"q\\ü$HOME;#:'"

    read = lines_read(rendered(f"/srv/{odd}", f"/data/{odd}"), tmp_path)
    at_home = lines_read(rendered(f"/home/ann/{odd}"), tmp_path)

    if not any(line.startswith("NoExecPaths:") for line in read):
        pytest.skip("this systemd-analyze does not print what it read")
    assert f"RequiresMountsFor: /srv/{odd} (origin-file)" in read
    assert f"ReadWritePaths: /srv/{odd} /data/{odd}" in read
    assert f"NoExecPaths: /srv/{odd} /data/{odd} /var/cache/imgsortd" in read
    assert f"BindPaths: /home/ann/{odd}:/home/ann/{odd}:rbind" in at_home
    assert any(r"/100% odd \$\$HOME.yaml" in line for line in read)


@needs_systemd
@pytest.mark.parametrize("text", SYSTEM_UNITS.values(), ids=SYSTEM_UNITS)
def test_the_exposure_of_the_system_unit_is_at_most_half_a_point(text: str, tmp_path: Path) -> None:
    assert exposure(text, tmp_path, threshold=5) <= 0.5


@needs_systemd
def test_the_exposure_with_a_gpu_is_at_most_half_a_point_too(tmp_path: Path) -> None:
    drop_in = tmp_path / "imgsortd.service.d" / "cuda.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(CUDA)

    assert complaints(runnable(SYSTEM_UNIT), tmp_path) == []
    assert exposure(SYSTEM_UNIT, tmp_path, threshold=5) <= 0.5


@needs_systemd
def test_the_exposure_with_leases_on_others_files_is_at_most_half_a_point_too(
    tmp_path: Path,
) -> None:
    section = (SERVICE / "README.md").read_text().partition("## Files of other users")[2]
    drop_in = tmp_path / "imgsortd.service.d" / "leases.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(section.split("```ini\n")[1].split("```")[0])

    assert complaints(runnable(SYSTEM_UNIT), tmp_path) == []
    assert exposure(SYSTEM_UNIT, tmp_path, threshold=5) <= 0.5


def without_reason(text: str) -> list[str]:
    """The settings of [Service] that stand without a comment on the line above."""
    section = text.split("[Service]\n")[1].split("\n[")[0].splitlines()
    pairs = zip(["", *section], section, strict=False)
    return [line for above, line in pairs if "=" in line and line[0] != "#" and above[:1] != "#"]


@pytest.mark.parametrize(
    "text",
    [*SYSTEM_UNITS.values(), *WEB_UNITS.values(), USER_UNIT, WEB_USER_UNIT, CUDA],
    ids=[*SYSTEM_UNITS, *(f"web, {name}" for name in WEB_UNITS), "user", "web user", "cuda"],
)
def test_every_setting_has_its_reason_on_the_line_above(text: str) -> None:
    assert without_reason(text) == []


@pytest.mark.parametrize("text", [SYSTEM_UNIT, USER_UNIT], ids=["system", "user"])
@pytest.mark.parametrize(
    "promise",
    [
        "Type=notify",
        "NotifyAccess=main",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "RestartPreventExitStatus=78",
        "MemoryDenyWriteExecute=no",
        "RestrictAddressFamilies=AF_UNIX",
        "Nice=10",
        "IOSchedulingClass=best-effort",
        "IOSchedulingPriority=7",
    ],
)
def test_both_units_keep_the_promise(text: str, promise: str) -> None:
    assert promise in text.splitlines()


def test_one_path_holds_inbox_and_target_or_every_move_becomes_a_copy() -> None:
    writable = [
        line
        for line in SYSTEM_UNIT.splitlines()
        if line.startswith(("ReadWritePaths=", "BindPaths="))
    ]

    assert writable == ["ReadWritePaths=/srv/imgsortd"]


@pytest.mark.parametrize("text", [SYSTEM_UNIT, USER_UNIT], ids=["system", "user"])
def test_sorting_gives_way_but_is_never_starved(text: str) -> None:
    settings = {line for line in text.splitlines() if line[:1] != "#"}

    assert settings & {"CPUWeight=20", "Slice=background.slice"}
    assert not {s for s in settings if s.endswith("=idle") or s.startswith("CPUSchedulingPolicy=")}


def test_torch_chooses_its_own_number_of_threads() -> None:
    assert "OMP_NUM_THREADS" not in SYSTEM_UNIT + USER_UNIT


@pytest.mark.parametrize("text", [USER_UNIT, WEB_USER_UNIT], ids=["daemon", "web"])
def test_the_user_unit_asks_for_nothing_that_only_root_can_do(text: str) -> None:
    keys = {line.partition("=")[0] for line in text.splitlines()}

    assert not keys & {"User", "Group", "PrivateUsers", "ProtectSystem", "PrivateNetwork"}
    assert "WantedBy=default.target" in text


@pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None or os.geteuid() != 0,
    reason="systemd-sysusers is not on this machine, or needs root",
)
def test_sysusers_makes_an_account_that_nobody_can_log_in_to(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    rules = SERVICE / "sysusers.d" / "imgsortd.conf"

    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", rules], check=True, timeout=60)

    account = (tmp_path / "etc" / "passwd").read_text().strip().split(":")
    assert (account[0], *account[5:]) == ("imgsortd", "/var/lib/imgsortd", "/usr/sbin/nologin")
