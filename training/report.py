"""`report.html`: everything that was measured on the way to an artifact, on one page that loads nothing.

The page is plain HTML with inline SVG; a content security policy in its head forbids every request. A figure that
nobody measured reads "not measured".
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Final

import numpy as np

from artifact.manifest import Estimate, Manifest, VariantResult
from training.charts import Axes, Series, bar_chart, interval, line_chart
from training.evaluate import Evaluation
from training.finetune import FineTuned
from training.prepare import Prepared, Split
from training.recipe import Recipe
from training.sources import EncoderFolder

NOT_MEASURED: Final = "not measured"
_BARS: Final = 30

METRICS: Final[Mapping[str, str]] = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "log_loss": "Log loss (nats)",
    "calibration_error": "Calibration error",
}
LESS_IS_BETTER: Final = frozenset({"log_loss", "calibration_error"})
_COUNTS: Final[Mapping[str, str]] = {
    "read": "rows read",
    "empty": "empty after normalisation",
    "neutral": "in the neutral band or without a label",
    "conflicting": "same text under two labels",
    "exact_duplicates": "exact duplicates",
    "over_max_rows": "beyond max_rows",
    "near_duplicates": "near duplicates",
    "kept": "kept",
    "train": "train",
    "validation": "validation",
    "test": "test",
}
_GATE_HEAD: Final = (
    "Variant",
    "Verdict",
    "Size",
    "Accuracy",
    "Labels as the reference",
    "Score difference <small>max / mean</small>",
    "Moved by neighbours",
    "Flipped by neighbours",
)


@dataclass(frozen=True)
class Findings:
    """Everything the report and the model card tell. `lengths` are tokens per training text."""

    recipe: Recipe
    prepared: Prepared
    encoder: EncoderFolder
    fine_tuned: FineTuned
    evaluation: Evaluation
    baseline: Evaluation
    lengths: Sequence[int]
    manifest: Manifest
    notes: Sequence[str] = ()


def beats_baseline(findings: Findings) -> bool:
    """Whether the fine-tuned model's accuracy interval lies wholly above the baseline's."""
    return findings.evaluation.metrics["accuracy"].low > findings.baseline.metrics["accuracy"].high


def render_report(findings: Findings) -> str:
    """The whole page."""
    name = escape(findings.manifest.name)
    sections = (
        _section("What it is worth", _worth(findings)),
        _section("On the test split", _test_plots(findings)),
        _section("How it learned", _learning(findings)),
        _section("The gate", _gate(findings)),
        _section("Speed", _speed(findings.manifest.gate.variants)),
        _section("The data", _data(findings)),
        _section("Where it comes from", _provenance(findings)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{name}: training report</title><style>{page_style()}</style></head>\n'
        f"<body><main>{_header(findings)}{''.join(sections)}</main></body></html>\n"
    )


def shown(estimate: Estimate | None) -> str:
    """`0.871 (0.850 to 0.891)`."""
    if estimate is None or not np.isfinite(estimate.value):
        return NOT_MEASURED
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def megabytes(size: int) -> str:
    """Decimal megabytes; kilobytes for the tiny."""
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.0f} kB"


def page_style() -> str:
    """The style sheet that report pages carry."""
    return (files("training") / "report.css").read_text(encoding="utf-8")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """A table of ready HTML cells; the first column names the row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(caption: str, body: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{body}</figure>"


def _badge(*, good: bool, yes: str, no: str) -> str:
    return f'<span class="badge {"good" if good else "bad"}">{escape(yes if good else no)}</span>'


def _header(findings: Findings) -> str:
    manifest = findings.manifest
    accuracy, baseline = findings.evaluation.metrics["accuracy"], findings.baseline.metrics["accuracy"]
    published = sum(result.published for result in manifest.gate.variants)
    refused = [result.name for result in manifest.gate.variants if not result.published]
    cards = (
        (
            "accuracy on the test split",
            f"{accuracy.value:.3f}",
            f"95% interval {accuracy.low:.3f} to {accuracy.high:.3f}",
        ),
        ("frozen-encoder baseline", f"{baseline.value:.3f}", f"95% interval {baseline.low:.3f} to {baseline.high:.3f}"),
        ("test rows", f"{findings.evaluation.rows:,}", "never trained on, never used to choose"),
        (
            "variants published",
            f"{published} of {len(manifest.gate.variants)}",
            f"refused by the gate: {', '.join(refused) or 'none'}",
        ),
    )
    boxes = "".join(
        f'<div class="card"><b>{value}</b><span>{escape(title)}</span><small>{escape(note)}</small></div>'
        for title, value, note in cards
    )
    verdict = _badge(good=manifest.gate.passed, yes="gate passed", no="gate refused: nothing published")
    description = findings.recipe.description or f"A model for {manifest.task}."
    created = manifest.provenance.created.strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<header><p class="kicker">Slipway training report · {created}</p><h1>{escape(manifest.name)} {verdict}</h1>'
        f'<p class="lead">{escape(description)}</p><div class="cards">{boxes}</div></header>\n'
    )


