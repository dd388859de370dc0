"""The release gate: every exported variant against torch, alone and among neighbours, through the serving code.

The floors are constants. A recipe can tighten them, nothing can loosen or skip them. Measuring (`run_gate`) and
deciding (`judge`) are apart, so that a decision can be tested without a model.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from artifact.errors import SlipwayError
from artifact.files import record, write_atomically
from artifact.manifest import (
    GOLDEN,
    BiasResult,
    CheckResult,
    Estimate,
    Golden,
    GoldenInput,
    Manifest,
    Variant,
    VariantResult,
)
from artifact.repository import Artifact
from inference.backends.base import Backend
from inference.backends.registry import open_backend
from inference.layout import usable_cores
from inference.model import Model, Options
from inference.policy import Limits
from inference.tasks.base import Prediction
from training.errors import RecipeInvalid
from training.evaluate import evaluate, paired_accuracy_difference
from training.export import expected_warnings
from training.precision import torch_threads
from training.prepare import spread
from training.recipe import GateSection

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Opener = Callable[[Artifact, Variant], Backend]

REFERENCE: Final = "fp32"
NEIGHBOURS: Final = (2, 8, 32)
TIE_MARGIN: Final = 1e-3
_QUEUE: Final = 0  # the key under which the pass through queue and workers is kept beside the batch sizes
# A flip in a hundred would be seen among them all but surely; a row alone is measured for every row of the split.
_NEIGHBOUR_ROWS: Final = 1000
_SPEED_BATCHES: Final = (1, 8, 32)
_SPEED_TOKENS: Final = (8, 32, 128)
_SPEED_SECONDS: Final = 0.1
_SPEED_RUNS: Final = 2
_QUEUED_AT_ONCE: Final = 64
_GOLDEN_INPUTS: Final = 16
_GOLDEN_MARGIN: Final = 0.05
# Other CPUs sum in another order and, without VNNI, saturate int8 products: a golden answer may move this much there.
_GOLDEN_TOLERANCE_FP32: Final = 1e-3
_GOLDEN_TOLERANCE_REDUCED: Final = 0.02
_GOLDEN_HEADROOM: Final = 1.5
_TIGHTER_IS_LESS: Final = frozenset({"max_score_difference", "max_neighbour_score_difference"})


@dataclass(frozen=True, slots=True)
class Floors:
    """The least a variant must do. The defaults are the hard floors.

    `max_score_difference`: fp32 formats against torch, where every label must be equal too.
    `max_neighbour_score_difference`: the same text alone and in a batch.
    `min_label_agreement` and `min_accuracy_difference` (lower end of the paired 95% interval, exclusive): reduced
    precision against fp32.
    """

    max_score_difference: float = 1e-4
    max_neighbour_score_difference: float = 1e-3
    min_label_agreement: float = 0.98
    min_accuracy_difference: float = -0.01


def tightened(section: GateSection) -> Floors:
    """The hard floors with those of a recipe, where it sets any. Raises RecipeInvalid for one that is looser."""
    floors = Floors()
    for field in fields(Floors):
        asked, hard = getattr(section, field.name), getattr(floors, field.name)
        if asked is None:
            continue
        less = field.name in _TIGHTER_IS_LESS
        if (asked > hard) if less else (asked < hard):
            bound = "at most" if less else "at least"
            raise RecipeInvalid(f"gate.{field.name}: must be {bound} {hard}; a recipe can only tighten the gate")
        floors = replace(floors, **{field.name: asked})
    return floors


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant's answers for the test split: probabilities of shape (rows, labels) each.

    `neighbours` is keyed by batch size; key 0 is the pass through the queue and the worker threads. They are of the
    rows in `sample` only, where there is one.
    """

    variant: Variant
    alone: Floats
    neighbours: Mapping[int, Floats]
    sample: NDArray[np.int64] | None = None
    speed: tuple[dict[str, float], ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided: which variants may be published, with what golden answers, and every figure."""

    passed: bool
    published: tuple[Variant, ...]
    results: tuple[VariantResult, ...]
    golden: Golden | None

    def reasons(self) -> str:
        """Why what was refused was refused, in one line."""
        return "; ".join(f"{result.name}: {result.reason}" for result in self.results if not result.published)


@dataclass(frozen=True)
class Trial:
    """What the gate is held over: a folder of exported files, the manifest they would get, and the test split.

    `torch_scores` are the probabilities torch gives for the same normalised texts, in fp32.
    """

    folder: Path
    manifest: Manifest
    texts: Sequence[str]
    labels: Labels
    torch_scores: Floats
    floors: Floors
    failures: Mapping[str, str]
    opener: Opener = open_backend
    neighbours: Sequence[int] = NEIGHBOURS
    neighbour_rows: int = _NEIGHBOUR_ROWS

    @property
    def sample(self) -> NDArray[np.int64]:
        """The rows that get neighbours: all, or as many as say enough, spread evenly over the split."""
        return spread(len(self.texts), self.neighbour_rows)

    def artifact(self) -> Artifact:
        """The folder as the serving code sees it. Not yet published, so it has no digest."""
        return Artifact(self.folder, self.manifest, "")


def run_gate(trial: Trial, progress: Progress) -> Verdict:
    """Measure and judge every variant; write `golden.json` for those that may be published.

    When the fp32 reference fails, nothing passes. A variant that cannot be loaded or run is refused with that as
    the reason.
    """
    # The TorchScript backend sets torch's thread count, which belongs to the process.
    with torch_threads(0), expected_warnings():
        results, reference = _judge_all(trial, progress)
        golden = None
        if reference is not None and REFERENCE in _passed(results):
            golden = _golden(trial, reference, results)
            write_atomically(trial.folder / GOLDEN, golden.model_dump_json(indent=2).encode() + b"\n")
            results = _reproduced(trial, results)
    results += [VariantResult(name=name, published=False, reason=why) for name, why in trial.failures.items()]
    if REFERENCE not in _passed(results):
        return Verdict(False, (), _all_withheld(results), None)
    published = tuple(variant for variant in trial.manifest.variants if variant.name in _passed(results))
    return Verdict(True, published, tuple(results), golden)


def hold_terms(verdict: Verdict, moved: Mapping[str, BiasResult], limit: float) -> Verdict:
    """The verdict after one floor more, which only a recipe sets: how far swapped terms may move a score.

    `moved` holds, of each variant that may be published, the group whose terms move its scores the most. When the fp32
    reference fails, nothing passes.
    """
    results = [_held(each, moved[each.name], limit) if each.published else each for each in verdict.results]
    if REFERENCE not in _passed(results):
        return Verdict(False, (), _all_withheld(results), None)
    published = tuple(variant for variant in verdict.published if variant.name in _passed(results))
    return replace(verdict, published=published, results=tuple(results))


def _held(result: VariantResult, moved: BiasResult, limit: float) -> VariantResult:
    """A variant that passed so far, after one check more."""
    check = _at_most(f"score moved by swapped terms ({moved.group})", moved.max_movement, limit)
    checks = (*result.checks, check)
    return result.model_copy(update={"checks": checks, "published": check.passed, "reason": _reason(checks)})


def _judge_all(trial: Trial, progress: Progress) -> tuple[list[VariantResult], Floats | None]:
    """A result per variant, and the reference's own answers when it gave any."""
    results: list[VariantResult] = []
    reference: Floats | None = None
    for variant in trial.manifest.variants:
        measured = measure(trial, variant, progress)
        if isinstance(measured, str):
            results.append(VariantResult(name=variant.name, published=False, reason=measured))
            continue
        if variant.name == REFERENCE:
            reference = measured.alone
        results.append(result_of(measured, trial, trial.torch_scores if reference is None else reference))
    return results, reference


def _passed(results: Sequence[VariantResult]) -> set[str]:
    return {result.name for result in results if result.published}


def _all_withheld(results: Sequence[VariantResult]) -> tuple[VariantResult, ...]:
    """Nothing goes out without its reference, however well it did."""
    held = {"published": False, "reason": "fp32 was refused, so nothing is published"}
    return tuple(result.model_copy(update=held) if result.published else result for result in results)


def judge(measured: Measured, torch_scores: Floats, reference: Floats, floors: Floors) -> tuple[CheckResult, ...]:
    """Every floor that concerns a variant. fp32 formats are held against torch, reduced precision against fp32.

    The accuracy floor needs labels and is added by the caller.
    """
    checks: list[CheckResult] = []
    if measured.variant.precision == "fp32":
        worst = float(np.abs(measured.alone - torch_scores).max())
        checks.append(_at_most("score difference from torch", worst, floors.max_score_difference))
        checks.append(_at_least("labels equal to torch", agreement(measured.alone, torch_scores), 1.0))
    else:
        agreed = agreement(measured.alone, reference)
        checks.append(_at_least("label agreement with fp32", agreed, floors.min_label_agreement))
    alone = measured.alone if measured.sample is None else measured.alone[measured.sample]
    for size, scores in measured.neighbours.items():
        among = f"in batches of {size}" if size != _QUEUE else "through the queue"
        worst = float(np.abs(scores - alone).max())
        checks.append(_at_most(f"score moved {among}", worst, floors.max_neighbour_score_difference))
        checks.append(_at_most(f"labels flipped {among}", float(flips(alone, scores).sum()), 0.0))
    return tuple(checks)


def judge_accuracy(difference: Estimate, floors: Floors) -> CheckResult:
    """Reduced precision must not cost accuracy: the lower end of the paired interval lies above the floor."""
    return CheckResult(
        name="accuracy difference from fp32, lower end",
        passed=bool(difference.low > floors.min_accuracy_difference),
        measured=difference.low,
        required=f"> {floors.min_accuracy_difference:g}",
    )


def agreement(scores: Floats, others: Floats) -> float:
    """Share of rows with the same label."""
    return float((scores.argmax(axis=1) == others.argmax(axis=1)).mean())


def flips(alone: Floats, among: Floats) -> NDArray[np.bool_]:
    """Rows whose label neighbours changed, those aside whose two top scores are too close to call."""
    top = np.sort(alone, axis=1)
    undecided = top[:, -1] - top[:, -2] <= TIE_MARGIN
    flipped: NDArray[np.bool_] = (alone.argmax(axis=1) != among.argmax(axis=1)) & ~undecided
    return flipped


def neighbour_batches(rows: int, size: int, seed: int = 0) -> list[list[int]]:
    """Row numbers in random groups of exactly `size`; every row is in at least one. The last group wraps around."""
    order = np.random.default_rng([seed, size]).permutation(rows)
    return [[int(order[(start + step) % rows]) for step in range(size)] for start in range(0, rows, size)]


def _at_most(name: str, measured: float, limit: float) -> CheckResult:
    # Written so that NaN fails.
    return CheckResult(name=name, passed=bool(measured <= limit), measured=measured, required=f"<= {limit:g}")


def _at_least(name: str, measured: float, limit: float) -> CheckResult:
    return CheckResult(name=name, passed=bool(measured >= limit), measured=measured, required=f">= {limit:g}")


def result_of(measured: Measured, trial: Trial, reference: Floats) -> VariantResult:
    """Judge one variant and keep what was measured, passed or not."""
    against = trial.torch_scores if measured.variant.precision == "fp32" else reference
    difference = paired_accuracy_difference(measured.alone, against, trial.labels)
    checks = judge(measured, trial.torch_scores, reference, trial.floors)
    if measured.variant.precision != "fp32":
        checks += (judge_accuracy(difference, trial.floors),)
    apart = np.abs(measured.alone - trial.torch_scores)
    alone = measured.alone if measured.sample is None else measured.alone[measured.sample]
    flipped = np.any([flips(alone, scores) for scores in measured.neighbours.values()], axis=0)
    return VariantResult(
        name=measured.variant.name,
        published=all(check.passed for check in checks),
        reason=_reason(checks),
        bytes=measured.bytes,
        checks=checks,
        metrics=evaluate(measured.alone, trial.labels, trial.manifest.labels).metrics,
        max_score_difference=float(apart.max()),
        mean_score_difference=float(apart.mean()),
        label_agreement=agreement(measured.alone, against),
        neighbour_max_score_difference=float(
            max(np.abs(scores - alone).max() for scores in measured.neighbours.values())
        ),
        neighbour_label_flips=int(flipped.sum()),
        accuracy_difference=difference,
        speed=measured.speed,
    )


def _reason(checks: Sequence[CheckResult]) -> str:
    """The failed checks in one line; of those about neighbours, which fail together, the worst of each kind."""
    failed = [check for check in checks if not check.passed]
    worst: dict[str, CheckResult] = {}
    for check in failed:
        kind = check.name.partition(" in batches of ")[0].partition(" through the queue")[0]
        if kind not in worst or not check.measured <= worst[kind].measured:
            worst[kind] = check
    return ", ".join(f"{check.name}: {check.measured:.3g}, required {check.required}" for check in worst.values())


def measure(trial: Trial, variant: Variant, progress: Progress) -> Measured | str:
    """One variant's figures, or why there are none."""
    some = [trial.texts[row] for row in trial.sample]
    passes = 1 + len(trial.neighbours)
    step = progress.add_task(f"gate: {variant.name}", total=len(trial.texts) + passes * len(some))
    try:
        with _open(trial, variant) as model:
            return Measured(
                variant=variant,
                alone=_scores(model, trial.texts, [[row] for row in range(len(trial.texts))], progress, step),
                neighbours={
                    size: _scores(model, some, neighbour_batches(len(some), size), progress, step)
                    for size in trial.neighbours
                }
                | {_QUEUE: _queued_scores(model, some, progress, step)},
                sample=trial.sample,
                speed=_speed(model, trial.texts),
                bytes=sum(record(trial.folder / name).bytes for name in variant.files),
            )
    except SlipwayError as error:
        return f"could not be run: {_without_folder(error.message, trial)}"
    finally:
        progress.remove_task(step)


@contextmanager
def _open(trial: Trial, variant: Variant) -> Iterator[Model]:
    """The serving path around one variant, before it has golden answers to check."""
    artifact = trial.artifact()
    options = Options(limits=Limits(max_queue_size=4 * _QUEUED_AT_ONCE))
    model = Model.assemble(artifact, variant, trial.opener(artifact, variant), options=options)
    try:
        yield model
    finally:
        model.close()


def _scores(
    model: Model, texts: Sequence[str], batches: Sequence[Sequence[int]], progress: Progress, step: TaskID
) -> Floats:
    """Run each group of rows as one execution; a row that is in two groups keeps its last answer."""

    def run(batch: Sequence[int]) -> list[Prediction]:
        [predictions] = model.predict_batches([[texts[row] for row in batch]])
        progress.advance(step, len(batch))
        return predictions

    scores = np.full((len(texts), len(model.manifest.labels)), np.nan)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for batch, predictions in zip(batches, pool.map(run, batches), strict=True):
            scores[list(batch)] = [prediction.scores for prediction in predictions]
    return scores


def _queued_scores(model: Model, texts: Sequence[str], progress: Progress, step: TaskID) -> Floats:
    """The same texts as a client would send them: through the queue, batched by the policy, run by the workers."""
    scores: list[tuple[float, ...]] = []
    for start in range(0, len(texts), _QUEUED_AT_ONCE):
        answer = model.predict(texts[start : start + _QUEUED_AT_ONCE], truncate=True)
        scores += [prediction.scores for prediction in answer.predictions]
        progress.advance(step, len(answer.predictions))
    return np.array(scores, dtype=np.float64)


def _speed(model: Model, texts: Sequence[str]) -> tuple[dict[str, float], ...]:
    """Time of one execution on one thread, tokenization included, by batch size and length."""
    most = model.task.max_input_tokens
    cells = []
    for tokens in sorted({min(tokens, most) for tokens in _SPEED_TOKENS}):
        text, real = text_of(texts, tokens, lambda text: model.task.prepare(text, truncate=True).tokens)
        for size in _SPEED_BATCHES:
            seconds = _best_seconds(partial(model.predict_batches, [[text] * size]))
            cells.append({"batch_size": size, "tokens": real, "seconds": seconds, "inputs_per_second": size / seconds})
    return tuple(cells)


def _best_seconds(run: Callable[[], object]) -> float:
    """The fastest of a few runs: what other processes disturbed least, as Python's timeit reckons."""
    taken: list[float] = []
    while len(taken) < _SPEED_RUNS or sum(taken) < _SPEED_SECONDS:
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)


