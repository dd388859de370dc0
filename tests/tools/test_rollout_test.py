"""The accounts of the simulated rollouts, on records made by hand."""

from collections.abc import Sequence
from typing import Any

import pytest

from tools.rollout_test import Record, Window, account, broken, p99_ratios


def window(begin: float, end: float) -> Window:
    return Window("made up", begin, end)


def records(begin: float, end: float, seconds: float, outcome: str = "200") -> list[Record]:
    return [Record(begin + number / 100 * (end - begin), seconds, outcome, 1) for number in range(100)]


RESTS = [window(0, 10), window(30, 40), window(60, 70), window(90, 100)]
ROLLOUTS = [window(10, 20), window(20, 30), window(40, 50), window(50, 60), window(70, 80), window(80, 90)]
BAD = window(100, 120)


def run_of(*seconds_while_rolling: float, outcome: str = "200") -> list[Record]:
    calm = [record for rest in RESTS for record in records(rest.begin, rest.end, 0.1)]
    rolled = [
        record
        for pair, seconds in enumerate(seconds_while_rolling)
        for each in ROLLOUTS[2 * pair : 2 * pair + 2]
        for record in records(each.begin, each.end, seconds, outcome)
    ]
    return calm + rolled + records(BAD.begin, BAD.end, 0.1)


def report(made: Sequence[Record], **changed: Any) -> dict[str, Any]:
    pods = {"killed": 0, "restarts": 0, "exit_statuses": {"0": 21}}
    found = account(made, RESTS, ROLLOUTS, BAD)
    return (
        found | {"bad_rollout_kept_old_pods": True, "pods": pods, "errors": [], "rollouts": 10, "sent": 5000} | changed
    )


def test_each_two_rollouts_are_compared_with_the_rests_around_them() -> None:
    assert p99_ratios(run_of(0.1, 0.2, 0.3), RESTS, ROLLOUTS) == pytest.approx([1, 2, 3])


def test_one_noisy_moment_does_not_decide_the_ratio_of_the_run() -> None:
    assert account(run_of(0.1, 5.0, 0.1), RESTS, ROLLOUTS, BAD)["p99_ratio"] == 1.0


def test_a_rollout_that_slows_requests_down_every_time_breaks_the_promise_unless_latency_is_not_judged() -> None:
    slow = report(run_of(0.2, 0.2, 0.2))
    assert slow["p99_ratio"] == 2.0
    assert broken(slow) == ["p99_ratio"]
    assert broken(slow, any_latency=True) == []


def test_without_requests_at_rest_there_is_no_ratio_and_the_promise_is_broken_either_way() -> None:
    nothing = report([], p99_ratio=None)
    assert broken(nothing) == broken(nothing, any_latency=True) == ["p99_ratio"]


def test_a_lost_request_is_counted_and_broken_however_latency_is_judged() -> None:
    lost = report(run_of(0.1, 0.1, 0.1, outcome="503"))
    assert lost["failed"] == 600
    assert lost["bad_rollout_failed"] == 0
    assert broken(lost, any_latency=True) == ["failed"]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"rollouts": 9}, "rollouts"),
        ({"sent": 4999}, "sent"),
        ({"bad_rollout_failed": 1}, "bad_rollout_failed"),
        ({"bad_rollout_kept_old_pods": False}, "bad_rollout_kept_old_pods"),
        ({"errors": ["a pod"]}, "pods"),
        ({"pods": {"killed": 1, "restarts": 0, "exit_statuses": {"0": 1}}}, "pods"),
        ({"pods": {"killed": 0, "restarts": 0, "exit_statuses": {"0": 1, "-9": 1}}}, "exit status"),
    ],
)
def test_every_other_promise_is_judged(changed: dict[str, Any], name: str) -> None:
    assert broken(report(run_of(0.1, 0.1, 0.1), **changed), any_latency=True) == [name]
