"""Targets and the front, decided on made-up figures."""

import pytest

from artifact.manifest import Estimate
from training.pareto import Confirmed, Measured, Target, find, front, nearest


def measured(name: str, size: int, milliseconds: float, lost: float, refused: str = "") -> Measured:
    """A candidate of `size` bytes that loses `lost` points."""
    return Measured(
        name=name,
        bytes=size,
        seconds_alone=milliseconds / 10,
        seconds_batch=milliseconds,
        accuracy=Estimate(value=0.9 - lost / 100, low=0.8, high=0.95),
        accuracy_difference=Estimate(value=-lost / 100, low=-0.02, high=0.01),
        refused=refused,
    )


FP32 = measured("fp32", 90, 100, 0)
SMALL = measured("small", 30, 100, 0.1)
QUICK = measured("quick", 30, 40, 0.5)
TINY = measured("tiny", 10, 20, 3)
DRIFTS = measured("drifts", 20, 30, 0, refused="labels flipped")
WORSE = measured("worse", 40, 50, 1)
ALL = [FP32, SMALL, QUICK, TINY, DRIFTS, WORSE]
UNBUILT = Measured(name="unbuilt", refused="could not be built")


def test_of_those_that_fit_the_fastest_is_found() -> None:
    assert find(ALL, Target(smaller=3, lose=0.5)) is QUICK
    assert find(ALL, Target(smaller=3, lose=0.4)) is SMALL
    assert find(ALL, Target(smaller=3, faster=2, lose=0.4)) is None
    assert find([*ALL, UNBUILT], Target(smaller=9, lose=3)) is TINY


def test_one_that_is_shown_to_keep_the_loss_comes_before_a_faster_one_that_may() -> None:
    shown = SMALL.model_copy(update={"accuracy_difference": Estimate(value=-0.001, low=-0.004, high=0.002)})
    assert find([FP32, QUICK, shown], Target(smaller=3, lose=0.5)) is shown
    assert find([FP32, QUICK, shown], Target(smaller=3, lose=0.3)) is shown
    assert find([FP32, QUICK, shown], Target(smaller=3, faster=2, lose=0.5)) is QUICK


def test_what_is_not_asked_for_is_not_required() -> None:
    slow = measured("slow", 20, 300, 0)
    assert find([FP32, slow], Target(smaller=3)) is slow
    assert find([slow, FP32], Target(faster=3)) is FP32


def test_what_the_gate_refuses_is_never_found() -> None:
    assert find([FP32, DRIFTS, UNBUILT], Target(smaller=2, lose=100)) is None


def test_the_nearest_is_told_to_who_asked_too_much() -> None:
    assert nearest(ALL, Target(smaller=2, faster=2, lose=0.1)) is QUICK
    assert nearest(ALL, Target(smaller=20)) is None


def test_the_front_is_what_nothing_beats() -> None:
    assert front([*ALL, UNBUILT]) == ("fp32", "small", "quick", "tiny")


def test_equals_do_not_beat_each_other() -> None:
    twin = SMALL.model_copy(update={"name": "twin"})
    assert front([SMALL, twin]) == ("small", "twin")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(3, 0, 0.5), "3 x smaller, at most 0.5 points lost"),
        (Target(0, 2, 1), "2 x faster, at most 1 points lost"),
        (Target(), "at most 0.5 points lost"),
    ],
)
def test_a_target_says_what_is_asked(target: Target, said: str) -> None:
    assert str(target) == said


def test_the_test_split_has_the_last_word() -> None:
    confirmed = Confirmed(rows=990, accuracy_difference=Estimate(value=-0.005, low=-0.01, high=0.0), agreement=0.99)
    assert confirmed.keeps(Target(lose=0.5))
    assert not confirmed.keeps(Target(lose=0.4))