def text_of(texts: Sequence[str], tokens: int, count: Callable[[str], int]) -> tuple[str, int]:
    """The first words of `texts`, as many as come to at most `tokens` tokens, and their count by `count`."""
    words = " ".join(texts[:200]).split()
    fit, most = 1, max(1, min(len(words), tokens))
    while fit < most:
        middle = (fit + most + 1) // 2
        enough = count(" ".join(words[:middle])) <= tokens
        fit, most = (middle, most) if enough else (fit, middle - 1)
    text = " ".join(words[:fit])
    return text, count(text)


def _golden(trial: Trial, reference: Floats, results: Sequence[VariantResult]) -> Golden:
    lengths = [len(text) for text in trial.texts]
    names = trial.manifest.labels
    return Golden(
        inputs=tuple(
            GoldenInput(
                input=trial.texts[row], label=names[int(reference[row].argmax())], scores=tuple(reference[row].tolist())
            )
            for row in golden_rows(lengths, reference)
        ),
        tolerance={
            result.name: golden_tolerance(result, trial.manifest.variant(result.name))
            for result in results
            if result.published
        },
    )


def golden_rows(lengths: Sequence[int], scores: Floats) -> list[int]:
    """Up to 16 rows, evenly spread from the shortest to the longest; rows too close to call are passed over."""
    top = np.sort(scores, axis=1)
    clear = np.flatnonzero(top[:, -1] - top[:, -2] > _GOLDEN_MARGIN).tolist()
    eligible = sorted(clear or range(len(lengths)), key=lambda row: (lengths[row], row))
    count = min(_GOLDEN_INPUTS, len(eligible))
    places = np.linspace(0, len(eligible) - 1, count).round().astype(int)
    return [eligible[place] for place in dict.fromkeys(places.tolist())]


