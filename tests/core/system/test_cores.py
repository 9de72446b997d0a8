"""How many cores there are, by the files in which the kernel says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dimml.system.cores import usable_cores

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", HERE), ("100000 100000", 1), ("20000 100000", 1), ("99900000 100000", HERE)]
)
def test_version_2_counts_the_quota_of_every_cgroup_above(tmp_path: Path, quota: str, cores: int) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    (tmp_path / "root" / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "outer" / "cpu.max").write_text(quota + "\n")
    (tmp_path / "root" / "outer" / "inner" / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path / "root", own) == cores


def test_version_1_and_a_container_that_sees_only_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/x\n3:cpu,cpuacct:/docker/abc\n")
    folder = tmp_path / "root" / "cpu,cpuacct"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(tmp_path / "root", own) == HERE
    (folder / "cpu.cfs_quota_us").write_text("50000\n")
    assert usable_cores(tmp_path / "root", own) == 1


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "none") == HERE
