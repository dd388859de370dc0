"""The batching policy: what must hold for every queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.policy import Limits, choose

lengths = st.lists(st.integers(1, 512), min_size=1, max_size=200)
limits = st.builds(
    Limits,
    max_batch_size=st.integers(1, 64),
    max_batch_tokens=st.integers(1, 4096),
    max_padding=st.floats(1, 4),
    execution_tokens=st.integers(0, 100),
    window=st.integers(1, 256),
)


@given(lengths, limits, st.integers(1, 8))
def test_a_batch_holds_the_oldest_entry_and_keeps_every_limit(
    tokens: list[int], limits: Limits, idle_workers: int
) -> None:
    chosen = choose(tokens, limits, idle_workers)
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen)
    assert max(chosen) < max(limits.window, 1)
    assert len(chosen) <= limits.max_batch_size
    if len(chosen) > 1:
        padded = max(tokens[position] for position in chosen) * len(chosen)
        assert padded <= limits.max_batch_tokens
        assert padded <= limits.max_padding * sum(tokens[position] for position in chosen)


@given(lengths, limits)
def test_no_entry_is_passed_over_more_often_than_entries_stood_before_it(tokens: list[int], limits: Limits) -> None:
    waiting = list(enumerate(tokens))
    passed_over = dict.fromkeys(range(len(tokens)), 0)
    while waiting:
        chosen = set(choose([count for _, count in waiting], limits))
        for position, (name, _) in enumerate(waiting):
            if position not in chosen and position < max(chosen):
                passed_over[name] += 1
        waiting = [entry for position, entry in enumerate(waiting) if position not in chosen]
    assert all(times <= min(name, limits.window) for name, times in passed_over.items())


@given(lengths, limits, st.integers(1, 8))
def test_idle_workers_share_what_waits(tokens: list[int], limits: Limits, idle_workers: int) -> None:
    assert len(choose(tokens, limits, idle_workers)) <= -(-len(tokens) // idle_workers)


@given(lengths, limits)
def test_company_never_makes_a_real_token_dearer(tokens: list[int], limits: Limits) -> None:
    chosen = [tokens[position] for position in choose(tokens, limits)]
    alone = (limits.execution_tokens + chosen[0]) / chosen[0]
    assert (limits.execution_tokens + max(chosen) * len(chosen)) / sum(chosen) <= alone + 1e-9


def test_a_companion_that_costs_more_than_it_saves_waits() -> None:
    assert choose([20, 24], Limits(execution_tokens=15)) == [0, 1]
    assert choose([20, 24], Limits(execution_tokens=0)) == [0]
    assert choose([20, 20], Limits(execution_tokens=0)) == [0]


def test_companions_are_the_nearest_in_length() -> None:
    tokens = [10, 40, 11, 41, 10, 12, 300]
    assert choose(tokens, Limits(max_batch_size=3)) == [0, 4, 2]


def test_an_input_longer_than_the_budget_runs_alone() -> None:
    assert choose([600, 5, 600], Limits(max_batch_tokens=512)) == [0]


def test_nothing_waiting_is_an_empty_batch() -> None:
    assert choose([], Limits()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch_size": 0}, {"max_batch_tokens": 0}, {"window": 0}, {"max_queue_size": 0}, {"max_padding": 0.9}],
)
def test_limits_under_which_nothing_could_run_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Limits(**wrong)
