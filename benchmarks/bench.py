"""`make bench`: every measurement of the served model, one after the other, and the table of what was reached.

    python -m benchmarks.bench --repository models --model sentiment [--quick]

First what the default image serves, then, shorter and apart, the same model with the OpenVINO extra where that is
installed. Takes about a quarter of an hour (two minutes with --quick, which leaves OpenVINO out) on two cores, and
wants the machine to itself. Writes raw samples, the result and plots into benchmarks/results/; the last line of stdout
is the result as one JSON document. Nothing here passes or fails on a speed: the exit status says whether everything
could be measured.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from artifact.repository import Artifact, Repository
from benchmarks import first_request, machine, open_loop, openvino, targets
from benchmarks.http import (
    FULL,
    QUICK,
    SHORT_CLIENTS,
    Gauge,
    Plan,
    Target,
    as_shipped,
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
from benchmarks.process import weights
from benchmarks.wrk import BenchmarkError
from benchmarks.yardstick import build_yardstick

RESULTS: Final = Path(__file__).with_name("results")
_DOCS: Final = Path(__file__).parent.parent / "docs" / "performance.md"
_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"


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
    print(f"\n{targets.as_text(result)}\n\n{throughput_table(result)}\n\n{openvino.section(result)}\n")
    if options.write_docs:
        write_docs(result)
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Everything there is to measure about the served model.")
    add_model_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="two minutes, a wider spread, no OpenVINO")
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
    bodies = bodies_of(workload, folder)
    setting = openvino.Setting(options.repository, options.model, artifact, workload, bodies, yardstick, peaks, folder)
    environ = as_shipped(artifact, options.variant)
    starts, raw_starts = measure_starts(setting, plan, options.variant, environ)
    floor = measure_floor(options.repository, options.model, folder, workload.short[0], bodies)
    found, raw = measure_served(setting, plan, options.variant, environ)
    extra, raw_extra = measure_extra(setting, plan)
    result = {**found, **starts, **extra, "http_floor": floor, "workload": workload.source, "machine": described}
    result["spread"] = found["spread"] | starts["spread"]
    return result, raw | {"first_requests": raw_starts, "openvino": raw_extra}


def measure_starts(
    setting: openvino.Setting, plan: Plan, variant: str | None, environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fresh servers: how soon they answer, and what the first request costs; the milliseconds of every request."""
    where = (setting.repository, setting.model, variant, setting.folder)
    cold = cold_start_seconds(*where, setting.workload.short[0], plan.cold_starts, environ)
    raw = first_request.measure(
        lambda: slipway(*where, None, environ=environ), first_request.texts_of(setting.artifact), plan.first_requests
    )
    first = first_request.summarize(raw)
    ranges = {
        f"first_request_ratio.{name}": [each["ratio"]["low"], each["ratio"]["high"]]
        for name, each in first["first_requests"].items()
    }
    spread = {"cold_start_s": [cold["low"], cold["high"]], **ranges}
    return {"cold_start_s": cold["median"], **first, "spread": spread}, raw


def measure_served(
    setting: openvino.Setting, plan: Plan, variant: str | None, environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Closed and open loop of one server, with the references around each run; and the raw samples."""
    workload, probe = setting.workload, setting.workload.short[0]
    with slipway(setting.repository, setting.model, variant, setting.folder, probe, environ=environ) as server:
        served = served_model(server, probe)
        gauge, grids = make_gauge(setting.artifact, served, workload, plan, setting.yardstick, setting.peaks)
        target = Target("slipway", server, setting.bodies, shares=gauge.shares)
        print("\nClosed loop")
        runs = run_all([target], gauge, plan)["slipway"]
        weight = server.weigh()
        print("\nOpen loop")
        saturation = statistics.median(run["ratio"] for run in runs if (run["kind"], run["clients"]) == ("short", 128))
        load = open_loop.open_load(workload, setting.folder, "slipway")
        points = open_loop.measure(target, load, gauge, plan, saturation)
    result = {
        **headline(runs, open_loop.summarize_points(points)),
        **weights(weight),
        "engine": served["engine"],
        "variant": served["variant"],
        "model": {name: served[name] for name in ("name", "version", "digest") if name in served},
        "peak_gops": setting.peaks,
        "limits": _limits(gauge, grids, {"short": workload.short, "long": workload.long}),
    }
    return result, {"runs": runs, "open_loop": points, "grids": {kind: as_rows(each) for kind, each in grids.items()}}


def measure_extra(setting: openvino.Setting, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """`openvino`, None with the reason in `openvino_why_not`; what was measured before is not lost to a failure."""
    if plan.quick:
        return {"openvino": None, "openvino_why_not": "left out by --quick"}, {}
    try:
        found, raw = openvino.measure(setting)
    except BenchmarkError as error:
        return {"openvino": None, "openvino_why_not": str(error)}, {}
    return {"openvino": found}, raw


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
            "",
            openvino.section(result),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
