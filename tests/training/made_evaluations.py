"""Made-up evaluations for what is printed and drawn."""

import numpy as np

from artifact.manifest import Estimate, SliceResult
from tests.training.findings import assessment
from training.assess import Answers, Assessed
from training.compare import compare
from training.evaluate import evaluate
from training.evaluation import CrossValidated, Evaluated
from training.folds import CrossValidation, FoldResult, Place

LABELS = ("negative", "positive")


def evaluated(*, beside: bool = False) -> Evaluated:
    """A model that is right on 70 of 100 rows; `beside` it one that is right on 50."""
    truth = np.arange(100) % 2
    first, second = (_scores(truth, right) for right in (70, 50))
    comparison = compare(("a:1 fp32", "a:2 fp32"), (first, second), truth, LABELS, warnings=("mind <this>",))
    return Evaluated(
        model="a:1",
        digest="sha256:1",
        labels=LABELS,
        assessed=Assessed(assessment(), evaluate(first, truth, LABELS, resamples=50), Answers(first, (3,) * 100)),
        comparison=comparison if beside else None,
        other=evaluate(second, truth, LABELS, resamples=50) if beside else None,
    )


def _scores(truth: np.ndarray, right: int) -> np.ndarray:
    predicted = np.where(np.arange(len(truth)) < right, truth, 1 - truth)
    return np.stack([0.9 - 0.8 * predicted, 0.1 + 0.8 * predicted], axis=1)


def validated(*, beside: bool = False) -> CrossValidated:
    """Three folds; `beside` it a recipe that is right on 50 of the hundred rows they share, instead of 70."""
    if not beside:
        return CrossValidated(_folds("tiny"))
    truth = np.arange(100) % 2
    comparison = compare(("tiny", "other.toml"), (_scores(truth, 70), _scores(truth, 50)), truth, LABELS)
    return CrossValidated(_folds("tiny"), _folds("other"), comparison)


def left_out(*, beside: bool = False) -> CrossValidated:
    """The same of three sources, each left out once; `beside` it a recipe that had none of them."""
    own = _folds("tiny")
    named = tuple(fold.model_copy(update={"name": f"<source {fold.name}>"}) for fold in own.folds)
    mean = {"accuracy": Estimate(value=0.8, low=0.7, high=0.9)}
    own = own.model_copy(update={"folds": named, "by_source": True, "mean": mean, "sources": ()})
    if not beside:
        return CrossValidated(own)
    whole = own.folds[0].model_copy(update={"name": "(nothing)"})
    other = own.model_copy(update={"recipe": "other.toml", "folds": (whole,), "beside_another": True, "mean": {}})
    truth = np.arange(100) % 2
    comparison = compare(
        ("tiny", "other.toml"),
        (_scores(truth, 70), _scores(truth, 50)),
        truth,
        LABELS,
        sources=["<source 1>"] * 50 + ["<source 2>"] * 50,
    )
    return CrossValidated(own, other, comparison)


def _folds(recipe: str) -> CrossValidation:
    values = (0.8, 0.7, 0.9)
    folds = tuple(
        FoldResult(
            fold=number,
            name=str(number),
            train_rows=200,
            rows=100,
            metrics={"accuracy": Estimate(value=value, low=value - 0.05, high=value + 0.05)},
        )
        for number, value in enumerate(values, start=1)
    )
    return CrossValidation(
        recipe=recipe,
        model="fine-tuned",
        data="<reviews>",
        folds=folds,
        mean={"accuracy": Estimate(value=0.8, low=0.58, high=1.02)},
        sources=(
            SliceResult(by="source", name="<films>", rows=300, accuracy=Estimate(value=0.8, low=0.75, high=0.84)),
        ),
        elsewhere=(Place(name="<parcels>", metrics={"accuracy": Estimate(value=0.61, low=0.59, high=0.64)}),),
    )
