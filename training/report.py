"""`report.html`: everything that was measured on the way to an artifact, on one page that loads nothing.

The page is plain HTML with inline SVG; a content security policy in its head forbids every request. A figure that
nobody measured reads "not measured".
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from artifact.manifest import Explored, FoldsResult, Manifest, Provenance, VariantResult
from training.assess_page import assessment_sections, evaluation_plots, metrics_table, signed
from training.charts import Axes, Series, line_chart
from training.evaluate import Evaluation
from training.finetune import FineTuned
from training.page import (
    METRICS,
    NOT_MEASURED,
    badge,
    cards,
    figure,
    length_chart,
    level_badge,
    megabytes,
    page,
    section,
    span,
    stacked,
    table,
)
from training.prepare import Prepared, Split
from training.recipe import Recipe
from training.sources import EncoderFolder

_COUNTS: Final[Mapping[str, str]] = {
    "read": "rows read",
    "empty": "empty after normalisation",
    "neutral": "in the neutral band or without a label",
    "conflicting": "same text under two labels",
    "exact_duplicates": "exact duplicates",
    "over_max_rows": "beyond max_rows",
    "near_duplicates": "near duplicates",
    "sampled_out": "training rows not sampled",
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
    """Everything the report and the cards tell. `lengths` are tokens per training text.

    `personal` counts what has the form of personal data in the prepared texts, by kind; `tradeoffs` is HTML of the
    smaller versions that there were to choose from, of a model that `slipway compress` published.
    """

    recipe: Recipe
    prepared: Prepared
    encoder: EncoderFolder
    fine_tuned: FineTuned
    evaluation: Evaluation
    baseline: Evaluation
    lengths: Sequence[int]
    manifest: Manifest
    notes: Sequence[str] = ()
    personal: Mapping[str, int] = field(default_factory=dict)
    tradeoffs: str = ""


def beats_baseline(findings: Findings) -> bool:
    """Whether the fine-tuned model's accuracy interval lies wholly above the baseline's."""
    return findings.evaluation.metrics["accuracy"].low > findings.baseline.metrics["accuracy"].high


def render_report(findings: Findings) -> str:
    """The whole page."""
    sections = (
        section("What it is worth", _worth(findings)),
        section("On the test split", _test_plots(findings)),
        *assessment_sections(findings.manifest.assessment),
        *_folds(findings.manifest.provenance.folds),
        section("How it learned", _learning(findings)),
        section("The gate", _gate(findings)),
        section("Speed", _speed(findings.manifest.gate.variants)),
        *([section("Smaller versions", findings.tradeoffs)] if findings.tradeoffs else []),
        section("The data", _data(findings)),
        *_explored(findings.manifest.provenance.explored),
        section("Where it comes from", _provenance(findings)),
    )
    return page(f"{findings.manifest.name}: training report", _header(findings) + "".join(sections))


def _header(findings: Findings) -> str:
    manifest = findings.manifest
    accuracy, baseline = findings.evaluation.metrics["accuracy"], findings.baseline.metrics["accuracy"]
    published = sum(result.published for result in manifest.gate.variants)
    refused = [result.name for result in manifest.gate.variants if not result.published]
    boxes = cards(
        (
            ("accuracy on the test split", f"{accuracy.value:.3f}", span(accuracy)),
            ("frozen-encoder baseline", f"{baseline.value:.3f}", span(baseline)),
            ("test rows", f"{findings.evaluation.rows:,}", "never trained on, never used to choose"),
            (
                "variants published",
                f"{published} of {len(manifest.gate.variants)}",
                f"refused by the gate: {', '.join(refused) or 'none'}",
            ),
        )
    )
    verdict = badge(good=manifest.gate.passed, yes="gate passed", no="gate refused: nothing published")
    description = findings.recipe.description or f"A model for {manifest.task}."
    created = manifest.provenance.created.strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<header><p class="kicker">Slipway training report · {created}</p><h1>{escape(manifest.name)} {verdict}</h1>'
        f'<p class="lead">{escape(description)}</p>{boxes}</header>\n'
    )


def _worth(findings: Findings) -> str:
    verdict = (
        "The fine-tuned model beats the baseline: their accuracy intervals do not overlap."
        if beats_baseline(findings)
        else "The accuracy intervals of the fine-tuned model and the baseline overlap: it is not shown to be better."
    )
    positive = f" Precision, recall and F1 are those of “{findings.prepared.labels[-1]}”." if _binary(findings) else ""
    return (
        f"<p>{verdict} Intervals are 95% bootstrap intervals over the test rows; the baseline is the same encoder, "
        f"frozen, under a logistic regression.{escape(positive)}</p>"
        + metrics_table({"Fine-tuned": findings.evaluation.metrics, "Baseline": findings.baseline.metrics})
    )


def _binary(findings: Findings) -> bool:
    return len(findings.prepared.labels) == 2


def _test_plots(findings: Findings) -> str:
    return evaluation_plots(
        {"fine-tuned": findings.evaluation, "baseline": findings.baseline}, findings.prepared.labels
    )


def _folds(found: Sequence[FoldsResult]) -> Iterator[str]:
    """What cross-validation came to, where somebody asked."""
    if not found:
        return
    names = [key for key in METRICS if all(key in each.metrics for each in found)]
    rows = [
        (
            f"{each.models} {'folds' if each.by == 'fold' else 'kinds of text left out in turn'}",
            f"{each.rows:,}",
            *(stacked(each.metrics[key]) for key in names),
        )
        for each in found
    ]
    note = (
        "<p>Models of the same recipe and rows, each asked about rows it had not seen: the mean over them, in folds "
        "with its 95% interval, by kind of text with the lowest and the highest.</p>"
    )
    head = ("Held out", "Rows", *(METRICS[key] for key in names))
    yield section("Cross-validation", note + table(head, rows, kind="metrics"))


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
    yield figure("Loss", line_chart("Loss curves", Axes("step", "loss (nats)"), drawn))
    accuracy = [(point.step, point.accuracy) for point in validation if point.accuracy is not None]
    axes = Axes("step", "accuracy", y_span=_around(accuracy))
    chart = line_chart("Validation accuracy", axes, [Series("validation", accuracy, "c1", marks=True)])
    yield figure("Accuracy on the validation split", chart)
    rates = [(point.step, 1e5 * point.learning_rate) for point in tuned.curve if point.learning_rate is not None]
    chart = line_chart("Learning rate", Axes("step", "rate, in 1e-5"), [Series("rate", rates, "c2")])
    yield figure("Learning rate (of the classification head)", chart)


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
        + table(_GATE_HEAD, [_gate_row(result, kinds.get(result.name, "")) for result in gate.variants], kind="gate")
        + (f'<ul class="reasons">{refused}</ul>' if refused else "")
        + "".join(_checks(result) for result in gate.variants if result.checks)
    )


def _gate_row(result: VariantResult, kind: str) -> list[str]:
    return [
        f"{escape(result.name)}<small>{escape(kind)}</small>",
        badge(good=result.published, yes="published", no="refused"),
        *(_gate_figures(result) if result.checks else [NOT_MEASURED] * (len(_GATE_HEAD) - 2)),
    ]


def _gate_figures(result: VariantResult) -> list[str]:
    return [
        megabytes(result.bytes),
        stacked(result.metrics.get("accuracy")),
        f"{100 * result.label_agreement:.1f}%",
        f"{result.max_score_difference:.2g} / {result.mean_score_difference:.2g}",
        f"{result.neighbour_max_score_difference:.2g}",
        f"{result.neighbour_label_flips:,}",
    ]


def _checks(result: VariantResult) -> str:
    rows = [
        (
            escape(check.name),
            f"{check.measured:.4g}",
            escape(check.required),
            badge(good=check.passed, yes="holds", no="fails"),
        )
        for check in result.checks
    ]
    held = sum(check.passed for check in result.checks)
    summary = f"{escape(result.name)}: {held} of {len(result.checks)} floors hold"
    floors = table(("Floor", "Measured", "Required", ""), rows, kind="checks")
    return f"<details><summary>{summary}</summary>{floors}</details>"


def _speed(results: Sequence[VariantResult]) -> str:
    measured = [result for result in results if result.speed]
    lengths = sorted({cell["tokens"] for result in measured for cell in result.speed})
    if not lengths:
        return f'<p class="none">{NOT_MEASURED}</p>'
    charts = "".join(figure(f"Texts of {tokens:g} tokens", _speed_chart(measured, tokens)) for tokens in lengths)
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
        f'<div class="figures">{charts}</div>' + table(head, rows, kind="speed")
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
        + figure("What became of the rows", table(("Step", "Rows"), rows, kind="counts"))
        + figure(f"Tokens per training text ({quantiles})", length_chart(findings.lengths))
        + figure(
            f"Labels in each split (balance: p = {prepared.balance_p_value:.2f})",
            table(("Split", "Rows", *map(escape, prepared.labels)), balance, kind="counts"),
        )
        + "".join(_more_counts(prepared))
        + "</div>"
    )


def _more_counts(prepared: Prepared) -> Iterator[str]:
    """What only some recipes have: cleaning steps, masked personal data, several sources."""
    splits = (prepared.train, prepared.validation, prepared.test)
    sources = Counter(source for split in splits for source in split.sources)
    tables: tuple[tuple[str, str, Mapping[str, int]], ...] = (
        ("Cleaning steps, as the service applies them too", "Rows changed", prepared.transformed),
        ("Personal data masked", "Finds", prepared.masked),
        ("Sources", "Rows kept", sources),
    )
    for caption, unit, counts in tables:
        if counts:
            rows = [(escape(name), f"{count:,}") for name, count in counts.items()]
            yield figure(caption, table(("", unit), rows, kind="counts"))


def _explored(found: Sequence[Explored]) -> Iterator[str]:
    """What `slipway explore` found in these rows, where somebody asked."""
    if rows := [(escape(each.topic), level_badge(each.level), escape(each.found)) for each in found]:
        yield section("What exploring the rows found", table(("About", "", "Found"), rows, kind="advice"))


def _label_cell(split: Split, index: int) -> str:
    count = int((split.labels == index).sum())
    return f"{count:,}<small>{100 * count / max(1, len(split)):.1f}%</small>"


def _smaller(provenance: Provenance) -> str:
    steps, uncut = f"<code>{escape(provenance.compressed)}</code>", provenance.uncut
    cost = f"accuracy {signed(uncut.accuracy_difference)} on the test split" if uncut else f"its cost is {NOT_MEASURED}"
    return f"{steps}; against the uncut model {cost}"


def _provenance(findings: Findings) -> str:
    provenance, gate = findings.manifest.provenance, findings.manifest.gate
    encoder = findings.encoder
    rows = (
        (
            "Encoder",
            f"{escape(encoder.name)} ({escape(encoder.licence or 'licence not stated')}; {escape(encoder.origin)})",
        ),
        ("Data fingerprint", f"<code>{escape(provenance.data_fingerprint)}</code>"),
        ("Weights", f"<code>sha256:{provenance.weights_digest}</code>" if provenance.weights_digest else NOT_MEASURED),
        ("Seed, threads of torch", f"{provenance.seed}, {provenance.threads or NOT_MEASURED}"),
        *([("Made smaller by", _smaller(provenance))] if provenance.compressed else []),
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
        table(("Fact", ""), rows, kind="facts")
        + (f"<details><summary>Export</summary><ul>{notes}</ul></details>" if notes else "")
        + f"<details><summary>Recipe</summary><pre>{recipe}</pre></details>"
    )
