"""A served model under closed-loop load, each run between two runs of the in-process references.

    python -m benchmarks.http --repository models --model sentiment --quick

starts the real `slipway serve`, drives it with wrk over loopback, and prints one JSON document at the end.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from artifact.files import cache_dir
from artifact.repository import Artifact, Repository
from benchmarks import machine
from benchmarks.figures import sandwiched, spread
from benchmarks.limit import (
    Layout,
    Reference,
    Sample,
    add_model_arguments,
    best,
    choose_variant,
    computes_in,
    grid,
    measure_grid,
    open_workload,
    print_grid,
    whole_task,
)
from benchmarks.peers.encoder import read_tokens
from benchmarks.process import Server, free_port, probe_body, running
from benchmarks.share import Peaks, Share, in_words, measure_shares
from benchmarks.workload import MIXED_SIZE, Workload, write_bodies
from benchmarks.wrk import BenchmarkError, Load, run_closed
from benchmarks.yardstick import BATCH, PRECISION, THREADS, WORKERS, build_yardstick
from inference.backends.onnx import OnnxBackend
from inference.engines import open_cache
from inference.layout import usable_cores

SHORT_CLIENTS: Final = (1, 8, 32, 128)
LOADS: Final = (*(("short", clients) for clients in SHORT_CLIENTS), ("long", 32), ("mixed", 1), ("mixed", 4))
YARDSTICK: Final = Layout(WORKERS, THREADS, True, BATCH)
# What the `slipway` script does, but of the tree that this runs from, whatever the environment has installed.
_SLIPWAY: Final = (sys.executable, "-m", "cli")
_SERVED_BY_DEFAULT: Final = "onnxruntime"


@dataclass(frozen=True)
class Plan:
    """How long everything takes. `cold_starts`: servers started for that figure; `first_requests`: for each text."""

    repetitions: int
    load_seconds: int
    reference_seconds: float
    grid_seconds: float
    grid_rounds: int
    cold_starts: int
    first_requests: int
    open_seconds: int
    open_repetitions: int
    peak_seconds: float
    quick: bool


FULL: Final = Plan(5, 5, 1.5, 0.8, 3, 5, 5, 8, 3, 1.5, False)
QUICK: Final = Plan(2, 2, 0.7, 0.4, 1, 2, 1, 3, 1, 0.3, True)


# Which of a gauge's references is a target's own limit: that of the engine and variant that it serves. The names begin
# what `Gauge.read` calls them; nothing begins with the last.
OURS: Final = ""
YARDSTICKS: Final = "yardstick_"
NOBODYS: Final = "nobodys_"


@dataclass(frozen=True)
class Target:
    """A running server and how it is asked. `bodies` holds a file of request bodies for each kind of load.

    `limit` says which reference has its engine and variant. `shares` of the machine's peak
    are by kind of load. `counts` is the folder in which a peer's encoders count their tokens; Slipway has metrics.
    """

    name: str
    server: Server
    bodies: Mapping[str, Path]
    path: str = "/predict"
    id_in: str = "header"
    is_slipway: bool = True
    limit: str = OURS
    shares: Mapping[str, Share] = field(default_factory=dict)
    counts: Path | None = None

    def tokens(self) -> tuple[float, float] | None:
        """Real and padded tokens computed so far, where the server can be asked."""
        if self.is_slipway:
            return tokens_of(self.server.get("/metrics"))
        found = read_tokens(self.counts) if self.counts else (0, 0)
        return found if any(found) else None

    def percent_of_peak(self, kind: str, texts_per_second: float) -> float | None:
        """Of the machine's measured peak."""
        return self.shares[kind].percent(texts_per_second) if kind in self.shares else None


