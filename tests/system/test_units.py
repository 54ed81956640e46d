"""Writing and removing the systemd files, in a root folder of the test's own."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from imgsortd.errors import ConfigError, ImgsortdError
from imgsortd.system.units import MARKER, install_units, uninstall_units

PROGRAM = Path("/usr/lib/imgsortd/venv/bin/imgsortd")
ENVIRON = {"HOME": "/home/ann"}
UNIT = "etc/systemd/system/imgsortd.service"
SYSTEM_FILES = [UNIT, "etc/sysusers.d/imgsortd.conf", "etc/tmpfiles.d/imgsortd.conf"]
WEB_UNIT = "etc/systemd/system/imgsortd-web.service"
DROP_IN = "etc/systemd/system/imgsortd.service.d/cuda.conf"


def put_program(root: Path, program: Path = PROGRAM) -> None:
    found = root / program.relative_to("/")
    found.parent.mkdir(parents=True)
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put_program(tmp_path)
    return tmp_path


def install(root: Path, **changed: Any) -> list[str]:
    arguments: dict[str, Any] = {
        "user": False,
        "executable": PROGRAM,
        "config_file": Path("/etc/imgsortd/config.yaml"),
        "inbox": Path("/srv/imgsortd/inbox"),
        "target": Path("/srv/imgsortd/target"),
        "state_dir": Path("/var/lib/imgsortd"),
        "environ": ENVIRON,
        "root": root,
    }
    return [str(path.relative_to(root)) for path in install_units(**arguments | changed)]


def uninstall(root: Path, user: bool = False) -> list[str]:
    removed = uninstall_units(user=user, environ=ENVIRON, root=root)
    return [str(path.relative_to(root)) for path in removed]


def test_installed_files_are_removed_again_and_nothing_else(root: Path) -> None:
    before = sorted(path for path in root.rglob("*") if path.is_file())

    written = install(root, cuda=True)
    removed = uninstall(root)

    assert written == [*SYSTEM_FILES, DROP_IN]
    assert removed == written
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before
    assert uninstall(root) == []


def test_a_file_carries_the_mark_of_its_writer_and_can_be_read_by_all(root: Path) -> None:
    install(root)

    first, rest = (root / UNIT).read_bytes().split(b"\n", 1)

    assert first.decode() == MARKER + hashlib.sha256(rest).hexdigest()
    assert (root / UNIT).stat().st_mode & 0o777 == 0o644


def test_installing_again_renews_what_nobody_changed(root: Path) -> None:
    install(root)

    install(root, inbox=Path("/data/pictures/in"), target=Path("/data/pictures/out"))

    assert "ReadWritePaths=/data/pictures" in (root / UNIT).read_text().splitlines()
    assert (
        "d /data/pictures/in :2770 :imgsortd :imgsortd"
        in (root / "etc/tmpfiles.d/imgsortd.conf").read_text().splitlines()
    )


def test_the_page_s_unit_is_written_and_removed_with_the_daemon_s(root: Path) -> None:
    written = install(root, web=True)
    removed = uninstall(root)

    assert written == [*SYSTEM_FILES, WEB_UNIT]
    assert sorted(removed) == sorted(written)


def test_a_person_s_page_has_a_unit_beside_the_daemon_s(root: Path) -> None:
    folder = "home/ann/.config/systemd/user/"

    written = install(root, user=True, web=True)

    assert written == [f"{folder}imgsortd.service", f"{folder}imgsortd-web.service"]
    assert "web --config /etc/imgsortd/config.yaml" in (root / written[1]).read_text()


def test_a_person_s_unit_goes_where_that_person_s_units_are(root: Path) -> None:
    here = ["home/ann/.config/systemd/user/imgsortd.service"]

    assert install(root, user=True) == here
    assert uninstall(root, user=True) == here


def test_xdg_config_home_is_followed(root: Path) -> None:
    written = install(root, user=True, environ=ENVIRON | {"XDG_CONFIG_HOME": "/home/ann/conf"})

    assert written == ["home/ann/conf/systemd/user/imgsortd.service"]


@pytest.mark.parametrize("name", SYSTEM_FILES)
def test_a_file_that_somebody_else_wrote_stays_and_so_does_all_else(root: Path, name: str) -> None:
    foreign = root / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Service]\nExecStart=/bin/mine\n")

    with pytest.raises(ConfigError, match="somebody else wrote or changed; it is left alone"):
        install(root)
    with pytest.raises(ConfigError):
        uninstall(root)

    assert foreign.read_text() == "[Service]\nExecStart=/bin/mine\n"
    assert [each for each in SYSTEM_FILES if (root / each).exists()] == [name]


def test_a_unit_that_a_person_changed_stays(root: Path) -> None:
    install(root)
    with (root / UNIT).open("a") as file:
        file.write("# mine\n")

    with pytest.raises(ConfigError, match="systemctl edit"):
        install(root)
    with pytest.raises(ConfigError, match=r"imgsortd\.service: expected"):
        uninstall(root)

    assert (root / UNIT).read_text().endswith("# mine\n")


@pytest.mark.parametrize("leads_to", ["/dev/null", "/nowhere/imgsortd.service"])
def test_a_masked_or_linked_unit_stays(root: Path, leads_to: str) -> None:
    (root / UNIT).parent.mkdir(parents=True)
    (root / UNIT).symlink_to(leads_to)

    with pytest.raises(ConfigError, match="left alone"):
        install(root)

    assert os.readlink(root / UNIT) == leads_to


def test_a_folder_that_cannot_be_made_is_told_with_its_path(root: Path) -> None:
    (root / "etc").write_text("not a folder")

    with pytest.raises(ImgsortdError, match=r"cannot write .*imgsortd\.service: Not a directory"):
        install(root)


def test_a_program_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="got nothing that can be run"):
        install(root, executable=Path("/usr/lib/imgsortd/imgsortd"))


@pytest.mark.parametrize("home", ["/home/ann/venv", "/root/venv", "/tmp/venv"])
def test_a_program_that_the_system_service_cannot_see_is_refused(root: Path, home: str) -> None:
    program = Path(home, "bin/imgsortd")
    put_program(root, program)

    with pytest.raises(ConfigError, match="expected a path that the system service can see"):
        install(root, executable=program)

    assert install(root, executable=program, user=True)


def test_a_venv_whose_python_is_in_a_home_is_refused_too(root: Path) -> None:
    python = root / PROGRAM.relative_to("/").with_name("python")
    python.symlink_to("/home/ann/.local/share/uv/python/bin/python3")

    with pytest.raises(ConfigError, match=r"^/home/ann/\.local.* hides home folders"):
        install(root)


def test_a_configuration_in_a_home_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="put the configuration in /etc/imgsortd"):
        install(root, config_file=Path("/home/ann/config.yaml"))
