"""Pictures of the results: latency against offered load, padding, CPU per request. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SIZE: Final = (7.0, 4.2)
_OURS: Final = "slipway"


def draw_all(
    result: Mapping[str, Any], folder: Path, peers: Mapping[str, Mapping[str, Any]] | None = None, *, prefix: str = ""
) -> list[Path]:
    """Write every plot the result has figures for, as `PREFIXname.svg`; returns their paths."""
    import matplotlib as mpl

    mpl.use("svg")
    # Same result, same file: ids in the SVG would otherwise be random, and the date differ.
    mpl.rcParams["svg.hashsalt"] = "slipway"
    folder.mkdir(parents=True, exist_ok=True)
    everyone = {_OURS: result, **(peers or {})}
    drawn = [
        _draw_open_loop(
            {n: each for n, each in everyone.items() if "open_loop" in each}, folder / f"{prefix}open-loop.svg"
        ),
        _draw_cpu(everyone, result, folder / f"{prefix}cpu-per-request.svg"),
        _draw_padding(everyone, folder / f"{prefix}padding.svg"),
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

    figure = Figure(figsize=(11.0, 5.0))
    latency, goodput = figure.subplots(1, 2)
    for number, (name, each) in enumerate(everyone.items()):
        # The rates followed the machine's speed, so their order is not quite that of the factors.
        points = sorted(each["open_loop"]["loads"].values(), key=lambda point: point["offered_rate"]["median"])
        offered = [point["offered_rate"]["median"] for point in points]
        # Ten servers in the colours that come after one another; ours is black, so that it is found at once.
        colour = "black" if name == _OURS else f"C{number}"
        for figures, style in (("p99_ms", "o-"), ("p50_ms", "o--")):
            latency.plot(offered, [point[figures]["median"] for point in points], style, color=colour, markersize=3)
        goodput.plot(
            offered, [point["goodput"]["median"] for point in points], "o-", color=colour, markersize=3, label=name
        )
    latency.set(xlabel="offered, requests/s", ylabel="latency of accepted, ms: p99, and p50 dashed", yscale="log")
    goodput.set(xlabel="offered, requests/s", ylabel="answered within the deadline, 1/s", title="Goodput")
    latency.set_title("Open loop")
    for axes in (latency, goodput):
        axes.grid(alpha=0.3)
    goodput.legend(fontsize=8)
    return _save(figure, path)


def _draw_cpu(everyone: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any], path: Path) -> Path | None:
    from matplotlib.figure import Figure

    costs = {name: each["cpu_ms_per_request"]["32"] for name, each in everyone.items() if "cpu_ms_per_request" in each}
    if not costs:
        return None
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    names = sorted(costs, key=lambda name: -costs[name])
    colours = ["black" if name == _OURS else "C0" for name in names]
    axes.barh(names, [costs[name] for name in names], color=colours)
    if limit := result.get("limit_cpu_ms"):
        axes.axvline(limit, color="black", linestyle="--", label="the in-process limit")
        axes.legend(fontsize=8)
    axes.set(xlabel="CPU ms per request, 32 clients, short texts")
    return _save(figure, path)


def _draw_padding(everyone: Mapping[str, Mapping[str, Any]], path: Path) -> Path | None:
    """A group of bars for each load, a bar in it for each server that counts its tokens."""
    from matplotlib.figure import Figure

    padding: dict[str, Mapping[str, float]] = {
        name: each["padding"] for name, each in everyone.items() if each.get("padding")
    }
    if not padding:
        return None
    loads = list(dict.fromkeys(load for each in padding.values() for load in each))
    figure = Figure(figsize=_SIZE if len(padding) == 1 else (11.0, 5.0))
    axes = figure.subplots()
    width = 0.8 / len(padding)
    for number, (name, each) in enumerate(padding.items()):
        places = [loads.index(load) + (number - (len(padding) - 1) / 2) * width for load in each]
        colour = "black" if name == _OURS else f"C{number}"
        axes.bar(places, list(each.values()), width, label=name, color=colour)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(ylabel="padded over real tokens", ylim=(0.9, None), title="Padding by load")
    axes.set_xticks(range(len(loads)), loads, rotation=30, fontsize=8)
    axes.legend(fontsize=8)
    return _save(figure, path)
