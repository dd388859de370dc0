"""The page of `slipway evaluate --report`: what the tables say, with plots, in one file that loads nothing."""

from html import escape
from typing import Final

from artifact.manifest import Estimate
from training.assess_page import assessment_sections, evaluation_plots, metrics_table, signed
from training.charts import interval
from training.compare import Comparison
from training.evaluation import CrossValidated, Evaluated
from training.evaluation_tables import comparison_sentences, folds_title, shared_rows
from training.folds import CrossValidation, FoldResult
from training.page import METRICS, NOT_MEASURED, cards, page, section, shown, span, stacked, table

_FOLDS: Final = (
    "Folds share most of their training rows, so the interval is the corrected one of Nadeau and Bengio (2003)."
)
_SOURCES: Final = (
    "Each model learned from all sources but one and answered that one. The mean, the lowest source and the highest."
)


def render_model(found: Evaluated) -> str:
    """One published model, beside another where there was one."""
    assessment = found.assessed.assessment
    evaluations = {found.model: found.assessed.evaluation}
    if found.comparison and found.other:
        evaluations = {found.comparison.first: found.assessed.evaluation, found.comparison.second: found.other}
    worst = assessment.worst_slice
    moved = max(assessment.bias, key=lambda each: each.max_movement, default=None)
    boxes = cards(
        (
            ("accuracy", f"{assessment.metrics['accuracy'].value:.3f}", span(assessment.metrics["accuracy"])),
            ("rows", f"{assessment.rows:,}", assessment.data),
            (
                "accuracy on the worst slice",
                f"{worst.accuracy.value:.3f}" if worst else NOT_MEASURED,
                f"{worst.by}: {worst.name}" if worst else "no slice has enough rows",
            ),
            (
                "largest move by a swapped term",
                f"{moved.max_movement:.3f}" if moved else NOT_MEASURED,
                f"group: {moved.group}" if moved else "",
            ),
        )
    )
    header = _header(f"{found.model} {assessment.variant}", f"On {assessment.data}.", boxes)
    metrics = metrics_table({name: each.metrics for name, each in evaluations.items()})
    sections = (
        section("What it is worth", _against(found) + metrics),
        section("On these rows", evaluation_plots(evaluations, found.labels)),
        *assessment_sections(assessment),
    )
    return page(f"{found.model}: evaluation", header + "".join(sections))


def _against(found: Evaluated) -> str:
    lines = comparison_sentences(found.comparison) if found.comparison else ()
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _header(title: str, lead: str, boxes: str) -> str:
    return (
        f'<header><p class="kicker">Slipway evaluation</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}</p>{boxes}</header>\n'
    )


def render_folds(found: CrossValidated) -> str:
    """A cross-validated recipe, and the one beside it."""
    own = found.found
    accuracy, worst = own.mean["accuracy"], own.worst_fold
    lowest = worst.metrics["accuracy"].value
    rows = sum(fold.rows for fold in own.folds)
    boxes = cards(
        (
            ("mean accuracy", f"{accuracy.value:.3f}", _reach(accuracy) if own.by_source else span(accuracy)),
            (f"{own.kind}s", str(len(own.folds)), f"{rows:,} rows, each held out once; no test row"),
            (f"worst {own.kind}", f"{lowest:.3f}", f"{_title(own, worst)}, {worst.rows:,} rows"),
        )
    )
    header = _header(f"{own.recipe}: {own.model}", f"Cross-validated on {own.data}.", boxes)
    body = "".join(_validated(each) for each in (own, found.other) if each is not None)
    return page(f"{own.recipe}: cross-validation", header + _beside(found) + body)


def _beside(found: CrossValidated) -> str:
    comparison = found.comparison
    if comparison is None:
        return ""
    names = {comparison.first: comparison.first_metrics, comparison.second: comparison.second_metrics}
    lines = "".join(f"<p>{escape(line)}</p>" for line in comparison_sentences(comparison))
    title = f"The {comparison.rows:,} rows that {shared_rows(found.found)}"
    return section(title, lines + metrics_table(names) + _by_source(comparison))


def _by_source(found: Comparison) -> str:
    """Accuracy on each source; nothing where the data is not joined."""
    if not found.sources:
        return ""
    head = ("Accuracy on", "Rows", escape(found.first), escape(found.second), "Difference")
    rows = [
        (escape(each.name), f"{each.rows:,}", shown(each.first), shown(each.second), signed(each.difference))
        for each in found.sources
    ]
    return table(head, rows)


def _validated(found: CrossValidation) -> str:
    """The sections of one recipe."""
    parts = [(f"{found.recipe}: {found.kind} by {found.kind}", _folds(found))]
    if found.beside_another:
        parts = [(f"{found.recipe}: its models", f"<p>{escape(folds_title(found))}.</p>{_folds(found)}")]
    else:
        parts.insert(0, (f"{found.recipe}: mean over the {found.kind}s", _means(found)))
    if found.sources:
        rows = [(escape(each.name), f"{each.rows:,}", shown(each.accuracy)) for each in found.sources]
        parts.append((f"{found.recipe}: by source", table(("Held-out rows of", "Rows", "Accuracy"), rows)))
    if found.elsewhere:
        parts.append((f"{found.recipe}: out of domain", _elsewhere(found)))
    return "".join(section(title, body) for title, body in parts)


def _means(found: CrossValidation) -> str:
    return f"<p>{_SOURCES if found.by_source else _FOLDS}</p>" + table(
        ("Metric", "Mean"), [(escape(METRICS[key]), shown(found.mean[key])) for key in _names(found)]
    )


def _reach(estimate: Estimate) -> str:
    return f"lowest {estimate.low:.3f}, highest {estimate.high:.3f}"


def _title(found: CrossValidation, fold: FoldResult) -> str:
    return fold.name if found.by_source else f"fold {fold.name}"


def _elsewhere(found: CrossValidation) -> str:
    names = _names(found)
    rows = [(escape(place.name), *(stacked(place.metrics.get(key)) for key in names)) for place in found.elsewhere]
    head = ("Never learned", *(escape(METRICS[key]) for key in names))
    return "<p>The mean over the folds' models, the lowest of them and the highest.</p>" + table(
        head, rows, kind="metrics"
    )


def _names(found: CrossValidation) -> list[str]:
    return [key for key in METRICS if key in found.folds[0].metrics]


def _folds(found: CrossValidation) -> str:
    accuracies = [fold.metrics["accuracy"] for fold in found.folds]
    ends = (min(each.low for each in accuracies), max(each.high for each in accuracies))
    rows = [
        (
            escape(fold.name),
            f"{fold.train_rows:,}",
            f"{fold.rows:,}",
            *(stacked(fold.metrics.get(key)) for key in _names(found)),
            interval(accuracy.value, accuracy.low, accuracy.high, ends),
        )
        for fold, accuracy in zip(found.folds, accuracies, strict=True)
    ]
    first = "Left out" if found.by_source else "Fold"
    head = (first, "Trained on", "Rows", *(escape(METRICS[key]) for key in _names(found)), "Accuracy")
    return table(head, rows, kind="metrics")
