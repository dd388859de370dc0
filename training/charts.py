"""Charts as inline SVG. Colours come from the page's style sheet, so that a chart follows light and dark.

Everything is drawn here rather than by matplotlib because its SVG carries its own colours and fonts, and because a
page full of base64 images is ten times the size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Point = tuple[float, float]

_WIDTH: Final = 340
_HEIGHT: Final = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 42


@dataclass(frozen=True, slots=True)
class Series:
    """A named line. `tone` picks a colour of the style sheet (`c0` .. `c5`, `muted`)."""

    name: str
    points: Sequence[Point]
    tone: str = "c0"
    marks: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """What the two axes are called and span. A span left out is taken from the data."""

    x: str
    y: str
    x_span: tuple[float, float] | None = None
    y_span: tuple[float, float] | None = None
    x_log: bool = False


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * number, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(title: str, axes: Axes, series: Sequence[Series], *, diagonal: bool = False, legend: bool = True) -> str:
    """Lines over two axes. `diagonal` draws y = x, the reference of a ROC curve or a calibration plot."""
    points = [point for line in series for point in line.points]
    if not points:
        return '<p class="none">not measured</p>'
    frame = _Frame.around(axes, points)
    body = [frame.grid(axes)]
    if diagonal:
        low, high = max(frame.x_span[0], frame.y_span[0]), min(frame.x_span[1], frame.y_span[1])
        body.append(frame.path([(low, low), (high, high)], "muted", dashed=True))
    for line in series:
        body.append(frame.path(line.points, line.tone, dashed=line.dashed))
        if line.marks:
            body += [frame.mark(point, line) for point in line.points]
    keys = _legend(series) if legend and len(series) > 1 else ""
    return _svg(title, "".join(body)) + keys


def bar_chart(title: str, axes: Axes, bars: Sequence[tuple[float, float, float]], tone: str = "c0") -> str:
    """Bars (from, to, height) side by side along x: a histogram."""
    if not bars:
        return '<p class="none">not measured</p>'
    frame = _Frame.around(axes, [(bars[0][0], 0), (bars[-1][1], max(height for _, _, height in bars))])
    drawn = (frame.bar(low, high, height, tone) for low, high, height in bars)
    return _svg(title, frame.grid(axes) + "".join(drawn))


def interval(value: float, low: float, high: float, span: tuple[float, float], tone: str = "c0") -> str:
    """A dot with its interval on a line from span[0] to span[1], for a table cell."""
    width, middle = 180, 9

    def place(at: float) -> float:
        share = (at - span[0]) / ((span[1] - span[0]) or 1)
        return 6 + min(1.0, max(0.0, share)) * (width - 12)

    return (
        f'<svg class="interval" viewBox="0 0 {width} 18" role="img" aria-label="{value:.3f} ({low:.3f} to {high:.3f})">'
        f'<line class="axis" x1="6" x2="{width - 6}" y1="{middle}" y2="{middle}"/>'
        f'<line class="{tone} thick" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="{tone}" cx="{place(value):.1f}" cy="{middle}" r="4"/></svg>'
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """Places data in the picture."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    x_span: tuple[float, float]
    y_span: tuple[float, float]
    x_log: bool

    @classmethod
    def around(cls, axes: Axes, points: Sequence[Point]) -> "_Frame":
        x_span = axes.x_span or _span([x for x, _ in points], margin=0.0)
        y_span = axes.y_span or _span([0.0, *(y for _, y in points)], margin=0.06)
        scale: Callable[[float], float] = math.log2 if axes.x_log else float
        left, right = scale(x_span[0]), scale(x_span[1])
        return cls(
            x=lambda at: _LEFT + (scale(at) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT),
            y=lambda at: _HEIGHT - _BOTTOM - (at - y_span[0]) / (y_span[1] - y_span[0]) * (_HEIGHT - _TOP - _BOTTOM),
            x_span=x_span,
            y_span=y_span,
            x_log=axes.x_log,
        )

    def grid(self, axes: Axes) -> str:
        """Grid lines, tick labels and axis names."""
        floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = []
        for at in ticks(*self.y_span):
            y = self.y(at)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{_short(at)}</text>')
        for at in self._x_ticks():
            x = self.x(at)
            parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>')
            parts.append(f'<text x="{x:.1f}" y="{floor + 17}" text-anchor="middle">{_short(at)}</text>')
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
        middle = (_LEFT + right) / 2
        parts.append(f'<text class="name" x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(axes.x)}</text>')
        turned = (floor + _TOP) / 2
        parts.append(
            f'<text class="name" x="12" y="{turned}" text-anchor="middle" '
            f'transform="rotate(-90 12 {turned})">{escape(axes.y)}</text>'
        )
        return "".join(parts)

    def _x_ticks(self) -> list[float]:
        if not self.x_log:
            return ticks(*self.x_span)
        low, high = math.ceil(math.log2(self.x_span[0])), math.floor(math.log2(self.x_span[1]))
        return [2.0**power for power in range(low, high + 1)]

    def path(self, points: Sequence[Point], tone: str, *, dashed: bool = False) -> str:
        """A line through `points`."""
        steps = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="{tone}{" dashed" if dashed else ""}" points="{steps}"/>'

    def mark(self, point: Point, line: Series) -> str:
        """A dot that tells its value when pointed at."""
        x, y = point
        hint = f"{escape(line.name)}: {_short(y)} at {_short(x)}"
        place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}"'
        return f'<circle class="{line.tone}" {place} r="3"><title>{hint}</title></circle>'

    def bar(self, low: float, high: float, height: float, tone: str) -> str:
        """One bar with a hairline between it and the next."""
        left, right, top, floor = self.x(low), self.x(high), self.y(height), self.y(self.y_span[0])
        hint = f"{_short(low)} to {_short(high)}: {_short(height)}"
        return (
            f'<rect class="{tone}" x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 1):.1f}" '
            f'height="{max(0.0, floor - top):.1f}"><title>{hint}</title></rect>'
        )


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    """From the least to the greatest value, never of no width; an end at zero stays there."""
    low, high = min(values), max(values)
    if high == low:
        return low, low + 1
    room = (high - low) * margin
    return (low if low == 0 else low - room), high + room


def _short(value: float) -> str:
    """At most four digits; thousands as `12k`."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def _legend(series: Sequence[Series]) -> str:
    keys = "".join(
        f'<span><i class="{line.tone}{" dashed" if line.dashed else ""}"></i>{escape(line.name)}</span>'
        for line in series
    )
    return f'<div class="legend">{keys}</div>'


def _svg(title: str, body: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{body}</svg>"
    )