def _worth(findings: Findings) -> str:
    ours, baseline = findings.evaluation.metrics, findings.baseline.metrics
    rows = []
    for key, title in METRICS.items():
        if key not in ours:
            continue
        pair = [ours[key]] + ([baseline[key]] if key in baseline else [])
        span = (min(each.low for each in pair), max(each.high for each in pair))
        dots = interval(pair[0].value, pair[0].low, pair[0].high, span) + "".join(
            interval(other.value, other.low, other.high, span, "muted") for other in pair[1:]
        )
        note = " <small>less is better</small>" if key in LESS_IS_BETTER else ""
        rows.append((escape(title) + note, shown(ours[key]), shown(baseline.get(key)), dots))
    verdict = (
        "The fine-tuned model beats the baseline: their accuracy intervals do not overlap."
        if beats_baseline(findings)
        else "The accuracy intervals of the fine-tuned model and the baseline overlap: it is not shown to be better."
    )
    positive = f" Precision, recall and F1 are those of “{findings.prepared.labels[-1]}”." if _binary(findings) else ""
    return (
        f"<p>{verdict} Intervals are 95% bootstrap intervals over the test rows; the baseline is the same encoder, "
        f"frozen, under a logistic regression.{escape(positive)}</p>"
        + _table(("Metric", "Fine-tuned", "Baseline", "Fine-tuned above, baseline below"), rows, kind="metrics")
    )


def _binary(findings: Findings) -> bool:
    return len(findings.prepared.labels) == 2


def _test_plots(findings: Findings) -> str:
    evaluation, baseline = findings.evaluation, findings.baseline
    unit = (0.0, 1.0)
    roc = [Series("fine-tuned", evaluation.roc, "c0"), Series("baseline", baseline.roc, "c1")]
    bins = [
        Series(name, [(each.confidence, each.accuracy) for each in found.calibration if each.count], tone, marks=True)
        for name, found, tone in (("fine-tuned", evaluation, "c0"), ("baseline", baseline, "c1"))
    ]
    roc_chart = line_chart(
        "ROC curve",
        Axes("false positive rate", "true positive rate", unit, unit),
        roc if evaluation.roc else [],
        diagonal=True,
    )
    calibration = line_chart("Calibration", Axes("confidence", "accuracy", _from_half(bins), unit), bins, diagonal=True)
    return (
        '<div class="figures">'
        + "".join(
            (
                _figure("ROC curve", roc_chart),
                _figure("Calibration: how often it is right when it is this sure", calibration),
                _figure("Confusion matrix", _confusion(evaluation.confusion_matrix, findings.prepared.labels)),
            )
        )
        + "</div>"
    )


def _from_half(series: Sequence[Series]) -> tuple[float, float]:
    """Confidence cannot be below one over the number of labels: do not draw what cannot be."""
    least = min((x for line in series for x, _ in line.points), default=0.0)
    return (0.5, 1.0) if least >= 0.5 else (0.0, 1.0)


