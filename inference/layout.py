"""How many cores this process may really use: affinity, cpuset and cgroup quota, not the host's count."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_CPUINFO: Final = Path("/proc/cpuinfo")
_CPU_NAMES: Final = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU revision")
_MATTERS: Final = re.compile(r"avx|amx|fma|f16c|sse4|asimd|i8mm|bf16|sve|sme")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Whole cores to plan for, at least one: the smaller of the CPU affinity and the cgroup's quota, rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(-(-quota // 1))))


def cpu_quota(cgroup: Path = _CGROUP) -> float | None:
    """Cores granted by the cgroup (v2 `cpu.max`, else v1 `cpu.cfs_quota_us`), or None when there is no quota.

    Source: the kernel's admin-guide/cgroup-v2 and scheduler/sched-bwc.
    """
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return _quota_v1(cgroup / "cpu")
    return None if quota == "max" else int(quota) / int(period)


def usable_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes this process may hold: the cgroup's limit (v2 `memory.max`, else v1), the machine's memory without one."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((cgroup / name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # the next one; "max" is no number either
            continue
    return machine


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


@dataclass(frozen=True, slots=True)
class Cpu:
    """What decides how fast an engine is here: the model, the instruction sets that matter, the cores we may use."""

    model: str
    instructions: tuple[str, ...]
    cores: int

    @property
    def fast_int8(self) -> bool:
        """Whether int8 products have instructions of their own: VNNI or AMX on x86, dot products on Arm."""
        return not {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"}.isdisjoint(self.instructions)

    @property
    def fast_bf16(self) -> bool:
        """Whether bfloat16 products have instructions of their own. Without them engines emulate, slowly."""
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(self.instructions)


def read_cpu(cpuinfo: Path = _CPUINFO, cgroup: Path = _CGROUP) -> Cpu:
    """The CPU this process runs on. Where the kernel tells nothing it is named by its architecture alone."""
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        first = ""
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    # "AMD EPYC" alone is the name of five generations in a virtual machine.
    parts = [facts[name] for name in _CPU_NAMES if name in facts]
    flags = facts.get("flags", facts.get("Features", "")).split()
    instructions = tuple(sorted(flag for flag in flags if _MATTERS.match(flag)))
    return Cpu(" ".join([platform.machine(), *parts]), instructions, usable_cores(cgroup))
