"""What every HTML page of training is made of: one page that loads nothing, with inline styles and SVG.

A content security policy in its head forbids every request. A figure that nobody measured reads "not measured".
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Final

import numpy as np

from artifact.manifest import Estimate, ExploredLevel
from training.charts import Axes, bar_chart

NOT_MEASURED: Final = "not measured"
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
_BARS: Final = 30
# Of a finding: the badge's colour and word.
_LEVELS: Final[Mapping[ExploredLevel, tuple[str, str]]] = {
    "stop": ("bad", "stop"),
    "warn": ("warn", "look"),
    "note": ("plain", "note"),
    "good": ("good", "fine"),
}


def page(title: str, body: str) -> str:
    """A whole document. `title` is text, `body` ready HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(title)}</title><style>{_style()}</style></head>\n'
        f"<body><main>{body}</main></body></html>\n"
    )


def shown(estimate: Estimate | None) -> str:
    """`0.871 (0.850 to 0.891)`."""
    if estimate is None or not np.isfinite(estimate.value):
        return NOT_MEASURED
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def megabytes(size: int) -> str:
    """Decimal megabytes; kilobytes for the tiny."""
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.0f} kB"


def stacked(estimate: Estimate | None) -> str:
    """The value, and its interval in small letters below."""
    value, _, rest = shown(estimate).partition(" (")
    return f"{value}<small>{rest.rstrip(')')}</small>" if rest else value


def span(estimate: Estimate) -> str:
    """`95% interval 0.850 to 0.891`."""
    return f"95% interval {estimate.low:.3f} to {estimate.high:.3f}"


def cards(boxes: Iterable[tuple[str, str, str]]) -> str:
    """The figures to see first: (title, value, note), all text."""
    inside = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(title)}</span><small>{escape(note)}</small></div>'
        for title, value, note in boxes
    )
    return f'<div class="cards">{inside}</div>'


def _style() -> str:
    return (files("training") / "report.css").read_text(encoding="utf-8")


def section(title: str, body: str) -> str:
    """A part of the page. `title` is text, `body` ready HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """A table of ready HTML cells; the first column names the row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(caption: str, body: str) -> str:
    """A framed part with a caption. `caption` is text, `body` ready HTML."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{body}</figure>"


def badge(*, good: bool, yes: str, no: str) -> str:
    """A verdict, green or red."""
    return f'<span class="badge {"good" if good else "bad"}">{escape(yes if good else no)}</span>'


def level_badge(level: ExploredLevel) -> str:
    """How much a finding about data matters, in one word."""
    kind, word = _LEVELS[level]
    return f'<span class="badge {kind}">{word}</span>'


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Counts and shares; rows of `matrix` are the true labels."""
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


def length_chart(lengths: Sequence[int]) -> str:
    """A histogram of tokens per text."""
    if not len(lengths):
        return f'<p class="none">{NOT_MEASURED}</p>'
    return bar_chart("Length histogram", Axes("tokens", "texts"), histogram(lengths), "c2")


def histogram(lengths: Sequence[int]) -> list[tuple[float, float, float]]:
    """Bars (from, to, count) of equal whole width, some thirty of them."""
    least, most = int(min(lengths)), int(max(lengths))
    width = max(1, -(-(most + 1 - least) // _BARS))
    edges = np.arange(least, most + width + 1, width)
    counts, _ = np.histogram(lengths, edges)
    return [(float(low), float(low + width), float(count)) for low, count in zip(edges, counts, strict=False)]