class Gauge:
    """The references, read before and after every load run; `shares` of the peak are the limit's, by kind.

    `yardstick_layouts` are where the yardstick is fastest: the limit of peers that serve its graph, read as well.
    """

    def __init__(
        self,
        limit: Reference,
        yardstick: Reference | None,
        workload: Workload,
        layouts: Mapping[str, Layout],
        seconds: float,
        shares: Mapping[str, Share],
        yardstick_layouts: Mapping[str, Layout] | None = None,
    ) -> None:
        self.limit = limit
        self.yardstick = yardstick
        self.shares = shares
        self._workload = workload
        self._layouts = layouts
        self._seconds = seconds
        self._yardstick_layouts = yardstick_layouts or {}

    def read(self, kind: str) -> dict[str, float]:
        """Texts per second of the limit and the yardstick on texts of this kind, and what belongs to them."""
        if kind == "mixed":
            padded = self.limit.padded_batch(self._workload.mixed, self._layouts[kind], seconds=self._seconds)
            return {"padded_batch": padded.rate}
        texts = self._workload.short if kind == "short" else self._workload.long
        limit = self.limit.run(texts, self._layouts[kind], seconds=self._seconds)
        found = {"limit": limit.rate, "limit_cpu_ms": limit.cpu_ms}
        if self.yardstick is not None:
            found["yardstick"] = self.yardstick.run(texts, YARDSTICK, seconds=self._seconds).rate
            found |= self._yardsticks_limit(self.yardstick, kind, texts)
        if kind == "short":
            found["batch1_ms"] = min(self.batch1_ms().values())
        return found

    def _yardsticks_limit(self, yardstick: Reference, kind: str, texts: Sequence[str]) -> dict[str, float]:
        if kind not in self._yardstick_layouts:
            return {}
        sample = yardstick.run(texts, self._yardstick_layouts[kind], seconds=self._seconds)
        found = {"limit": sample.rate, "limit_cpu_ms": sample.cpu_ms}
        if kind == "short":
            found["batch1_ms"] = yardstick.batch1_ms(texts, THREADS, seconds=self._seconds / 4)
        return {f"{YARDSTICKS}{name}": value for name, value in found.items()}

    def batch1_ms(self) -> dict[int, float]:
        """The engine's time for a single text alone, by kernel threads: one, and all cores."""
        counts = sorted({1, usable_cores()})
        return {n: self.limit.batch1_ms(self._workload.short, n, seconds=self._seconds / 4) for n in counts}


def make_gauge(
    artifact: Artifact,
    served: Mapping[str, Any],
    workload: Workload,
    plan: Plan,
    yardstick: Path | None,
    peaks: Peaks,
    *,
    peers: bool = False,
) -> tuple[Gauge, dict[str, Any]]:
    """Find the limit's layout for each kind of load on a printed grid; the grid's raw samples come back too.

    The limit is that of the variant and engine in `served`, as `served_model` tells them. With `peers` the yardstick's
    best layouts are looked for as well.
    """
    chosen, engine = choose_variant(artifact, served["variant"]), served["engine"]
    reference = Reference.of(artifact, chosen, engine)
    shares = measure_shares(artifact, computes_in(chosen, engine), peaks, workload, reference.count_tokens)
    grids = _measure_grids(reference, workload, plan, shares)
    layouts = {kind: best(samples) for kind, samples in grids.items()}
    layouts["mixed"] = _best_padded(reference, workload, plan, shares["mixed"])
    other, others = None, None
    if yardstick is not None:
        other = Reference("yardstick", whole_task(artifact), lambda _, threads: OnnxBackend(yardstick, threads=threads))
        if peers:
            theirs = measure_shares(artifact, PRECISION, peaks, workload, other.count_tokens)
            found = _measure_grids(other, workload, plan, theirs)
            others = {kind: best(samples) for kind, samples in found.items()}
    return Gauge(reference, other, workload, layouts, plan.reference_seconds, shares, others), grids


def _measure_grids(
    reference: Reference, workload: Workload, plan: Plan, shares: Mapping[str, Share]
) -> dict[str, dict[Layout, list[Sample]]]:
    """The samples of every layout, for short and long texts."""
    grids = {}
    for kind, texts in (("short", workload.short), ("long", workload.long)):
        sizes = (1, 2, 4) if kind == "long" and plan.quick else ()
        points = grid(usable_cores(), quick=plan.quick, batches=sizes)
        grids[kind] = measure_grid(reference, texts, points, seconds=plan.grid_seconds, rounds=plan.grid_rounds)
        print_grid(f"The limit of {reference.name} on {reference.engine}, {kind} texts", grids[kind], shares[kind])
    return grids


