"""The same model with the OpenVINO extra: stated apart, for the default image ships without it.

The plan is the best of OpenVINO's own, measured as `slipway bench --engines` measures them and held to the same
floors; it is then served as an operator would ask for it, and compared with the in-process limit of that engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from artifact.repository import Artifact
from benchmarks.http import (
    LOADS,
    Plan,
    Target,
    closed_figures,
    cold_start_seconds,
    make_gauge,
    run_all,
    served_model,
    slipway,
    summarize,
)
from benchmarks.limit import Layout, Sample, as_rows, best, median_rate
from benchmarks.process import weights
from benchmarks.share import Peaks, Share
from benchmarks.workload import Workload
from benchmarks.wrk import BenchmarkError
from inference.backends.registry import installed_engines
from inference.engines import Cache, Choice, bench
from inference.layout import Cpu, read_cpu
from inference.plan import Plan as EnginePlan
from inference.plan import candidates

NOT_INSTALLED: Final = "not installed: pip install slipway[openvino]"
SHORTER: Final = Plan(3, 3, 1.0, 0.5, 2, 3, 0, 0, 0, 0.0, True)
_ONE_TEXT: Final = tuple((kind, clients) for kind, clients in LOADS if kind != "mixed")
_CHOOSING_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Setting:
    """What the default engine was measured with."""

    repository: Path
    model: str
    artifact: Artifact
    workload: Workload
    bodies: Mapping[str, Path]
    yardstick: Path
    peaks: Peaks
    folder: Path


def its_engines(installed: Mapping[str, str]) -> dict[str, str]:
    """Name and version of what the extra brings."""
    return {engine: version for engine, version in installed.items() if engine.startswith("openvino")}


def measure(setting: Setting, plan: Plan = SHORTER) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures, and the raw samples behind them. Raises BenchmarkError that says why there are none."""
    engines = its_engines(installed_engines())
    print("\nWith the OpenVINO extra", flush=True)
    choice = choose(setting.artifact, read_cpu(), engines, setting.folder)
    print(f"  {choice.plan}: {choice.why}", flush=True)
    where = (setting.repository, setting.model, choice.plan.variant, setting.folder, setting.workload.short[0])
    settings = settings_of(choice.plan)
    cold = cold_start_seconds(*where, plan.cold_starts, settings)
    with slipway(*where, environ=settings) as server:
        served = served_model(server, where[-1])
        gauge, grids = make_gauge(setting.artifact, served, setting.workload, plan, setting.yardstick, setting.peaks)
        target = Target("slipway, OpenVINO", server, setting.bodies, shares=gauge.shares)
        runs = run_all([target], gauge, plan, _ONE_TEXT)[target.name]
        weight = server.weigh()
    about = {"engine": served["engine"], "variant": served["variant"], "version": engines[served["engine"]]}
    result = {
        **about,
        **result_of(choice, grids, gauge.shares, runs),
        **weights(weight),
        "cold_start_s": cold["median"],
    }
    return result, {"runs": runs, "grids": {kind: as_rows(found) for kind, found in grids.items()}}


def result_of(
    choice: Choice,
    grids: Mapping[str, dict[Layout, list[Sample]]],
    shares: Mapping[str, Share],
    runs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What was chosen, its limit for each kind of text, and what it did, also load by load."""
    return {
        "workers": choice.plan.workers,
        "threads": choice.plan.threads,
        "why": choice.why,
        "limits": {kind: limit_of(samples, shares[kind]) for kind, samples in grids.items()},
        **closed_figures(runs),
        "loads": loads_of(runs),
    }


def choose(
    artifact: Artifact, cpu: Cpu, engines: Mapping[str, str], folder: Path, seconds: float = _CHOOSING_SECONDS
) -> Choice:
    """The best plan on `engines` that keeps the floors. Raises BenchmarkError when there is none.

    The machine's own choice, which `slipway serve` goes by, is left alone: this one is kept below `folder`.
    """
    if not engines:
        raise BenchmarkError(NOT_INSTALLED)
    if not candidates(artifact.manifest, cpu, engines):
        raise BenchmarkError("it runs no variant of this artifact")
    choice = bench(artifact, Cache(folder, cpu, engines), seconds=seconds).choice
    if choice is None:
        raise BenchmarkError("no plan of it keeps the floors here (slipway bench --engines)")
    return choice


def settings_of(plan: EnginePlan) -> dict[str, str]:
    """How an operator asks for a plan; its variant is the command's own option."""
    return {
        "SLIPWAY_ENGINE": plan.engine,
        "SLIPWAY_MODEL_WORKERS": str(plan.workers),
        "SLIPWAY_THREADS": str(plan.threads),
    }


def limit_of(samples: dict[Layout, list[Sample]], share: Share) -> dict[str, Any]:
    """The fastest layout of a grid, its rate, and its share of the machine's peak."""
    winner = best(samples)
    rate = median_rate(samples[winner])
    return {
        "texts_per_second": rate,
        "layout": str(winner),
        "percent_of_peak": share.percent(rate),
    }


def loads_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Medians of every load, under `kind-clients`."""
    return {key: {name: each["median"] for name, each in found.items()} for key, found in summarize(runs).items()}


def section(result: Mapping[str, Any]) -> str:
    """What a run's result says of OpenVINO, as Markdown: a small table, or why there is none."""
    found = result["openvino"]
    if found is None:
        return f"With the OpenVINO extra: {result['openvino_why_not']}."
    rows: list[tuple[str, ...]] = [
        ("load, with OpenVINO", "per second", "of its limit", "% of peak", "p50 ms", "p99 ms", "CPU ms")
    ]
    for kind, limit in found["limits"].items():
        of_peak = _percent(limit["percent_of_peak"])
        rows.append(
            (f"limit, {kind} texts: {limit['layout']}", f"{limit['texts_per_second']:.0f}", "", of_peak, "", "", "")
        )
    rows += [_row(name, load) for name, load in found["loads"].items()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([_about(found), "", lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _about(found: Mapping[str, Any]) -> str:
    return (
        f"With the OpenVINO extra ({found['version']}), which the default image does not ship: variant "
        f"`{found['variant']}` on {found['engine']}, {found['workers']} x {found['threads']} threads, the best of its "
        f"plans on this machine. Memory {found['memory_mb']:.0f} MB, process start to first answer "
        f"{found['cold_start_s']:.2f} s."
    )


def _row(name: str, load: Mapping[str, float]) -> tuple[str, ...]:
    kind, clients = name.split("-")
    return (
        f"served, {clients} clients, {kind} texts",
        f"{load['requests_per_second']:.0f}",
        f"{load['ratio']:.2f}",
        _percent(load.get("percent_of_peak")),
        f"{load['p50_ms']:.2f}",
        f"{load['p99_ms']:.2f}",
        f"{load['cpu_ms_per_request']:.2f}",
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0f} %"
