"""The in-process limit: what an engine and variant do with no HTTP, no queue and the most favourable batches.

Texts are sorted by length beforehand, so that batches need no padding to speak of; tokenizing, stacking and computing
are inside the clock, decoding is not. The limit is the maximum over a printed grid of batch size x worker threads x
kernel threads x one session or one each: a slow reference must not flatter a ratio to it.

    python -m benchmarks.limit --repository models --model sentiment --variant int8
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from artifact.manifest import Variant
from artifact.repository import Artifact, Repository
from benchmarks.machine import gemm_peaks, run_together
from benchmarks.share import Share, in_words, measure_shares
from benchmarks.workload import Workload, make_workload, packaged_texts, read_texts
from inference.backends.base import Backend
from inference.backends.registry import open_backend
from inference.layout import usable_cores
from inference.tasks.base import Task
from inference.tasks.registry import open_task
from inference.tasks.windows import rows_of

_BATCHES: Final = (1, 2, 4, 8, 16, 32)
_QUICK_BATCHES: Final = (1, 4, 8)

# Opens a backend for so many workers at once, each execution on so many threads.
OpenBackend = Callable[[int, int], Backend]


@dataclass(frozen=True)
class Layout:
    """How the machine is used: `workers` threads, each computing on `threads`, in batches of `batch` texts."""

    workers: int
    threads: int
    shared: bool
    batch: int

    def __str__(self) -> str:
        sessions = "1 session" if self.shared else f"{self.workers} sessions"
        return f"{self.workers} x {self.threads} threads, {sessions}, batches of {self.batch}"


@dataclass(frozen=True)
class Sample:
    """One timed pass."""

    texts: int
    tokens: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Texts per second."""
        return self.texts / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per text."""
        return 1000 * self.cpu_seconds / self.texts


class Reference:
    """An engine that runs texts as fast as it can. Sessions are opened once per layout and kept."""

    def __init__(self, name: str, task: Task, opener: OpenBackend, whole: Task | None = None) -> None:
        """`whole` is the task for texts that are to be one row each, however long; without it they are as served."""
        self.name = name
        self.task = task
        self._whole = whole or task
        self._open = opener
        self._backends: dict[tuple[int, int, int], list[Backend]] = {}

    @classmethod
    def of(cls, artifact: Artifact, variant: Variant, engine: str | None = None) -> "Reference":
        """The variant through the backend that serves it on `engine`, or on the default one of its format."""

        def opener(workers: int, threads: int) -> Backend:
            return open_backend(artifact, variant, engine=engine, workers=workers, threads=threads)

        return cls(variant.name, open_task(artifact), opener, whole_task(artifact))

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._for(Layout(1, 1, True, 1))[0].engine

    def _for(self, layout: Layout) -> list[Backend]:
        """One backend per worker; shared ones are the same object."""
        sessions = 1 if layout.shared else layout.workers
        key = (layout.threads, sessions, layout.workers // sessions)
        if key not in self._backends:
            self._backends[key] = [self._open(layout.workers // sessions, layout.threads) for _ in range(sessions)]
        return [self._backends[key][index % sessions] for index in range(layout.workers)]

    def count_tokens(self, text: str) -> int:
        """Special tokens included."""
        return self.task.prepare(text, truncate=True).tokens

    def infer(self, backend: Backend, texts: Iterable[str], task: Task | None = None) -> int:
        """Tokenize, stack and compute one batch; its tokens."""
        task = task or self.task
        prepared = [task.prepare(text, truncate=True) for text in texts]
        backend.infer(task.collate([row for each in prepared for row in rows_of(each)]))
        return sum(each.tokens for each in prepared)

    def run(self, texts: Sequence[str], layout: Layout, *, seconds: float) -> Sample:
        """Whole passes over `texts`, by length, until `seconds` are over: each length counts as often as it occurs."""
        batches = self.batches(texts, layout.batch)
        end = time.perf_counter() + seconds
        turns = itertools.count()
        tokens: list[int] = []

        def work(backend: Backend) -> None:
            for turn in turns:
                if turn % len(batches) == 0 and turn and time.perf_counter() >= end:
                    stop.append(turn)
                if stop and turn >= stop[0]:
                    return
                tokens.append(self.infer(backend, batches[turn % len(batches)]))

        stop: list[int] = []
        cpu = time.process_time()
        elapsed = run_together([_bound(work, backend) for backend in self._for(layout)])
        cpu = time.process_time() - cpu
        passes = len(tokens) // len(batches)
        return Sample(passes * len(texts), sum(tokens), elapsed, cpu)

    def batches(self, texts: Sequence[str], size: int) -> list[Sequence[str]]:
        """Neighbours in length together; longest batch first, so that no worker ends with a long one alone."""
        ordered = sorted(texts, key=self.count_tokens, reverse=True)
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def batch1_ms(self, texts: Sequence[str], threads: int, *, seconds: float) -> float:
        """Median time of one text alone, tokenization included."""
        backend = self._for(Layout(1, threads, True, 1))[0]
        times = []
        end = time.perf_counter() + seconds
        for text in itertools.cycle(texts):
            started = time.perf_counter()
            self.infer(backend, (text,))
            times.append(time.perf_counter() - started)
            if time.perf_counter() >= end and len(times) > 2:
                return 1000 * statistics.median(times)
        raise AssertionError("cycle does not end")

    def padded_batch(self, bodies: Sequence[Sequence[str]], layout: Layout, *, seconds: float) -> Sample:
        """Each body as one batch in the order given, padded to its longest text: what many texts cost elsewhere.

        No text is read in windows, for that is half of what is gained.
        """
        backends = self._for(layout)
        end = time.perf_counter() + seconds
        turns = itertools.count()
        done: list[tuple[int, int]] = []

        def work(backend: Backend) -> None:
            for turn in turns:
                if turn >= len(backends) and time.perf_counter() >= end:
                    return
                body = bodies[turn % len(bodies)]
                done.append((len(body), self.infer(backend, body, self._whole)))

        cpu = time.process_time()
        elapsed = run_together([_bound(work, backend) for backend in backends])
        texts, tokens = (sum(column) for column in zip(*done, strict=True))
        return Sample(texts, tokens, elapsed, time.process_time() - cpu)


def _bound(work: Callable[[Backend], None], backend: Backend) -> Callable[[], None]:
    return lambda: work(backend)


def grid(cores: int, *, quick: bool = False, batches: Sequence[int] = ()) -> list[Layout]:
    """Every way to use `cores` that could win: all of them busy, by kernels' threads, by workers, or by both."""
    sizes = batches or (_QUICK_BATCHES if quick else _BATCHES)
    found = []
    for workers in (count for count in range(1, cores + 1) if cores % count == 0):
        for shared in (True, False) if workers > 1 and not quick else (True,):
            found += [Layout(workers, cores // workers, shared, size) for size in sizes]
    return found


def measure_grid(
    reference: Reference, texts: Sequence[str], layouts: Sequence[Layout], *, seconds: float, rounds: int
) -> dict[Layout, list[Sample]]:
    """Samples of every layout, taken in turns so that a machine that slows down slows them all."""
    samples: dict[Layout, list[Sample]] = {layout: [] for layout in layouts}
    for layout in layouts:
        reference.run(texts[: 4 * layout.batch], layout, seconds=0)
    for _ in range(rounds):
        for layout in layouts:
            samples[layout].append(reference.run(texts, layout, seconds=seconds))
    return samples


def best(samples: dict[Layout, list[Sample]]) -> Layout:
    """The layout with the greatest median rate."""
    return max(samples, key=lambda layout: median_rate(samples[layout]))


def median_rate(samples: Sequence[Sample]) -> float:
    """Texts per second."""
    return statistics.median(sample.rate for sample in samples)


def as_rows(samples: dict[Layout, list[Sample]]) -> list[dict[str, Any]]:
    """The grid with its raw samples, for the results file."""
    return [
        {**asdict(layout), "texts_per_second": round(median_rate(found), 1), "samples": [asdict(one) for one in found]}
        for layout, found in samples.items()
    ]


def print_grid(title: str, samples: dict[Layout, list[Sample]], share: Share | None = None) -> None:
    """One line a layout, with its share of the machine's peak; the best one marked."""
    print(f"\n{title}")
    winner = best(samples)
    for layout, found in samples.items():
        rates = [sample.rate for sample in found]
        rate = statistics.median(rates)
        of_peak = in_words(share.percent(rate)) if share else ""
        mark = "  <- the limit" if layout == winner else ""
        print(f"  {layout!s:<45} {rate:8.1f} texts/s  ({min(rates):.0f}-{max(rates):.0f})  {of_peak:>12}{mark}")


def whole_task(artifact: Artifact) -> Task:
    """The artifact's task with every text as one row: how others read it, and how the yardstick does."""
    manifest = artifact.manifest
    plain = manifest.preprocessing.model_copy(update={"window_tokens": None})
    return open_task(replace(artifact, manifest=manifest.model_copy(update={"preprocessing": plain})))


def open_workload(artifact: Artifact, texts: Path | None) -> Workload:
    """From a file of texts, or the packaged snippets; every text fits the model."""
    task = open_task(artifact)
    source, found = ("packaged movie reviews", packaged_texts()) if texts is None else (texts.name, read_texts(texts))
    return make_workload(
        source,
        found,
        lambda text: task.prepare(text, truncate=False).tokens,
        most_tokens=artifact.manifest.limits.max_input_tokens,
    )


def choose_variant(artifact: Artifact, name: str | None) -> Variant:
    """The named variant, or the one that is served by default. Raises SystemExit for an unknown name."""
    found = artifact.manifest.variants[0] if name is None else artifact.manifest.variant(name)
    if found is None:
        known = ", ".join(variant.name for variant in artifact.manifest.variants)
        raise SystemExit(f"no variant {name!r}; the artifact has {known}")
    return found


def computes_in(variant: Variant, engine: str | None) -> str:
    """The precision of which the machine's peak is to be compared with."""
    return "bf16" if engine is not None and engine.endswith("-bf16") else variant.precision


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, and with which texts."""
    parser.add_argument("--repository", type=Path, default=Path("models"), help="folder of published models")
    parser.add_argument("--model", default="sentiment", help="its production version is measured")
    parser.add_argument("--variant", help="measure this one (default: what is served by default)")
    parser.add_argument("--texts", type=Path, help="a text a line (default: packaged movie reviews)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the grid of each variant. Returns the exit status."""
    parser = argparse.ArgumentParser(description="The in-process limit of an artifact's variants.")
    add_model_arguments(parser)
    parser.add_argument("--engine", help="run it on this engine (default: the format's first)")
    parser.add_argument("--seconds", type=float, default=1.0, help="per point and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a coarse grid")
    options = parser.parse_args(arguments)
    artifact = Repository(options.repository).open(options.model)
    workload = open_workload(artifact, options.texts)
    layouts = grid(usable_cores(), quick=options.quick)
    peaks = gemm_peaks(min(1.0, options.seconds))
    found: dict[str, Any] = {}
    chosen = artifact.manifest.variants if options.variant is None else [choose_variant(artifact, options.variant)]
    for variant in chosen:
        reference = Reference.of(artifact, variant, options.engine)
        precision = computes_in(variant, options.engine)
        shares = measure_shares(artifact, precision, peaks, workload, reference.count_tokens)
        for kind, texts in (("short", workload.short), ("long", workload.long)):
            samples = measure_grid(reference, texts, layouts, seconds=options.seconds, rounds=options.rounds)
            print_grid(f"{variant.name} on {reference.engine}, {kind} texts", samples, shares[kind])
            found.setdefault(variant.name, {})[kind] = {"best": str(best(samples)), "grid": as_rows(samples)}
    print(json.dumps({"limit": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
