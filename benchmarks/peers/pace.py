"""How long the peers take on a quiet machine, and the longest plan that fits a number of minutes."""

from dataclasses import replace
from typing import Final

from benchmarks.http import FULL, QUICK, SHORT_CLIENTS, Plan
from benchmarks.limit import grid
from benchmarks.open_loop import FACTORS
from benchmarks.wrk import BenchmarkError
from inference.layout import usable_cores

WHOLE: Final = replace(FULL, repetitions=3, open_repetitions=1)
# From the longest to the shortest: what is given up first is how long each run is, never the turns.
_SHORTER: Final = (
    Plan(3, 4, 1.0, 0.6, 2, 3, 0, 6, 1, 1.0, True),
    Plan(2, 4, 0.8, 0.6, 2, 3, 0, 6, 1, 1.0, True),
    Plan(2, 3, 0.6, 0.5, 2, 3, 0, 5, 1, 0.6, True),
    Plan(2, 3, 0.4, 0.4, 1, 2, 0, 3, 1, 0.3, True),
    Plan(2, 2, 0.4, 0.4, 1, 2, 0, 3, 1, 0.3, True),
)
# Beside the seconds that a plan asks for. A reference ends with a whole pass over its texts, half a pass later on
# average; a load waits until the server is done with it; a peer starts, is tried and is stopped.
_REST_OF_PASS: Final = 0.35
_AROUND_LOAD: Final = 0.6
_AROUND_PEER: Final = 15.0
_BEFORE_ALL: Final = 40.0
_REFERENCES: Final = 3  # the limit, the yardstick, and the yardstick in its best layout
_PEAK_LOOPS: Final = 6
# A peer that takes this many times as long as it should is ended.
_PATIENCE: Final = 2.5
_LEAST_PATIENCE_SECONDS: Final = 150.0


def _gauge_seconds(plan: Plan) -> float:
    return _REFERENCES * (plan.reference_seconds + _REST_OF_PASS + plan.reference_seconds / 4)


def _closed_seconds(plan: Plan, targets: int, loads: int, kinds: int) -> float:
    run = plan.load_seconds + _AROUND_LOAD + _gauge_seconds(plan)
    return plan.repetitions * (targets * loads * run + kinds * _gauge_seconds(plan))


def _open_seconds(plan: Plan) -> float:
    run = plan.open_seconds + _AROUND_LOAD + _gauge_seconds(plan)
    return plan.open_repetitions * len(FACTORS) * run


def peer_seconds(plan: Plan) -> float:
    """One peer, loaded in turns with Slipway: short texts at every number of clients, long ones at 32, open loop."""
    return _AROUND_PEER + _closed_seconds(plan, 2, len(SHORT_CLIENTS) + 1, 2) + _open_seconds(plan)


def own_seconds(plan: Plan) -> float:
    """What is done once: peaks, grids, Slipway's starts, its bodies of many texts and its open loop."""
    points = 2 * 2 * len(grid(usable_cores(), quick=plan.quick))  # two kinds of text, two engines
    grids = plan.grid_rounds * points * (plan.grid_seconds + _REST_OF_PASS)
    starts = 2.0 * (plan.cold_starts + 1)
    many = _closed_seconds(plan, 1, 2, 1)
    return _BEFORE_ALL + _PEAK_LOOPS * plan.peak_seconds + grids + starts + many + _open_seconds(plan)


def estimate_minutes(plan: Plan, peers: int) -> float:
    """Of Slipway beside so many peers, once they are installed."""
    return (own_seconds(plan) + peers * peer_seconds(plan)) / 60


def most_seconds(plan: Plan) -> float:
    """After how long a peer is ended and given up: one that hangs does not keep the others from being measured."""
    return max(_LEAST_PATIENCE_SECONDS, _PATIENCE * peer_seconds(plan))


def choose_plan(*, quick: bool, minutes: float | None, peers: int) -> Plan:
    """The whole plan, the quick one, or the longest that fits `minutes`. Raises BenchmarkError when none does."""
    if minutes is None:
        return QUICK if quick else WHOLE
    for plan in (WHOLE, *_SHORTER):
        if estimate_minutes(plan, peers) <= minutes:
            return plan
    least = estimate_minutes(_SHORTER[-1], peers)
    raise BenchmarkError(f"{peers} peers take {least:.0f} minutes at the least: name fewer, or more minutes")
