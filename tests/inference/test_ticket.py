"""A ticket ends exactly once."""

import pytest

from inference.errors import BackendFailed, DeadlineExceeded
from inference.tasks.base import Prediction, Prepared
from inference.ticket import Ticket

PREPARED = Prepared((1, 2), 2)
PREDICTION = Prediction("yes", 0.75, (0.25, 0.75))


def test_it_ends_with_the_last_outcome() -> None:
    ended: list[Ticket] = []
    ticket = Ticket(2, 0.0, ended.append)
    ticket.settle(1, PREPARED, PREDICTION, started=1.0, now=2.0)
    assert not ticket.done
    with pytest.raises(RuntimeError, match="no answer yet"):
        ticket.result()
    ticket.settle(0, PREPARED, PREDICTION, started=3.0, now=4.0)
    assert ended == [ticket]
    assert ticket.result().input_tokens == (2, 2)


def test_whatever_comes_after_the_end_changes_nothing() -> None:
    ended: list[Ticket] = []
    ticket = Ticket(1, 0.0, ended.append)
    assert ticket.fail(DeadlineExceeded("late"), 1.0)
    assert not ticket.fail(BackendFailed("later"), 2.0)
    ticket.settle(0, PREPARED, PREDICTION, started=1.0, now=2.0)
    assert len(ended) == 1
    with pytest.raises(DeadlineExceeded):
        ticket.result()


def test_an_outcome_given_twice_counts_once() -> None:
    ticket = Ticket(2, 0.0, lambda _: None)
    ticket.settle(0, PREPARED, PREDICTION, started=1.0, now=2.0)
    ticket.settle(0, PREPARED, PREDICTION, started=1.0, now=2.0)
    assert not ticket.done


def test_the_phases_add_up_to_the_total() -> None:
    ticket = Ticket(1, 10.0, lambda _: None)
    ticket.add_tokenization(0.5)
    ticket.settle(0, PREPARED, PREDICTION, started=13.0, now=14.0)
    timings = ticket.result().timings
    assert (timings.queue_seconds, timings.tokenization_seconds) == (2.5, 0.5)
    assert (timings.inference_seconds, timings.total_seconds) == (1.0, 4.0)


def test_what_is_recalled_cost_nothing_and_is_said_to_be_cached() -> None:
    ticket = Ticket(1, 10.0, lambda _: None)
    ticket.recall(0, PREPARED, PREDICTION, 10.25)
    answer = ticket.result()
    assert answer.predictions == (PREDICTION,)
    assert answer.cached == {0}
    timings = answer.timings
    assert (timings.queue_seconds, timings.inference_seconds, timings.total_seconds) == (0.25, 0.0, 0.25)


def test_recalled_inputs_do_not_hide_the_wait_of_the_others() -> None:
    ticket = Ticket(2, 10.0, lambda _: None)
    ticket.settle(1, PREPARED, PREDICTION, started=13.0, now=14.0)
    ticket.recall(0, PREPARED, PREDICTION, 14.5)
    answer = ticket.result()
    assert answer.cached == {0}
    assert (answer.timings.queue_seconds, answer.timings.inference_seconds) == (3.0, 1.5)
