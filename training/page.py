"""What the pages have in common: one file of plain HTML and inline SVG that loads nothing.

A content security policy in the head forbids every request, whatever a data set's texts may hold.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Final

import numpy as np

from training.charts import Axes, bar_chart

NOT_MEASURED: Final = "not measured"
_BARS: Final = 30


def render_page(title: str, body: str) -> str:
    """The whole page; `body` is ready HTML."""
    style = (files("training") / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(title)}</title><style>{style}</style></head>\n'
        f"<body><main>{body}</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A part of the page under its own heading."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """A table of ready HTML cells; the first column names the row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(caption: str, body: str) -> str:
    """Ready HTML in a box under its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{body}</figure>"


def badge(*, good: bool, yes: str, no: str) -> str:
    """`yes` in green or `no` in red."""
    return f'<span class="badge {"good" if good else "bad"}">{escape(yes if good else no)}</span>'


def cards(facts: Iterable[tuple[str, str, str]]) -> str:
    """The few figures one looks at first: title, value, note; plain text."""
    boxes = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(title)}</span><small>{escape(note)}</small></div>'
        for title, value, note in facts
    )
    return f'<div class="cards">{boxes}</div>'


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
