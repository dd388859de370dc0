"""Cores granted: the smaller of affinity and quota."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference.layout import cpu_quota, read_cpu, usable_cores, usable_memory

ROOT = Path(__file__).parents[2]


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


def cores_of_a_process(prepare: Callable[[], object]) -> int:
    """What a fresh process counts that did `prepare` first."""
    program = "from inference.layout import usable_cores; print(usable_cores())"
    done = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=prepare, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_process_confined_to_one_core_plans_for_one() -> None:
    core = min(os.sched_getaffinity(0))
    assert cores_of_a_process(lambda: os.sched_setaffinity(0, {core})) == 1


def cpuset(folder: Path) -> None:
    """A v1 cpuset of one core and its memory."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        first = (folder.parent / name).read_text().strip().split(",")[0].split("-")[0]
        (folder / name).write_text(first)


@contextmanager
def cgroup(controller: str) -> Iterator[Path]:
    """A cgroup of this test's own below v1's `controller` ("" below v2); skips, with the reason, where it cannot be."""
    home = Path("/sys/fs/cgroup", controller)
    if not home.is_dir():
        pytest.skip(f"no cgroup v1 controller {controller!r} is mounted here")
    try:
        folder = Path(tempfile.mkdtemp(prefix="slipway-test-", dir=home))
    except OSError as error:
        pytest.skip(f"{home} cannot be written to: {error.strerror}")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_process_in_a_cpuset_of_one_plans_for_one() -> None:
    with cgroup("cpuset") as folder:
        cpuset(folder)
        assert cores_of_a_process(lambda: (folder / "cgroup.procs").write_text(str(os.getpid()))) == 1


QUOTA_PROGRAM = """
import sys
from pathlib import Path
from inference.layout import cpu_quota, usable_cores
print(cpu_quota(Path(sys.argv[1])), usable_cores(Path(sys.argv[1])))
"""


@contextmanager
def quota_group(quota: int) -> Iterator[tuple[Path, Path]]:
    """A cgroup of this quota per 100 ms, below v2 or v1, and the folder that a container would see it in."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        with cgroup("") as folder:
            try:
                (folder / "cpu.max").write_text(f"{'max' if quota < 0 else quota} 100000")
            except OSError as error:
                pytest.skip(f"the cpu controller is not enabled below /sys/fs/cgroup: {error.strerror}")
            yield folder, folder
        return
    with cgroup("cpu") as folder, tempfile.TemporaryDirectory() as mounted:
        (folder / "cpu.cfs_quota_us").write_text(str(quota))
        Path(mounted, "cpu").symlink_to(folder)
        yield folder, Path(mounted)


@pytest.mark.parametrize(("quota", "cores"), [(50_000, 1), (100_000, 1), (-1, None)])
def test_a_quota_that_the_kernel_enforces_is_read(quota: int, cores: int | None) -> None:
    with quota_group(quota) as (group, seen):
        done = subprocess.run(
            [sys.executable, "-c", QUOTA_PROGRAM, str(seen)],
            preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    granted = None if quota < 0 else quota / 100_000
    assert done.stdout.split() == [str(granted), str(cores or len(os.sched_getaffinity(0)))]


def test_memory_is_the_cgroups_limit_or_the_machines(tmp_path: Path) -> None:
    machine = usable_memory(tmp_path / "absent")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000000\n")
    assert usable_memory(tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("2000000\n")
    assert usable_memory(tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text(f"{machine * 2}\n")
    assert usable_memory(tmp_path) == machine


def test_no_limit_in_v2_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert usable_memory(tmp_path) == usable_memory(tmp_path / "absent")


CPUINFO = """processor\t: 0
model name\t: Some CPU
model\t\t: 2
flags\t\t: fpu sse2 avx2 avx512_vnni avx512_bf16

processor\t: 1
model name\t: Another CPU
"""


def test_a_cpu_is_named_by_its_first_core_and_the_instructions_that_matter(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "cpu.max").write_text("100000 100000")
    cpu = read_cpu(tmp_path / "cpuinfo", tmp_path)
    assert cpu.model.endswith("Some CPU 2")
    assert cpu.instructions == ("avx2", "avx512_bf16", "avx512_vnni")
    assert cpu.cores == 1
    assert cpu.fast_int8
    assert cpu.fast_bf16


def test_a_cpu_nothing_is_told_of_has_a_name_all_the_same(tmp_path: Path) -> None:
    cpu = read_cpu(tmp_path / "absent", tmp_path)
    assert cpu.model
    assert cpu.instructions == ()
    assert not cpu.fast_int8
    assert not cpu.fast_bf16
