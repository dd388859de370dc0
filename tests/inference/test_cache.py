"""The response cache stays within its bytes and tells apart what differs."""

import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from inference.cache import ResponseCache, shared
from inference.errors import BackendFailed, DeadlineExceeded, InferenceError
from inference.tasks.base import Prediction, Prepared
from inference.ticket import Ticket
from inference.waiting import Entry

# One short text with two scores, as the cache reckons.
ITEM_BYTES = 722


def _entry(value: str, *, truncate: bool = False, deadline: float | None = None) -> tuple[Entry, Ticket]:
    ticket = Ticket(1, 0.0, lambda _: None)
    return Entry(ticket, 0, value, truncate, 0.0, 0.0, deadline), ticket


def _prediction(score: float) -> Prediction:
    return Prediction("yes", score, (score, 1.0 - score))


def _keep(cache: ResponseCache, value: str, score: float = 0.5) -> None:
    entry, ticket = _entry(value)
    entry = cache.carrier(entry, ticket)
    entry.prepared = Prepared([1, 2, 3], 3, unknown=1)
    cache.keep([entry], [_prediction(score)])


def _knows(cache: ResponseCache, value: str, *, truncate: bool = False) -> bool:
    return cache.find(_entry(value, truncate=truncate)[0]) is not None


def test_it_finds_what_it_kept_without_the_ids() -> None:
    cache = ResponseCache(10_000)
    _keep(cache, "good", 0.75)
    known = cache.find(_entry("good")[0])
    assert known is not None
    assert known.prediction == _prediction(0.75)
    assert known.prepared == Prepared((), 3, unknown=1)


def test_text_and_truncation_must_be_the_same() -> None:
    cache = ResponseCache(10_000)
    _keep(cache, "good")
    assert not _knows(cache, "good ")
    assert not _knows(cache, "Good")
    assert not _knows(cache, "good", truncate=True)


def test_the_least_recently_used_goes_first() -> None:
    cache = ResponseCache(2 * ITEM_BYTES)
    _keep(cache, "a")
    _keep(cache, "b")
    assert _knows(cache, "a")
    _keep(cache, "c")
    assert (_knows(cache, "a"), _knows(cache, "b"), _knows(cache, "c")) == (True, False, True)


def test_what_does_not_fit_displaces_nothing() -> None:
    cache = ResponseCache(ITEM_BYTES)
    _keep(cache, "a")
    _keep(cache, "b" * ITEM_BYTES)
    assert _knows(cache, "a")
    assert len(cache) == 1


def test_kept_twice_is_counted_once() -> None:
    cache = ResponseCache(10_000)
    _keep(cache, "a", 0.5)
    once = cache.bytes
    _keep(cache, "a", 0.5)
    assert (cache.bytes, len(cache)) == (once, 1)


@given(st.lists(st.integers(0, 1_000), max_size=30), st.integers(0, 5_000))
def test_the_bound_holds_whatever_is_kept(lengths: list[int], most: int) -> None:
    cache = ResponseCache(most)
    for length in lengths:
        _keep(cache, "é" * length)
        assert 0 <= cache.bytes <= most
    assert (cache.bytes == 0) == (len(cache) == 0)


def test_bytes_are_those_the_process_pays() -> None:
    cache = ResponseCache(1 << 30)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2_000):
            _keep(cache, f"text number {number}", number / 7)
        gc.collect()
        paid = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.7 * cache.bytes < paid <= cache.bytes


def test_failures_and_what_never_flew_are_not_kept() -> None:
    cache = ResponseCache(10_000)
    failed, ticket = _entry("a")
    plain, _ = _entry("b")
    cache.keep([cache.carrier(failed, ticket), plain], [BackendFailed("lost"), _prediction(0.5)])
    assert len(cache) == 0


def test_an_identical_input_under_way_is_joined_until_its_end() -> None:
    cache = ResponseCache(10_000)
    first, second, third = _entry("a", deadline=1.0), _entry("a", deadline=3.0), _entry("a")
    carriers, deadlines = set(), []
    for entry, ticket in (first, second, third, _entry("a", deadline=9.0)):
        carrier = cache.carrier(entry, ticket)
        carriers.add(carrier)
        deadlines.append(carrier.deadline)
    assert carriers == {first[0]}
    assert deadlines == [1.0, 3.0, None, None]
    assert cache.to_compute([_entry("a")[0], _entry("b")[0], _entry("b")[0]]) == ["b"]
    carrier.ticket.fail(BackendFailed("lost"), 1.0)
    assert cache.to_compute([_entry("a")[0]]) == ["a"]
    later = _entry("a")
    assert cache.carrier(*later) is later[0]


def test_what_nobody_waits_for_is_not_joined() -> None:
    cache = ResponseCache(10_000)
    left, ticket = _entry("a")
    cache.carrier(left, ticket)
    ticket.fail(DeadlineExceeded("left"), 1.0)
    assert cache.to_compute([_entry("a")[0]]) == ["a"]
    newcomer = _entry("a")
    assert cache.carrier(*newcomer) is newcomer[0]


def test_an_entry_that_is_dropped_is_no_longer_under_way() -> None:
    cache = ResponseCache(10_000)
    waiting = [cache.carrier(*_entry(value)) for value in "abc"]
    assert cache.under_way == 3
    waiting.pop()
    assert cache.under_way == 2


def test_what_is_shared_is_every_caller_beyond_the_first() -> None:
    cache = ResponseCache(10_000)
    carrier = cache.carrier(*_entry("a"))
    for _ in range(2):
        cache.carrier(*_entry("a"))
    alone = cache.carrier(*_entry("b"))
    failed = cache.carrier(*_entry("c"))
    cache.carrier(*_entry("c"))
    plain, _ = _entry("d")
    batch = [carrier, alone, failed, plain]
    outcomes: list[Prediction | InferenceError] = [
        _prediction(0.1),
        _prediction(0.2),
        BackendFailed("lost"),
        _prediction(0.4),
    ]
    for entry, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Prediction):
            entry.ticket.settle(0, entry.prepared, outcome, started=1.0, now=2.0)
        else:
            entry.ticket.fail(outcome, 2.0)
    inputs, predictions = shared(batch, outcomes)
    assert (len(inputs), predictions) == (2, [_prediction(0.1)] * 2)
