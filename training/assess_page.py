"""HTML of what evaluating found: the parts that `report.html` and the page of `slipway evaluate` share."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from artifact.manifest import (
    Assessment,
    BiasResult,
    CalibrationResult,
    Estimate,
    PerturbationResult,
    TermPair,
)
from training.charts import Axes, Series, interval, line_chart
from training.evaluate import Evaluation
from training.page import LESS_IS_BETTER, METRICS, NOT_MEASURED, badge, confusion, figure, section, shown, table

_UNIT = (0.0, 1.0)


def metrics_table(columns: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Metrics with intervals, of one model or of two beside each other; the first is drawn above."""
    names = list(columns)
    ours, *others = columns.values()
    rows = []
    for key in (key for key in METRICS if key in ours):
        found = [metrics[key] for metrics in (ours, *others) if key in metrics]
        ends = (min(each.low for each in found), max(each.high for each in found))
        tones = ["c0", *["muted"] * (len(found) - 1)]
        dots = "".join(_dot(each, ends, tone) for each, tone in zip(found, tones, strict=True))
        note = " <small>less is better</small>" if key in LESS_IS_BETTER else ""
        cells = [shown(metrics.get(key)) for metrics in columns.values()]
        rows.append((escape(METRICS[key]) + note, *cells, dots))
    drawn = f"{names[0]} above, {names[1].lower()} below" if len(names) == 2 else ""
    return table(("Metric", *map(escape, names), escape(drawn)), rows, kind="metrics")


def _dot(estimate: Estimate, ends: tuple[float, float], tone: str = "c0") -> str:
    return interval(estimate.value, estimate.low, estimate.high, ends, tone)


def evaluation_plots(evaluations: Mapping[str, Evaluation], labels: Sequence[str]) -> str:
    """ROC curve, calibration, and the confusion matrix of the first."""
    tones = [f"c{number}" for number in range(len(evaluations))]
    first = next(iter(evaluations.values()))
    roc = [Series(name, each.roc, tone) for (name, each), tone in zip(evaluations.items(), tones, strict=True)]
    bins = [
        Series(name, [(each.confidence, each.accuracy) for each in found.calibration if each.count], tone, marks=True)
        for (name, found), tone in zip(evaluations.items(), tones, strict=True)
    ]
    axes = Axes("false positive rate", "true positive rate", _UNIT, _UNIT)
    roc_chart = line_chart("ROC curve", axes, roc if first.roc else [], diagonal=True)
    axes = Axes("confidence", "accuracy", _from_half(bins), _UNIT)
    figures = (
        figure("ROC curve", roc_chart),
        figure(
            "Calibration: how often it is right when it is this sure",
            line_chart("Calibration", axes, bins, diagonal=True),
        ),
        figure("Confusion matrix", confusion(first.confusion_matrix, labels)),
    )
    return f'<div class="figures">{"".join(figures)}</div>'


def _from_half(series: Sequence[Series]) -> tuple[float, float]:
    """Confidence cannot be below one over the number of labels: do not draw what cannot be."""
    least = min((x for line in series for x, _ in line.points), default=0.0)
    return (0.5, 1.0) if least >= 0.5 else (0.0, 1.0)


def assessment_sections(assessment: Assessment | None) -> Iterator[str]:
    """Slices, swapped terms, changed texts and calibration; "not measured" where there is no assessment."""
    nothing = f'<p class="none">{NOT_MEASURED}</p>'
    yield section("Where it is weaker", _slices(assessment) if assessment and assessment.slices else nothing)
    if assessment and assessment.elsewhere:
        yield section("Out of domain", _elsewhere(assessment))
    yield section("Swapped terms", _bias(assessment.bias) if assessment and assessment.bias else nothing)
    robust = assessment.robustness if assessment else ()
    yield section("Changed texts", _robustness(robust) if robust else nothing)
    if assessment:
        yield section("What a score means", _calibration(assessment.calibration))


