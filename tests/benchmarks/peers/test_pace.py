import pytest

from benchmarks.http import QUICK
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.pace import WHOLE, choose_plan, estimate_minutes, most_seconds, peer_seconds
from benchmarks.wrk import BenchmarkError


def test_all_peers_and_slipway_fit_into_half_an_hour_in_turns() -> None:
    plan = choose_plan(quick=False, minutes=30, peers=len(PEERS))
    assert estimate_minutes(plan, len(PEERS)) <= 30
    assert plan.repetitions >= 2, "taken in turns more than once"


def test_the_longest_plan_that_fits_is_chosen() -> None:
    assert choose_plan(quick=False, minutes=1000, peers=9) == WHOLE
    plans = [choose_plan(quick=False, minutes=minutes, peers=9) for minutes in (30, 45, 70)]
    lengths = [peer_seconds(plan) for plan in plans]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 3
    assert peer_seconds(choose_plan(quick=False, minutes=30, peers=2)) > lengths[0]


def test_without_minutes_it_is_the_whole_plan_or_the_quick_one() -> None:
    assert choose_plan(quick=False, minutes=None, peers=9) == WHOLE
    assert choose_plan(quick=True, minutes=None, peers=9) == QUICK


def test_too_few_minutes_are_refused_with_the_least_there_is() -> None:
    with pytest.raises(BenchmarkError, match=r"9 peers take \d+ minutes at the least"):
        choose_plan(quick=False, minutes=5, peers=9)


def test_a_peer_may_be_slower_than_it_should_but_not_for_ever() -> None:
    for plan in (WHOLE, QUICK):
        assert 2 * peer_seconds(plan) < most_seconds(plan) < 4 * peer_seconds(plan)


def test_every_peer_adds_as_much_as_the_last() -> None:
    steps = [estimate_minutes(WHOLE, count + 1) - estimate_minutes(WHOLE, count) for count in (0, 5)]
    assert steps[0] == pytest.approx(steps[1]) == pytest.approx(peer_seconds(WHOLE) / 60)
