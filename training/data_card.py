"""`DATA_CARD.md`: what the model was trained and tested on, filled from what preparing the data counted.

The headings follow Gebru et al. 2021 (Datasheets for Datasets): motivation, composition, collection, preprocessing,
uses, distribution. What nobody measured reads "not measured", what only a person can say and nobody said "not stated".
"""

from collections.abc import Sequence

import numpy as np

from training.card import NOT_STATED, cell, language_of, overlap_of, steps_of
from training.page import NOT_MEASURED
from training.prepare import Split
from training.recipe import Recipe, SingleSource
from training.report import Findings

_QUANTILES = (0.5, 0.9, 0.99, 1.0)


def render_data_card(findings: Findings) -> str:
    """The card, from the same findings as the model card."""
    card, prepared = findings.recipe.card, findings.prepared
    sections = (
        ("What it is", _composition(findings)),
        ("Labels", _labels(findings)),
        ("Lengths", _lengths(findings.lengths)),
        ("Collection", card.collection or f"How, when and by whom texts were collected and labelled: {NOT_STATED}."),
        ("Preparation", _preparation(findings)),
        ("What exploring it found", _explored(findings)),
        ("People in the data", _people(findings)),
        ("Uses", _uses(findings)),
        ("Licence and origin", _origin(findings)),
        ("Contact", card.contact or NOT_STATED),
    )
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"# Data of {findings.manifest.name}: {prepared.name}\n\n{body}\n"


def _composition(findings: Findings) -> str:
    prepared = findings.prepared
    language = language_of(findings.recipe)
    return (
        f"{prepared.counts.get('kept', 0):,} labelled texts, divided into {len(prepared.train):,} to train, "
        f"{len(prepared.validation):,} to validate and {len(prepared.test):,} to test. "
        f"Language: {f'`{language}`' if language else NOT_STATED}. Fingerprint of the prepared rows and what shaped "
        f"them: `{prepared.fingerprint}`."
    )


def _labels(findings: Findings) -> str:
    prepared = findings.prepared
    splits = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    rows = "\n".join(
        f"| {name} | {len(split):,} | {' | '.join(_shares(split, len(prepared.labels)))} |"
        for name, split in splits.items()
    )
    head = " | ".join(prepared.labels)
    return (
        f"{_meaning(findings.recipe)} Whether the labels are right: {NOT_MEASURED}.\n\n"
        f"| split | rows | {head} |\n|---|---:|{'---:|' * len(prepared.labels)}\n{rows}\n\n"
        f"Chance alone would make the splits differ at least this much in {prepared.balance_p_value:.0%} of cases "
        "(chi-square test)."
    )


def _meaning(recipe: Recipe) -> str:
    """How a value in the data became a label; where several sources differ in that, of each in turn."""
    return " ".join(dict.fromkeys(map(_meaning_in, recipe.sources)))


def _meaning_in(data: SingleSource) -> str:
    if data.thresholds:
        bands = "; ".join(f"`{label}` {_ends(band.low, band.high)}" for label, band in data.thresholds.items())
        return f"Labels are bands of a rating: {bands}. Ratings between the bands were left out."
    if data.label_names:
        names = ", ".join(f"{value} is `{label}`" for value, label in data.label_names.items())
        return f"Labels are values of a column: {names}."
    return "Labels stand in the data as they are."


def _ends(low: float, high: float) -> str:
    if np.isinf(low):
        return f"up to {high:g}"
    return f"from {low:g}" if np.isinf(high) else f"from {low:g} to {high:g}"


def _shares(split: Split, labels: int) -> list[str]:
    counts = np.bincount(split.labels, minlength=labels)
    return [f"{count:,} ({100 * count / max(1, len(split)):.1f}%)" for count in counts]


def _lengths(lengths: Sequence[int]) -> str:
    if not lengths:
        return f"Tokens per text: {NOT_MEASURED}."
    names = ("50% up to", "90% up to", "99% up to", "longest")
    values = np.quantile(lengths, _QUANTILES, method="inverted_cdf")
    found = ", ".join(f"{name} {int(value):,}" for name, value in zip(names, values, strict=True))
    return f"Tokens per training text, special ones included, as this model's tokenizer counts: {found}."


def _preparation(findings: Findings) -> str:
    counts = "\n".join(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in findings.prepared.counts.items())
    return (
        f"Texts were normalised (Unicode NFC, white space folded{steps_of(findings)}). Exact duplicates, texts "
        "under two labels and near duplicates (Jaccard similarity of character shingles) were removed before the "
        f"split; a hash of its own text decides where a row goes.\n\n| step | rows |\n|---|---:|\n{counts}"
    )


def _explored(findings: Findings) -> str:
    """What `slipway explore` said of these very rows, what is well left out."""
    explored = findings.manifest.provenance.explored
    if not explored:
        return f"Words that give a label away, doubtful labels, scripts and languages, broken texts: {NOT_MEASURED}."
    odd = [each for each in explored if each.level != "good"]
    topics = dict.fromkeys(each.topic for each in explored)
    fine = ", ".join(topic.lower() for topic in topics if topic not in {each.topic for each in odd})
    told = f"By `slipway explore`{f'; nothing odd about: {fine}' if fine else ''}."
    if not odd:
        return told
    rows = "\n".join(f"| {cell(each.topic)} | {cell(each.found)} |" for each in odd)
    return f"{told}\n\n| about | found |\n|---|---|\n{rows}"


def _people(findings: Findings) -> str:
    """Personal data has a form that can be counted, but for names; whose texts they are nobody knows."""
    masks = "pii" in findings.recipe.prepare.transforms
    told = "Personal data " + ("masked in the texts" if masks else "left in the texts as it is, where it has a form")
    counts = findings.prepared.masked if masks else findings.personal
    found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())) or "none found"
    return f"{told}: {found}. Names, and whose texts they are: {NOT_MEASURED}."


def _uses(findings: Findings) -> str:
    card, overlap = findings.recipe.card, overlap_of(findings)
    told = f"- intended use: {card.intended_use or NOT_STATED}\n- out of scope: {card.out_of_scope or NOT_STATED}"
    measured = findings.manifest.assessment.elsewhere if findings.manifest.assessment else ()
    names = "; ".join(f"{each.name} ({each.rows:,} rows)" for each in measured)
    told += f"\n- measured on, never learned: {names}" if names else ""
    return told + (f"\n- overlap with public benchmarks: {overlap}" if overlap else "")


def _origin(findings: Findings) -> str:
    prepared = findings.prepared
    known = prepared.licence if prepared.licence not in ("", "unknown") else ""
    return f"- licence: {known or findings.recipe.card.data_licence or NOT_STATED}\n- origin: {prepared.origin}"