def _confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    rows = []
    for label, counts in zip(labels, matrix, strict=True):
        total = sum(counts) or 1
        cells = "".join(
            f'<td style="--share:{count / total:.3f}"><b>{count:,}</b><small>{100 * count / total:.1f}%</small></td>'
            for count in counts
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    return (
        '<div class="scroll"><table class="confusion"><thead><tr><td class="corner">true ↓ predicted →</td>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _learning(findings: Findings) -> str:
    tuned = findings.fine_tuned
    resumed = " The run was interrupted and went on; the time is that of its last part." if tuned.resumed else ""
    return (
        f"<p>{tuned.steps:,} steps in {_duration(tuned.seconds)}, {tuned.precision} arithmetic; the checkpoint of step "
        f"{tuned.best_step:,} was the best on the validation split and was kept.{resumed}</p>"
        f'<div class="figures">{"".join(_learning_charts(tuned))}</div>'
    )


def _learning_charts(tuned: FineTuned) -> Iterator[str]:
    train = [(point.step, point.loss) for point in tuned.curve if point.kind == "train"]
    validation = [point for point in tuned.curve if point.kind == "validation"]
    losses = (
        Series("training", train, "c0"),
        Series("validation", [(point.step, point.loss) for point in validation], "c1", marks=True),
    )
    drawn = [line for line in losses if line.points]
    yield _figure("Loss", line_chart("Loss curves", Axes("step", "loss (nats)"), drawn))
    accuracy = [(point.step, point.accuracy) for point in validation if point.accuracy is not None]
    axes = Axes("step", "accuracy", y_span=_around(accuracy))
    chart = line_chart("Validation accuracy", axes, [Series("validation", accuracy, "c1", marks=True)])
    yield _figure("Accuracy on the validation split", chart)
    rates = [(point.step, 1e5 * point.learning_rate) for point in tuned.curve if point.learning_rate is not None]
    chart = line_chart("Learning rate", Axes("step", "rate, in 1e-5"), [Series("rate", rates, "c2")])
    yield _figure("Learning rate (of the classification head)", chart)


def _around(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """A span that shows changes in accuracy: from a little below the least, not from zero."""
    if not points:
        return None
    least, most = min(y for _, y in points), max(y for _, y in points)
    return max(0.0, least - 0.02), min(1.0, most + 0.02)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _gate(findings: Findings) -> str:
    gate = findings.manifest.gate
    kinds = {variant.name: f"{variant.format}, {variant.precision}" for variant in findings.manifest.variants}
    refused = "".join(
        f"<li><b>{escape(result.name)}</b> was refused: {escape(result.reason)}</li>"
        for result in gate.variants
        if not result.published
    )
    return (
        f"<p>Every variant answered all {gate.test_rows:,} test texts through the serving code: alone, among random "
        "neighbours in batches of 2, 8 and 32, and through the queue. Score differences are from torch; the reference "
        "for labels is torch for fp32 formats and the fp32 ONNX file for reduced precision.</p>"
        + _table(_GATE_HEAD, [_gate_row(result, kinds.get(result.name, "")) for result in gate.variants], kind="gate")
        + (f'<ul class="reasons">{refused}</ul>' if refused else "")
        + "".join(_checks(result) for result in gate.variants if result.checks)
    )


def _gate_row(result: VariantResult, kind: str) -> list[str]:
    return [
        f"{escape(result.name)}<small>{escape(kind)}</small>",
        _badge(good=result.published, yes="published", no="refused"),
        *(_gate_figures(result) if result.checks else [NOT_MEASURED] * (len(_GATE_HEAD) - 2)),
    ]


def _gate_figures(result: VariantResult) -> list[str]:
    return [
        megabytes(result.bytes),
        _stacked(result.metrics.get("accuracy")),
        f"{100 * result.label_agreement:.1f}%",
        f"{result.max_score_difference:.2g} / {result.mean_score_difference:.2g}",
        f"{result.neighbour_max_score_difference:.2g}",
        f"{result.neighbour_label_flips:,}",
    ]


def _stacked(estimate: Estimate | None) -> str:
    """The value, and its interval in small letters below."""
    value, _, rest = shown(estimate).partition(" (")
    return f"{value}<small>{rest.rstrip(')')}</small>" if rest else value


def _checks(result: VariantResult) -> str:
    rows = [
        (
            escape(check.name),
            f"{check.measured:.4g}",
            escape(check.required),
            _badge(good=check.passed, yes="holds", no="fails"),
        )
        for check in result.checks
    ]
    held = sum(check.passed for check in result.checks)
    table = _table(("Floor", "Measured", "Required", ""), rows, kind="checks")
    summary = f"{escape(result.name)}: {held} of {len(result.checks)} floors hold"
    return f"<details><summary>{summary}</summary>{table}</details>"


def _speed(results: Sequence[VariantResult]) -> str:
    measured = [result for result in results if result.speed]
    lengths = sorted({cell["tokens"] for result in measured for cell in result.speed})
    if not lengths:
        return f'<p class="none">{NOT_MEASURED}</p>'
    charts = "".join(_figure(f"Texts of {tokens:g} tokens", _speed_chart(measured, tokens)) for tokens in lengths)
    rows = [
        (
            escape(result.name),
            *(
                f"{cell['inputs_per_second']:,.0f}<small>{1e3 * cell['seconds']:.1f} ms</small>"
                for cell in result.speed
            ),
        )
        for result in measured
    ]
    head = ["Variant"] + [f"{cell['batch_size']:g} x {cell['tokens']:g}" for cell in measured[0].speed]
    return (
        "<p>Inputs per second on one thread, tokenization included, by inputs in a batch; all inputs of a batch have "
        "the same length. The table gives inputs per second and the time of one execution, for batch x tokens.</p>"
        f'<div class="figures">{charts}</div>' + _table(head, rows, kind="speed")
    )


def _speed_chart(results: Sequence[VariantResult], tokens: float) -> str:
    series = [
        Series(
            result.name,
            [(cell["batch_size"], cell["inputs_per_second"]) for cell in result.speed if cell["tokens"] == tokens],
            f"c{number % 6}",
            marks=True,
            dashed=not result.published,
        )
        for number, result in enumerate(results)
    ]
    return line_chart(f"Speed at {tokens:g} tokens", Axes("inputs in a batch", "inputs per second", x_log=True), series)


def _data(findings: Findings) -> str:
    prepared = findings.prepared
    rows = [
        (escape(_COUNTS.get(name, name.replace("_", " "))), f"{count:,}") for name, count in prepared.counts.items()
    ]
    splits = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    balance = [
        (name, f"{len(split):,}", *(_label_cell(split, index) for index in range(len(prepared.labels))))
        for name, split in splits.items()
    ]
    quantiles = ", ".join(f"{name} {tokens}" for name, tokens in findings.fine_tuned.length_quantiles.items())
    return (
        f"<p>{escape(prepared.name)} ({escape(prepared.licence or 'licence not stated')}; {escape(prepared.origin)}). "
        "Duplicates were removed before the rows were divided by a hash of their own text, so that adding rows never "
        "moves a row from one split to another.</p>"
        '<div class="figures">'
        + _figure("What became of the rows", _table(("Step", "Rows"), rows, kind="counts"))
        + _figure(f"Tokens per training text ({quantiles})", _length_chart(findings.lengths))
        + _figure(
            f"Labels in each split (balance: p = {prepared.balance_p_value:.2f})",
            _table(("Split", "Rows", *map(escape, prepared.labels)), balance, kind="counts"),
        )
        + "</div>"
    )


def _label_cell(split: Split, index: int) -> str:
    count = int((split.labels == index).sum())
    return f"{count:,}<small>{100 * count / max(1, len(split)):.1f}%</small>"


def _length_chart(lengths: Sequence[int]) -> str:
    if not lengths:
        return f'<p class="none">{NOT_MEASURED}</p>'
    width = max(1, -(-(max(lengths) + 1 - min(lengths)) // _BARS))
    edges = np.arange(min(lengths), max(lengths) + width + 1, width)
    counts, _ = np.histogram(lengths, edges)
    bars = [(float(low), float(low + width), float(count)) for low, count in zip(edges, counts, strict=False)]
    return bar_chart("Length histogram", Axes("tokens", "texts"), bars, "c2")


def _provenance(findings: Findings) -> str:
    provenance, gate = findings.manifest.provenance, findings.manifest.gate
    encoder = findings.encoder
    rows = (
        (
            "Encoder",
            f"{escape(encoder.name)} ({escape(encoder.licence or 'licence not stated')}; {escape(encoder.origin)})",
        ),
        ("Data fingerprint", f"<code>{escape(provenance.data_fingerprint)}</code>"),
        ("Seed", str(provenance.seed)),
        (
            "Git commit",
            f"<code>{escape(provenance.git_commit)}</code>" if provenance.git_commit else "not in a checkout",
        ),
        ("Platform", escape(provenance.platform or NOT_MEASURED)),
        ("CPU of the gate", escape(gate.cpu or NOT_MEASURED)),
        ("Libraries", escape(", ".join(f"{name} {version}" for name, version in provenance.libraries.items()))),
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in findings.notes)
    recipe = escape(json.dumps(provenance.recipe, indent=2))
    return (
        _table(("Fact", ""), rows, kind="facts")
        + (f"<details><summary>Export</summary><ul>{notes}</ul></details>" if notes else "")
        + f"<details><summary>Recipe</summary><pre>{recipe}</pre></details>"
    )
