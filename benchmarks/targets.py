"""What was to be reached, and whether it was: the table at the end of `make bench`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# A ratio to the yardstick may be this much lower while the variant that is invariant is the slower one.
YARDSTICK_ALLOWANCE: Final = 0.05


@dataclass(frozen=True)
class Target:
    """One line: where the figure is in the result, and the bound it is held against, if any."""

    title: str
    path: tuple[str, ...]
    bound: float | None
    unit: str = ""
    at_least: bool = True
    peer: str = ""

    def met(self, value: float) -> bool:
        """Whether the bound holds; without one there is nothing to miss."""
        if self.bound is None:
            return True
        return value >= self.bound if self.at_least else value <= self.bound

    def required(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "as measured"
        return f"{'>=' if self.at_least else '<='} {self.bound:g}{self.unit}"


def _both(clients: str, bound: float, peer: str) -> tuple[Target, Target]:
    return (
        Target(f"{clients} clients, short: ratio to own limit", ("ratio", clients), bound, peer=peer),
        Target(
            f"{clients} clients, short: ratio to yardstick",
            ("ratio_yardstick", clients),
            round(bound - YARDSTICK_ALLOWANCE, 2),
            peer=peer,
        ),
    )


TARGETS: Final[tuple[Target, ...]] = (
    *_both("8", 0.80, ".45 (LitServe)"),
    *_both("32", 0.88, ".61 (mosec)"),
    *_both("128", 0.88, ".64 (mosec)"),
    Target("1 client: p50 beyond the engine's batch-1 time", ("p50_over_batch1_ms",), 0.6, " ms", False, "0.5 ms"),
    Target("32 clients: p99", ("p99_ms", "32"), 70, " ms", False, "88 ms (mosec)"),
    Target("long texts, 32 clients: ratio to own limit", ("ratio_long", "32"), 0.90, peer=".96"),
    Target("long texts, 32 clients: ratio to yardstick", ("ratio_long_yardstick", "32"), 1.0),
    Target("32 mixed texts a body: over one padded batch", ("many_texts_speedup",), 2.0, " x"),
    Target("32 mixed texts a body: padded over real tokens", ("padded_over_real",), 1.15, "", False),
    Target("32 clients: CPU per request over the limit's", ("cpu_over_limit",), 1.15, " x", False, "1.5 x (mosec)"),
    Target("open loop at 2 x saturation: goodput over peak", ("goodput_at_2x",), 0.95),
    Target("open loop at 2 x: p99 of accepted over deadline", ("p99_over_deadline_at_2x",), 1.0, "", False),
    Target("memory", ("memory_mb",), 200, " MB", False, "162-186 MB"),
    Target("process start to first answer", ("cold_start_s",), 1.0, " s", False, "0.8 s (mosec)"),
    Target("first request over a later one, median length", ("first_request_ratio", "median"), None, " x"),
    Target("first request over a later one, longest text", ("first_request_ratio", "longest"), None, " x"),
)


def lookup(result: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The figure at `path`, or None where it was not measured."""
    found: Any = result
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return float(found) if isinstance(found, int | float) else None


def judge(result: Mapping[str, Any]) -> list[tuple[Target, float | None, str]]:
    """Each target with its figure and `met`, `not met`, `not measured`, or nothing where no bound was set."""
    rows = []
    for target in TARGETS:
        value = lookup(result, target.path)
        rows.append((target, value, _verdict(target, value)))
    return rows


def _verdict(target: Target, value: float | None) -> str:
    if value is None:
        return "not measured"
    if target.bound is None:
        return ""
    return "met" if target.met(value) else "not met"


def _columns(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    spreads: Mapping[str, Any] = result.get("spread", {})
    rows: list[tuple[str, ...]] = [("target", "reach", "measured", "range", "", "best peer when the target was set")]
    for target, value, verdict in judge(result):
        measured = "-" if value is None else f"{value:.3g}{target.unit}"
        low_high = spreads.get(".".join(target.path))
        between = f"{low_high[0]:.3g} - {low_high[1]:.3g}" if low_high else ""
        rows.append((target.title, target.required(), measured, between, verdict, target.peer))
    return rows


def as_text(result: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    rows = _columns(result)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    pad: Callable[[tuple[str, ...]], str] = lambda row: "  ".join(  # noqa: E731
        cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    return "\n".join([pad(rows[0]), pad(tuple("-" * width for width in widths)), *map(pad, rows[1:])])


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table for docs/performance.md."""
    rows = _columns(result)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
