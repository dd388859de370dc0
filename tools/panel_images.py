"""Plots Grafana's dashboards from what Prometheus measured, for pages that cannot show Grafana itself."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from tools.dashboards import Dashboard, Panel

Ask = Callable[[str], list[dict[str, Any]]]
COLUMNS: Final = 3
_INCHES: Final = (4.2, 2.5)
_DPI: Final = 70
_MOST_LINES: Final = 8
_UNITS: Final = {
    "percentunit": ("share", 1.0),
    "s": ("seconds", 1.0),
    "reqps": ("per second", 1.0),
    "bytes": ("MB", 1e-6),
}


def draw(dashboards: Sequence[Dashboard], ask: Ask, folder: Path, began: float) -> None:
    """One PNG for each dashboard, with what it draws over time. `ask` runs a range query from `began` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in dashboards:
        panels = [panel for row in dashboard.rows.values() for panel in row if panel.kind in {"timeseries", "bargauge"}]
        rows = math.ceil(len(panels) / COLUMNS)
        figure = Figure(figsize=(_INCHES[0] * COLUMNS, _INCHES[1] * rows), dpi=_DPI, layout="constrained")
        figure.suptitle(dashboard.title, fontsize=11)
        axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for panel, axis in zip(panels, axes, strict=False):
            if panel.kind == "bargauge":
                _bars(axis, panel, ask)
            else:
                _lines(axis, panel, ask, began)
            axis.set_title(panel.title, fontsize=9, loc="left")
            axis.tick_params(labelsize=7)
        for axis in list(figure.axes)[len(panels) :]:
            axis.remove()
        figure.savefig(folder / f"{dashboard.uid}.png")


def _lines(axis: Any, panel: Panel, ask: Ask, began: float) -> None:
    unit, factor = _UNITS.get(panel.unit, ("", 1.0))
    for expression, legend in panel.queries:
        for series in ask(expression)[:_MOST_LINES]:
            points = [(when - began, float(value) * factor) for when, value in series["values"]]
            if points:
                axis.plot(*zip(*points, strict=True), linewidth=1.2, label=_named(legend, series["metric"]))
    top = axis.get_ylim()[1]
    for level, colour in ((panel.warn, "tab:orange"), (panel.bad, "tab:red")):
        if level is not None and level <= top * 1.5:
            axis.axhline(level, color=colour, linewidth=0.8, linestyle="--")
    axis.set_ylim(bottom=0)
    axis.set_ylabel(unit, fontsize=7)
    axis.set_xlabel("seconds since the start", fontsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6, loc="best", framealpha=0.6)


def _bars(axis: Any, panel: Panel, ask: Ask) -> None:
    """The last value of each bin, live beside reference."""
    found = [{each["metric"]["bin"]: float(each["values"][-1][1]) for each in ask(query)} for query, _ in panel.queries]
    bins = sorted({name for each in found for name in each}, key=_edge)
    for offset, (each, name) in enumerate(zip(found, ("live", "reference"), strict=True)):
        axis.bar([place + offset * 0.4 for place in range(len(bins))], [each.get(b, 0) for b in bins], 0.4, label=name)
    axis.set_xticks([place + 0.2 for place in range(len(bins))], bins)
    axis.set_ylabel("share", fontsize=7)
    axis.legend(fontsize=6)


def _edge(name: str) -> tuple[float, str]:
    """Numeric bins by their upper edge, labels by name."""
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def _named(legend: str, labels: dict[str, str]) -> str:
    """Grafana's legend with its placeholders filled."""
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend
