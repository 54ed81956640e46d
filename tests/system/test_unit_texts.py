"""The texts of the systemd files: paths put in, escaped, or refused."""

from pathlib import Path
from typing import Any

import pytest

from imgsortd.errors import ConfigError
from imgsortd.system.units import (
    common_folder,
    quoted,
    render_folders,
    render_unit,
    render_web_unit,
)

PROGRAM = Path("/usr/lib/imgsortd/venv/bin/imgsortd")
SERVICE = Path(__file__).parents[2] / "service"


def render(**changed: Any) -> str:
    arguments: dict[str, Any] = {
        "user": False,
        "executable": PROGRAM,
        "config_file": Path("/etc/imgsortd/config.yaml"),
        "data_dir": Path("/srv/imgsortd"),
        "state_dir": Path("/var/lib/imgsortd"),
    }
    return render_unit(**arguments | changed)


def values(text: str, *keys: str) -> list[str]:
    return [line for line in text.splitlines() if line.partition("=")[0] in keys]


def test_the_default_paths_give_the_shipped_unit() -> None:
    assert render() == (SERVICE / "imgsortd.service").read_text()


def test_the_default_paths_give_the_shipped_unit_of_the_page() -> None:
    text = render_web_unit(
        user=False,
        executable=PROGRAM,
        config_file=Path("/etc/imgsortd/config.yaml"),
        data_dir=None,
        state_dir=Path("/var/lib/imgsortd"),
    )

    assert text == (SERVICE / "imgsortd-web.service").read_text()


def test_the_default_paths_give_the_shipped_folders() -> None:
    data = Path("/srv/imgsortd")

    text = render_folders(data, data / "inbox", data / "target", Path("/var/lib/imgsortd"))

    assert text == (SERVICE / "tmpfiles.d" / "imgsortd.conf").read_text()


def test_a_program_where_nothing_may_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="NoExecPaths"):
        render(executable=Path("/srv/imgsortd/venv/bin/imgsortd"))


@pytest.mark.parametrize("name", ['"', "'", "\\"])
def test_a_program_that_systemd_cannot_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no quotes and no backslashes"):
        render(executable=Path(f"/opt/a{name}b/imgsortd"))


def test_inbox_and_target_share_the_deepest_folder() -> None:
    assert common_folder(Path("/data/x/in"), Path("/data/x/out/sorted")) == Path("/data/x")


def test_symlinks_are_followed_before_the_folder_is_chosen(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "pictures"
    disk.mkdir(parents=True)
    (tmp_path / "inbox").symlink_to(disk / "in")

    assert common_folder(tmp_path / "inbox", disk / "out") == disk.resolve()


@pytest.mark.parametrize(
    ("inbox", "target"),
    [
        ("/inbox", "/target"),
        ("/srv/inbox", "/srv/target"),
        ("/home/ann/inbox", "/home/bob/target"),
        ("/home/ann/inbox", "/home/ann/target"),
        ("/var/spool/inbox", "/var/lib/target"),
        ("/usr/share/x/inbox", "/usr/share/x/target"),
        ("/etc/x/inbox", "/etc/x/target"),
    ],
)
def test_a_shared_folder_that_holds_more_than_pictures_is_refused(inbox: str, target: str) -> None:
    with pytest.raises(ConfigError, match="two mounts, and each move becomes a copy"):
        common_folder(Path(inbox), Path(target))


@pytest.mark.parametrize("state", ["/", "/var/lib", "/home/ann", "/etc/imgsortd"])
def test_a_state_folder_that_holds_more_than_the_database_is_refused(state: str) -> None:
    with pytest.raises(ConfigError, match="state_dir: expected a folder of its own"):
        render(state_dir=Path(state))


@pytest.mark.parametrize("folder", ["data_dir", "state_dir"])
def test_temporary_folders_are_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="gives it an empty /tmp"):
        render(**{folder: Path("/tmp/pictures")})


def test_an_inbox_in_a_home_is_bound_into_an_empty_home() -> None:
    text = render(data_dir=Path("/home/ann/pictures"))

    assert values(text, "ProtectHome", "BindPaths", "ReadWritePaths") == [
        "BindPaths=/home/ann/pictures",
        "ProtectHome=tmpfs",
    ]


def test_another_state_folder_is_opened_beside_the_pictures() -> None:
    text = render(state_dir=Path("/data/state"))

    assert values(text, "StateDirectory", "StateDirectoryMode", "ReadWritePaths") == [
        "ReadWritePaths=/srv/imgsortd",
        "ReadWritePaths=/data/state",
    ]


def test_a_state_folder_among_the_pictures_opens_nothing_more() -> None:
    text = render(state_dir=Path("/srv/imgsortd/.state"))

    assert values(text, "ReadWritePaths") == ["ReadWritePaths=/srv/imgsortd"]


def test_the_user_unit_runs_the_given_program_and_keeps_home_open() -> None:
    text = render(user=True, executable=Path("/home/ann/my venv/bin/imgsortd"), data_dir=None)

    assert values(text, "ExecStart", "ReadWritePaths", "ProtectHome") == [
        'ExecStart="/home/ann/my venv/bin/imgsortd" run --config /etc/imgsortd/config.yaml'
    ]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/srv/plain-1.0", "/srv/plain-1.0"),
        ("/srv/two words", '"/srv/two words"'),
        ("/srv/100%", "/srv/100%%"),
        ('/srv/a"b\\c', r'"/srv/a\"b\\c"'),
        ("/srv/$HOME", "/srv/$HOME"),
        ("/srv/#;:", '"/srv/#;:"'),
    ],
)
def test_a_path_is_written_as_systemd_reads_it(path: str, written: str) -> None:
    assert quoted(Path(path)) == written


def test_a_dollar_after_the_program_is_no_variable() -> None:
    assert quoted(Path("/srv/$HOME"), in_command=True) == "/srv/$$HOME"


@pytest.mark.parametrize("path", ["/srv/a\nUser=root", "/srv/\x7f", "/srv/\udcff", "relative/path"])
def test_a_path_that_no_unit_can_hold_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="expected an absolute path in UTF-8"):
        quoted(Path(path))
