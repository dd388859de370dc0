"""Latency against offered load: requests arrive whether or not earlier ones were answered.

Arrivals are a Poisson process and latency counts from the arrival, so a server that falls behind cannot hide it
(wrk.lua). Every request carries `timeout_seconds`; goodput is what was answered within it. The offered rates follow
the machine: a factor times the saturation rate, scaled by the reference measured right before the run.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from artifact.repository import Repository
from benchmarks import machine
from benchmarks.figures import sandwiched, spread
from benchmarks.http import (
    FULL,
    QUICK,
    Gauge,
    Plan,
    Target,
    bodies_of,
    compare,
    make_gauge,
    run_load,
    served_model,
    slipway,
)
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.share import in_words
from benchmarks.workload import Workload, write_bodies
from benchmarks.wrk import Arrivals, run_open

FACTORS: Final = (0.5, 0.8, 1.0, 1.5, 2.0)
DEADLINE_SECONDS: Final = 0.5
_PERCENTS: Final = (50, 90, 99)


@dataclass(frozen=True)
class OpenLoad:
    """What is offered, and with how long a deadline."""

    deadline_seconds: float
    bodies: Path
    samples: Path


def open_load(workload: Workload, folder: Path, name: str, **fields: object) -> OpenLoad:
    """Short texts that ask to be answered within the deadline."""
    asked = {"timeout_seconds": DEADLINE_SECONDS, **fields}
    bodies = write_bodies(folder / f"{name}-open.jsonl", [(text,) for text in workload.short], **asked)
    return OpenLoad(DEADLINE_SECONDS, bodies, folder / f"{name}-samples.txt")


def run_point(target: Target, load: OpenLoad, rate: float, seconds: int, seed: int) -> tuple[Arrivals, float]:
    """One run, and the server's CPU seconds during it."""
    cpu = target.server.cpu_seconds()
    arrivals = run_open(
        target.server.url,
        load.bodies,
        load.samples,
        rate=rate,
        seconds=seconds,
        deadline_seconds=load.deadline_seconds,
        path=target.path,
        id_in=target.id_in,
        seed=seed,
    )
    return arrivals, target.server.settled_cpu_seconds() - cpu


def describe_point(arrivals: Arrivals, load: OpenLoad, before: float, after: float) -> dict[str, Any]:
    """The run's figures, its goodput also in units of the reference around it."""
    goodput = arrivals.goodput(1000 * load.deadline_seconds)
    answered = max(1, arrivals.answered)
    return {
        "offered_rate": arrivals.offered_rate,
        "goodput": goodput,
        "goodput_over_limit": sandwiched(goodput, before, after),
        "offered_over_limit": sandwiched(arrivals.offered_rate, before, after),
        **{f"p{percent}_ms": arrivals.latency_ms(percent) for percent in _PERCENTS},
        "accepted": len(arrivals.accepted_ms),
        "refused_share": arrivals.refused / answered,
        "failed_share": arrivals.failed / answered,
        "unanswered": arrivals.unanswered,
        "sent_late": arrivals.sent_late,
        "client_cpu_seconds": arrivals.client_cpu_seconds,
        "before": before,
        "after": after,
    }


def measure(target: Target, load: OpenLoad, gauge: Gauge, plan: Plan, saturation: float) -> list[dict[str, Any]]:
    """Every factor, in turns. `saturation` is the closed-loop rate over the limit."""
    points = []
    before = gauge.read("short")["limit"]
    for repetition in range(plan.open_repetitions):
        for number, factor in enumerate(FACTORS):
            rate = factor * saturation * before
            arrivals, cpu = run_point(target, load, rate, plan.open_seconds, 100 * repetition + number)
            after = gauge.read("short")["limit"]
            point = describe_point(arrivals, load, before, after)
            points.append({"factor": factor, "repetition": repetition, "server_cpu_seconds": cpu, **point})
            before = after
            print(_line(target, points[-1]), flush=True)
    return points


def _line(target: Target, point: Mapping[str, Any]) -> str:
    of_peak = in_words(target.percent_of_peak("short", point["goodput"]))
    return (
        f"  {target.name:<22} {point['factor']:.1f} x saturation: offered {point['offered_rate']:7.1f}/s goodput "
        f"{point['goodput']:7.1f}/s {of_peak:>12}  p50 {point['p50_ms']:6.1f} p99 {point['p99_ms']:6.1f} ms  "
        f"refused {point['refused_share']:4.0%}  sent late {point['sent_late']}"
    )


def summarize_points(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By factor, medians and ranges; and the goodput at twice the saturation over the best of all loads."""
    names = ("offered_rate", "goodput", "goodput_over_limit", "p50_ms", "p99_ms", "refused_share", "failed_share")
    by_factor = {
        str(factor): {name: spread([point[name] for point in points if point["factor"] == factor]) for name in names}
        for factor in sorted({point["factor"] for point in points})
    }
    goodputs = {factor: found["goodput_over_limit"]["median"] for factor, found in by_factor.items()}
    return {
        "loads": by_factor,
        "deadline_seconds": DEADLINE_SECONDS,
        "goodput_at_2x": goodputs[str(max(FACTORS))] / max(goodputs.values()) if max(goodputs.values()) else 0.0,
        "p99_ms_at_2x": by_factor[str(max(FACTORS))]["p99_ms"]["median"],
        "unanswered": sum(point["unanswered"] for point in points),
        "sent_late_share": _share([point["sent_late"] for point in points], [_sent(point) for point in points]),
    }


def _sent(point: Mapping[str, Any]) -> float:
    answered_share = 1 - float(point["refused_share"]) - float(point["failed_share"])
    return max(1.0, float(point["accepted"]) / max(1e-9, answered_share))


def _share(part: Sequence[float], whole: Sequence[float]) -> float:
    return sum(part) / sum(whole)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the served model alone. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Latency against offered load, of a served model.")
    add_model_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, and a wider spread")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    artifact = Repository(options.repository).open(options.model)
    workload = open_workload(artifact, options.texts)
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        folder, probe = Path(scratch), workload.short[0]
        with slipway(options.repository, options.model, options.variant, folder, probe) as server:
            served, peaks = served_model(server, probe), machine.gemm_peaks(plan.peak_seconds)
            gauge, _ = make_gauge(artifact, served, workload, plan, None, peaks)
            target = Target("slipway", server, bodies_of(workload, folder), shares=gauge.shares)
            before = gauge.read("short")
            closed = run_load(target, "short", 128, plan.load_seconds)
            saturation = compare(closed, before, gauge.read("short"))["ratio"]
            points = measure(target, open_load(workload, folder, "slipway"), gauge, plan, saturation)
            weight = server.weigh()
    print(json.dumps({"open_loop": summarize_points(points), "weight": asdict(weight)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
