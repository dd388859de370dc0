"""The waiting room counts what it holds."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from inference.errors import BackendFailed, DeadlineExceeded
from inference.policy import Limits
from inference.tasks.base import Prediction, Prepared
from inference.ticket import Ticket
from inference.waiting import Entry, WaitingRoom, Whole, rows


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


def _windowed(order: float, tokens: int, windows: int) -> Entry:
    entry = _entry(order)
    entry.prepared = Prepared(range(tokens), tokens, windows=windows)
    return entry


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 6), st.booleans()), max_size=30),
    st.integers(1, 3),
    st.integers(0, 8),
)
def test_windows_count_as_one_input_as_long_as_one_of_them_waits(
    inputs: list[tuple[int, int, bool]], idle: int, batches: int
) -> None:
    room = WaitingRoom(Limits(max_batch_size=4))
    entries = [_windowed(number, tokens + windows, windows) for number, (tokens, windows, _) in enumerate(inputs)]
    room.admit([row for entry in entries for row in rows(entry)])
    assert len(room) == len(entries)
    for entry, (_, _, leaves) in zip(entries, inputs, strict=True):
        if leaves:
            entry.ticket.fail(DeadlineExceeded("left"), 1.0)
    room.forget_the_gone()
    waiting = [row for entry in entries for row in rows(entry) if not entry.ticket.done]
    taken = [row for _ in range(batches) for row in room.take_batch(idle)]
    assert round(room.tokens) == sum(row.prepared.tokens for row in waiting) - sum(row.prepared.tokens for row in taken)
    run = Counter(id(row.whole.entry if row.whole else row) for row in taken)
    left = [entry for entry in entries if not entry.ticket.done and run[id(entry)] < entry.prepared.windows]
    assert len(room) == len(left)
    assert len(room.take_all()) == len(waiting) - len(taken)
    assert len(room) == 0


def test_windows_follow_their_input_to_another_place_and_deadline() -> None:
    room = WaitingRoom(Limits(max_batch_size=1))
    entry, before = _windowed(5.0, 6, 2), _prepare(_entry(3.0), 3)
    made = rows(entry)
    entry.deadline = 7.0
    room.admit([before, *made])
    assert [row.deadline for row in made] == [7.0, 7.0]
    entry.deadline = None
    room.hasten(entry, 9.0)
    assert [(row.order, row.deadline) for row in made] == [(5.0, None)] * 2
    room.hasten(entry, 1.0)
    assert [room.take_batch(1)[0] for _ in range(3)] == [*made, before]


def test_the_last_window_ends_an_input_or_the_first_that_fails() -> None:
    whole = Whole(_entry(0.0), 2, 2, [None] * 2)
    later, earlier = Prediction("a", 1.0, (1.0,)), Prediction("b", 1.0, (1.0,))
    assert not whole.add(1, later, 4.0)
    assert whole.add(0, earlier, 5.0)
    assert (whole.predictions, whole.started) == ([earlier, later], 4.0)
    broken = Whole(_entry(0.0), 3, 3, [None] * 3)
    assert broken.add(1, BackendFailed("no"), 1.0)
    assert not broken.add(0, earlier, 2.0)
    assert not broken.add(2, later, 3.0)


@given(st.permutations(range(5)))
def test_windows_are_merged_in_the_order_of_the_text_whichever_ends_first(order: list[int]) -> None:
    whole = Whole(_entry(0.0), 5, 5, [None] * 5)
    made = [Prediction("a", 1 / (3 + place), (1 / (3 + place),)) for place in range(5)]
    assert [whole.add(place, made[place], 1.0) for place in order] == [False] * 4 + [True]
    assert whole.predictions == made
