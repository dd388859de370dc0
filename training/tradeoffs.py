"""What `slipway compress` shows: a table for the terminal, and a page with the table and the plots."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from training.charts import Axes, Series, line_chart
from training.page import NOT_MEASURED, figure, megabytes, page, shown, table
from training.pareto import Measured, Outcome

HEADINGS: Final = (
    "candidate",
    "size",
    "smaller",
    "ms for 1",
    "ms for 32",
    "accuracy",
    "points lost",
    "as fp32",
    "moved by neighbours",
    "gate",
)


def rows(outcome: Outcome) -> list[list[str]]:
    """One row of cells per candidate, in the order they were measured; `*` marks the Pareto front."""
    reference = outcome.measured[0]
    return [[each.name, *_cells(each, reference, starred=each.name in outcome.front)] for each in outcome.measured]


def refusals(outcome: Outcome) -> list[str]:
    """Why the gate would refuse a candidate, or why it could not be measured, one line each."""
    return [f"{each.name}: {each.refused}" for each in outcome.measured if each.refused]


def sentence(outcome: Outcome) -> str:
    """What came of the target, in one line; empty without one."""
    if outcome.found is None:
        return ""
    said = f"{outcome.found} is {outcome.target}"
    if outcome.test is not None:
        difference = outcome.test.accuracy_difference
        said += (
            f"; on {outcome.test.rows:,} test rows it loses {_points(difference.value)} points "
            f"({_points(difference.high)} to {_points(difference.low)}), "
            f"{outcome.test.agreement:.1%} of the labels equal"
        )
    return said


def render_page(name: str, outcome: Outcome, cpu: str) -> str:
    """A self-contained page."""
    title = f"{name}: smaller versions"
    return page(title, f"<h1>{escape(title)}</h1>{render_tradeoffs(outcome, cpu)}")


def render_tradeoffs(outcome: Outcome, cpu: str) -> str:
    """What there is to choose from and what was found: of this page, and of the report of what was published."""
    return (
        f"<p>{escape(_about(outcome, cpu))}</p><p>{escape(sentence(outcome))}</p>"
        f"{_plots(outcome)}{_table(outcome)}{_reasons(outcome)}"
    )


def _about(outcome: Outcome, cpu: str) -> str:
    reference = outcome.measured[0]
    return (
        f"Chosen on the validation split; times are the fastest of a few executions on one thread with texts of "
        f"{reference.tokens} tokens, on {cpu or 'an unknown CPU'}. A star marks what nothing else beats in size, time "
        "for 32 texts and accuracy together: blue dots; orange ones have no star, grey ones the gate would refuse. "
        "Intervals are 95% bootstrap intervals, points lost are paired with fp32."
    )


def _plots(outcome: Outcome) -> str:
    axes: Sequence[tuple[str, Callable[[Measured], float]]] = (
        ("size, MB", lambda each: each.bytes / 1e6),
        ("ms for one text", lambda each: 1e3 * each.seconds_alone),
        ("ms for 32 texts", lambda each: 1e3 * each.seconds_batch),
    )
    drawn = "".join(figure(f"Accuracy by {name}", _plot(outcome, name, x)) for name, x in axes)
    return f'<div class="figures">{drawn}</div>'


def _plot(outcome: Outcome, name: str, x: Callable[[Measured], float]) -> str:
    """A dot each: blue on the Pareto front, orange off it, grey where the gate would refuse."""
    series = [
        Series(each.name, [(x(each), each.accuracy.value)], _tone(each, outcome), marks=True)
        for each in outcome.measured
        if each.accuracy is not None
    ]
    values = [y for line in series for _, y in line.points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (low - 0.02, min(1.0, high + 0.02))
    far = max((at for line in series for at, _ in line.points), default=1.0)
    return line_chart(name, Axes(name, "accuracy", (0.0, 1.05 * far), span), series, legend=False)


def _tone(each: Measured, outcome: Outcome) -> str:
    return "muted" if each.refused else "c0" if each.name in outcome.front else "c1"


def _table(outcome: Outcome) -> str:
    return table([escape(cell) for cell in HEADINGS], [[escape(cell) for cell in row] for row in rows(outcome)])


def _reasons(outcome: Outcome) -> str:
    return f'<ul class="reasons">{"".join(f"<li>{escape(line)}</li>" for line in refusals(outcome))}</ul>'


def _points(difference: float) -> str:
    """A difference of accuracy as points lost, never `-0.0`."""
    return f"{round(-100 * difference, 1) + 0.0:.1f}"


def _cells(each: Measured, reference: Measured, *, starred: bool) -> list[str]:
    if each.accuracy is None or each.accuracy_difference is None:
        return [NOT_MEASURED, *[""] * (len(HEADINGS) - 3), "refused"]
    lost = each.accuracy_difference
    return [
        megabytes(each.bytes),
        f"{reference.bytes / each.bytes:.2f} x",
        f"{1e3 * each.seconds_alone:.1f}",
        f"{1e3 * each.seconds_batch:.1f}",
        shown(each.accuracy),
        f"{_points(lost.value)} ({_points(lost.high)} to {_points(lost.low)})",
        f"{each.agreement:.1%}",
        f"{each.moved:.2g}, {each.flipped} labels",
        "refused" if each.refused else "passes *" if starred else "passes",
    ]
