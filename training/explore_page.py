"""The page of `slipway explore`: one HTML file that loads nothing. It shows excerpts, with personal data masked."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from rich.console import Console

from artifact.files import write_atomically
from training.advice import Advice, advise
from training.bare import recipe_for
from training.charts import Axes, bar_chart
from training.disk import disk_errors
from training.earlier import explore_folder, keep_explored
from training.errors import TrainingError
from training.explore import Doubt, Drift, Exploration, Explorer, HeldOut, Pair
from training.page import NOT_MEASURED, cards, figure, level_badge, page, section, table
from training.progress import progress_on
from training.signals import Telling
from training.steps import Steps, only_user
from training.texts import FLAWS

_COUNTS: Final = {
    "read": "rows read",
    "empty": "nothing left after cleaning",
    "neutral": "between the bands, without a label",
    "conflicting": "same text under two labels",
    "exact_duplicates": "exact duplicates",
    "over_max_rows": "beyond max_rows",
    "near_duplicates": "near duplicates",
    "sampled_out": "training rows not sampled",
}
_FEW: Final = 8
_LEAST_SHARE: Final = 0.001


def explore_to_page(
    recipe_or_table: str,
    page: Path,
    *,
    held_out: Sequence[Path],
    against: Path | None,
    columns: tuple[str, str],
    encoder: str | None,
    cache: Path,
    console: Console,
    run_dir: Path | None = None,
) -> tuple[Exploration, list[Advice]]:
    """`slipway explore`: write the page in one step and return what it says. What is finished is kept in `run_dir`.

    Without `run_dir` the findings are left where `slipway train` takes them into manifest, report and data card.

    Raises RecipeInvalid, DataInvalid, SourceUnavailable, and TrainingError when the page cannot be written.
    """
    if not page.resolve().parent.is_dir():
        raise TrainingError(f"{page}: its folder does not exist")
    recipe = recipe_for(recipe_or_table, *columns, encoder)
    folder = run_dir or explore_folder(recipe)
    with disk_errors(page):
        with progress_on(console) as progress, only_user(folder):
            found = Explorer(recipe, cache, progress, steps := Steps(folder)).explore(held_out, against)
            advice = advise(found, recipe)
            if found.outcome.key:
                keep_explored(steps, found.outcome.key, advice)
        write_atomically(page, render_exploration(found, advice).encode())
    return found, advice


def render_exploration(found: Exploration, advice: Sequence[Advice]) -> str:
    """The whole page."""
    sections = (
        ("What training will do", _advice(advice)),
        ("Rows and labels", _rows(found)),
        ("Length", _lengths(found)),
        ("Duplicates and leakage", _duplicates(found)),
        ("Languages and scripts", _languages(found)),
        ("Broken texts and personal data", _broken(found)),
        ("Words that tell the label", _words(found)),
        ("Doubtful labels", _doubts(found)),
        *((f"Held out: {each.name}", _held_out(each)) for each in found.held_out),
        *([(f"Drift to {found.drift.name}", _drift(found, found.drift))] if found.drift else []),
    )
    body = _header(found, advice) + "".join(section(title, body) for title, body in sections)
    return page(f"{found.name}: exploration", body)


def _header(found: Exploration, advice: Sequence[Advice]) -> str:
    counts = found.outcome.counts
    kept = f"{counts['kept']:,}" if "kept" in counts and not found.outcome.refusal else "none"
    splits = " / ".join(f"{counts[name]:,}" for name in ("train", "validation", "test") if name in counts)
    quantiles = found.survey.lengths.quantiles
    looks = sum(each.level in ("stop", "warn") for each in advice)
    facts = (
        ("rows", f"{found.rows:,}", f"{len(found.survey.labels)} labels"),
        ("rows training keeps", kept, f"train / validation / test: {splits}" if splits else "training refuses"),
        ("tokens in the median text", f"{quantiles.get('p50', 0):,}", f"99% have at most {quantiles.get('p99', 0):,}"),
        ("findings to look at", str(looks), f"of {len(advice)}"),
    )
    return (
        f'<header><p class="kicker">Slipway data exploration</p><h1>{escape(found.name)}</h1>'
        f'<p class="lead">{escape(found.origin)}; licence {escape(found.licence)}</p>{cards(facts)}</header>\n'
    )


def _advice(advice: Sequence[Advice]) -> str:
    rows = [
        (
            escape(each.topic),
            level_badge(each.level),
            escape(each.found),
            escape(each.training),
        )
        for each in advice
    ]
    return table(("About", "", "Found", "What training does"), rows, kind="advice")


def _rows(found: Exploration) -> str:
    total = max(1, found.rows)
    labels = [(escape(name), f"{count:,}", f"{count / total:.1%}") for name, count in found.survey.labels.items()]
    if found.survey.unlabelled:
        labels.append(("<i>none</i>", f"{found.survey.unlabelled:,}", f"{found.survey.unlabelled / total:.1%}"))
    counts = found.outcome.counts
    steps = [(_COUNTS.get(name, name.replace("_", " ")), f"{count:,}") for name, count in counts.items()]
    boxes = [
        figure("Labels", table(("Label", "Rows", "Share"), labels, kind="counts")),
        figure("What becomes of the rows in training", table(("Step", "Rows"), steps, kind="counts")),
    ]
    if found.sources:
        sources = [(escape(name), f"{count:,}", f"{count / total:.1%}") for name, count in found.sources.items()]
        boxes.append(figure("Sources", table(("Source", "Rows", "Share"), sources, kind="counts")))
    if found.transforms:
        done = [(name, f"{found.outcome.transformed.get(name, 0):,}") for name in found.transforms]
        boxes.append(figure("Cleaning steps", table(("Step", "Rows changed"), done, kind="counts")))
    balance = found.outcome.balance_p_value
    note = "" if balance is None else f"<p>Are labels spread over the splits as chance would? p = {balance:.2f}.</p>"
    return f'{note}<div class="figures">{"".join(boxes)}</div>'


def _lengths(found: Exploration) -> str:
    lengths = found.survey.lengths
    chart = bar_chart("Tokens per text", Axes("tokens", "texts"), lengths.bars, "c2")
    quantiles = [(name, f"{tokens:,}") for name, tokens in lengths.quantiles.items()]
    return (
        f"<p>In tokens of {escape(lengths.encoder)}, the special ones included, after cleaning. "
        f"{lengths.over_limit:,} texts have more than {lengths.limit_tokens:,}: what training does about "
        "them stands above.</p>"
        f'<div class="figures">{figure("Tokens per text", chart)}'
        f"{figure('Quantiles', table(('Quantile', 'Tokens'), quantiles, kind='counts'))}</div>"
    )


def _duplicates(found: Exploration) -> str:
    text = (
        "<p>Texts count as nearly the same when four fifths of their runs of five characters are common (two "
        "characters in Chinese, Japanese and Korean), case and punctuation apart.</p>"
    )
    conflicting = [(escape(each),) for each in found.outcome.conflicting]
    both = table(("Under two labels, dropped everywhere",), conflicting, kind="texts") if conflicting else ""
    if not found.outcome.pairs:
        return f'{text}<p class="none">no near duplicates</p>{both}'
    rows = [_pair(pair) for pair in found.outcome.pairs]
    return text + table(("Dropped", "Its split", "Kept", "Its split"), rows, kind="texts") + both


def _pair(pair: Pair) -> tuple[str, str, str, str]:
    return escape(pair.dropped), pair.dropped_split, escape(pair.kept), pair.kept_split


def _languages(found: Exploration) -> str:
    total = max(1, sum(found.survey.scripts.values()))
    scripts = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in found.survey.scripts.items()]
    shares = found.sample.languages
    rare = [share for share in shares.values() if share < _LEAST_SHARE]
    languages = [(name, f"{share:.1%}") for name, share in shares.items() if share >= _LEAST_SHARE]
    if rare:
        languages.append((f"<i>{len(rare)} others</i>", f"{sum(rare):.1%}"))
    return (
        "<p>Scripts are counted over all texts, by most of their letters. Languages are guessed (py3langid) in a "
        "sample; a short text is often guessed wrong, so a language with a small share may not be there.</p>"
        f'<div class="figures">{figure("Scripts", _some(("Script", "Rows", "Share"), scripts))}'
        f"{figure('Languages', _some(('Language', 'Share'), languages))}</div>"
    )


def _some(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first rows; the others can be unfolded."""
    shown = table(head, rows[:_FEW], kind="counts")
    if len(rows) <= _FEW:
        return shown
    more = f"<details><summary>{len(rows) - _FEW} more</summary>{table(head, rows[_FEW:], kind='counts')}</details>"
    return shown + more