def _slices(assessment: Assessment) -> str:
    ends = _ends([each.accuracy for each in assessment.slices])
    worst = assessment.worst_slice
    rows = [
        (
            f"{escape(each.name)}<small>{escape(each.by)}</small>",
            f"{each.rows:,}",
            shown(each.accuracy),
            signed(each.difference),
            badge(good=False, yes="", no="worst") if each == worst else "",
            _dot(each.accuracy, ends),
        )
        for each in assessment.slices
    ]
    return f"<p>{escape(slice_verdict(assessment))}</p>" + table(
        ("Slice", "Rows", "Accuracy", "Against the other rows", "", ""), rows, kind="metrics"
    )


def _elsewhere(assessment: Assessment) -> str:
    ends = _ends([each.accuracy for each in assessment.elsewhere])
    rows = [
        (escape(each.name), f"{each.rows:,}", shown(each.accuracy), _dot(each.accuracy, ends))
        for each in assessment.elsewhere
    ]
    note = "Data of other kinds, none of it learned from; rows like a training text are left out."
    return f"<p>{note}</p>" + table(("Data", "Rows", "Accuracy", ""), rows, kind="metrics")


def slice_verdict(assessment: Assessment) -> str:
    """Which slice is the worst, and whether that may be chance."""
    worst = assessment.worst_slice
    if worst is None or worst.difference is None:
        return "No slice has enough rows to be compared with the others."
    chance = (
        "the interval of the difference lies below 0"
        if worst.difference.high < 0
        else "the interval of the difference holds 0: it may be chance"
    )
    return (
        f"The worst slice is {worst.by}: {worst.name}, with accuracy {shown(worst.accuracy)} on {worst.rows:,} rows; "
        f"{chance}. The worst of {len(assessment.slices)} slices is always partly chance: slices come with Wilson "
        "intervals, which are not widened for having looked at all of them."
    )


def _bias(results: Sequence[BiasResult]) -> str:
    rows = [
        (
            f"{escape(each.group)}<small>{each.terms} terms in {each.texts} sentences</small>",
            f"{each.mean_movement:.3f}",
            f"{each.max_movement:.3f}",
            f"{each.label_flips:,} of {each.pairs:,}",
            escape(pair_in_words(each.worst)),
        )
        for each in results
    ]
    return (
        "<p>One term takes the place of another in a sentence that judges nothing: the score should not move. "
        "A movement is the largest difference between the two sentences' scores, over the labels; each pair of terms "
        "in each sentence counts once.</p>"
        + table(("Group", "Mean movement", "Largest", "Other label", "The pair that moves most"), rows, kind="probes")
    )


def pair_in_words(pair: TermPair) -> str:
    """`“The film is about {term}.” men 0.41, women 0.57 (positive)`."""
    one, other = pair.terms
    return f"“{pair.template}” {one} {pair.scores[0]:.2f}, {other} {pair.scores[1]:.2f} ({pair.label})"


def _robustness(results: Sequence[PerturbationResult]) -> str:
    rows = [
        (
            escape(each.name),
            f"{each.rows:,}",
            shown(each.accuracy_before),
            shown(each.accuracy_after),
            signed(each.difference),
            shown(each.flip_rate),
        )
        for each in results
    ]
    head = ("Change", "Rows", "Accuracy before", "after", "Difference", "Share with another label")
    return (
        "<p>Changes that leave what a text means: slips of the fingers, case, a tautology with a negation at the "
        "end, emoji of things. Rows that a change leaves as they are do not count.</p>"
        + table(head, rows, kind="checks")
    )


def _calibration(result: CalibrationResult) -> str:
    temperature = "not recorded" if result.temperature is None else f"{result.temperature:.3f}"
    rows = [(METRICS[name], shown(result.before.get(name)), shown(after)) for name, after in result.after.items()]
    return (
        f"<p>Temperature in the weights: {temperature}. These rows ask for another "
        f"{result.best_temperature:.3f}, where 1 asks for nothing.</p>"
        + table(("Metric", "Without it", "As served"), rows, kind="checks")
    )


def signed(estimate: Estimate | None) -> str:
    """`-0.012 (-0.034 to +0.010)`."""
    if estimate is None:
        return ""
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _ends(estimates: Sequence[Estimate]) -> tuple[float, float]:
    return min(each.low for each in estimates), max(each.high for each in estimates)