def golden_tolerance(result: VariantResult, variant: Variant | None) -> float:
    """How far a golden answer may be from fp32's on another CPU: a constant, or what was measured with headroom."""
    if variant is None or variant.precision == "fp32":
        return _GOLDEN_TOLERANCE_FP32
    return max(_GOLDEN_TOLERANCE_REDUCED, _GOLDEN_HEADROOM * result.max_score_difference)


def _reproduced(trial: Trial, results: Sequence[VariantResult]) -> list[VariantResult]:
    """Refuse what does not reproduce the golden answers just written: no service would ever become ready with it."""
    return [result if not (why := _golden_miss(trial, result)) else _refused(result, why) for result in results]


def _golden_miss(trial: Trial, result: VariantResult) -> str:
    variant = trial.manifest.variant(result.name)
    if variant is None or not result.published:
        return ""
    try:
        with _open(trial, variant) as model:
            model.check_golden()
    except SlipwayError as error:
        return _without_folder(error.message, trial)
    return ""


def _without_folder(message: str, trial: Trial) -> str:
    """A reason is published with the artifact; where it was made is nobody else's business."""
    return message.replace(f"{trial.folder}/", "").replace(str(trial.folder), "the export")


def _refused(result: VariantResult, why: str) -> VariantResult:
    return result.model_copy(update={"published": False, "reason": why})
