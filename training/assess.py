"""What one variant is worth beyond its averages, through the code that serves it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from artifact.manifest import Assessment, BiasResult, CalibrationResult, SliceResult
from artifact.repository import Artifact
from inference.errors import BadInput
from inference.model import Model
from inference.tasks.transforms import Cleaner
from inference.ticket import Answer
from training.bias import Probes, load_probes, measure_bias
from training.errors import DataInvalid, EvaluationInvalid
from training.evaluate import Evaluation, evaluate, softmax
from training.robustness import measure_robustness
from training.slices import Slice, column_slices, expression_slice, length_slices, measure, worst
from training.temperature import best_temperature
from training.texts import count_words

SOURCE: Final = "source"
CALIBRATION: Final = ("log_loss", "calibration_error")
_AT_ONCE: Final = 256
_TINY: Final = 1e-300

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows: `labels` of shape (rows,), and further columns of as many cells each, by name."""

    name: str
    texts: tuple[str, ...]
    labels: Labels
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Questions:
    """What to look at. `groups` are columns, `conditions` those of training/expressions.py.

    `perturbed_rows` bounds the rows whose changed copies are predicted, once for each change; 0 leaves it out.
    """

    groups: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    probes: Probes | None = None
    perturbed_rows: int = 500
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """Probabilities of shape (rows, labels), the label order that of the model, and tokens per row as served."""

    scores: Floats
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Assessed:
    """The assessment, and what its plots need beside it."""

    assessment: Assessment
    evaluation: Evaluation
    answers: Answers

    def beside(self, elsewhere: tuple[SliceResult, ...]) -> "Assessed":
        """The same with what was measured out of domain."""
        return replace(self, assessment=self.assessment.model_copy(update={"elsewhere": elsewhere}))


def answer(model: Model, texts: Sequence[str], progress: Progress, title: str = "Predicting") -> Answers:
    """Send `texts` as a client would: through queue and workers, too long ones truncated.

    Raises DataInvalid for a text that the model refuses, of which its cleaning leaves nothing; InferenceError.
    """
    scores: list[tuple[float, ...]] = []
    tokens: list[int] = []
    at_once = min(_AT_ONCE, model.limits.max_queue_size)
    task = progress.add_task(title, total=len(texts))
    try:
        for start in range(0, len(texts), at_once):
            found = _predict(model, texts[start : start + at_once], start, title)
            scores += [prediction.scores for prediction in found.predictions]
            tokens += found.input_tokens
            progress.advance(task, len(found.predictions))
    finally:
        progress.remove_task(task)
    return Answers(np.array(scores, dtype=np.float64).reshape(len(texts), -1), tuple(tokens))


def _predict(model: Model, texts: Sequence[str], start: int, title: str) -> Answer:
    try:
        return model.predict(texts, truncate=True)
    except BadInput as error:
        # `inputs[3]: why` counts within this request.
        field, _, reason = error.message.partition(": ")
        place = start + int("".join(filter(str.isdigit, field)) or 0) + 1
        raise DataInvalid(f"{title}, text {place}: {reason}") from error


def assess(
    model: Model, rows: Rows, questions: Questions, progress: Progress, *, temperature: float | None = None
) -> Assessed:
    """Ask everything of `model`. `temperature` is the one in its weights, None when nobody recorded it.

    Raises EvaluationInvalid before any prediction when a column or condition cannot be used.
    """
    names = model.manifest.labels
    check_columns(rows, questions)
    answers = answer(model, rows.texts, progress)
    evaluation = evaluate(answers.scores, rows.labels, names, seed=questions.seed)

    def score(title: str) -> Callable[[Sequence[str]], Floats]:
        return lambda texts: answer(model, texts, progress, title).scores

    slices = measure(slices_of(rows, answers, names, questions), answers.scores.argmax(axis=1) == rows.labels)
    assessment = Assessment(
        variant=model.variant.name,
        data=rows.name,
        rows=len(rows.texts),
        seed=questions.seed,
        metrics=evaluation.metrics,
        slices=slices,
        worst_slice=worst(slices),
        bias=measure_bias(questions.probes or load_probes(), score("Swapping terms"), names),
        robustness=measure_robustness(
            rows.texts,
            rows.labels,
            answers.scores,
            score("Changing texts"),
            clean=Cleaner.of(model.manifest.preprocessing),
            at_most=questions.perturbed_rows,
            seed=questions.seed,
        ),
        calibration=calibration(answers.scores, rows.labels, names, evaluation, temperature),
    )
    return Assessed(assessment, evaluation, answers)


