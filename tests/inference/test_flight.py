"""A flight answers everybody who joined it, each as if alone."""

import pytest

from inference.errors import BackendFailed, DeadlineExceeded, InputTooLong
from inference.flight import Flight, Follower
from inference.tasks.base import Prediction, Prepared
from inference.ticket import Ticket

PREPARED = Prepared((1, 2), 2)
PREDICTION = Prediction("yes", 0.75, (0.25, 0.75))


def _ticket(size: int = 1, submitted: float = 0.0) -> Ticket:
    return Ticket(size, submitted, lambda _: None)


def _settle(flight: Flight) -> None:
    flight.settle(0, PREPARED, PREDICTION, started=3.0, now=4.0)


def test_every_follower_gets_the_prediction_at_its_own_index() -> None:
    one, two = _ticket(), _ticket(2)
    flight = Flight(Follower(one, 0, None))
    assert flight.join(Follower(two, 1, None))
    _settle(flight)
    assert one.result().predictions == (PREDICTION,)
    assert not two.done
    two.settle(0, PREPARED, Prediction("no", 0.5, (0.5, 0.5)), started=1.0, now=5.0)
    assert [each.label for each in two.result().predictions] == ["no", "yes"]
    assert flight.answered == 2


def test_it_is_done_when_everybody_left_and_then_nobody_joins() -> None:
    one, two = _ticket(), _ticket()
    flight = Flight(Follower(one, 0, None))
    assert flight.join(Follower(two, 0, None))
    done = []
    for ticket in (one, two):
        ticket.fail(DeadlineExceeded("left"), 1.0)
        done.append(flight.done)
    assert done == [False, True]
    assert not flight.join(Follower(_ticket(), 0, None))


def test_whatever_comes_after_the_end_changes_nothing() -> None:
    one, late = _ticket(), _ticket()
    flight = Flight(Follower(one, 0, None))
    assert flight.fail(BackendFailed("lost"), 1.0)
    assert flight.done
    assert not flight.fail(BackendFailed("later"), 2.0)
    assert not flight.join(Follower(late, 0, None))
    _settle(flight)
    with pytest.raises(BackendFailed, match=r"^lost"):
        one.result()
    assert (late.done, flight.answered) == (False, 0)


def test_who_left_is_not_counted_as_answered() -> None:
    one, two = _ticket(), _ticket()
    flight = Flight(Follower(one, 0, None))
    flight.join(Follower(two, 0, None))
    one.fail(DeadlineExceeded("left"), 1.0)
    _settle(flight)
    assert flight.answered == 1


def test_a_deadline_before_the_start_is_that_follower_s_alone() -> None:
    hurried, patient, just = _ticket(), _ticket(), _ticket()
    flight = Flight(Follower(hurried, 0, 2.9))
    flight.join(Follower(patient, 0, None))
    flight.join(Follower(just, 0, 3.0))
    _settle(flight)
    with pytest.raises(DeadlineExceeded):
        hurried.result()
    assert patient.result() is not None
    assert just.result() is not None


def test_each_is_told_of_a_long_input_in_their_own_words() -> None:
    one, two = _ticket(), _ticket(3)
    flight = Flight(Follower(one, 0, None))
    flight.join(Follower(two, 2, None))
    flight.fail(InputTooLong("inputs[0]", 900, 512), 1.0)
    with pytest.raises(InputTooLong, match=r"^inputs\[0\]: 900 tokens, the model accepts 512"):
        one.result()
    with pytest.raises(InputTooLong, match=r"^inputs\[2\]: 900 tokens") as caught:
        two.result()
    assert caught.value.field == "inputs[2]"


def test_timings_are_each_follower_s_own() -> None:
    early, middle, late = _ticket(submitted=0.0), _ticket(submitted=1.9), _ticket(submitted=3.5)
    flight = Flight(Follower(early, 0, None))
    flight.join(Follower(middle, 0, None))
    flight.add_tokenization(0.5)
    flight.join(Follower(late, 0, None))
    _settle(flight)
    timings = [ticket.result().timings for ticket in (early, middle, late)]
    assert [each.queue_seconds for each in timings] == pytest.approx([2.5, 0.6, 0.0])
    assert [each.tokenization_seconds for each in timings] == [0.5, 0.5, 0.0]
    assert [each.inference_seconds for each in timings] == pytest.approx([1.0, 1.0, 0.5])
    assert [each.total_seconds for each in timings] == pytest.approx([4.0, 2.1, 0.5])
