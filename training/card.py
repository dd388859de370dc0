"""`MODEL_CARD.md`: what the artifact is, in the form hubs and people read.

The front matter follows the Hugging Face model-card metadata (https://huggingface.co/docs/hub/model-cards). A fact
that nobody measured reads "not measured"; nothing is claimed about a benchmark that was not run.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from artifact.manifest import Assessment, FoldsResult, Manifest, VariantResult
from training.assess_page import pair_in_words, signed, slice_verdict
from training.page import METRICS, NOT_MEASURED, megabytes, shown
from training.recipe import Recipe, TrainingSection
from training.report import Findings, beats_baseline

NOT_STATED: Final = "not stated"
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
    ),
    "imdb-reviews": (
        "The IMDb reviews are of the training half of that data set; its test half was not used and is as good a test "
        "as ever."
    ),
}


def render_card(findings: Findings, published: Manifest) -> str:
    """The card, front matter first. `published` is the manifest as it will be: with published variants only."""
    sections = (
        ("What it is for", _purpose(findings)),
        ("How to use it", _usage(findings)),
        ("Data", _data(findings)),
        ("Training", _training(findings)),
        ("Evaluation", _evaluation(findings)),
        ("Slices", _slices(findings.manifest.assessment)),
        ("Swapped terms", _bias(findings.manifest.assessment)),
        ("Changed texts", _robustness(findings.manifest.assessment)),
        ("Variants", _variants(findings.manifest.gate.variants)),
        ("Limits and risks", _limits(findings, published)),
        ("Environmental impact", f"Energy and emissions: {NOT_MEASURED}."),
        ("Provenance", _provenance(findings)),
        ("Contact", findings.recipe.card.contact or NOT_STATED),
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
    if language := language_of(findings.recipe):
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


def language_of(recipe: Recipe) -> str | None:
    """As the recipe says, or as is known of packaged data; guessing a user's language is not ours to do."""
    packaged = all(source.source == "packaged" for source in recipe.sources)
    return recipe.card.language or ("en" if packaged else None)


def _opening(findings: Findings) -> str:
    description = findings.recipe.description or "A text classifier."
    labels = ", ".join(f"`{label}`" for label in findings.prepared.labels)
    return f"{description} Labels: {labels}. Trained, checked and published by Slipway."


def _purpose(findings: Findings) -> str:
    card = findings.recipe.card
    trained = (
        f"It tells texts like those it was trained on ({findings.prepared.name}) into {len(findings.prepared.labels)} "
        f"labels. {_other_kinds(findings.manifest.assessment)} It is not meant to decide about people."
    )
    return (
        f"{trained}\n\n- intended use: {card.intended_use or NOT_STATED}\n"
        f"- out of scope: {card.out_of_scope or NOT_STATED}"
    )


def _other_kinds(assessment: Assessment | None) -> str:
    if assessment is None or not assessment.elsewhere:
        return f"Texts of another kind or language: {NOT_MEASURED}."
    return f"Texts of another kind: under Evaluation, out of domain. Texts in another language: {NOT_MEASURED}."


def _usage(findings: Findings) -> str:
    return (
        f'```sh\nslipway predict --model {findings.manifest.name} "your text"\nslipway serve\n```\n\n'
        f"An input may have up to {findings.manifest.limits.max_input_tokens} tokens, the special ones included."
        f"{_windows(findings.manifest.preprocessing.window_tokens)}"
    )


def _windows(tokens: int | None) -> str:
    if tokens is None:
        return ""
    return f" One of more than {tokens} is read in windows of at most so many; the answer is the mean of their logits."


def _data(findings: Findings) -> str:
    prepared = findings.prepared
    counts = "\n".join(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in prepared.counts.items())
    overlap = overlap_of(findings)
    warning = f"\n\n**Overlap with public benchmarks.** {overlap}" if overlap else ""
    return (
        f"{prepared.name} ({prepared.licence or 'licence not stated'}; {prepared.origin}). Texts were normalised (NFC, "
        f"white space folded{steps_of(findings)}); exact and near duplicates were removed before the split, which a "
        f"hash of the text decides.\n\n| step | rows |\n|---|---:|\n{counts}{warning}"
    )


