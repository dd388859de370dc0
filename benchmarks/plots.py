"""Pictures of the results: latency against offered load, padding, CPU per request. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SIZE: Final = (7.0, 4.2)


def draw_all(
    result: Mapping[str, Any], folder: Path, peers: Mapping[str, Mapping[str, Any]] | None = None, *, prefix: str = ""
) -> list[Path]:
    """Write every plot the result has figures for, as `PREFIXname.svg`; returns their paths."""
    import matplotlib as mpl

    mpl.use("svg")
    # Same result, same file: ids in the SVG would otherwise be random, and the date differ.
    mpl.rcParams["svg.hashsalt"] = "slipway"
    folder.mkdir(parents=True, exist_ok=True)
    everyone = {"slipway": result, **(peers or {})}
    drawn = [
        _draw_open_loop(
            {n: each for n, each in everyone.items() if "open_loop" in each}, folder / f"{prefix}open-loop.svg"
        ),
        _draw_cpu(everyone, result, folder / f"{prefix}cpu-per-request.svg"),
        _draw_padding(result, folder / f"{prefix}padding.svg"),
    ]
    return [path for path in drawn if path is not None]


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    return path


def _draw_open_loop(everyone: Mapping[str, Mapping[str, Any]], path: Path) -> Path | None:
    """p50 and p99 of accepted requests, and goodput, over what was offered."""
    if not everyone:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2))
    latency, goodput = figure.subplots(1, 2)
    for name, each in everyone.items():
        points = list(each["open_loop"]["loads"].values())
        offered = [point["offered_rate"]["median"] for point in points]
        (line,) = latency.plot(offered, [point["p99_ms"]["median"] for point in points], "o-", label=f"{name} p99")
        latency.plot(
            offered, [point["p50_ms"]["median"] for point in points], "o--", color=line.get_color(), label=f"{name} p50"
        )
        goodput.plot(offered, [point["goodput"]["median"] for point in points], "o-", label=name)
    latency.set(xlabel="offered, requests/s", ylabel="latency of accepted, ms", yscale="log", title="Open loop")
    goodput.set(xlabel="offered, requests/s", ylabel="answered within the deadline, 1/s", title="Goodput")
    for axes in (latency, goodput):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _save(figure, path)


def _draw_cpu(everyone: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any], path: Path) -> Path | None:
    from matplotlib.figure import Figure

    costs = {name: each["cpu_ms_per_request"]["32"] for name, each in everyone.items() if "cpu_ms_per_request" in each}
    if not costs:
        return None
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    names = sorted(costs, key=lambda name: -costs[name])
    axes.barh(names, [costs[name] for name in names])
    if limit := result.get("limit_cpu_ms"):
        axes.axvline(limit, color="black", linestyle="--", label="the in-process limit")
        axes.legend(fontsize=8)
    axes.set(xlabel="CPU ms per request, 32 clients, short texts")
    return _save(figure, path)


def _draw_padding(result: Mapping[str, Any], path: Path) -> Path | None:
    from matplotlib.figure import Figure

    padding: Mapping[str, float] = result.get("padding", {})
    if not padding:
        return None
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    axes.bar(list(padding), list(padding.values()))
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(ylabel="padded over real tokens", ylim=(0.9, None), title="Padding by load")
    axes.tick_params(axis="x", rotation=30, labelsize=8)
    return _save(figure, path)