def most_moved(artifact: Artifact, variant: str, progress: Progress) -> BiasResult:
    """The group of our own probes whose swapped terms move this variant's scores the most."""
    model = Model.open(artifact, variant=variant)
    try:
        groups = measure_bias(
            load_probes(),
            lambda texts: answer(model, texts, progress, f"Swapping terms: {variant}").scores,
            model.manifest.labels,
        )
    finally:
        model.close()
    return max(groups, key=lambda group: group.max_movement)


def check_columns(rows: Rows, questions: Questions) -> None:
    """Raises EvaluationInvalid for a group that is no column."""
    for group in questions.groups:
        if group not in rows.columns:
            known = ", ".join(sorted(rows.columns)) or "no columns beside text and label"
            raise EvaluationInvalid(f"--group {group}: no such column in {rows.name}; there are {known}")


def slices_of(rows: Rows, answers: Answers, labels: Sequence[str], questions: Questions) -> list[Slice]:
    """Slices by length, by source where the rows name theirs, by the columns and conditions asked for."""
    groups = dict.fromkeys(([SOURCE] if SOURCE in rows.columns else []) + list(questions.groups))
    columns = _columns(rows, answers, labels)
    return [
        *length_slices(answers.tokens),
        *(each for group in groups for each in column_slices(group, rows.columns[group])),
        *(expression_slice(condition, columns, len(rows.texts)) for condition in questions.conditions),
    ]


def _columns(rows: Rows, answers: Answers, labels: Sequence[str]) -> dict[str, Sequence[object]]:
    """What a condition may name: the columns of the rows, and what is known of every row."""
    return {
        **rows.columns,
        "text": rows.texts,
        "tokens": answers.tokens,
        "characters": [len(text) for text in rows.texts],
        "words": [count_words(text) for text in rows.texts],
        "label": [labels[index] for index in rows.labels],
        "predicted": [labels[index] for index in answers.scores.argmax(axis=1)],
        "score": answers.scores.max(axis=1).tolist(),
    }


def calibration(
    scores: Floats, labels: Labels, names: Sequence[str], after: Evaluation, temperature: float | None
) -> CalibrationResult:
    """Log loss and calibration error with the temperature and without it.

    The temperature is folded into the weights, so the scores without it are had by multiplying it back:
    softmax(T log p) is the softmax of the logits before they were divided by T.
    """
    logits = np.log(np.clip(scores, _TINY, 1.0))
    before = {}
    if temperature is not None:
        plain = evaluate(softmax(temperature * logits), labels, names).metrics
        before = {name: plain[name] for name in CALIBRATION}
    return CalibrationResult(
        temperature=temperature,
        best_temperature=best_temperature(logits, labels),
        before=before,
        after={name: after.metrics[name] for name in CALIBRATION},
    )


def worst_sentence(assessment: Assessment) -> str:
    """The worst slice in words."""
    found = assessment.worst_slice
    if found is None:
        return "no slice has enough rows to be compared"
    return f"worst slice: {slice_title(found)}, accuracy {found.accuracy.value:.3f} on {found.rows:,} rows"


def slice_title(found: SliceResult) -> str:
    """`length: 2 to 18 tokens`."""
    return f"{found.by}: {found.name}"
