"""How a model could be run on this machine: variant, engine, worker threads, kernel threads. Plain functions."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from artifact.errors import ArtifactNotFound
from artifact.manifest import Golden, Manifest, Variant
from inference.backends.registry import ENGINES
from inference.layout import Cpu

# What a golden score may move on an engine that computes in less than the file's precision. It is what the gate
# allows a reduced variant at the least.
_REDUCED_TOLERANCE: Final = 0.02
_DEFAULT_TOLERANCE: Final = 1e-3
# A grid of every divisor would take long to measure and says little more.
_MANY_CORES: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run one variant. Each of `workers` threads computes an execution with `threads` threads."""

    variant: str
    engine: str
    workers: int
    threads: int = 1

    def __str__(self) -> str:
        return f"{self.variant} on {self.engine}, {self.workers} x {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asked for; None and 0 leave it to us."""

    variant: str | None = None
    engine: str | None = None
    workers: int = 0
    threads: int = 0

    @property
    def decides(self) -> bool:
        """Whether it names what computes, so that nothing else may be run instead."""
        return self.variant is not None or self.engine is not None

    def lay_out(self, plan: Plan, cores: int) -> Plan:
        """`plan` with the threads that were asked for; workers alone or threads alone share out the cores."""
        if not self.workers and not self.threads:
            return plan
        threads = self.threads or 1
        return replace(plan, workers=self.workers or max(1, cores // threads), threads=threads)


def candidates(manifest: Manifest, cpu: Cpu, installed: Collection[str]) -> list[Plan]:
    """Every plan this artifact, this CPU and what is installed here allow, the default first."""
    found = [
        Plan(variant.name, engine, workers, threads)
        for variant in manifest.variants
        for engine in engines_for(variant, cpu, installed)
        for workers, threads in layouts(cpu.cores)
        # torch's threads are one pool for the process: several workers share it, so a grid would measure nothing.
        if engine != "torchscript" or threads == 1
    ]
    default = default_plan(manifest, cpu)
    return sorted(found, key=lambda plan: plan != default)


def engines_for(variant: Variant, cpu: Cpu, installed: Collection[str]) -> Iterator[str]:
    """The installed engines that run `variant` and could pay.

    An int8 graph stays with onnxruntime, whose operators it is made of; bf16 needs a CPU that has it.
    """
    for engine in ENGINES[variant.format]:
        if engine not in installed:
            continue
        if engine.startswith("openvino") and variant.precision != "fp32":
            continue
        if engine == "openvino-bf16" and not cpu.fast_bf16:
            continue
        yield engine


def layouts(cores: int) -> list[tuple[int, int]]:
    """Worker threads and kernel threads to try: one each, all in one, and pairs where there are many cores."""
    grid = [(cores, 1), (1, cores)]
    if cores >= _MANY_CORES:
        grid.insert(1, (cores // 2, 2))
    return list(dict.fromkeys(grid))


def default_plan(manifest: Manifest, cpu: Cpu) -> Plan:
    """The rule where nothing was measured: harmless int8 where the CPU has instructions for it, else the first variant.

    Needs no time and no library beyond onnxruntime.
    """
    first = manifest.variants[0]
    variant = next(filter(lambda each: _harmless_int8(manifest, each), manifest.variants), first)
    chosen = variant if cpu.fast_int8 else first
    return plan_for(chosen, cpu)


def _harmless_int8(manifest: Manifest, variant: Variant) -> bool:
    verdict = next((each for each in manifest.gate.variants if each.name == variant.name), None)
    flips = verdict.neighbour_label_flips if verdict else 0
    return variant.precision == "int8" and variant.format == "onnx" and flips == 0


def plan_for(variant: Variant, cpu: Cpu, engine: str | None = None) -> Plan:
    """`variant` on `engine`, or on the default one, with a worker per core."""
    return Plan(variant.name, engine or ENGINES[variant.format][0], cpu.cores)


def wished_plan(manifest: Manifest, wish: Wish, cpu: Cpu) -> Plan:
    """What was asked for, completed by the rule. Raises ArtifactNotFound for an unknown variant."""
    ruled = default_plan(manifest, cpu)
    name = wish.variant
    if name is None and wish.engine not in (None, ruled.engine):
        # An engine alone: the first variant it runs.
        name = next((each.name for each in manifest.variants if wish.engine in ENGINES[each.format]), None)
    variant = find_variant(manifest, name or ruled.variant)
    return wish.lay_out(plan_for(variant, cpu, wish.engine), cpu.cores)


def find_variant(manifest: Manifest, name: str) -> Variant:
    """The variant called `name`. Raises ArtifactNotFound that lists the others."""
    variant = manifest.variant(name)
    if variant is None:
        known = ", ".join(each.name for each in manifest.variants)
        raise ArtifactNotFound(f"{manifest.name} {manifest.version}: no variant {name!r}; it has {known}")
    return variant


def golden_tolerance(golden: Golden, variant: str, engine: str) -> float:
    """How far a golden score may be off here: what the gate allows the variant, and no less than the engine needs."""
    allowed = golden.tolerance.get(variant, _DEFAULT_TOLERANCE)
    return max(allowed, _REDUCED_TOLERANCE) if engine.endswith("-bf16") else allowed
