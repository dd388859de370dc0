"""`make bench`: every measurement of the served model, one after the other, and the table of what was reached.

    python -m benchmarks.bench --repository models --model sentiment [--quick]

Takes about twelve minutes (two with --quick) on two cores, and wants the machine to itself. Writes raw samples, the
result and plots into benchmarks/results/; the last line of stdout is the result as one JSON document. Nothing here
passes or fails on a speed: the exit status says whether everything could be measured.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from artifact.repository import Artifact, Repository
from benchmarks import machine, open_loop, targets
from benchmarks.http import (
    FULL,
    QUICK,
    SHORT_CLIENTS,
    Gauge,
    Plan,
    Target,
    bodies_of,
    cold_start_seconds,
    make_gauge,
    measure_floor,
    run_all,
    served_model,
    slipway,
    summarize,
)
from benchmarks.limit import Layout, Sample, add_model_arguments, as_rows, median_rate, open_workload
from benchmarks.process import Weight
from benchmarks.wrk import BenchmarkError
from benchmarks.yardstick import build_yardstick

RESULTS: Final = Path(__file__).with_name("results")
_DOCS: Final = Path(__file__).parent.parent / "docs" / "performance.md"
_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"
_MEGA: Final = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything. Returns the exit status."""
    options = _parser().parse_args(arguments)
    plan = QUICK if options.quick else FULL
    command = f"python -m benchmarks.bench{' --quick' if options.quick else ''}"
    started = time.monotonic()
    artifact = Repository(options.repository).open(options.model)
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        try:
            result, raw = measure(options, artifact, plan, Path(folder), command)
        except BenchmarkError as error:
            print(f"cannot measure: {error}", file=sys.stderr)
            return 1
    result["minutes"] = round((time.monotonic() - started) / 60, 1)
    name = "quick" if options.quick else "bench"
    write_results(name, result, raw)
    print(f"\n{targets.as_text(result)}\n\n{throughput_table(result)}\n")
    if options.write_docs:
        write_docs(result)
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Everything there is to measure about the served model.")
    add_model_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of twelve, and a wider spread")
    parser.add_argument("--checkpoint", type=Path, help="fine-tuned model to make the yardstick from")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    return parser