def _best_padded(reference: Reference, workload: Workload, plan: Plan, share: Share) -> Layout:
    """One padded batch of 32 at a time on all cores, or one per core, whichever is faster."""
    samples: dict[Layout, list[Sample]] = {}
    for layout in grid(usable_cores(), quick=True, batches=(MIXED_SIZE,)):
        taken = [reference.padded_batch(workload.mixed, layout, seconds=plan.grid_seconds) for _ in range(2)]
        samples[layout] = taken
    print_grid(f"One padded batch of {MIXED_SIZE} mixed texts", samples, share)
    return best(samples)


# --- the server -------------------------------------------------------------------------------------------------


def bodies_of(workload: Workload, folder: Path, **fields: object) -> dict[str, Path]:
    """A file of request bodies for each kind."""
    kinds = {
        "short": [(text,) for text in workload.short],
        "long": [(text,) for text in workload.long],
        "mixed": workload.mixed,
    }
    return {kind: write_bodies(folder / f"{kind}.jsonl", bodies, **fields) for kind, bodies in kinds.items()}


@contextmanager
def slipway(
    repository: Path,
    model: str,
    variant: str | None,
    folder: Path,
    probe: str | None,
    *,
    floor: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """The real service, or with `floor` the same around a backend that does no work, once it has answered `probe`.

    Without a probe once it is ready, with its first request to come. `environ` holds further settings.
    """
    port = free_port()
    words = [sys.executable, "-m", "benchmarks.floor", "--model", model] if floor else [*_SLIPWAY, "serve"]
    if not floor:
        words += ["--default-model", model, *(["--variant", variant] if variant else [])]
    words += ["--repository", str(repository), "--port", str(port)]
    log = folder / ("floor.log" if floor else "serve.log")
    body, path = (None, "/health/ready") if probe is None else (probe_body(probe), "/predict")
    with running(words, port=port, probe=body, path=path, log=log, environ=environ) as server:
        yield server


def as_shipped(artifact: Artifact, variant: str | None) -> dict[str, str]:
    """Settings that keep `slipway serve` to the engine of the default image where it would choose another one here."""
    choice = open_cache(cache_dir(os.environ)).read(artifact)
    other = variant is None and choice is not None and choice.plan.engine != _SERVED_BY_DEFAULT
    return {"SLIPWAY_ENGINE": _SERVED_BY_DEFAULT} if other else {}


def served_model(server: Server, text: str) -> dict[str, Any]:
    """What the service says of the model that answers: name, version, digest, variant, engine."""
    import urllib.request

    request = urllib.request.Request(
        f"{server.url}/predict", probe_body(text), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        found: dict[str, Any] = json.load(response)["model"]
    return found | {"engine": engine_of(json.loads(server.get("/health")), found)}


def engine_of(health: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The engine of the version that answered. Raises BenchmarkError when /health does not know it."""
    for each in health["models"]:
        if (each["name"], each["version"]) == (model["name"], model["version"]) and each["engine"]:
            return str(each["engine"])
    raise BenchmarkError(f"/health does not say which engine runs {model['name']}:{model['version']}")


def tokens_of(page: str) -> tuple[float, float]:
    """Real and padded tokens executed so far, from the metrics page."""
    found = {"tokens": 0.0, "padded_tokens": 0.0}
    for name, value in re.findall(r"^slipway_(tokens|padded_tokens)_total(?:\{[^}]*\})? (\S+)", page, re.MULTILINE):
        found[name] += float(value)
    return found["tokens"], found["padded_tokens"]


# --- one run ----------------------------------------------------------------------------------------------------


def run_load(target: Target, kind: str, clients: int, seconds: int) -> dict[str, Any]:
    """One closed-loop run, with the server's CPU time and padding. Raises BenchmarkError when a request failed."""
    padding = target.tokens()
    load, cpu = _closed_loop(target, kind, clients, seconds)
    found: dict[str, Any] = {
        "kind": kind,
        **asdict(load),
        "requests_per_second": load.rate,
        "texts_per_second": _texts_per_second(kind, load),
        "cpu_ms_per_request": 1000 * cpu / load.requests,
        "client_cpu_share": load.client_cpu_seconds / load.seconds / usable_cores(),
    }
    after = target.tokens()
    if padding is not None and after is not None:
        found["padded_over_real"] = (after[1] - padding[1]) / max(1.0, after[0] - padding[0])
    if (percent := target.percent_of_peak(kind, found["texts_per_second"])) is not None:
        found["percent_of_peak"] = percent
    return found


def _closed_loop(target: Target, kind: str, clients: int, seconds: int) -> tuple[Load, float]:
    """The load, and the server's CPU seconds; longer where `seconds` are over before a slow server's first answer."""
    for period in (seconds, 4 * seconds, 16 * seconds):
        cpu = target.server.cpu_seconds()
        load = run_closed(target.server.url, target.bodies[kind], clients=clients, seconds=period, path=target.path)
        cpu = target.server.settled_cpu_seconds() - cpu
        if load.failed:
            raise BenchmarkError(f"{target.name}: {load.failed} of {load.requests} requests failed ({kind}, {clients})")
        if load.requests:
            return load, cpu
    raise BenchmarkError(f"{target.name}: no answer within {period} s ({kind}, {clients})")


def _texts_per_second(kind: str, load: Load) -> float:
    """Of large bodies by Little's law: a run holds so few that the unfinished ones at its end would weigh."""
    return MIXED_SIZE * clients_per_second(load) if kind == "mixed" else load.rate


def clients_per_second(load: Load) -> float:
    """Requests per second that so many clients make when each waits its mean latency and no longer."""
    return 1000 * load.clients / load.mean_ms


def compare(
    run: dict[str, Any], before: Mapping[str, float], after: Mapping[str, float], limit: str = OURS
) -> dict[str, Any]:
    """The run with its references, and its ratios to them; `limit` is which of them is the target's own."""
    rate = run["texts_per_second"]
    found = {**run, "before": dict(before), "after": dict(after)}
    for reference, ratio in ((f"{limit}limit", "ratio"), ("yardstick", "ratio_yardstick"), ("padded_batch", "speedup")):
        if reference in before:
            found[ratio] = sandwiched(rate, before[reference], after[reference])
    if (cpu_ms := f"{limit}limit_cpu_ms") in before:
        found["cpu_over_limit"] = sandwiched(run["cpu_ms_per_request"], before[cpu_ms], after[cpu_ms])
    if (alone := f"{limit}batch1_ms") in before:
        found["batch1_ms"] = (before[alone] + after[alone]) / 2
    return found


def run_all(
    targets: Sequence[Target], gauge: Gauge, plan: Plan, loads: Sequence[tuple[str, int]] = LOADS
) -> dict[str, list[dict[str, Any]]]:
    """Every load on every target, in turns, by target name. Runs of one kind share the references between them."""
    runs: dict[str, list[dict[str, Any]]] = {target.name: [] for target in targets}
    for target in targets:
        run_load(target, loads[0][0], 8, 1)
    for repetition in range(plan.repetitions):
        for kind in dict.fromkeys(kind for kind, _ in loads):
            before = gauge.read(kind)
            for clients in (clients for of, clients in loads if of == kind):
                for target in targets:
                    run = run_load(target, kind, clients, plan.load_seconds)
                    after = gauge.read(kind)
                    runs[target.name].append({"repetition": repetition, **compare(run, before, after, target.limit)})
                    before = after
                    print(_line(target, runs[target.name][-1]), flush=True)
    return runs


def _line(target: Target, run: Mapping[str, Any]) -> str:
    ratio = " ".join(f"{name} {run[name]:.2f}" for name in ("ratio", "ratio_yardstick", "speedup") if name in run)
    of_peak = in_words(run.get("percent_of_peak"))
    return (
        f"  {target.name:<22} {run['kind']:<5} {run['clients']:>3} clients {run['requests_per_second']:8.1f} req/s "
        f"{of_peak:>12}  p50 {run['p50_ms']:7.2f} p99 {run['p99_ms']:7.2f} ms  "
        f"cpu {run['cpu_ms_per_request']:6.2f} ms  {ratio}"
    )


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Median and range over the repetitions of every load, under `kind-clients`."""
    names = (
        "requests_per_second",
        "texts_per_second",
        "p50_ms",
        "p99_ms",
        "ratio",
        "ratio_yardstick",
        "speedup",
        "cpu_ms_per_request",
        "cpu_over_limit",
        "padded_over_real",
        "client_cpu_share",
        "batch1_ms",
        "percent_of_peak",
    )
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(f"{run['kind']}-{run['clients']}", []).append(run)
    return {
        key: {name: spread([run[name] for run in group]) for name in names if name in group[0]}
        for key, group in groups.items()
    }


def closed_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a server did with one text a request, named as in `make bench`; None where a figure does not apply."""
    loads = summarize(runs)
    short = {str(clients): loads[f"short-{clients}"] for clients in SHORT_CLIENTS}
    busy = {clients: found for clients, found in short.items() if clients != "1"}
    long = {"32": loads["long-32"]}
    everywhere = ("requests_per_second", "percent_of_peak", "p50_ms", "p99_ms", "cpu_ms_per_request")
    return {
        "ratio": _medians(busy, "ratio"),
        "ratio_yardstick": _medians(busy, "ratio_yardstick"),
        "ratio_long": _medians(long, "ratio"),
        "ratio_long_yardstick": _medians(long, "ratio_yardstick"),
        **{name: _medians(short, name) for name in everywhere},
        "engine_batch1_ms": _median(short["1"], "batch1_ms"),
        "cpu_over_limit": _median(short["32"], "cpu_over_limit"),
    }


def _median(load: Mapping[str, Any], name: str) -> float | None:
    return float(load[name]["median"]) if name in load else None


def _medians(loads: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float] | None:
    """By clients; None when it was not measured at all."""
    found = {clients: load[name]["median"] for clients, load in loads.items() if name in load}
    return found or None


def cold_start_seconds(
    repository: Path,
    model: str,
    variant: str | None,
    folder: Path,
    probe: str,
    times: int,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """Process start to first answer, with the artifact in the page cache and this machine's choices made."""
    found = []
    for _ in range(times + 1):
        with slipway(repository, model, variant, folder, probe, environ=environ) as server:
            found.append(server.first_answer_seconds)
    return spread(found[1:])


def measure_floor(repository: Path, model: str, folder: Path, probe: str, bodies: Mapping[str, Path]) -> dict[str, Any]:
    """What the stack costs without a model, at one and at 32 clients."""
    with slipway(repository, model, None, folder, probe, floor=True) as server:
        target = Target("floor", server, bodies)
        run_load(target, "short", 8, 1)
        runs = {clients: run_load(target, "short", clients, 2) for clients in (1, 32)}
    return {
        str(clients): {name: run[name] for name in ("requests_per_second", "p50_ms", "p99_ms", "cpu_ms_per_request")}
        for clients, run in runs.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the served model alone. Returns the exit status."""
    parser = argparse.ArgumentParser(description="A served model under closed-loop load.")
    add_model_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, and a wider spread")
    parser.add_argument("--checkpoint", type=Path, help="fine-tuned model to make the yardstick from")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    artifact = Repository(options.repository).open(options.model)
    workload = open_workload(artifact, options.texts)
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        folder = Path(scratch)
        yardstick = build_yardstick(artifact, folder, options.checkpoint)
        bodies = bodies_of(workload, folder)
        probe = workload.short[0]
        with slipway(options.repository, options.model, options.variant, folder, probe) as server:
            served, peaks = served_model(server, probe), machine.gemm_peaks(plan.peak_seconds)
            gauge, _ = make_gauge(artifact, served, workload, plan, yardstick, peaks)
            runs = run_all([Target("slipway", server, bodies, shares=gauge.shares)], gauge, plan)["slipway"]
            weight = server.weigh()
    p99 = statistics.median(run["p99_ms"] for run in runs if (run["kind"], run["clients"]) == ("short", 32))
    print(json.dumps({"p99_ms_at_32": p99, "weight": asdict(weight), "loads": summarize(runs)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