def steps_of(findings: Findings) -> str:
    """The cleaning steps, and what they masked; the service applies them too."""
    names = ", ".join(findings.recipe.prepare.transforms)
    masked = ", ".join(f"{count:,} {kind}" for kind, count in findings.prepared.masked.items())
    return (f"; then {names}" if names else "") + (f"; masked: {masked}" if masked else "")


def overlap_of(findings: Findings) -> str:
    """What a user of a packaged data set should know about public benchmarks."""
    names = [source.name for source in findings.recipe.sources if source.source == "packaged"]
    return " ".join(_OVERLAPS[name] for name in names if name in _OVERLAPS)


def _training(findings: Findings) -> str:
    tuned, section = findings.fine_tuned, findings.recipe.training
    encoder = findings.encoder
    source = f"{encoder.name} ({encoder.licence or 'licence not stated'}; {encoder.origin})"
    return (
        f"Fine-tuned from {source} for {tuned.steps:,} steps in {tuned.precision}, seed {section.seed}; training texts "
        f"were cut {_cut(section)}. The checkpoint of step {tuned.best_step:,} was the best on the "
        f"validation split. The whole recipe is in `manifest.json`.{_chosen(findings.recipe)}{_compressed(findings)}"
    )


def _chosen(recipe: Recipe) -> str:
    """The study that the recipe's values come from, unless somebody changed them since."""
    found = recipe.chosen
    if found is None:
        return ""
    now = recipe.model_dump(mode="json")
    if any(_at(now, name) != value for name, value in found.values.items()):
        return ""
    chosen = ", ".join(f"{name} = {value}" for name, value in found.values.items())
    return (
        f" A study (`slipway tune`, {found.sampler}) chose {chosen}: its trial number {found.trial}, the best of "
        f"{found.trials} that ended, had {found.objective} {found.quality:.4f} {found.judged}."
    )


def _at(values: Mapping[str, Any], name: str) -> object:
    """The value of a dotted field."""
    section, _, field = name.partition(".")
    return values[section].get(field)


def _cut(section: TrainingSection) -> str:
    if section.window_tokens is None:
        return f"at {section.max_tokens} tokens"
    return f"to one window of at most {section.window_tokens} tokens each"


def _compressed(findings: Findings) -> str:
    steps, uncut = findings.manifest.provenance.compressed, findings.manifest.provenance.uncut
    if not steps:
        return ""
    told = f" Afterwards made smaller by `slipway compress`: `{steps}`."
    if uncut is None:
        return f"{told} What that cost: {NOT_MEASURED}."
    return (
        f"{told} Its accuracy minus that of the uncut model in fp32 is "
        f"{signed(uncut.accuracy_difference)} on {uncut.rows:,} test rows; {uncut.agreement:.1%} of the labels are "
        "equal."
    )


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
        f"{_cross_validation(findings.manifest.provenance.folds)} "
        f"{_temperature(findings.manifest.assessment)} Texts made to mislead: {NOT_MEASURED}.\n\n"
        f"{_elsewhere(findings.manifest.assessment)}"
    )


def _cross_validation(found: Sequence[FoldsResult]) -> str:
    """The same recipe on rows that its models had not seen, fold by fold or kind by kind."""
    told = [f"accuracy {shown(each.metrics['accuracy'])}, {_held_out(each)}" for each in found]
    return f"Cross-validation: {'; '.join(told) or NOT_MEASURED}."


def _held_out(found: FoldsResult) -> str:
    if found.by == "fold":
        return f"the mean over {found.models} folds of {found.rows:,} rows"
    return (
        f"the mean (lowest, highest) over {found.models} kinds of text, {found.rows:,} rows, of models that had not "
        "learned the kind they were asked about"
    )