def measure(
    options: argparse.Namespace, artifact: Artifact, plan: Plan, folder: Path, command: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result and the raw samples behind it. Raises BenchmarkError."""
    described = machine.describe(command)
    print(f"{described['cpu']}, {described['cores']} cores, {', '.join(described['instruction_sets'])}")
    workload = open_workload(artifact, options.texts)
    yardstick = build_yardstick(artifact, folder, options.checkpoint)
    peaks = machine.gemm_peaks(plan.peak_seconds)
    bodies, probe = bodies_of(workload, folder), workload.short[0]
    where = (options.repository, options.model)
    cold = cold_start_seconds(*where, options.variant, folder, probe, plan.cold_starts)
    floor = measure_floor(*where, folder, probe, bodies)
    with ExitStack() as stack:
        server = stack.enter_context(slipway(*where, options.variant, folder, probe))
        served = served_model(server, probe)
        gauge, grids = make_gauge(artifact, served["variant"], workload, plan, yardstick, peaks)
        target = Target("slipway", server, bodies, shares=gauge.shares)
        print("\nClosed loop")
        runs = run_all([target], gauge, plan)["slipway"]
        weight = server.weigh()
        print("\nOpen loop")
        saturation = statistics.median(run["ratio"] for run in runs if (run["kind"], run["clients"]) == ("short", 128))
        load = open_loop.open_load(workload, folder, "slipway")
        points = open_loop.measure(target, load, gauge, plan, saturation)
    result = {
        **headline(runs, open_loop.summarize_points(points)),
        **weights(weight),
        "cold_start_s": cold["median"],
        "engine": gauge.limit.engine,
        "variant": served["variant"],
        "model": {name: served[name] for name in ("name", "version", "digest") if name in served},
        "peak_gops": peaks,
        "limits": _limits(gauge, grids, {"short": workload.short, "long": workload.long}),
        "http_floor": floor,
        "workload": workload.source,
        "machine": described,
    }
    result["spread"]["cold_start_s"] = [cold["low"], cold["high"]]
    raw = {"runs": runs, "open_loop": points, "grids": {kind: as_rows(found) for kind, found in grids.items()}}
    return result, raw


def weights(weight: Weight) -> dict[str, Any]:
    """Memory of the server after the load."""
    found = asdict(weight)
    return {
        "memory_mb": round(found["rss_bytes"] / _MEGA, 1),
        "memory_pss_mb": round(found["pss_bytes"] / _MEGA, 1),
        "processes": found["processes"],
    }


def headline(runs: Sequence[Mapping[str, Any]], opened: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that the targets are about, with `spread`: their ranges by dotted path."""
    loads = summarize(runs)
    short = {str(clients): loads[f"short-{clients}"] for clients in SHORT_CLIENTS}
    spread: dict[str, Any] = {}

    def pick(name: str, of: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, float]:
        for key, found in of.items():
            spread[f"{name}.{key}"] = [found[field]["low"], found[field]["high"]]
        return {key: found[field]["median"] for key, found in of.items()}

    def one(name: str, found: Mapping[str, float]) -> float:
        spread[name] = [found["low"], found["high"]]
        return found["median"]

    excess = [run["p50_ms"] - run["batch1_ms"] for run in runs if (run["kind"], run["clients"]) == ("short", 1)]
    spread["p50_over_batch1_ms"] = [min(excess), max(excess)]
    busy = {key: short[key] for key in short if key != "1"}
    long = {"32": loads["long-32"]}
    return {
        "ratio": pick("ratio", busy, "ratio"),
        "ratio_yardstick": pick("ratio_yardstick", busy, "ratio_yardstick"),
        "ratio_long": pick("ratio_long", long, "ratio"),
        "ratio_long_yardstick": pick("ratio_long_yardstick", long, "ratio_yardstick"),
        "requests_per_second": pick("requests_per_second", short, "requests_per_second"),
        **({"percent_of_peak": pick("percent_of_peak", short, "percent_of_peak")} if _has_share(short) else {}),
        "p50_ms": pick("p50_ms", short, "p50_ms"),
        "p99_ms": pick("p99_ms", short, "p99_ms"),
        "engine_batch1_ms": one("engine_batch1_ms", short["1"]["batch1_ms"]),
        "p50_over_batch1_ms": statistics.median(excess),
        "cpu_ms_per_request": pick("cpu_ms_per_request", short, "cpu_ms_per_request"),
        "cpu_over_limit": one("cpu_over_limit", short["32"]["cpu_over_limit"]),
        "limit_cpu_ms": _limit_cpu_ms(runs),
        "many_texts_speedup": one("many_texts_speedup", loads["mixed-1"]["speedup"]),
        "many_texts_speedup_4_clients": one("many_texts_speedup_4_clients", loads["mixed-4"]["speedup"]),
        "padded_over_real": one("padded_over_real", loads["mixed-1"]["padded_over_real"]),
        "padding": {key: found["padded_over_real"]["median"] for key, found in loads.items()},
        "goodput_at_2x": opened["goodput_at_2x"],
        "p99_over_deadline_at_2x": opened["p99_ms_at_2x"] / (1000 * opened["deadline_seconds"]),
        "open_loop": opened,
        "spread": spread,
    }


def _has_share(loads: Mapping[str, Mapping[str, Any]]) -> bool:
    return all("percent_of_peak" in load for load in loads.values())


def _limit_cpu_ms(runs: Sequence[Mapping[str, Any]]) -> float:
    found: list[float] = [run["before"]["limit_cpu_ms"] for run in runs if run["kind"] == "short"]
    return statistics.median(found)


def _limits(
    gauge: Gauge, grids: Mapping[str, dict[Layout, list[Sample]]], texts: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The in-process limit of each kind of text, and what share of the machine's peak it is."""
    found = {}
    for kind, each in texts.items():
        rates = {layout: median_rate(samples) for layout, samples in grids[kind].items()}
        winner = max(rates, key=lambda layout: rates[layout])
        found[kind] = {
            "texts_per_second": rates[winner],
            "layout": str(winner),
            "mean_tokens": statistics.mean(gauge.limit.count_tokens(text) for text in each),
            "gigaoperations_per_text": gauge.shares[kind].gigaoperations_per_text,
            "percent_of_peak": gauge.shares[kind].percent(rates[winner]),
        }
    return found


def percent_of_peak(result: Mapping[str, Any], kind: str, texts_per_second: float) -> float | None:
    """What share of the peak a throughput on this kind of text is, by the limit's own share."""
    limit = result["limits"][kind]
    if not limit["percent_of_peak"]:
        return None
    return float(limit["percent_of_peak"]) * texts_per_second / float(limit["texts_per_second"])


def throughput_table(result: Mapping[str, Any]) -> str:
    """Every throughput with its share of the peak, as Markdown, which reads well on a terminal too."""
    rows = [("load", "per second", "% of peak", "p50 ms", "p99 ms", "CPU ms")]
    for kind in ("short", "long"):
        limit = result["limits"][kind]
        rate, share = limit["texts_per_second"], limit["percent_of_peak"]
        rows.append((f"limit, {kind} texts: {limit['layout']}", f"{rate:.0f}", _percent(share), "", "", ""))
    for clients, rate in result["requests_per_second"].items():
        share = percent_of_peak(result, "short", rate)
        latency = (f"{result['p50_ms'][clients]:.2f}", f"{result['p99_ms'][clients]:.2f}")
        cpu = f"{result['cpu_ms_per_request'][clients]:.2f}"
        rows.append((f"served, {clients} clients, short texts", f"{rate:.0f}", _percent(share), *latency, cpu))
    for clients, found in result["http_floor"].items():
        latency = (f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}")
        cpu = f"{found['cpu_ms_per_request']:.3f}"
        rows.append((f"HTTP floor, {clients} clients", f"{found['requests_per_second']:.0f}", "", *latency, cpu))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    peaks = ", ".join(f"{name} {max(found.values()):.0f}" for name, found in result["peak_gops"].items() if found)
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], "", f"Measured peak, GOP/s: {peaks}."])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0f} %"