def _broken(found: Exploration) -> str:
    flaws = [(escape(what), f"{found.survey.flaws.get(flaw, 0):,}") for flaw, what in FLAWS.items()]
    personal = [(kind, f"{count:,}") for kind, count in found.survey.personal.items()]
    masked = found.outcome.masked
    note = ", ".join(f"{count:,} {kind}" for kind, count in masked.items())
    found_personal = table(("Kind", "Finds"), personal, kind="counts") if personal else '<p class="none">none found</p>'
    return (
        f'<div class="figures">{figure("Texts that …", table(("Flaw", "Rows"), flaws, kind="counts"))}'
        f"{figure('Personal data', found_personal)}</div>"
        + (f"<p>Masked in training and when serving: {escape(note)}.</p>" if note else "")
    )


def _words(found: Exploration) -> str:
    boxes = []
    for label, words in found.sample.telling.items():
        boxes.append(figure(f"Tell “{label}”", _telling(words)))
        if sure := found.sample.giveaways.get(label):
            boxes.append(figure(f"All but always under “{label}”", _telling(sure, z=False)))
    return (
        f"<p>Log-odds with an informative Dirichlet prior (Monroe et al. 2008) over {found.sample.rows:,} texts; words "
        f'with a z-score above 2.</p><div class="figures">{"".join(boxes)}</div>'
    )


