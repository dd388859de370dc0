"""The waiting room counts what it holds."""

from hypothesis import given
from hypothesis import strategies as st

from inference.errors import DeadlineExceeded
from inference.policy import Limits
from inference.tasks.base import Prepared
from inference.ticket import Ticket
from inference.waiting import Entry, WaitingRoom


def _entry(order: float, value: str = "some words", deadline: float | None = None) -> Entry:
    return Entry(Ticket(1, 0.0, lambda _: None), 0, value, False, order, order, deadline)


def _prepare(entry: Entry, tokens: int) -> Entry:
    entry.prepared = Prepared(range(tokens), tokens)
    return entry


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=60), st.integers(1, 3))
def test_tokens_are_those_of_what_waits_whatever_happens(entries: list[tuple[int, bool]], idle: int) -> None:
    room = WaitingRoom(Limits())
    room.add([_entry(number) for number in range(len(entries))])
    for (tokens, leaves), entry in zip(entries, room.take_fresh(60), strict=True):
        room.admit([_prepare(entry, tokens)])
        if leaves:
            entry.ticket.fail(DeadlineExceeded("left"), 1.0)
    staying = [tokens for tokens, leaves in entries if not leaves]
    batch = [entry.prepared.tokens for entry in room.take_batch(idle)]
    assert round(room.tokens) == sum(staying) - sum(batch)
    assert len(room) == len(staying) - len(batch)


def test_prepared_entries_queue_by_order_not_by_arrival() -> None:
    room = WaitingRoom(Limits(max_batch_size=1))
    room.admit([_prepare(_entry(5.0), 3), _prepare(_entry(1.0), 4), _prepare(_entry(3.0), 5)])
    assert [room.take_batch(1)[0].order for _ in range(3)] == [1.0, 3.0, 5.0]
    assert room.take_batch(1) == []


def test_only_a_passed_deadline_is_late() -> None:
    room = WaitingRoom(Limits())
    early, late = _entry(0.0, deadline=10.0), _entry(0.0, deadline=1.0)
    room.admit([_prepare(early, 2), _prepare(late, 2), _prepare(_entry(0.0), 2)])
    assert room.late(5.0) == [late]


def test_the_estimate_follows_the_texts_seen() -> None:
    room = WaitingRoom(Limits())
    before = room.estimate(["x" * 100])
    for number in range(200):
        room.admit([_prepare(_entry(number, value="x" * 100), 100)])
    assert room.estimate(["x" * 100]) > 2 * before


def test_taking_everything_leaves_nothing() -> None:
    room = WaitingRoom(Limits())
    room.add([_entry(0.0), _entry(1.0)])
    room.admit([_prepare(_entry(2.0), 3)])
    assert len(room.take_all()) == 3
    assert (len(room), room.tokens) == (0, 0.0)


def test_an_entry_that_is_hastened_moves_up_and_never_back() -> None:
    room = WaitingRoom(Limits(max_batch_size=1))
    first, second, fresh = _prepare(_entry(1.0), 3), _prepare(_entry(2.0), 4), _entry(3.0)
    room.admit([first, second])
    room.add([fresh])
    room.hasten(second, 0.5)
    room.hasten(first, 9.0)
    room.hasten(fresh, 0.75)
    room.admit([_prepare(entry, 5) for entry in room.take_fresh(1)])
    assert [room.take_batch(1)[0] for _ in range(3)] == [second, fresh, first]
