"""`MODEL_CARD.md`: what the artifact is, in the form hubs and people read.

The front matter follows the Hugging Face model-card metadata (https://huggingface.co/docs/hub/model-cards). A fact
that nobody measured reads "not measured"; nothing is claimed about a benchmark that was not run.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from artifact.manifest import Manifest, VariantResult
from training.report import METRICS, NOT_MEASURED, Findings, beats_baseline, megabytes, shown

# Identifiers the hub knows (https://huggingface.co/docs/hub/repositories-licenses).
_KNOWN_LICENCES: Final = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "mpl-2.0"}
)
# Data sets whose rows are known to be part of public benchmarks.
_OVERLAPS: Final = {
    "vader-movie-reviews": (
        "The movie-review snippets are Pang & Lee's rt-polarity sentences, rated anew by people. They overlap the MR "
        "data set almost completely and every split of SST-2 by more than three quarters: neither is a held-out test "
        "for this model, and no figure on them may be reported for it."
    )
}


def render_card(findings: Findings, published: Manifest) -> str:
    """The card, front matter first. `published` is the manifest as it will be: with published variants only."""
    sections = (
        ("What it is for", _purpose(findings)),
        ("How to use it", _usage(findings)),
        ("Data", _data(findings)),
        ("Training", _training(findings)),
        ("Evaluation", _evaluation(findings)),
        ("Variants", _variants(findings.manifest.gate.variants)),
        ("Limits and risks", _limits(findings, published)),
        ("Environmental impact", f"Energy and emissions: {NOT_MEASURED}."),
        ("Provenance", _provenance(findings)),
    )
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"---\n{_front_matter(findings)}---\n\n# {published.name}\n\n{_opening(findings)}\n\n{body}\n"


def _front_matter(findings: Findings) -> str:
    """YAML, every scalar written as JSON, which YAML reads as it is."""
    values: dict[str, Any] = {
        "library_name": "slipway",
        "pipeline_tag": findings.manifest.task,
        "tags": ["slipway", "onnx", findings.manifest.task],
    }
    if licence := _licence(findings):
        values["license"] = licence
    if re.search(r"^[\w.-]+/[\w.-]+$", findings.encoder.name):
        values["base_model"] = findings.encoder.name
    if language := _language(findings):
        values["language"] = language
    metrics = findings.evaluation.metrics
    values["metrics"] = ["accuracy", "f1", "precision", "recall", "roc_auc"]
    values["model-index"] = [
        {
            "name": findings.manifest.name,
            "results": [
                {
                    "task": {"type": findings.manifest.task},
                    "dataset": {"name": findings.prepared.name, "type": _slug(findings.prepared.name), "split": "test"},
                    "metrics": [
                        {"type": key, "name": METRICS.get(key, key), "value": round(estimate.value, 4)}
                        for key, estimate in metrics.items()
                        if np.isfinite(estimate.value)
                    ],
                }
            ],
        }
    ]
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"


def _licence(findings: Findings) -> str | None:
    """The weights' licence, where it is one the hub knows: a fine-tuned model is a derivative of its encoder."""
    licence = findings.encoder.licence.strip().lower()
    return licence if licence in _KNOWN_LICENCES else None


def _language(findings: Findings) -> str | None:
    """Known for packaged data only; guessing a user's language is not ours to do."""
    return "en" if findings.recipe.data.source == "packaged" else None


def _opening(findings: Findings) -> str:
    description = findings.recipe.description or "A text classifier."
    labels = ", ".join(f"`{label}`" for label in findings.prepared.labels)
    return f"{description} Labels: {labels}. Trained, checked and published by Slipway."


def _purpose(findings: Findings) -> str:
    return (
        f"Telling texts like those it was trained on ({findings.prepared.name}) into "
        f"{len(findings.prepared.labels)} labels. Texts of another kind, length or language: {NOT_MEASURED}. It is not "
        "meant to decide about people."
    )


def _usage(findings: Findings) -> str:
    return (
        f'```sh\nslipway predict --model {findings.manifest.name} "your text"\nslipway serve\n```\n\n'
        f"An input may have up to {findings.manifest.limits.max_input_tokens} tokens, the special ones included."
    )


def _data(findings: Findings) -> str:
    prepared = findings.prepared
    counts = "\n".join(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in prepared.counts.items())
    overlap = _overlap(findings)
    warning = f"\n\n**Overlap with public benchmarks.** {overlap}" if overlap else ""
    return (
        f"{prepared.name} ({prepared.licence or 'licence not stated'}; {prepared.origin}). Texts were normalised (NFC, "
        "white space folded); exact and near duplicates were removed before the split, which a hash of the text "
        f"decides.\n\n| step | rows |\n|---|---:|\n{counts}{warning}"
    )


