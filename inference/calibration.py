"""Measuring plans on this machine, through the serving path, on texts made from the artifact itself.

Each plan is opened alone, so that measuring needs no more memory than serving, and every plan gets its turn in every
round: a machine that slows down slows all of them.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from artifact.errors import SlipwayError
from artifact.repository import Artifact
from inference.model import Model, Options
from inference.plan import Plan, golden_tolerance
from inference.samples import sample_lengths, sample_texts

Floats = NDArray[np.float64]

_NEIGHBOURS: Final = (2, 8, 32)
# Of a turn's time: at saturation, and one request at a time.
_SATURATED_SHARE: Final = 0.6
# Two scores nearer than this are no decision, and what separates them no drift.
_UNDECIDED: Final = 0.05
_TIE: Final = 1e-3
_TASKS: Final = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Checks:
    """How a plan's answers differ from what they should be.

    `golden_difference`: the largest from the golden scores, of `golden_allowed`. `score_difference`, `agreement`: from
    the reference, and texts with the label it gives, of those it is sure of. `neighbour_difference`,
    `neighbour_flips`: the same text alone and in batches of other lengths.
    """

    golden_difference: float = 0.0
    golden_allowed: float = 0.0
    score_difference: float = 0.0
    agreement: float = 1.0
    neighbour_difference: float = 0.0
    neighbour_flips: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was found out about one plan. Figures are medians of its turns; `failure` says why there are none.

    `contention`: of the time its threads wanted to run, the share in which others had the cores.
    """

    plan: Plan
    failure: str | None = None
    turns: int = 0
    load_seconds: float = 0.0
    texts_per_second: float = 0.0
    alone_p50_seconds: float = 0.0
    cpu_seconds_per_text: float = 0.0
    contention: float = 0.0
    checks: Checks = field(default_factory=Checks)


@dataclass(slots=True)
class _Trial:
    """One plan's figures as they come in."""

    plan: Plan
    failure: str | None = None
    load: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    contention: list[float] = field(default_factory=list)

    def result(self, checks: Checks) -> Measurement:
        """The medians."""
        if self.failure or not self.throughput:
            return Measurement(self.plan, failure=self.failure or "the time was up before its turn")
        return Measurement(
            self.plan,
            turns=len(self.throughput),
            load_seconds=statistics.median(self.load),
            texts_per_second=statistics.median(self.throughput),
            alone_p50_seconds=statistics.median(self.latency),
            cpu_seconds_per_text=statistics.median(self.cpu),
            contention=statistics.median(self.contention),
            checks=checks,
        )


def calibrate(
    sample: "Sample",
    plans: Sequence[Plan],
    *,
    seconds: float,
    rounds: int = 3,
    patient: bool = True,
    on_turn: Callable[[Plan], None] = lambda _: None,
) -> list[Measurement]:
    """Measure `plans` on `sample` for about `seconds` in all, `rounds` turns each, the first round with checks.

    Every plan gets one turn however long that takes; unless `patient`, only the first does, and those for whom no
    time is left say so. A plan that cannot be opened or fails is a result too: nothing is raised for it.
    """
    deadline = time.perf_counter() + seconds
    trials = [_Trial(plan) for plan in plans]
    turn_seconds = seconds / max(1, rounds * len(plans))
    for turn in range(rounds):
        for trial in trials if turn % 2 == 0 else reversed(trials):
            enough = trial.throughput if patient else trials[0].throughput
            late = time.perf_counter() > deadline and enough
            if not late and trial.failure is None:
                on_turn(trial.plan)
                _take_turn(trial, sample, turn_seconds)
    return [trial.result(sample.checked(trial.plan)) for trial in trials]


def _take_turn(trial: _Trial, sample: "Sample", seconds: float) -> None:
    started = time.perf_counter()
    try:
        model = open_plan(sample.artifact, trial.plan)
        try:
            trial.load.append(time.perf_counter() - started)
            model.warm_up()
            sample.check(model)
            # Loading counts against the turn, but a figure from an instant says nothing.
            left = max(seconds / 2, seconds - (time.perf_counter() - started))
            _saturate(trial, model, sample.texts(model), left * _SATURATED_SHARE)
            _one_by_one(trial, model, sample.texts(model), left * (1 - _SATURATED_SHARE))
        finally:
            model.close()
    except SlipwayError as error:
        trial.failure = error.message


def open_plan(artifact: Artifact, plan: Plan) -> Model:
    """The serving path as `plan` says, unchecked. Raises ArtifactError."""
    return Model.open(artifact, variant=plan.variant, options=options_of(plan))


def options_of(plan: Plan, options: Options | None = None) -> Options:
    """`options` with the plan's engine and threads."""
    return replace(options or Options(), engine=plan.engine, workers=plan.workers, threads=plan.threads)


