"""imgsortd as a service of a systemd that runs, installed as the README says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from debian_tree import PERSON, DebianTree
from imgsortd.networks.calibration import FILE_NAME as CALIBRATION
from support import each_file_below, paint_groups, sums, wait_until

PROJECT = Path(__file__).parents[2]
UNIT, WEB_UNIT = "imgsortd.service", "imgsortd-web.service"
VENV = "/usr/lib/imgsortd/venv"
CONFIG = "/etc/imgsortd/config.yaml"
# Pictures of three colours, few of them, soon; nothing waits for a person to look.
_CHANGES: dict[str, Any] = {
    "settle_s": 0.2,
    "rescan_s": 2,
    "clusters": {
        "n_clusters": 3,
        "min_images": 30,
        "quiet_s": 1,
        "review_quantile": "off",
        "review_margin": "off",
        "max_share": "off",
    },
    "refit": {"growth": "off", "drift": "off", "max_churn": "off"},
}


def readme_lines() -> list[str]:
    """Return the commands of the README's section on the service, as they stand there."""
    section = (
        (PROJECT / "README.md").read_text().partition("\n## As a service, in five minutes\n")[2]
    )
    block = re.match(r"\s*```console\n(.*?)```", section, re.S)
    assert block, "the README's section on the service begins with its commands"
    return block[1].splitlines()


@dataclass
class RealService:
    """The service in a tree, and what was put into its inbox since it was last made new."""

    tree: DebianTree
    dropped: dict[str, int] = field(default_factory=dict)
    _seed: int = 0

    def install(self) -> None:
        """Type the README's lines; pip finds everything but imgsortd itself installed."""
        for line in readme_lines():
            self.type(line)
            if "-m venv" in line:
                self.tree.lend_packages(VENV)

    def type(self, line: str) -> str:
        """Type a line, and then what it says to type next."""
        said = self.tree.type(line)
        for step in said.partition("now type:\n")[2].splitlines():
            if not step.strip().startswith("journalctl"):  # which would never end
                self.tree.type(step.strip())
        return said

    def renew(self) -> None:
        """Start it with an empty library, and as `settle` does."""
        self._restore()
        self.tree.run("systemctl", "stop", UNIT)
        for folder in ("/srv/imgsortd/inbox", "/srv/imgsortd/target", "/var/lib/imgsortd"):
            for entry in self.tree.path(folder).iterdir():
                if entry.name == CALIBRATION:
                    continue
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.dropped = {}
        self.restart()

    def settle(self) -> None:
        """Have it ready with the tests' configuration and no settings of anybody's own."""
        state = self.show("ActiveState", "DropInPaths", "NeedDaemonReload")
        settled = {"ActiveState": "active", "DropInPaths": "", "NeedDaemonReload": "no"}
        if state != settled or self.tree.path(CONFIG).read_text() != self._standard():
            self._restore()
            self.restart()

    def _restore(self) -> None:
        units = self.tree.path("/etc/systemd/system")
        for drop_ins in units.glob("imgsortd*.service.d"):
            shutil.rmtree(drop_ins)
        if (units / WEB_UNIT).exists():
            self.tree.ask("systemctl", "disable", "--now", WEB_UNIT)
            (units / WEB_UNIT).unlink()
        self.configure()
        if not (units / UNIT).exists():
            self.type(readme_lines()[-1])

    def restart(self) -> None:
        """Start it anew; it is ready when this returns."""
        self.tree.ask("systemctl", "daemon-reload")
        # Kills and restarts of other tests do not count as failures of this one.
        self.tree.run("systemctl", "reset-failed", UNIT)
        self.tree.ask("systemctl", "restart", UNIT)

    def configure(self, **changes: Any) -> None:
        """Write the README's configuration with the tests' changes and these."""
        self.tree.path(CONFIG).write_text(self._standard(**changes))

    def _standard(self, **changes: Any) -> str:
        example = yaml.safe_load((PROJECT / "config.example.yaml").read_text())
        return yaml.safe_dump(_merged(_merged(example, _CHANGES), changes))

    @contextmanager
    def drop_in(self, *settings: str) -> Iterator[None]:
        """Run it with settings of one's own."""
        folder = self.tree.path(f"/etc/systemd/system/{UNIT}.d")
        folder.mkdir()
        (folder / "test.conf").write_text("\n".join(["[Service]", *settings, ""]))
        try:
            self.restart()
            yield
        finally:
            shutil.rmtree(folder)
            self.tree.ask("systemctl", "daemon-reload")

    def drop(self, each: int) -> None:
        """Let the person put pictures of three colours into the inbox."""
        made = self.tree.path(f"/home/{PERSON}/pictures")
        self._seed += 10_000
        for path in paint_groups(made, each, seed=self._seed):
            path.rename(path.with_name(f"{self._seed}-{path.name}"))
        for content, count in sums(made).items():
            self.dropped[content] = self.dropped.get(content, 0) + count
        self.tree.type("cp ~/pictures/* /srv/imgsortd/inbox/")
        shutil.rmtree(made)

    @property
    def sorted(self) -> dict[str, int]:
        """How often each content is in target."""
        return sums(self.tree.path("/srv/imgsortd/target"))

    @property
    def placed(self) -> int:
        """How many files are in target."""
        files = each_file_below(self.tree.path("/srv/imgsortd/target"))
        return sum(".imgsortd" not in str(path) for path in files)

    def wait_sorted(self) -> None:
        """Wait until every picture dropped has its place and the books are closed."""
        expected = sum(self.dropped.values())
        wait_until(
            lambda: self.placed >= expected and self.counts()["pending"] == 0, 120, "all sorted"
        )
        assert self.sorted == self.dropped, self.journal()

    def counts(self) -> Mapping[str, int]:
        """Return the counts of its own status."""
        command = ("status", "-c", CONFIG, "--json")
        said = self.tree.ask(f"{VENV}/bin/imgsortd", *command, user="imgsortd")
        counts: Mapping[str, int] = json.loads(said)["counts"]
        return counts

    def show(self, *properties: str) -> dict[str, str]:
        """Return what systemd knows of it."""
        said = self.tree.ask("systemctl", "show", UNIT, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in said.splitlines())

    def journal(self, *, of_this_start: bool = False) -> str:
        """Return what it, and systemd about it, has logged."""
        which = [f"--unit={UNIT}"]
        if of_this_start:
            which = [f"_SYSTEMD_INVOCATION_ID={self.show('InvocationID')['InvocationID']}"]
        return self.tree.ask("journalctl", "--no-pager", "--output=cat", *which)

    def wait_back(self, former_pid: str) -> None:
        """Wait until it is ready again, as another process than before."""
        # Asked from inside: from here each question would start five processes.
        state = f"systemctl show {UNIT} --property=ActiveState,MainPID"
        loop = f'until {state} | grep -q "=active" && ! {state} | grep -qx MainPID={former_pid}'
        done = self.tree.run("timeout", "120", "bash", "-c", f"{loop}; do sleep 0.2; done")
        assert done.returncode == 0, f"the service is not back\n{self.journal()}"


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merged(merged[key], value) if isinstance(value, Mapping) else value
    return merged
