"""How many CPUs a process may use, read from folders that look like the kernel's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgsortd.system.resources import usable_cpus

MACHINE = 64


def counted(tmp_path: Path, membership: str, files: dict[str, str]) -> int:
    """Count the CPUs of a process on a machine of 64, given its cgroups and their files."""
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return usable_cpus(
        affinity=MACHINE, membership=tmp_path / "membership", mount=tmp_path / "mount"
    )


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("200000 100000\n", 2),
        ("1200000 50000\n", 24),
        ("999900000 100000\n", MACHINE),
        ("max 100000\n", MACHINE),
    ],
)
def test_a_quota_is_rounded_up_to_whole_cpus(tmp_path: Path, limit: str, cpus: int) -> None:
    assert counted(tmp_path, "0::/\n", {"cpu.max": limit}) == cpus


@pytest.mark.parametrize(
    ("outer", "inner", "cpus"),
    [("200000", "800000", 2), ("800000", "200000", 2), ("max", "300000", 3), ("300000", "max", 3)],
)
def test_the_tightest_of_nested_cgroups_counts(
    tmp_path: Path, outer: str, inner: str, cpus: int
) -> None:
    files = {
        "system.slice/cpu.max": f"{outer} 100000\n",
        "system.slice/imgsortd.service/cpu.max": f"{inner} 100000\n",
        "user.slice/cpu.max": "100000 100000\n",
    }

    assert counted(tmp_path, "0::/system.slice/imgsortd.service\n", files) == cpus


@pytest.mark.parametrize("path", ["/kubepods/pod1/c2", "/../other.scope", "/gone (deleted)"])
def test_a_container_that_is_told_a_path_of_the_host_finds_its_limit_at_the_root(
    tmp_path: Path, path: str
) -> None:
    assert counted(tmp_path, f"0::{path}\n", {"cpu.max": "300000 100000\n"}) == 3


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("place", ["", "docker/", "docker/c1/"])
def test_cgroup_v1_limits_count_too(tmp_path: Path, folder: str, place: str) -> None:
    files = {
        f"{folder}/cpu.cfs_quota_us": "-1\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
        f"{folder}/{place}cpu.cfs_quota_us": "250000\n",
        f"{folder}/{place}cpu.cfs_period_us": "100000\n",
    }
    membership = "12:cpuset:/docker/c1\n4:cpu,cpuacct:/docker/c1\n1:name=systemd:/\n0::/\n"

    assert counted(tmp_path, membership, files) == 3


def test_no_limit_in_cgroup_v1_is_none(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}

    assert counted(tmp_path, "1:cpu:/\n0::/\n", files) == MACHINE


def test_cgroup_v2_beside_v1_is_found(tmp_path: Path) -> None:
    files = {"unified/app/cpu.max": "200000 100000\n"}

    assert counted(tmp_path, "3:cpuset:/\n0::/app\n", files) == 2


@pytest.mark.parametrize(
    "membership", ["", "\0\n", "0::\n", "0::/\udcff\n", "0::/\0\n", ":::::\n", "cpu\n", "1:cpu:\n"]
)
@pytest.mark.parametrize(
    "limit", ["", "\0", "100ms", "-5 100000", "1 0", "1.5 2", "1 2 3", "nan inf", "9" * 5000]
)
def test_odd_files_are_no_limit(tmp_path: Path, membership: str, limit: str) -> None:
    path = tmp_path / "membership"
    path.write_bytes(membership.encode(errors="surrogateescape"))
    (tmp_path / "cpu").mkdir()
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"):
        (tmp_path / name).write_text(limit)

    assert usable_cpus(affinity=MACHINE, membership=path, mount=tmp_path) == MACHINE


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"

    count = usable_cpus(membership=nowhere, mount=nowhere)

    assert count == len(os.sched_getaffinity(0))


def test_a_folder_in_place_of_a_file_is_no_limit(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").mkdir()

    assert usable_cpus(affinity=3, membership=tmp_path, mount=tmp_path) == 3


def test_this_process_may_use_some_cpus() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def run_python(code: str, **environ: str) -> object:
    """Run code in a fresh process, whose threads nobody has limited; return what it prints."""
    plain = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=plain | {"PYTHONPATH": os.pathsep.join(sys.path)} | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


COUNT = """
import json, torch
from concurrent.futures import ThreadPoolExecutor
from threadpoolctl import threadpool_info
elsewhere = ThreadPoolExecutor().submit(torch.get_num_threads).result()
pools = {pool["user_api"] for pool in threadpool_info()}
most = max(pool["num_threads"] for pool in threadpool_info())
print(json.dumps([torch.get_num_threads(), elsewhere, most, sorted(pools)]))
"""
LIMIT = "from imgsortd.system.resources import limit_threads; limit_threads({cpus})\n"
LOAD = "import sklearn.cluster, torch\n"


def test_torch_openmp_and_blas_that_are_loaded_keep_to_the_limit() -> None:
    counted = run_python(LOAD + LIMIT.format(cpus=1) + COUNT)

    assert counted == [1, 1, 1, ["blas", "openmp"]]


def test_what_is_loaded_later_keeps_to_the_limit_too_and_a_wider_one_adds_no_threads() -> None:
    limits = LIMIT.format(cpus=1) + LIMIT.format(cpus=2)

    counted = run_python(limits + LOAD + COUNT)

    assert counted == [1, 1, 1, ["blas", "openmp"]]


def test_counting_cpus_does_not_load_torch() -> None:
    code = "import json, sys, imgsortd.system.resources as c\nc.usable_cpus()\n"

    loaded = run_python(code + "print(json.dumps('torch' in sys.modules))")

    assert loaded is False