# --- what stays -------------------------------------------------------------------------------------------------


def write_results(name: str, result: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
    """`NAME.json`, `NAME-raw.json` and the plots in benchmarks/results."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}-raw.json").write_text(json.dumps(raw) + "\n", encoding="utf-8")
    try:
        from benchmarks.plots import draw_all

        draw_all(result, RESULTS, prefix="quick-" if name == "quick" else "")
    except ModuleNotFoundError as error:
        print(f"no plots: {error.name} is not installed", file=sys.stderr)


def write_docs(result: Mapping[str, Any], page: Path = _DOCS) -> None:
    """Replace what stands between the two marks in docs/performance.md. Raises BenchmarkError without them."""
    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not (begin and end):
        raise BenchmarkError(f"{page.name} has no {_BEGIN} ... {_END}")
    page.write_text(f"{head}{begin}\n{section(result)}\n{end}{tail}", encoding="utf-8")


def section(result: Mapping[str, Any]) -> str:
    """What docs/performance.md says of a run."""
    about = result["machine"]
    cpu = f"{about['cpu']}, {about['cores']} cores ({', '.join(about['instruction_sets'])})"
    packages = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return "\n".join(
        [
            f"`{about['command']}`, {about['time']}, {result['minutes']} minutes. {cpu}, Linux {about['kernel']}, "
            f"Python {about['python']}; {packages}; wrk {about['wrk']}. "
            f"Served: variant `{result['variant']}` on {result['engine']}.",
            "",
            targets.as_markdown(result),
            "",
            throughput_table(result),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
