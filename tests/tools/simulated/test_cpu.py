"""Control groups of simulated pods, over a folder that looks like the kernel's."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.simulated.cpu import CGROUPS, CpuGroup, allowed, scale_for


def test_limits_shrink_until_every_pod_of_a_surge_has_its_own() -> None:
    assert scale_for(pods=3, limit=1.0, cores=2) == 0.5
    assert scale_for(pods=3, limit=1.0, cores=16) == 1.0, "never more than the manifest says"


@pytest.mark.parametrize("version", [1, 2])
def test_limit_and_weight_are_written_as_a_kubelet_would(tmp_path: Path, version: int) -> None:
    if version == 1:
        (tmp_path / "cpu").mkdir()
    else:
        (tmp_path / "cgroup.controllers").write_text("cpu memory", encoding="ascii")
    group = CpuGroup.make("pod", limit=0.5, request=0.25, root=tmp_path)
    found = {path.name: path.read_text(encoding="ascii") for path in group.folder.iterdir()}
    if version == 1:
        assert found == {"cpu.cfs_period_us": "10000", "cpu.cfs_quota_us": "5000", "cpu.shares": "256"}
    else:
        assert found == {"cpu.max": "5000 10000", "cpu.weight": "10"}
        assert (tmp_path / "cgroup.subtree_control").read_text(encoding="ascii") == "+cpu"


def test_where_no_group_can_be_made_nothing_is_promised(tmp_path: Path) -> None:
    assert not allowed(tmp_path / "missing")


@pytest.mark.skipif(not allowed(), reason="control groups cannot be made here")
def test_a_process_in_a_group_sees_its_own_limit() -> None:
    group = CpuGroup.make("slipway-test", limit=0.5, request=0.5)
    asking = (sys.executable, "-c", "from inference.layout import cpu_quota; print(cpu_quota())")
    try:
        done = subprocess.run(group.command(asking), capture_output=True, text=True, check=True)
    finally:
        group.remove()
    assert done.stdout.strip() == "0.5"
    assert not group.folder.exists()
    assert CGROUPS.exists()
