"""Does it stay the same size? Mixed lengths for minutes, memory and open files sampled all along.

    python -m benchmarks.soak --minutes 30

Prints the slopes after the settling part of the run, in MB and files per hour. A run of the full length keeps its
samples in benchmarks/results/, a shorter one only in the folder that --results names. Fails when a request was lost
(no answer, or an error) or open files kept growing; never on a speed, so a refusal (429, 503, 504) is counted and
nothing more. Nor on memory: its slope over one minute is mostly noise, over thirty it is not.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from artifact.repository import Repository
from benchmarks import machine
from benchmarks.bench import RESULTS
from benchmarks.figures import settled_slope
from benchmarks.http import served_model, slipway
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.process import Server
from benchmarks.workload import Workload, write_bodies
from benchmarks.wrk import BenchmarkError, Load, run_closed

_CLIENTS: Final = 16
# Below what wrk waits for an answer: a machine that is too slow then refuses, which is no loss.
_DEADLINE_SECONDS: Final = 10
# More than what comes and goes: a log being turned over, a client connecting again.
_SPARE_FILES: Final = 8
_FULL_MINUTES: Final = 30.0
_MEGA: Final = 1e6


@dataclass(frozen=True)
class Sample:
    """One look at the server."""

    seconds: float
    rss_bytes: int
    open_files: int


def mixed_lengths(workload: Workload, seed: int = 11) -> list[tuple[str, ...]]:
    """Bodies of one to eight texts, mostly short: every shape that memory could be kept for."""
    generator = random.Random(seed)
    sizes = generator.choices((1, 1, 1, 2, 4, 8), k=200)
    texts = (*workload.short, *workload.long)
    return [tuple(generator.choices(texts, k=size)) for size in sizes]


def watch(server: Server, stop: threading.Event, every_seconds: float) -> list[Sample]:
    """Samples until told to stop."""
    began = time.monotonic()
    samples = []
    while not stop.wait(every_seconds):
        weight = server.weigh()
        samples.append(Sample(time.monotonic() - began, weight.rss_bytes, weight.open_files))
    return samples


def soak(server: Server, bodies: Path, seconds: int, every_seconds: float) -> tuple[list[Sample], Load]:
    """Load and watch; samples, and what became of the requests. Raises BenchmarkError when wrk cannot run."""
    stop = threading.Event()
    samples: list[Sample] = []

    def observe() -> None:
        samples.extend(watch(server, stop, every_seconds))

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        load = run_closed(server.url, bodies, clients=_CLIENTS, seconds=seconds, count_refused=True)
    finally:
        stop.set()
        observer.join()
    return samples, load


def failures(samples: Sequence[Sample], load: Load) -> list[str]:
    """What went wrong, a sentence each; empty when nothing did."""
    found = []
    if load.failed:
        found.append(f"{load.failed} requests were lost, {load.requests} were answered")
    if not load.requests:
        found.append("no request was answered")
    third = max(1, len(samples) // 3)
    early, late = ([sample.open_files for sample in part] for part in (samples[:third], samples[-third:]))
    if min(late) > max(early) + _SPARE_FILES:
        found.append(f"open files grew from at most {max(early)} to at least {min(late)}")
    return found


def summarize(samples: Sequence[Sample], load: Load) -> dict[str, Any]:
    """Sizes, and how fast they change once settled."""
    if len(samples) < 4:
        raise BenchmarkError("too short to say anything: soak for longer")
    times = [sample.seconds for sample in samples]

    def per_hour(of: Callable[[Sample], float]) -> float:
        return 3600 * settled_slope(times, [of(sample) for sample in samples])

    rss = [sample.rss_bytes / _MEGA for sample in samples]
    return {
        "minutes": round(times[-1] / 60, 2),
        "requests": load.requests,
        "refused": load.refused,
        "rss_mb": {"first": rss[0], "median": statistics.median(rss), "last": rss[-1], "most": max(rss)},
        "rss_mb_per_hour": per_hour(lambda sample: sample.rss_bytes / _MEGA),
        "open_files": {"first": samples[0].open_files, "last": samples[-1].open_files},
        "open_files_per_hour": per_hour(lambda sample: sample.open_files),
    }


def run(options: argparse.Namespace) -> tuple[list[Sample], Load, str]:
    """Serve the model and soak it: samples, what became of the requests, and the variant served."""
    artifact = Repository(options.repository).open(options.model)
    workload = open_workload(artifact, options.texts)
    seconds = max(4, round(60 * options.minutes))
    with tempfile.TemporaryDirectory(prefix="slipway-soak-") as scratch:
        folder, probe = Path(scratch), workload.short[0]
        bodies = write_bodies(folder / "soak.jsonl", mixed_lengths(workload))
        with slipway(options.repository, options.model, options.variant, folder, probe) as server:
            served = served_model(server, probe)
            samples, load = soak(server, bodies, seconds, every_seconds=min(5.0, seconds / 20))
    return samples, load, str(served["variant"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak the served model. Returns the exit status: 1 when something failed."""
    parser = argparse.ArgumentParser(description="Memory and open files of the service under long mixed load.")
    add_model_arguments(parser)
    parser.add_argument("--minutes", type=float, default=_FULL_MINUTES)
    parser.add_argument(
        "--results", type=Path, help="folder for the samples (default: the repository's, of a full run)"
    )
    options = parser.parse_args(arguments)
    try:
        samples, load, variant = run(options)
        result = {**summarize(samples, load), "variant": variant, "failures": failures(samples, load)}
    except BenchmarkError as error:
        print(f"cannot soak: {error}", file=sys.stderr)
        return 1
    result["machine"] = machine.describe(f"python -m benchmarks.soak --minutes {options.minutes:g}")
    if (folder := results_folder(options.results, options.minutes)) is not None:
        write_samples(folder, result, samples)
    report(result)
    return 1 if result["failures"] else 0


def results_folder(asked: Path | None, minutes: float) -> Path | None:
    """Where samples are kept; None for a short run that names no folder: a checkout stays clean."""
    return asked or (RESULTS if minutes >= _FULL_MINUTES else None)


def write_samples(folder: Path, result: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """`soak.json`: the result and every sample."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {**result, "samples": [asdict(sample) for sample in samples]}
    (folder / "soak.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")


def report(result: Mapping[str, Any]) -> None:
    """For people, and then as one JSON document."""
    print(f"{result['requests']} requests in {result['minutes']} minutes, {result['refused']} of them refused")
    print(f"memory {result['rss_mb']['median']:.0f} MB, slope {result['rss_mb_per_hour']:+.1f} MB/hour")
    print(f"open files {result['open_files']['last']}, slope {result['open_files_per_hour']:+.1f} /hour")
    for failure in result["failures"]:
        print(f"failed: {failure}", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
