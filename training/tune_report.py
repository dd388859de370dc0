"""The page of a study: every trial and what its values did, in plots that load nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from training.charts import Axes, Point, Series, line_chart
from training.page import NOT_MEASURED, cards, figure, page, section, table
from training.recipe import Recipe

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial as a person wants to see it. `quality` is that of its best pass over the validation split.

    `curve` holds (epoch, quality) of each pass; `latency_seconds` is None unless it was an objective. Cross-validated,
    `quality` is the mean over folds with `interval` (training/intervals.py), and `curve` holds (folds, their mean).
    """

    number: int
    state: str
    values: dict[str, Value]
    quality: float | None
    latency_seconds: float | None
    seconds: float
    curve: tuple[tuple[float, float], ...]
    note: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """A study that is over. `front` are the trials no other beats in everything; with one objective the best alone."""

    folder: Path
    objective: str
    sampler: str
    trials: tuple[TrialResult, ...]
    front: tuple[int, ...]
    best: TrialResult
    recipe: Path
    folds: int | None = None


def render_study(recipe: Recipe, tuned: Tuned) -> str:
    """The whole page."""
    title = f"{recipe.name}: study"
    head = f"<header><h1>{escape(title)}</h1>{cards(_cards(tuned))}</header>"
    parts = [
        section("How the search went", _together([_history(tuned), _curves(tuned)])),
        section("What each value did", _together(_slices(tuned)) or f"<p>{NOT_MEASURED}</p>"),
        section("Every trial", _trials(tuned)),
    ]
    if any(trial.latency_seconds is not None for trial in tuned.trials):
        parts.insert(1, section("Quality against latency", _together([_front(tuned)])))
    return page(title, head + "".join(parts))


def judged_on(tuned: Tuned) -> str:
    """What the quality of a trial was measured on."""
    return "validation split" if tuned.folds is None else f"mean of {tuned.folds} folds"


def mean_interval(trial: TrialResult) -> str:
    """To stand behind the quality; nothing for a trial that was not cross-validated to its end."""
    return "" if trial.interval is None else " ({:.3f} to {:.3f})".format(*trial.interval)


def _together(figures: Iterable[str]) -> str:
    """Figures side by side, as far as the window is wide; nothing for none."""
    joined = "".join(figures)
    return f'<div class="figures">{joined}</div>' if joined else ""


