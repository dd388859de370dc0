"""What was found in a data set, in a sentence each, and what training will do about it unless the recipe says more."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from artifact.manifest import ExploredLevel
from training.explore import Drift, Exploration, HeldOut
from training.recipe import Recipe
from training.texts import FLAWS

_UNEVEN: Final = 3.0
_LONG_SHARE: Final = 0.01
_FOREIGN_SHARE: Final = 0.02
_SECOND_LANGUAGE: Final = 0.1
_DOUBTFUL_SHARE: Final = 0.02
_SLIGHT_DRIFT, _STRONG_DRIFT = 0.6, 0.75
# What mends a flaw, where a cleaning step does.
_MENDED_BY: Final = {"control": "unicode", "html": "html", "url": "urls"}


@dataclass(frozen=True, slots=True)
class Advice:
    """`found` is a fact, `training` what `slipway train` does with this recipe, or could be told to do."""

    topic: str
    level: ExploredLevel
    found: str
    training: str


def advise(exploration: Exploration, recipe: Recipe) -> list[Advice]:
    """Everything worth saying, in the order of the page."""
    parts = (_classes, _flaws, _duplicates, _leakage, _lengths, _languages, _personal, _giveaways, _doubts)
    found = [advice for part in parts for advice in part(exploration, recipe)]
    found += [_held_out(each) for each in exploration.held_out]
    return found + ([_drift(exploration.drift)] if exploration.drift else [])


def _classes(found: Exploration, recipe: Recipe) -> Iterator[Advice]:
    if found.outcome.refusal:
        yield Advice("Rows", "stop", f"Training cannot start: {found.outcome.refusal}.", "Stops with this sentence.")
    if found.survey.unlabelled:
        rows = _rows(found.survey.unlabelled, found.rows)
        yield Advice("Labels", "note", f"{rows} lie between the bands of data.thresholds.", "Leaves them out.")
    counts = [count for count in found.survey.labels.values() if count]
    if len(counts) < 2 or max(counts) <= _UNEVEN * min(counts):
        yield Advice("Labels", "good", "No label is much rarer than another.", "Takes the rows as they come.")
        return
    weights, section = recipe.training.class_weights, recipe.prepare
    if weights or section.balanced or section.max_rows_per_label:
        does = "Weighs or samples the labels as the recipe says; validation and test keep their shares."
    else:
        does = 'Nothing by itself; training.class_weights = "balanced" or prepare.balanced = true would even them out.'
    yield Advice(
        "Labels", "warn", f"The commonest label has {max(counts) / min(counts):.1f} times the rows of the rarest.", does
    )


def _flaws(found: Exploration, recipe: Recipe) -> Iterator[Advice]:
    for flaw, count in found.survey.flaws.items():
        step = _MENDED_BY.get(flaw)
        if flaw == "empty":
            does = "Leaves them out."
        elif step is None:
            does = "Takes them as they are: mend them at their source."
        elif step in recipe.prepare.transforms:
            does = f"Cleans them: the recipe has the step “{step}”, and the service applies it too."
        else:
            does = f"Takes them as they are; prepare.transforms = [“{step}”] would clean them, in the service too."
        first = found.survey.first_flaws.get(flaw)
        where = f", the first is {first}" if first else ""
        level: ExploredLevel = "note" if flaw in ("empty", "url", "ellipsis") else "warn"
        yield Advice("Broken texts", level, f"{_rows(count, found.rows)} {FLAWS[flaw]}{where}.", does)
    if not found.survey.flaws:
        yield Advice("Broken texts", "good", "None is empty, broken or cut.", "Takes them as they are.")


def _duplicates(found: Exploration, _: Recipe) -> Iterator[Advice]:
    counts = found.outcome.counts
    if count := counts.get("conflicting", 0):
        yield Advice(
            "Duplicates",
            "warn",
            f"{_rows(count, found.rows)} have a text that stands under two labels.",
            "Drops all of them: they teach nothing.",
        )
    repeated = counts.get("exact_duplicates", 0)
    near = counts.get("near_duplicates", 0)
    if not repeated and not near:
        yield Advice("Duplicates", "good", "No text occurs twice, or nearly.", "Nothing to do.")
        return
    yield Advice(
        "Duplicates",
        "note",
        f"{_rows(repeated, found.rows)} repeat another row word for word, {near:,} nearly.",
        "Keeps one of each.",
    )


def _leakage(found: Exploration, _: Recipe) -> Iterator[Advice]:
    across, other = found.outcome.across_splits, found.outcome.other_label
    if across:
        yield Advice(
            "Leakage between splits",
            "warn",
            f"{across:,} near duplicates would stand in two splits.",
            "Drops them before it divides the rows: the one nearer to the test stays.",
        )
    else:
        yield Advice(
            "Leakage between splits",
            "good",
            "No near duplicates would stand in two splits.",
            "Divides by a hash of the text: the same text always falls into the same split.",
        )
    if other:
        yield Advice(
            "Leakage between splits",
            "warn",
            f"{other:,} near duplicates stand under another label than their twin.",
            "Keeps the twin's label: look at the pairs.",
        )


def _lengths(found: Exploration, recipe: Recipe) -> Iterator[Advice]:
    lengths = found.survey.lengths
    share = lengths.over_limit / max(1, found.rows)
    windows = recipe.training.window_tokens is not None
    if lengths.over_limit:
        level: ExploredLevel = "warn" if share > _LONG_SHARE and not windows else "note"
        yield Advice(
            "Length",
            level,
            f"{_rows(lengths.over_limit, found.rows)} have more than {lengths.limit_tokens} tokens.",
            "Reads them in windows of training.window_tokens, as the service will."
            if windows
            else "Cuts them at training.max_tokens; the service accepts as many as the encoder does. "
            "With training.window_tokens both would read all of them.",
        )
    else:
        yield Advice(
            "Length", "good", f"No text has more than {lengths.limit_tokens} tokens.", "Reads every text whole."
        )


def _languages(found: Exploration, _: Recipe) -> Iterator[Advice]:
    scripts = found.survey.scripts
    main = next(iter(scripts), "none")
    others = {name: count for name, count in scripts.items() if name not in (main, "none")}
    odd = sum(others.values())
    if odd:
        level: ExploredLevel = "warn" if odd > _FOREIGN_SHARE * found.rows else "note"
        yield Advice(
            "Language",
            level,
            f"Most texts are in {main} script; {_rows(odd, found.rows)} are in {', '.join(others)}.",
            "Keeps them; check that the encoder knows those languages.",
        )
    else:
        yield Advice("Language", "good", f"All texts are in {main} script.", "Nothing to do.")
    guessed = sorted(found.sample.languages.items(), key=lambda each: -each[1])
    if mixed := [(name, share) for name, share in guessed[1:] if share >= _SECOND_LANGUAGE]:
        told = ", ".join(f"{share:.0%} {name}" for name, share in mixed)
        yield Advice(
            "Language",
            "warn",
            f"By a guess {guessed[0][1]:.0%} of the texts are {guessed[0][0]}, {told} (ISO 639-1 codes).",
            "Keeps them; check that the encoder knows those languages, and look at each as a slice.",
        )


def _personal(found: Exploration, recipe: Recipe) -> Iterator[Advice]:
    if not found.survey.personal:
        yield Advice(
            "Personal data",
            "good",
            "Nothing with the form of an address or a number of a person.",
            "Nothing to do. Names have no form: they are not looked for.",
        )
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.survey.personal.items())
    if "pii" in recipe.prepare.transforms:
        does = "Masks them, as the service will in what it is asked."
    else:
        does = "Takes them as they are; prepare.transforms = [“pii”] would mask them, in the service too."
    yield Advice(
        "Personal data", "warn", f"{_rows(found.survey.personal_rows, found.rows)} hold personal data: {kinds}.", does
    )


def _giveaways(found: Exploration, _: Recipe) -> Iterator[Advice]:
    words = [telling.word for label in found.sample.giveaways.values() for telling in label]
    if words:
        yield Advice(
            "Words",
            "warn",
            f"{len(words)} words stand under one label all but always: do they give it away?",
            "Nothing: a model will use them. Take them out at the source if they will not be there in use.",
        )
    else:
        yield Advice("Words", "good", "No common word gives its label away by itself.", "Nothing to do.")


def _doubts(found: Exploration, _: Recipe) -> Iterator[Advice]:
    doubts = found.sample.doubts
    if doubts is None:
        yield Advice("Doubtful labels", "note", "Not looked for: a label has too few rows.", "Nothing.")
        return
    level: ExploredLevel = "note" if doubts.rows > _DOUBTFUL_SHARE * found.sample.rows else "good"
    yield Advice(
        "Doubtful labels",
        level,
        f"A bag of words that is right on {doubts.accuracy:.1%} disagrees with "
        f"{_rows(doubts.rows, found.sample.rows)}.",
        "Keeps every label. The surest are listed: look at them; training.label_smoothing helps against the rest.",
    )


def _held_out(held_out: HeldOut) -> Advice:
    inside = held_out.exact + held_out.near
    if not inside:
        return Advice("Held-out file", "good", f"No row of {held_out.name} is in the data.", "Nothing to do.")
    return Advice(
        "Held-out file",
        "stop",
        f"{_rows(held_out.exact, held_out.rows)} of {held_out.name} are in the data word for word, "
        f"{held_out.near:,} nearly: it is not held out.",
        "Does not know that file. Joined as a source with held_out = true its rows are test rows, and their twins go.",
    )


def _drift(drift: Drift) -> Advice:
    auc = drift.apart.auc
    if auc is None:
        return Advice("Drift", "note", f"{drift.name} has too few rows to compare.", "Nothing.")
    if auc < _SLIGHT_DRIFT:
        level, how = "good", "hardly"
    else:
        level, how = ("warn", "easily") if auc >= _STRONG_DRIFT else ("note", "somewhat")
    return Advice(
        "Drift",
        level,  # type: ignore[arg-type]
        f"The texts of {drift.name} can {how} be told from these (AUC {auc:.2f}).",
        "Does not know that file: expect other figures on such texts than on the test split; join them if you can.",
    )


def _rows(count: int, of: int) -> str:
    """`533 of 10,605 rows (5.0%)`."""
    share = count / max(1, of)
    shown = "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
    return f"{count:,} of {of:,} rows ({shown})"