def _saturate(trial: _Trial, model: Model, texts: Sequence[str], seconds: float) -> None:
    done, started, cpu, waited = 0, time.perf_counter(), time.process_time(), run_delay_seconds()
    while not done or time.perf_counter() - started < seconds:
        model.predict(texts, truncate=True)
        done += len(texts)
    trial.throughput.append(done / (time.perf_counter() - started))
    used, waited = time.process_time() - cpu, max(0.0, run_delay_seconds() - waited)
    trial.cpu.append(used / done)
    trial.contention.append(waited / (waited + used) if waited else 0.0)


def run_delay_seconds(tasks: Path = _TASKS) -> float:
    """How long this process's threads have waited for a core so far; 0 where the kernel does not tell.

    Source: the kernel's scheduler/sched-stats, second figure of /proc/<pid>/schedstat, in nanoseconds.
    """
    total = 0
    for path in tasks.glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread that has just ended
            total += int(path.read_text(encoding="ascii").split()[1])
    return total / 1e9


def _one_by_one(trial: _Trial, model: Model, texts: Sequence[str], seconds: float) -> None:
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while not taken or (time.perf_counter() < until and len(taken) < len(texts)):
        started = time.perf_counter()
        model.predict([texts[len(taken)]], truncate=True)
        taken.append(time.perf_counter() - started)
    trial.latency.append(statistics.median(taken))


class Sample:
    """The artifact's golden inputs and texts like its training data, with the reference's answers to them.

    The reference is the manifest's first fp32 variant on the default engine, each text alone.
    """

    def __init__(self, artifact: Artifact, count: int = 64) -> None:
        self.artifact = artifact
        self._count = count
        self._checks: dict[tuple[str, str], Checks] = {}
        self._golden = artifact.golden()
        self._texts: list[str] = []
        self._reference: Floats | None = None

    def texts(self, model: Model) -> list[str]:
        """The same texts whichever model tokenizes them: they share the tokenizer."""
        if not self._texts:
            lengths = sample_lengths(model.manifest.length_quantiles, self._count, model.manifest.row_tokens)
            words = [example.input for example in self._golden.inputs]
            self._texts = sample_texts(words, lengths, lambda text: model.task.prepare(text, truncate=True).tokens)
        return self._texts

    def checked(self, plan: Plan) -> Checks:
        """What `check` found; threads change nothing about it."""
        return self._checks.get((plan.variant, plan.engine), Checks())

    def check(self, model: Model) -> None:
        """Measure drift and dependence on neighbours, once for each variant and engine."""
        key = model.plan.variant, model.plan.engine
        if key not in self._checks:
            self._checks[key] = self._compare(model)

    def _compare(self, model: Model) -> Checks:
        texts = self.texts(model)
        alone = _scores(model, texts, 1)
        moved = [(alone, _scores(model, texts, size)) for size in _NEIGHBOURS]
        reference = self._answers(texts)
        sure = _margin(reference) > _UNDECIDED
        agreement = float((alone.argmax(1) == reference.argmax(1))[sure].mean()) if sure.any() else 1.0
        golden = _scores(model, [example.input for example in self._golden.inputs], 1)
        expected = np.array([example.scores for example in self._golden.inputs])
        return Checks(
            golden_difference=float(np.abs(golden - expected).max()),
            golden_allowed=golden_tolerance(self._golden, model.plan.variant, model.plan.engine),
            score_difference=float(np.abs(alone - reference).max()),
            agreement=agreement,
            neighbour_difference=max(float(np.abs(a - b).max()) for a, b in moved),
            neighbour_flips=sum(_flips(a, b) for a, b in moved),
        )

    def _answers(self, texts: Sequence[str]) -> Floats:
        if self._reference is None:
            variants = self.artifact.manifest.variants
            first = next((each for each in variants if each.precision == "fp32"), variants[0])
            model = Model.open(self.artifact, variant=first.name, options=Options(workers=1))
            try:
                self._reference = _scores(model, texts, 1)
            finally:
                model.close()
        return self._reference


def _scores(model: Model, texts: Sequence[str], size: int) -> Floats:
    """Scores of shape (texts, labels), computed in batches of `size` in the order given. Raises InferenceError."""
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    return np.array([row.scores for batch in model.predict_batches(batches) for row in batch], dtype=np.float64)


def _margin(scores: Floats) -> Floats:
    top = np.sort(scores, axis=1)
    return np.asarray(top[:, -1] - top[:, -2] if scores.shape[1] > 1 else np.ones(len(scores)))


def _flips(alone: Floats, among: Floats) -> int:
    return int(((alone.argmax(1) != among.argmax(1)) & (_margin(alone) > _TIE)).sum())
