"""The rule of the HorizontalPodAutoscaler, against the examples of its documentation."""

from typing import Any

import pytest

from tools.simulated.autoscaler import Autoscaler, Direction, Policy, Scaler, proposal, quantity

FREELY = Direction(0.0, (Policy("Percent", 1000, 15.0),))
SLOWLY = Direction(300.0, (Policy("Pods", 1, 60.0),))


def scaler(up: Direction = FREELY, down: Direction = FREELY, **more: Any) -> Autoscaler:
    given: dict[str, Any] = {"least": 1, "most": 20, "targets": {"load": 100.0}, "up": up, "down": down}
    return Autoscaler(Scaler(**given | more))


@pytest.mark.parametrize(
    ("replicas", "average", "wanted"),
    [(1, 200.0, 2), (4, 50.0, 2), (3, 109.0, 3), (3, 91.0, 3), (3, 111.0, 4), (3, 0.0, 0)],
    ids=["twice", "half", "just within", "just within, below", "just over", "idle"],
)
def test_the_formula_with_its_tolerance(replicas: int, average: float, wanted: int) -> None:
    assert proposal(replicas, average, 100.0) == wanted


def test_the_greatest_of_several_metrics_wins() -> None:
    both = scaler(targets={"load": 100.0, "queue": 1.0})
    assert both.decide(0.0, 2, {"load": 100.0, "queue": 3.0}) == 6


def test_bounds_hold() -> None:
    assert scaler(least=2).decide(0.0, 3, {"load": 0.0}) == 2
    assert scaler(most=5).decide(0.0, 3, {"load": 1000.0}) == 5


def test_growth_is_limited_by_the_most_generous_policy() -> None:
    limited = scaler(up=Direction(0.0, (Policy("Percent", 100, 15.0), Policy("Pods", 2, 15.0))))
    assert limited.decide(0.0, 1, {"load": 900.0}) == 3
    assert limited.decide(15.0, 3, {"load": 900.0}) == 6
    assert limited.decide(20.0, 6, {"load": 900.0}) == 6, "what was added within the period counts"


def test_it_shrinks_one_by_one_and_only_after_a_calm_window() -> None:
    slow = scaler(down=SLOWLY)
    assert slow.decide(0.0, 4, {"load": 100.0}) == 4
    for moment in range(15, 300, 15):
        assert slow.decide(moment, 4, {"load": 10.0}) == 4
    assert slow.decide(300.0, 4, {"load": 10.0}) == 3
    assert slow.decide(315.0, 3, {"load": 10.0}) == 3
    assert slow.decide(360.0, 3, {"load": 10.0}) == 2


def test_a_short_dip_changes_nothing() -> None:
    slow = scaler(down=SLOWLY)
    loads = [100.0, 100.0, 20.0, 100.0, 100.0]
    assert [slow.decide(15.0 * step, 4, {"load": load}) for step, load in enumerate(loads)] == [4] * 5


def test_quantities() -> None:
    assert [quantity(given) for given in ("2", "500m")] == [2.0, 0.5]
