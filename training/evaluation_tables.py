"""What `slipway evaluate` prints for people: tables and a sentence where a table does not say enough."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from artifact.manifest import Assessment, CalibrationResult, Estimate
from training.assess_page import pair_in_words, signed, slice_verdict
from training.compare import Comparison
from training.evaluation import CrossValidated, Evaluated
from training.folds import CrossValidation
from training.page import METRICS, shown


def model_tables(found: Evaluated) -> Iterator[RenderableType]:
    """One published model."""
    assessment = found.assessed.assessment
    yield f"{found.model} {assessment.variant} on {assessment.rows:,} rows: {assessment.data}"
    yield from _metrics(found)
    yield _table(
        ["slice", "rows", "accuracy [95%]", "against the other rows"],
        [
            [f"{each.by}: {each.name}", f"{each.rows:,}", shown(each.accuracy), signed(each.difference)]
            for each in assessment.slices
        ],
    )
    yield slice_verdict(assessment)
    if assessment.elsewhere:
        yield _table(
            ["out of domain", "rows", "accuracy [95%]"],
            [[each.name, f"{each.rows:,}", shown(each.accuracy)] for each in assessment.elsewhere],
        )
    yield from _behaviour(assessment)
    if found.comparison is not None:
        yield from _comparison(found.comparison)


def _metrics(found: Evaluated) -> Iterator[RenderableType]:
    assessment = found.assessed.assessment
    yield _table(["metric", "value [95%]"], [[METRICS[key], shown(assessment.metrics.get(key))] for key in METRICS])
    yield _calibration(assessment.calibration)


def _calibration(result: CalibrationResult) -> RenderableType:
    recorded = "not recorded" if result.temperature is None else f"{result.temperature:.3f}"
    rows = [[METRICS[name], shown(result.before.get(name)), shown(after)] for name, after in result.after.items()]
    title = f"temperature {recorded}; these rows ask for another {result.best_temperature:.3f}"
    return _table([title, "without it [95%]", "as served [95%]"], rows)


def _behaviour(assessment: Assessment) -> Iterator[RenderableType]:
    """Swapped terms and changed texts."""
    yield _table(
        ["swapped terms", "mean", "largest", "other label", "the pair that moves most"],
        [
            [
                each.group,
                f"{each.mean_movement:.3f}",
                f"{each.max_movement:.3f}",
                f"{each.label_flips} of {each.pairs}",
                pair_in_words(each.worst),
            ]
            for each in assessment.bias
        ],
    )
    if not assessment.robustness:
        return
    yield _table(
        ["changed texts", "rows", "accuracy before", "after", "difference [95%]", "other label [95%]"],
        [
            [
                each.name,
                f"{each.rows:,}",
                f"{each.accuracy_before.value:.3f}",
                f"{each.accuracy_after.value:.3f}",
                signed(each.difference),
                shown(each.flip_rate),
            ]
            for each in assessment.robustness
        ],
    )


def _comparison(found: Comparison) -> Iterator[RenderableType]:
    names = [key for key in METRICS if key in found.first_metrics]
    yield _table(
        ["metric [95%]", found.first, found.second],
        [[METRICS[key], shown(found.first_metrics.get(key)), shown(found.second_metrics.get(key))] for key in names],
    )
    if found.sources:
        yield _table(
            ["accuracy [95%] on", "rows", found.first, found.second, "difference"],
            [
                [each.name, f"{each.rows:,}", shown(each.first), shown(each.second), signed(each.difference)]
                for each in found.sources
            ],
        )
    yield from comparison_sentences(found)


def comparison_sentences(found: Comparison) -> Iterator[str]:
    """What the paired tests say."""
    test = found.mcnemar
    yield f"Accuracy of {found.first} minus {found.second}: {signed(found.accuracy_difference)}, resampled in pairs."
    yield (
        f"McNemar, exact: only {found.first} is right on {test.only_first_right:,} rows, only {found.second} on "
        f"{test.only_second_right:,}; p = {test.p_value:.3g}. Both give the same label on "
        f"{found.label_agreement:.1%} of the rows."
    )
    yield f"So {found.verdict}."
    yield from (f"Note: {warning}." for warning in found.warnings)


def fold_tables(found: CrossValidated) -> Iterator[RenderableType]:
    """A cross-validated recipe, and the one beside it."""
    yield from _folds(found.found)
    if found.other is not None and found.comparison is not None:
        yield from _folds(found.other)
        yield f"The {found.comparison.rows:,} rows that {shared_rows(found.found)}:"
        yield from _comparison(found.comparison)


def shared_rows(found: CrossValidation) -> str:
    """What the rows are that two recipes are compared on."""
    return "both answer without their source" if found.by_source else "both hold out, in the same folds"


def _folds(found: CrossValidation) -> Iterator[RenderableType]:
    yield folds_title(found)
    names = [key for key in METRICS if key in found.folds[0].metrics]
    yield _table(
        ["left out" if found.by_source else "fold", "trained on", "rows", *(METRICS[key] for key in names)],
        [[fold.name, f"{fold.train_rows:,}", f"{fold.rows:,}", *_values(fold.metrics, names)] for fold in found.folds],
    )
    if not found.beside_another:
        value = "value (lowest to highest)" if found.by_source else "value [95%]"
        yield _table([f"mean over {found.kind}s", value], [[METRICS[key], shown(found.mean[key])] for key in names])
    if found.sources:
        yield _table(
            ["held-out rows of", "rows", "accuracy [95%]"],
            [[each.name, f"{each.rows:,}", shown(each.accuracy)] for each in found.sources],
        )
    if found.elsewhere:
        yield _table(
            ["out of domain (lowest to highest fold)", *(METRICS[key] for key in names)],
            [[place.name, *(shown(place.metrics.get(key)) for key in names)] for place in found.elsewhere],
        )
    if not found.beside_another:
        worst = found.worst_fold
        yield f"Worst {found.kind}: {worst.name}, accuracy {shown(worst.metrics['accuracy'])}."


def folds_title(found: CrossValidation) -> str:
    """Which models answered how many rows of what."""
    rows = f"{sum(fold.rows for fold in found.folds):,} rows"
    if found.beside_another:
        return f"{found.recipe}, {found.model}: asked about {rows} of sources that it had not learned"
    kind = "sources, each left out once," if found.by_source else "folds"
    return f"{found.recipe}, {found.model}: {len(found.folds)} {kind} over {rows} of {found.data} (no test row)"


def _values(metrics: Mapping[str, Estimate], names: Sequence[str]) -> list[str]:
    return [f"{metrics[key].value:.3f}" if key in metrics else "" for key in names]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
