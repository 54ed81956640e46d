"""A small Debian with a systemd of its own, in which commands are typed as on a machine."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from debian_packages import install_packages, update_lists, why_not_install
from mounts import tmpfs_or_none
from support import wait_until

PERSON = "ann"
"""Whoever types the commands: an account that may use sudo."""

# mmdebstrap makes the same tree as debootstrap in half the time.
_TOOLS = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap"}
_PACKAGES = "systemd,systemd-sysv,dbus,procps,python3,python3-venv,sudo"
# How apt reaches its mirror here: the tree's own apt has to go the same way.
_WAYS = re.compile(
    r"Acquire::(https?::|Check-|ForceIPv|Retries|AllowInsecure|AllowWeak|AllowDowngrade)", re.I
)
_BORROWED = "/opt/borrowed"
_ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "COLUMNS": "200",
}


@dataclass(frozen=True, slots=True)
class DebianTree:
    """A Debian that has been started.

    Parameters
    ----------
    folder
        Its root, as this machine sees it.
    leader
        The process that is its number 1.
    """

    folder: Path
    leader: int

    def run(
        self, *words: str, user: str = "root", timeout_s: float = 150
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, in the user's home; both outputs come back as one."""
        home = "/root" if user == "root" else f"/home/{user}"
        environ = [f"{key}={value}" for key, value in {**_ENVIRON, "HOME": home}.items()]
        return subprocess.run(
            [
                *("nsenter", f"--target={self.leader}", "--all", "--wd"),
                *("runuser", "-u", user, "--", "env", "-i", *environ, *words),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def ask(self, *words: str, user: str = "root") -> str:
        """Return what a command prints; it has to succeed."""
        done = self.run(*words, user=user)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}"
        return done.stdout

    def type(self, line: str, timeout_s: float = 240) -> str:
        """Let the person type a line in their copy of the project; return what it prints."""
        done = self.run("bash", "-c", f"cd ~/imgsortd && {line}", user=PERSON, timeout_s=timeout_s)
        assert done.returncode == 0, f"{line}: {done.stdout}"
        return done.stdout

    def path(self, path: str) -> Path:
        """Return where a path of its own is on this machine."""
        return self.folder / path.lstrip("/")

    def lend_packages(self, venv: str) -> None:
        """Give a new venv in it what the tests' own environment has, but imgsortd and pip."""
        ours = self.path(venv) / f"lib/python{_python()}/site-packages"
        for number, site in enumerate(_sites()):
            for entry in sorted(site.iterdir()):
                name = entry.name
                if (
                    re.match(r"_*(editable_+)?(imgsortd|pip|pycache)\b", name)
                    or name[-4:] == ".pth"
                ):
                    continue
                for former in (ours / name, *_other_releases(ours, name)):
                    shutil.rmtree(former, ignore_errors=True)
                (ours / name).symlink_to(f"{_BORROWED}/{number}/{name}")


def _other_releases(site: Path, name: str) -> Iterator[Path]:
    if name.endswith(".dist-info"):
        yield from site.glob(f"{name.partition('-')[0]}-*.dist-info")


@contextmanager
def debian_tree(folder: Path, project: Path) -> Iterator[DebianTree]:
    """Make a Debian of this machine's release and start it; skip where that cannot be.

    It has no network but its own loopback, an account that may use sudo with a copy of the
    project in its home, and an index for pip that holds the project's build backend alone.

    Parameters
    ----------
    folder
        Where it may be; it is empty or new.
    project
        What is copied.
    """
    _install_tools()
    with ExitStack() as stack:
        # Beside the systemd of no machine, two trees would share their control groups.
        stack.enter_context(_only_one())
        # In memory, where no package is synced to a disk: a third of the time.
        tmpfs_or_none(stack, folder, "2g")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _make(folder)
        _furnish(folder, project)
        yield stack.enter_context(_booted(folder))


def _install_tools() -> None:
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    by_hand = f"apt-get install {' '.join(missing)}"
    if os.getuid() != 0:
        pytest.skip("only root can start a systemd of its own")
    if missing and why_not_install():
        pytest.skip(f"no systemd of its own here ({why_not_install()}): {by_hand}")
    trouble = install_packages(*missing) if missing else ""
    if trouble:
        pytest.skip(f"no systemd of its own here ({trouble}): {by_hand}")


@contextmanager
def _only_one() -> Iterator[None]:
    lock = Path(tempfile.gettempdir(), "imgsortd-debian-tree.lock")
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _make(folder: Path) -> None:
    """Put Debian's packages into a folder, from where this machine gets its own."""
    release = platform.freedesktop_os_release()
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        pytest.skip(f"{release.get('PRETTY_NAME')} is no Debian, whose release could be taken")
    mirror = _mirror(codename) or update_lists() or _mirror(codename)
    if "://" not in mirror:
        pytest.skip(f"apt names no mirror of {codename} here: {mirror}")
    theirs = re.search(r"^Version: (\d+\.\d+)", _said("apt-cache", "show", "python3"), re.M)
    if theirs is None or theirs[1] != _python():
        has = theirs[1] if theirs else "no Python"
        pytest.skip(f"{codename} has {has}, and the tests' packages are for Python {_python()}")
    ways = [
        line for line in _said("apt-config", "dump", "Acquire").splitlines() if _WAYS.match(line)
    ]
    options = folder.with_name(f"{folder.name}-apt.conf")
    options.write_text("\n".join(ways) + "\n")
    done = subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"),
            # On a disk, what a power cut leaves of the tree matters to nobody.
            *(f"--aptopt={options}", "--dpkgopt=force-unsafe-io"),
            *(codename, str(folder), mirror),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a Debian tree cannot be made here: {_last_line(done.stderr)}")


def _mirror(codename: str) -> str:
    """Ask apt where it gets this release's main packages; "" where it does not know."""
    asked = ("Created-By: Packages", f"Codename: {codename}", "Component: main", "Origin: Debian")
    return _said("apt-get", "indextargets", "--format", "$(REPO_URI)", *asked).partition("\n")[0]


def _said(*words: str) -> str:
    environ = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    return done.stdout


def _furnish(folder: Path, project: Path) -> None:
    """Put in what the person has before they begin."""
    (folder / "etc/hostname").write_text("debian-tree\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost debian-tree\n")
    for number, _ in enumerate(_sites()):
        (folder / _BORROWED.lstrip("/") / str(number)).mkdir(parents=True)
    wheels = folder / "opt/wheels"
    # Only imgsortd's build backend; everything else is lent.
    backend = re.findall(r'"(hatchling[^"]*)"', (project / "pyproject.toml").read_text())[0]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), backend]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"{backend} cannot be fetched here: {_last_line(done.stderr)}")
    (folder / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /opt/wheels\n")
    subprocess.run(
        ["chroot", str(folder), "useradd", "--create-home", "--shell", "/bin/bash", PERSON],
        check=True,
    )
    sudo = folder / "etc/sudoers.d" / PERSON
    sudo.write_text(f"{PERSON} ALL=(ALL) NOPASSWD: ALL\n")
    sudo.chmod(0o440)
    shutil.copytree(
        project,
        folder / "home" / PERSON / "imgsortd",
        ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "demo-run", "tests"),
        symlinks=True,
    )
    subprocess.run(
        ["chroot", str(folder), "chown", "-R", f"{PERSON}:", f"/home/{PERSON}"], check=True
    )


