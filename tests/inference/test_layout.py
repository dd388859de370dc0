"""Cores granted: the smaller of affinity and quota."""

import os
from pathlib import Path

import pytest

from inference.layout import cpu_quota, usable_cores


@pytest.mark.parametrize(
    ("content", "expected"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5), ("nonsense", None)]
)
def test_the_quota_of_cgroup_v2(tmp_path: Path, content: str, expected: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("250000", 2.5)])
def test_the_quota_of_cgroup_v1(tmp_path: Path, quota: str, expected: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cpu_quota(tmp_path) == expected


def test_no_cgroup_means_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "absent") is None
    assert usable_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))


def test_a_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert usable_cores(tmp_path) == 1


def test_a_generous_quota_grants_no_more_than_the_affinity(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("99000000 100000")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