def _telling(words: Iterable[Telling], *, z: bool = True) -> str:
    rows = [
        (escape(each.word), *([f"{each.z:.1f}"] if z else []), f"{each.rows_here:,}", f"{each.rows_elsewhere:,}")
        for each in words
    ]
    if not rows:
        return '<p class="none">none beyond chance</p>'
    return table(("Word", *(["z"] if z else []), "Rows here", "Elsewhere"), rows, kind="counts")


def _doubts(found: Exploration) -> str:
    doubts = found.sample.doubts
    if doubts is None:
        return f'<p class="none">{NOT_MEASURED}: a label has too few rows</p>'
    rows = [_doubt(doubt) for doubt in doubts.shown]
    return (
        f"<p>A logistic regression over words, cross-validated on {found.sample.rows:,} texts, is right on "
        f"{doubts.accuracy:.1%} of them and gives {doubts.rows:,} another label than theirs with at least its usual "
        "confidence (confident learning, Northcutt et al. 2021). It is often the one that errs: look at the texts.</p>"
        + table(("Text", "Row", "Label", "Suggested", "Given / suggested"), rows, kind="texts")
    )


def _doubt(doubt: Doubt) -> tuple[str, ...]:
    row = f"{doubt.row:,}" + (f"<small>{escape(doubt.source)}</small>" if doubt.source else "")
    odds = f"{doubt.probability_given:.2f} / {doubt.probability_suggested:.2f}"
    return escape(doubt.text), row, escape(doubt.given), escape(doubt.suggested), odds


def _held_out(held_out: HeldOut) -> str:
    rows = [
        ("rows", f"{held_out.rows:,}"),
        ("in the data word for word", f"{held_out.exact:,}"),
        ("in the data nearly", f"{held_out.near:,}"),
    ]
    counts = f'<div class="figures">{figure("Leakage", table(("", "Rows"), rows, kind="counts"))}</div>'
    leaks = [
        (escape(leak.text), f"{leak.row:,}", "word for word" if leak.exact else "nearly") for leak in held_out.shown
    ]
    return counts + (table(("The first of them", "Row", "In the data"), leaks, kind="texts") if leaks else "")


def _drift(found: Exploration, drift: Drift) -> str:
    apart = drift.apart
    facts = [
        ("rows", f"{drift.rows:,}"),
        ("told apart by a classifier (AUC; .5 is chance)", NOT_MEASURED if apart.auc is None else f"{apart.auc:.2f}"),
        ("distance of the lengths (Kolmogorov-Smirnov)", f"{apart.length_distance:.2f}"),
        ("of its words never seen here", f"{apart.unknown_words:.1%}"),
    ]
    boxes = [figure("How far apart", table(("", ""), facts, kind="counts"))]
    if drift.labels:
        here = found.survey.labels
        total = max(1, sum(here.values()))
        shares = [
            (escape(name), f"{count / total:.1%}", f"{drift.labels.get(name, 0):.1%}") for name, count in here.items()
        ]
        boxes.append(figure("Labels", table(("Label", "Here", "There"), shares, kind="counts")))
    boxes += [figure("Words of this set", _telling(apart.first)), figure("Words of the other", _telling(apart.second))]
    return f'<div class="figures">{"".join(boxes)}</div>'