@contextmanager
def _booted(folder: Path) -> Iterator[DebianTree]:
    """Start it, and end it whatever happens."""
    # Where systemd runs the machine it makes a scope; elsewhere there is nobody to ask.
    scope = [] if Path("/run/systemd/system").is_dir() else ["--keep-unit"]
    binds = [f"--bind-ro={site}:{_BORROWED}/{number}" for number, site in enumerate(_sites())]
    log = folder.with_name(f"{folder.name}.log")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [
                # Should the tests be killed, it is shut down; killed itself it would leave its
                # number 1 alive.
                *("setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", "--boot"),
                *(f"--directory={folder}", f"--machine=imgsortd-{os.getpid()}", *scope, *binds),
                *("--register=no", "--private-network", "--resolv-conf=off", "--timezone=off"),
                *("--link-journal=no", "--console=pipe"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        leader = _leader(process, log)
        tree = DebianTree(folder, leader)
        wait_until(
            lambda: _is_up(tree) or process.poll() is not None,
            what="a started systemd\n" + log.read_text(errors="replace"),
        )
        if process.poll() is not None:
            pytest.skip(f"a systemd cannot be started here: {_last_line(log.read_text())}")
        yield tree
    finally:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()  # its number 1, with which everything in it ends
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _leader(process: subprocess.Popen[bytes], log: Path) -> int:
    found: list[int] = []

    def look() -> bool:
        if process.poll() is None:
            children = psutil.Process(process.pid).children()
            found[:] = [child.pid for child in children if child.name() == "systemd"]
        return bool(found) or process.poll() is not None

    wait_until(look, what="number 1 of the Debian tree\n" + log.read_text(errors="replace"))
    if not found:
        pytest.skip(f"a systemd cannot be started here: {_last_line(log.read_text())}")
    return found[0]


def _is_up(tree: DebianTree) -> bool:
    return tree.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")


def _sites() -> Sequence[Path]:
    """The folders with the packages of the Python that runs the tests."""
    return sorted({Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")})


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("E:", "Failed", "ERROR"))]
    return (said or lines or ["no reason given"])[-1].strip()