def _overlap(findings: Findings) -> str:
    data = findings.recipe.data
    return _OVERLAPS.get(data.name, "") if data.source == "packaged" else ""


def _training(findings: Findings) -> str:
    tuned, section = findings.fine_tuned, findings.recipe.training
    encoder = findings.encoder
    source = f"{encoder.name} ({encoder.licence or 'licence not stated'}; {encoder.origin})"
    return (
        f"Fine-tuned from {source} for {tuned.steps:,} steps in {tuned.precision}, seed {section.seed}; training texts "
        f"were cut at {section.max_tokens} tokens. The checkpoint of step {tuned.best_step:,} was the best on the "
        f"validation split. The whole recipe is in `manifest.json`.{_compressed(findings)}"
    )


def _compressed(findings: Findings) -> str:
    steps = findings.manifest.provenance.compressed
    return f" Afterwards made smaller by `slipway compress`: `{steps}`." if steps else ""


def _evaluation(findings: Findings) -> str:
    ours, baseline = findings.evaluation.metrics, findings.baseline.metrics
    rows = "\n".join(
        f"| {METRICS.get(key, key)} | {shown(estimate)} | {shown(baseline.get(key))} |"
        for key, estimate in ours.items()
    )
    verdict = (
        "The accuracy intervals do not overlap: the model beats its baseline."
        if beats_baseline(findings)
        else "The accuracy intervals overlap: the model is not shown to be better than its baseline."
    )
    return (
        f"On {findings.evaluation.rows:,} test rows that were used for nothing else, with 95% bootstrap intervals. The "
        f"baseline is the same encoder, frozen, under a logistic regression. {verdict}\n\n"
        f"| metric | this model | baseline |\n|---|---:|---:|\n{rows}\n\n"
        f"Robustness to typing errors, to other domains and to adversarial texts, and differences between groups of "
        f"people: {NOT_MEASURED}."
    )


def _variants(results: Sequence[VariantResult]) -> str:
    """What the gate found. A variant it refused is listed, with the reason, though its file is not here."""
    rows = "\n".join(f"| {' | '.join(_variant_cells(result))} |" for result in results)
    refused = "\n".join(f"- {result.name}: {result.reason}" for result in results if not result.published)
    return (
        "Every variant was held against torch, and alone against among random neighbours, by the serving code over "
        "the whole test split.\n\n"
        "| variant | verdict | size | accuracy | labels as the reference | largest score difference from torch | "
        f"moved by neighbours |\n|---|---|---:|---:|---:|---:|---:|\n{rows}" + (f"\n\n{refused}" if refused else "")
    )


def _variant_cells(result: VariantResult) -> list[str]:
    verdict = "published" if result.published else "refused"
    if not result.checks:
        return [result.name, verdict, *[NOT_MEASURED] * 5]
    return [
        result.name,
        verdict,
        megabytes(result.bytes),
        shown(result.metrics.get("accuracy")),
        f"{100 * result.label_agreement:.1f}%",
        f"{result.max_score_difference:.2g}",
        f"{result.neighbour_max_score_difference:.2g}",
    ]


def _limits(findings: Findings, published: Manifest) -> str:
    longest = findings.fine_tuned.length_quantiles.get("p99")
    seen = f"99% of the training texts have at most {longest} tokens; accuracy on longer ones: {NOT_MEASURED}. "
    calibration = findings.evaluation.metrics.get("calibration_error")
    neutral = (
        "Texts whose rating was near neutral were left out of the data: the model has never seen one and will still "
        "answer with a label. "
        if findings.recipe.data.thresholds
        else ""
    )
    return (
        f"{seen if longest else ''}A score is the model's confidence; its calibration error on the test split is "
        f"{shown(calibration)}. {neutral}Alone and in any batch a text gets the same answer, within "
        f"{_moved(published):.1g}."
    )


def _moved(published: Manifest) -> float:
    """The most any published variant's score moved among neighbours, and at least what we can promise: 1e-6."""
    names = {variant.name for variant in published.variants}
    moved = (result.neighbour_max_score_difference for result in published.gate.variants if result.name in names)
    return max([1e-6, *moved])


def _provenance(findings: Findings) -> str:
    provenance = findings.manifest.provenance
    libraries = ", ".join(f"{name} {version}" for name, version in provenance.libraries.items())
    return (
        f"- created: {provenance.created.isoformat(timespec='seconds')}\n"
        f"- data fingerprint: `{provenance.data_fingerprint}`\n"
        f"- seed: {provenance.seed}\n"
        f"- git commit: {provenance.git_commit or 'not in a checkout'}\n"
        f"- platform: {provenance.platform or NOT_MEASURED}\n"
        f"- CPU of the gate: {findings.manifest.gate.cpu or NOT_MEASURED}\n"
        f"- libraries: {libraries or NOT_MEASURED}"
    )