def _cards(tuned: Tuned) -> Iterator[tuple[str, str, str]]:
    states = [trial.state for trial in tuned.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield f"best {tuned.objective}", f"{tuned.best.quality:.4f}", f"trial {tuned.best.number}, {judged_on(tuned)}"
    yield "trials", str(len(states)), counts
    yield "sampler", tuned.sampler, f"{sum(trial.seconds for trial in tuned.trials):.0f} s in all trials"


def best_so_far(tuned: Tuned) -> list[Point]:
    """Of the trials that came to an end, as (number, quality): what a pruned one had on its way is no result."""
    better = max if tuned.objective == "accuracy" else min
    points: list[Point] = []
    for trial in tuned.trials:
        if trial.quality is not None and trial.state == "complete":
            points.append((trial.number, better(trial.quality, points[-1][1]) if points else trial.quality))
    return points


def _history(tuned: Tuned) -> str:
    """Each trial's quality, and the best so far."""
    points = [(float(trial.number), trial.quality) for trial in tuned.trials if trial.quality is not None]
    series = [*_dots(f"{tuned.objective} of trial", points), Series("best so far", best_so_far(tuned), tone="c1")]
    axes = Axes(
        "trial", tuned.objective, x_span=_around([x for x, _ in points]), y_span=_around([y for _, y in points])
    )
    return figure(
        "Quality of each trial; the line is the best so far", line_chart("history", axes, series, legend=False)
    )


def _curves(tuned: Tuned) -> str:
    """Every trial on its way. A pruned one is dashed."""
    series = [
        Series(
            f"trial {trial.number}",
            trial.curve,
            tone="c1" if trial.number == tuned.best.number else "c0",
            marks=True,
            dashed=trial.state == "pruned",
        )
        for trial in tuned.trials
        if trial.curve
    ]
    points = [point for line in series for point in line.points]
    axes = Axes(
        "epoch" if tuned.folds is None else "folds",
        tuned.objective,
        x_span=_around([x for x, _ in points]),
        y_span=_around([y for _, y in points]),
    )
    caption = "Each trial on its way; pruned ones are dashed, the best is in the second colour"
    return figure(caption, line_chart("curves", axes, series, legend=False))


def _slices(tuned: Tuned) -> Iterator[str]:
    """One plot for each field that had more than one value."""
    measured = [trial for trial in tuned.trials if trial.quality is not None]
    for name in dict.fromkeys(name for trial in measured for name in trial.values):
        values = [trial.values[name] for trial in measured if name in trial.values]
        if len(set(values)) > 1:
            yield _slice(tuned, name, [trial for trial in measured if name in trial.values])


def _slice(tuned: Tuned, name: str, trials: Sequence[TrialResult]) -> str:
    chosen = [trial.values[name] for trial in trials]
    kinds = sorted({str(value) for value in chosen})
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in chosen)
    places = [float(value) if is_number else float(kinds.index(str(value))) for value in chosen]
    points = [(place, trial.quality or 0.0) for place, trial in zip(places, trials, strict=True)]
    log = is_number and min(places) > 0 and max(places) / min(places) > 8
    axes = Axes(
        name,
        tuned.objective,
        x_span=(min(places), max(places)) if log else _around(places),
        y_span=_around([y for _, y in points]),
        x_log=log,
    )
    caption = name if is_number else f"{name}: " + ", ".join(f"{index} = {kind}" for index, kind in enumerate(kinds))
    return figure(caption, line_chart(name, axes, _dots(tuned.objective, points), legend=False))


def _front(tuned: Tuned) -> str:
    """All trials, and a line through those that no other beats in both."""
    both = {
        trial.number: ((trial.latency_seconds or 0.0) * 1e3, trial.quality or 0.0)
        for trial in tuned.trials
        if trial.latency_seconds is not None
    }
    best = sorted(both[number] for number in tuned.front if number in both)
    series = [*_dots("trial", list(both.values())), Series("not beaten", best, tone="c1", marks=True)]
    axes = Axes(
        "ms for one text",
        tuned.objective,
        x_span=_around([x for x, _ in both.values()]),
        y_span=_around([y for _, y in both.values()]),
    )
    return figure("Trials on the line are beaten by no other in both", line_chart("front", axes, series, legend=False))


def _trials(tuned: Tuned) -> str:
    names = list(dict.fromkeys(name for trial in tuned.trials for name in trial.values))
    latency = any(trial.latency_seconds is not None for trial in tuned.trials)
    head = ["Trial", "State", escape(tuned.objective), *(["ms for one text"] if latency else []), "Seconds"]
    head += [escape(name) for name in names]
    return table([*head, ""], [_row(trial, names, tuned, latency=latency) for trial in tuned.trials])


def _row(trial: TrialResult, names: Sequence[str], tuned: Tuned, *, latency: bool) -> list[str]:
    mark = " <b>best</b>" if trial.number == tuned.best.number else ""
    cells = [f"{trial.number}{mark}", trial.state, _shown(trial.quality) + mean_interval(trial)]
    if latency:
        cells.append(_shown(None if trial.latency_seconds is None else trial.latency_seconds * 1e3))
    cells.append(f"{trial.seconds:.0f}")
    return [*cells, *(_shown(trial.values.get(name)) for name in names), escape(trial.note)]


def short(value: bool | int | float | str) -> str:
    """A value that was tried, with as many digits as people compare."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _shown(value: object) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _dots(name: str, points: Sequence[Point]) -> list[Series]:
    """Points without a line through them."""
    return [Series(name, [point], marks=True) for point in points]


def _around(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest with some room, never of no width."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room