def _temperature(assessment: Assessment | None) -> str:
    """What scaling the scores did to them."""
    found = assessment.calibration if assessment else None
    if found is None or found.temperature is None:
        return f"What scaling the scores did to their calibration: {NOT_MEASURED}."
    before, after = found.before.get("calibration_error"), found.after.get("calibration_error")
    return (
        f"Logits are divided by a temperature of {found.temperature:.3f}, fitted on the validation split; calibration "
        f"error without it {shown(before)}, with it {shown(after)}."
    )


def _elsewhere(assessment: Assessment | None) -> str:
    """Out of domain, apart from what the model learned."""
    if assessment is None or not assessment.elsewhere:
        return f"Texts of other domains: {NOT_MEASURED}."
    rows = "\n".join(f"| {cell(each.name)} | {each.rows:,} | {shown(each.accuracy)} |" for each in assessment.elsewhere)
    head = "| data | rows | accuracy |\n|---|---:|---:|"
    return f"Out of domain, on data of other kinds that was never learned:\n\n{head}\n{rows}"


def _slices(assessment: Assessment | None) -> str:
    if assessment is None or not assessment.slices:
        return f"Accuracy by length or by groups of texts: {NOT_MEASURED}."
    rows = "\n".join(
        f"| {cell(each.by)}: {cell(each.name)} | {each.rows:,} | {shown(each.accuracy)} | {signed(each.difference)} |"
        for each in assessment.slices
    )
    return (
        f"{cell(slice_verdict(assessment))}\n\n"
        f"| slice | rows | accuracy | against the other rows |\n|---|---:|---:|---:|\n{rows}"
    )


def _bias(assessment: Assessment | None) -> str:
    if assessment is None or not assessment.bias:
        return f"Differences between groups of people: {NOT_MEASURED}."
    rows = "\n".join(
        f"| {cell(each.group)} | {each.mean_movement:.3f} | {each.max_movement:.3f} | {each.label_flips} of "
        f"{each.pairs} | {cell(pair_in_words(each.worst))} |"
        for each in assessment.bias
    )
    return (
        "How far the score moves when one term takes the place of another in a sentence that judges nothing; it should "
        "not. These are made-up English sentences: that real texts are treated alike is not shown.\n\n"
        "| group | mean movement | largest | other label | the pair that moves most |\n"
        f"|---|---:|---:|---:|---|\n{rows}"
    )


def _robustness(assessment: Assessment | None) -> str:
    if assessment is None or not assessment.robustness:
        return f"Typing errors, case, negation, emoji: {NOT_MEASURED}."
    rows = "\n".join(
        f"| {each.name} | {each.rows:,} | {shown(each.accuracy_before)} | {shown(each.accuracy_after)} | "
        f"{shown(each.flip_rate)} |"
        for each in assessment.robustness
    )
    return (
        "Test rows, changed in ways that leave what they mean.\n\n"
        f"| change | rows | accuracy before | after | share with another label |\n|---|---:|---:|---:|---:|\n{rows}"
    )


def cell(text: str) -> str:
    """Text from outside in a table: no line of its own, no column of its own."""
    return " ".join(text.split()).replace("|", "\\|")


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
        f"{findings.recipe.card.limits.rstrip()}{' ' if findings.recipe.card.limits else ''}"
        f"{seen if longest else ''}A score is the model's confidence; its calibration error on the test split is "
        f"{shown(calibration)}. {neutral}{_movement(published.assessment)}Alone and in any batch a text gets the same "
        f"answer, within {_moved(published):.1g}."
    )


def _movement(assessment: Assessment | None) -> str:
    """The group of people whose terms move scores the most."""
    most = max(assessment.bias, key=lambda each: each.max_movement, default=None) if assessment else None
    if most is None:
        return ""
    return (
        f"Exchanging one term for another in a neutral sentence moved a score by up to {most.max_movement:.2f} "
        f"({cell(most.group)}). "
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
