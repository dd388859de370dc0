"""The batcher: one answer each, whatever happens."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.batcher import Batcher, Outcome, Priority
from inference.cache import ResponseCache
from inference.errors import (
    BackendFailed,
    BadInput,
    DeadlineExceeded,
    InferenceError,
    InputTooLong,
    NotReady,
    Overloaded,
)
from inference.policy import Limits
from inference.tasks.base import Prediction, Prepared
from inference.tasks.windows import windows
from inference.ticket import Ticket
from tests.inference.doubles import SumBackend, WordTask


class Caller:
    """Submits and waits, and counts how often it was answered."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.answers = 0
        self.ticket: Ticket | None = None

    def on_done(self, _: Ticket) -> None:
        self.answers += 1
        self.answered.set()

    def send(
        self,
        batcher: Batcher,
        *values: str,
        truncate: bool = False,
        timeout_seconds: float | None = None,
        priority: Priority = "interactive",
    ) -> "Caller":
        self.ticket = batcher.submit(
            values, self.on_done, truncate=truncate, timeout_seconds=timeout_seconds, priority=priority
        )
        return self

    def sums(self) -> list[float]:
        assert self.answered.wait(timeout=20)
        return self.sums_or_error()

    def sums_or_error(self) -> list[float]:
        """The sums, without waiting. Raises what the ticket ended with."""
        assert self.ticket is not None
        return [prediction.score for prediction in self.ticket.result().predictions]

    def error(self) -> InferenceError:
        with pytest.raises(InferenceError) as caught:
            self.sums()
        return caught.value


@contextlib.contextmanager
def running(
    backend: SumBackend,
    limits: Limits | None = None,
    workers: int = 1,
    observer: "Notes | None" = None,
    execution_timeout_seconds: float = 30.0,
    cache: ResponseCache | None = None,
    task: WordTask | None = None,
) -> Iterator[Batcher]:
    batcher = Batcher(
        backend,
        task or WordTask(),
        limits or Limits(),
        workers=workers,
        execution_timeout_seconds=execution_timeout_seconds,
    )
    if observer is not None:
        batcher.observe(observer)
    if cache is not None:
        batcher.remember(cache)
    try:
        yield batcher
    finally:
        backend.gate.set()
        batcher.close()


@contextlib.contextmanager
def held(backend: SumBackend, batcher: Batcher) -> Iterator[Caller]:
    """Keep one execution in flight, so that what is sent meanwhile gathers in the queue."""
    backend.gate.clear()
    backend.busy.clear()
    first = Caller().send(batcher, "1000")
    assert backend.busy.wait(timeout=20)
    yield first
    backend.gate.set()
    assert first.sums() == [1000]


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.batches: list[dict[str, object]] = []
        self.rows: list[int] = []
        self.seen: list[tuple[int, Outcome]] = []
        self.again: list[float] = []
        self.looked_up = {"hits": 0, "joined": 0, "misses": 0}

    def batch_done(
        self,
        *,
        inputs: int,
        rows: int,
        real_tokens: int,
        padded_tokens: int,
        queue_seconds: Sequence[float],
        tokenization_seconds: float,
        inference_seconds: float,
        failed: bool,
    ) -> None:
        assert len(queue_seconds) == inputs
        assert tokenization_seconds >= 0
        assert inference_seconds >= 0
        self.batches.append(
            {"inputs": inputs, "real_tokens": real_tokens, "padded_tokens": padded_tokens, "failed": failed}
        )
        self.rows.append(rows)

    def inputs_done(self, inputs: Sequence[Prepared], outcomes: Sequence[Outcome]) -> None:
        self.seen.extend(zip((prepared.tokens for prepared in inputs), outcomes, strict=True))

    def inputs_looked_up(self, **counts: int) -> None:
        for outcome, count in counts.items():
            self.looked_up[outcome] += count

    def inputs_answered_again(self, inputs: Sequence[Prepared], predictions: Sequence[Prediction]) -> None:
        assert len(inputs) == len(predictions)
        self.again.extend(prediction.score for prediction in predictions)


def test_answers_come_in_the_order_of_the_inputs() -> None:
    with running(SumBackend(), workers=2) as batcher:
        assert Caller().send(batcher, "1 2 3", "4", "5 6").sums() == [6, 4, 11]


def test_separate_requests_share_an_execution_when_the_worker_was_busy() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        with held(backend, batcher):
            callers = [Caller().send(batcher, f"{n} 1") for n in range(4)]
            assert batcher.waiting == 4
        assert [caller.sums() for caller in callers] == [[1], [2], [3], [4]]
    assert backend.shapes == [(1, 1), (4, 2)]


def test_a_body_of_many_inputs_is_split_and_merged() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=2)) as batcher:
        assert Caller().send(batcher, *(str(n) for n in range(7))).sums() == list(range(7))
    assert sum(rows for rows, _ in backend.shapes) == 7
    assert max(rows for rows, _ in backend.shapes) == 2


def test_a_caller_who_leaves_does_not_strand_their_batch_mates_and_is_not_computed() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        with held(backend, batcher):
            callers = [Caller().send(batcher, str(n)) for n in (1, 2, 3)]
            assert callers[1].ticket is not None
            assert callers[1].ticket.fail(DeadlineExceeded("left"), time.perf_counter())
        assert [callers[0].sums(), callers[2].sums()] == [[1], [3]]
        assert isinstance(callers[1].error(), DeadlineExceeded)
    assert backend.shapes[1] == (2, 1)
    assert [caller.answers for caller in callers] == [1, 1, 1]


def test_a_failing_batch_is_that_batch_s_failure_only() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        backend.fails = True
        error = Caller().send(batcher, "1").error()
        backend.fails = False
        assert Caller().send(batcher, "2").sums() == [2]
    assert isinstance(error, BackendFailed)
    assert "secret" not in error.message


def test_too_few_rows_fail_the_batch_and_the_worker_goes_on() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        backend.rows_missing = 1
        assert isinstance(Caller().send(batcher, "1", "2").error(), BackendFailed)
        backend.rows_missing = 0
        assert Caller().send(batcher, "2").sums() == [2]


def test_a_bad_row_is_that_row_s_failure_only() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        with held(backend, batcher):
            good, bad = Caller().send(batcher, "1"), Caller().send(batcher, "-1")
        assert good.sums() == [1]
        assert isinstance(bad.error(), BackendFailed)
    assert backend.shapes[1] == (2, 1)


def test_a_broken_tokenizer_fails_its_request_only() -> None:
    with running(SumBackend()) as batcher:
        assert isinstance(Caller().send(batcher, "1", "explode").error(), BackendFailed)
        assert Caller().send(batcher, "3").sums() == [3]


def test_a_long_input_names_its_place_and_is_cut_only_when_asked() -> None:
    long = " ".join("1" for _ in range(20))
    with running(SumBackend()) as batcher:
        error = Caller().send(batcher, "1", long).error()
        cut = Caller().send(batcher, "1", long, truncate=True)
        assert cut.sums() == [1, 16]
    assert isinstance(error, InputTooLong)
    assert error.field == "inputs[1]"
    assert cut.ticket is not None
    assert cut.ticket.result().truncated == (False, True)
    assert cut.ticket.result().input_tokens == (1, 16)


def test_an_input_of_which_nothing_is_left_is_refused_by_its_place() -> None:
    with running(SumBackend()) as batcher:
        error = Caller().send(batcher, "1", "nothing").error()
    assert isinstance(error, BadInput)
    assert error.field == "inputs[1]"


def test_a_full_queue_refuses_a_body_whole_and_says_when_to_come_back() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_queue_size=3)) as batcher, held(backend, batcher):
        kept = Caller().send(batcher, "1", "2")
        with pytest.raises(Overloaded) as refused:
            batcher.submit(["3", "4"], lambda _: None)
        assert refused.value.retry_after_seconds is not None
        assert refused.value.retry_after_seconds > 0
        assert batcher.waiting == 2
        last = Caller().send(batcher, "5")
        backend.gate.set()
        assert kept.sums() == [1, 2]
        assert last.sums() == [5]


def test_callers_who_left_make_room_in_a_full_queue() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_queue_size=1)) as batcher, held(backend, batcher):
        gone = Caller().send(batcher, "1")
        assert gone.ticket is not None
        gone.ticket.fail(DeadlineExceeded("left"), time.perf_counter())
        kept = Caller().send(batcher, "2")
        backend.gate.set()
        assert kept.sums() == [2]


def test_an_input_past_its_deadline_is_answered_without_being_computed() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        with held(backend, batcher):
            late = Caller().send(batcher, "1", timeout_seconds=1e-9)
        assert isinstance(late.error(), DeadlineExceeded)
    assert backend.shapes == [(1, 1)]


def test_interactive_work_goes_before_batch_work() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1)) as batcher:
        with held(backend, batcher):
            patient = Caller().send(batcher, "1 1", priority="batch")
            urgent = Caller().send(batcher, "1 1 1")
        assert (patient.sums(), urgent.sums()) == ([2], [3])
    assert backend.shapes == [(1, 1), (1, 3), (1, 2)]


def test_close_answers_everything_accepted_and_refuses_the_rest() -> None:
    backend = SumBackend()
    batcher = Batcher(backend, WordTask(), Limits(), workers=2)
    callers = [Caller().send(batcher, str(n)) for n in range(50)]
    batcher.close()
    assert [caller.sums() for caller in callers] == [[n] for n in range(50)]
    assert [caller.answers for caller in callers] == [1] * 50
    with pytest.raises(NotReady):
        batcher.submit(["1"], lambda _: None)
    assert (batcher.waiting, batcher.executing) == (0, 0)


def test_many_threads_each_get_their_own_answer() -> None:
    backend = SumBackend()
    wrong: list[int] = []

    def client(seed: int, batcher: Batcher) -> None:
        for n in range(40):
            values = [str(seed * 1000 + n + k) for k in range(1 + n % 3)]
            if Caller().send(batcher, *values).sums() != [float(value) for value in values]:
                wrong.append(seed)

    with running(backend, workers=3) as batcher:
        threads = [threading.Thread(target=client, args=(seed, batcher)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_run_together_is_one_execution_whatever_the_limits() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1)) as batcher:
        predictions = batcher.run_together(["1", "2 2", "3 3 3"])
    assert [prediction.score for prediction in predictions] == [1, 4, 9]
    assert backend.shapes == [(3, 3)]


def test_the_observer_sees_every_execution_with_its_padding() -> None:
    notes = Notes()
    backend = SumBackend()
    with running(backend, Limits(max_padding=2), observer=notes) as batcher:
        with held(backend, batcher):
            mates = [Caller().send(batcher, "1"), Caller().send(batcher, "1 1")]
        for mate in mates:
            mate.sums()
        backend.fails = True
        Caller().send(batcher, "1").error()
    assert notes.batches[1:] == [
        {"inputs": 2, "real_tokens": 3, "padded_tokens": 4, "failed": False},
        {"inputs": 1, "real_tokens": 1, "padded_tokens": 1, "failed": True},
    ]


def test_timings_add_up() -> None:
    backend = SumBackend()
    with running(backend) as batcher:
        with held(backend, batcher):
            waited = Caller().send(batcher, "1")
        waited.sums()
    assert waited.ticket is not None
    timings = waited.ticket.result().timings
    parts = timings.queue_seconds + timings.tokenization_seconds + timings.inference_seconds
    assert parts == pytest.approx(timings.total_seconds)
    assert timings.queue_seconds > 0


def test_a_request_that_would_come_too_late_is_refused_at_once() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1)) as batcher:
        for _ in range(30):
            backend.gate.clear()
            slow = Caller().send(batcher, "1")
            threading.Timer(0.02, backend.gate.set).start()
            slow.sums()
        # At least what the timer takes; more where the machine is busy.
        assert 0.015 < batcher.predicted_wait_seconds(more_tokens=1, more_inputs=1) < 1
        with held(backend, batcher):
            queue = [Caller().send(batcher, "1") for _ in range(20)]
            with pytest.raises(Overloaded, match="the request allows"):
                batcher.submit(["1"], lambda _: None, timeout_seconds=0.1)
            patient = Caller().send(batcher, "2", timeout_seconds=60)
        assert [caller.sums() for caller in queue] == [[1]] * 20
        assert patient.sums() == [2]


def test_a_hung_execution_is_answered_and_its_worker_replaced() -> None:
    backend = SumBackend()
    with running(backend, execution_timeout_seconds=0.2) as batcher:
        backend.gate.clear()
        hung = Caller().send(batcher, "1")
        assert isinstance(hung.error(), BackendFailed)
        backend.gate.set()
        assert Caller().send(batcher, "2").sums() == [2]
        assert not batcher.failed
    assert hung.answers == 1


def test_a_backend_that_always_hangs_is_declared_failed_and_nobody_waits_for_ever() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1), execution_timeout_seconds=0.05) as batcher:
        backend.gate.clear()
        callers = [Caller().send(batcher, "1") for _ in range(8)]
        assert all(isinstance(caller.error(), BackendFailed) for caller in callers)
        assert batcher.failed
        with pytest.raises(NotReady):
            batcher.submit(["1"], lambda _: None)
        backend.gate.set()
    assert [caller.answers for caller in callers] == [1] * 8


def test_an_execution_belongs_to_whoever_watched_when_it_started() -> None:
    notes, backend = Notes(), SumBackend()
    with running(backend) as batcher:
        with held(backend, batcher):
            batcher.observe(notes)
        assert Caller().send(batcher, "1 2").sums() == [3]
    assert [tokens for tokens, _ in notes.seen] == [2]


def test_an_observer_that_raises_does_not_end_the_worker() -> None:
    class Grumpy(Notes):
        def batch_done(self, **facts: object) -> None:
            raise RuntimeError("no more metrics")

    with running(SumBackend(), observer=Grumpy()) as batcher:
        assert Caller().send(batcher, "1").sums() == [1]
        assert Caller().send(batcher, "2").sums() == [2]
        assert batcher.waiting == 0


def test_an_observer_sees_each_input_with_its_outcome() -> None:
    notes = Notes()
    with running(SumBackend(), observer=notes) as batcher:
        assert Caller().send(batcher, "1 2 3", "4").sums() == [6, 4]
    scores = {tokens: outcome.score for tokens, outcome in notes.seen if isinstance(outcome, Prediction)}
    assert scores == {3: 6, 1: 4}


# --- with a response cache ---------------------------------------------------------------------------------------


def test_without_a_cache_everything_is_computed() -> None:
    backend, notes = SumBackend(), Notes()
    with running(backend, Limits(max_batch_size=1), observer=notes) as batcher:
        with held(backend, batcher):
            callers = [Caller().send(batcher, "1 2") for _ in range(3)]
        assert [caller.sums() for caller in callers] == [[3]] * 3
        assert Caller().send(batcher, "1 2").sums() == [3]
        assert batcher.cached_bytes == 0
    assert len(backend.shapes) == 5
    assert (notes.again, sum(notes.looked_up.values())) == ([], 0)


def test_what_is_known_is_answered_at_once_and_said_to_be_cached() -> None:
    backend, notes = SumBackend(), Notes()
    with running(backend, observer=notes, cache=ResponseCache(10_000)) as batcher:
        first = Caller().send(batcher, "1 2")
        assert first.sums() == [3]
        again = Caller().send(batcher, "1 2")
        assert again.answers == 1
        assert again.sums() == [3]
        assert batcher.cached_bytes > 0
    assert first.ticket is not None
    assert again.ticket is not None
    answer = again.ticket.result()
    assert first.ticket.result().cached == frozenset()
    assert answer.cached == {0}
    assert answer.input_tokens == (2,)
    assert (answer.timings.tokenization_seconds, answer.timings.inference_seconds) == (0, 0)
    assert backend.shapes == [(1, 2)]
    assert (notes.again, notes.looked_up) == ([3], {"hits": 1, "joined": 0, "misses": 1})


def test_truncation_is_part_of_what_was_asked() -> None:
    long = " ".join("1" for _ in range(20))
    with running(SumBackend(), cache=ResponseCache(10_000)) as batcher:
        assert Caller().send(batcher, long, truncate=True).sums() == [16]
        assert isinstance(Caller().send(batcher, long).error(), InputTooLong)
        again = Caller().send(batcher, long, truncate=True)
    assert again.ticket is not None
    assert again.ticket.result().cached == {0}
    assert again.ticket.result().truncated == (True,)


def test_a_body_of_known_and_new_inputs_keeps_their_order_and_computes_the_new() -> None:
    backend = SumBackend()
    with running(backend, cache=ResponseCache(10_000)) as batcher:
        Caller().send(batcher, "1", "2").sums()
        with held(backend, batcher):
            mixed = Caller().send(batcher, "2", "7", "1", "7")
            assert batcher.waiting == 1
        assert mixed.sums() == [2, 7, 1, 7]
    assert mixed.ticket is not None
    answer = mixed.ticket.result()
    assert answer.cached == {0, 2}
    parts = (answer.timings.queue_seconds, answer.timings.tokenization_seconds, answer.timings.inference_seconds)
    assert sum(parts) == pytest.approx(answer.timings.total_seconds)
    assert answer.timings.queue_seconds > 0


def test_identical_inputs_at_the_same_time_are_computed_once() -> None:
    backend, notes = SumBackend(), Notes()
    with running(backend, observer=notes, cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            callers = [Caller().send(batcher, "1 2") for _ in range(5)]
            assert batcher.waiting == 1
        assert [caller.sums() for caller in callers] == [[3]] * 5
    assert backend.shapes == [(1, 1), (1, 2)]
    assert [caller.answers for caller in callers] == [1] * 5
    assert notes.again == [3] * 4
    assert notes.looked_up == {"hits": 0, "joined": 4, "misses": 2}


def test_an_input_that_is_already_executing_is_joined() -> None:
    backend = SumBackend()
    with running(backend, cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            late = Caller().send(batcher, "1000")
            assert batcher.waiting == 0
        assert late.sums() == [1000]
    assert len(backend.shapes) == 1
    assert late.ticket is not None
    timings = late.ticket.result().timings
    assert timings.queue_seconds == 0
    assert timings.inference_seconds == pytest.approx(timings.total_seconds - timings.tokenization_seconds)


def test_who_leaves_does_not_take_the_followers_along() -> None:
    backend = SumBackend()
    with running(backend, cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            leader, follower = Caller().send(batcher, "1 2"), Caller().send(batcher, "1 2")
            assert leader.ticket is not None
            assert leader.ticket.fail(DeadlineExceeded("left"), time.perf_counter())
        assert follower.sums() == [3]
        assert isinstance(leader.error(), DeadlineExceeded)


def test_what_nobody_waits_for_any_more_is_not_computed_and_not_joined() -> None:
    backend, cache = SumBackend(), ResponseCache(10_000)
    with running(backend, cache=cache) as batcher:
        with held(backend, batcher):
            for caller in [Caller().send(batcher, "1 2") for _ in range(3)]:
                assert caller.ticket is not None
                caller.ticket.fail(DeadlineExceeded("left"), time.perf_counter())
            newcomer = Caller().send(batcher, "1 2")
        assert newcomer.sums() == [3]
        other = Caller().send(batcher, "5")
        assert other.sums() == [5]
    assert backend.shapes == [(1, 1), (1, 2), (1, 1)]
    assert cache.under_way <= 1


def test_each_follower_has_a_deadline_of_its_own() -> None:
    backend = SumBackend()
    with running(backend, cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            hurried = [Caller().send(batcher, "1 2", timeout_seconds=1e-9) for _ in range(2)]
            patient = Caller().send(batcher, "1 2", timeout_seconds=60)
            all_hurried = [Caller().send(batcher, "7", timeout_seconds=1e-9) for _ in range(2)]
        assert patient.sums() == [3]
        assert all(isinstance(caller.error(), DeadlineExceeded) for caller in (*hurried, *all_hurried))
    assert backend.shapes == [(1, 1), (1, 2)]


def test_a_failure_reaches_every_follower_and_is_not_remembered() -> None:
    backend = SumBackend()
    with running(backend, cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            callers = [Caller().send(batcher, "-1") for _ in range(3)]
        assert all(isinstance(caller.error(), BackendFailed) for caller in callers)
        backend.fails = True
        assert isinstance(Caller().send(batcher, "1 2").error(), BackendFailed)
        backend.fails = False
        assert Caller().send(batcher, "1 2").sums() == [3]


def test_an_input_too_long_is_named_as_each_caller_sent_it() -> None:
    long = " ".join("1" for _ in range(20))
    backend = SumBackend()
    with running(backend, cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            callers = [Caller().send(batcher, long), Caller().send(batcher, "1", "2", long)]
        errors = [caller.error() for caller in callers]
    assert [error.field for error in errors] == ["inputs[0]", "inputs[2]"]
    assert errors[1].message.startswith("inputs[2]: 20 tokens")


def test_who_is_interactive_hurries_the_batch_work_they_join() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1), cache=ResponseCache(10_000)) as batcher:
        with held(backend, batcher):
            patient = [Caller().send(batcher, text, priority="batch") for text in ("1 1", "1 1 1")]
            urgent = Caller().send(batcher, "1 1 1")
        assert [caller.sums() for caller in (*patient, urgent)] == [[2], [3], [3]]
    assert backend.shapes == [(1, 1), (1, 3), (1, 2)]


def test_what_need_not_be_computed_is_taken_though_the_queue_is_full() -> None:
    backend, cache = SumBackend(), ResponseCache(10_000)
    with running(backend, Limits(max_queue_size=1), cache=cache) as batcher:
        Caller().send(batcher, "1").sums()
        with held(backend, batcher):
            waiting = Caller().send(batcher, "2")
            accepted = Caller().send(batcher, "1", "2", "1000")
            with pytest.raises(Overloaded):
                batcher.submit(["1", "3"], lambda _: pytest.fail("refused and answered"))
            assert cache.under_way == 2
        assert (waiting.sums(), accepted.sums()) == ([2], [1, 2, 1000])


def test_a_hung_execution_answers_its_followers_and_is_not_remembered() -> None:
    backend, cache = SumBackend(), ResponseCache(10_000)
    with running(backend, execution_timeout_seconds=0.2, cache=cache) as batcher:
        backend.gate.clear()
        callers = [Caller().send(batcher, "1") for _ in range(3)]
        assert all(isinstance(caller.error(), BackendFailed) for caller in callers)
        backend.gate.set()
        assert Caller().send(batcher, "2").sums() == [2]
    assert [caller.answers for caller in callers] == [1] * 3
    assert len(cache) == 1


def test_what_the_gate_runs_is_neither_remembered_nor_looked_up() -> None:
    backend, cache = SumBackend(), ResponseCache(10_000)
    with running(backend, cache=cache) as batcher:
        batcher.run_together(["1", "2"])
        assert len(cache) == 0
        Caller().send(batcher, "1").sums()
        batcher.run_together(["1"])
    assert len(backend.shapes) == 3


def test_an_observer_that_raises_does_not_take_back_an_answer() -> None:
    class Grumpy(Notes):
        def inputs_looked_up(self, **counts: int) -> None:
            raise RuntimeError("no more metrics")

    with running(SumBackend(), observer=Grumpy(), cache=ResponseCache(10_000)) as batcher:
        assert [Caller().send(batcher, "1").sums() for _ in range(2)] == [[1], [1]]


def test_many_threads_that_ask_the_same_and_leave_each_get_one_right_answer() -> None:
    room_for_four = ResponseCache(3_000)
    callers: list[tuple[list[float], bool, Caller]] = []

    def client(seed: int, batcher: Batcher) -> None:
        for n in range(60):
            values = [str((seed * n + k) % 7) for k in range(1 + n % 3)]
            caller = Caller().send(batcher, *values, priority="batch" if seed % 2 else "interactive")
            if leaves := n % 5 == 0:
                assert caller.ticket is not None
                caller.ticket.fail(DeadlineExceeded("left"), time.perf_counter())
            callers.append(([float(value) for value in values], leaves, caller))
            if n % 4 == 0:
                caller.answered.wait(20)

    backend, notes = SumBackend(), Notes()
    with running(backend, workers=3, observer=notes, cache=room_for_four) as batcher:
        threads = [threading.Thread(target=client, args=(seed, batcher)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for wanted, leaves, caller in callers:
            assert caller.answered.wait(20)
            try:
                assert caller.sums_or_error() == wanted
            except DeadlineExceeded:
                assert leaves
    assert [caller.answers for _, _, caller in callers] == [1] * 480
    assert sum(notes.looked_up.values()) == sum(len(wanted) for wanted, _, _ in callers)
    assert room_for_four.bytes <= 3_000


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end, never = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < end
        never.wait(0.002)


def mean_of_windows(value: str, window: int) -> float:
    """What `WordTask(window=window)` says of an input."""
    words = [float(word) for word in value.split()]
    return float(np.mean([sum(words[start:end]) for start, end in windows(len(words), window)]))


def test_a_long_input_is_read_in_windows_that_are_rows_of_their_own() -> None:
    backend, notes = SumBackend(), Notes()
    with running(backend, observer=notes, task=WordTask(window=3)) as batcher:
        with held(backend, batcher):
            long, short = Caller().send(batcher, "1 2 3 4 5 6 7 8"), Caller().send(batcher, "7 8 9")
        assert long.sums() == [12]
        assert short.sums() == [24]
        assert long.ticket is not None
        assert short.ticket is not None
        assert (long.ticket.result().input_tokens, long.ticket.result().windows) == ((8,), (3,))
        assert short.ticket.result().windows == ()
    assert backend.shapes == [(1, 1), (4, 3)]
    assert [(batch["inputs"], batch["real_tokens"], batch["padded_tokens"]) for batch in notes.batches] == [
        (1, 1, 1),
        (2, 11, 12),
    ]
    assert notes.rows == [1, 4]
    assert sorted(tokens for tokens, _ in notes.seen) == [1, 3, 8]


def test_windows_of_one_input_are_shared_between_the_workers() -> None:
    backend = SumBackend()
    with running(backend, workers=2, task=WordTask(window=2)) as batcher:
        backend.gate.clear()
        caller = Caller().send(batcher, "1 2 3 4 5 6 7 8")
        _until(lambda: batcher.executing == 4)
        assert not batcher.waiting
        backend.gate.set()
        assert caller.sums() == [9]
    assert backend.shapes == [(2, 2), (2, 2)]


def test_an_input_in_windows_is_one_input_in_the_queue() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1, max_queue_size=3), task=WordTask(window=2)) as batcher:
        backend.gate.clear()
        long = Caller().send(batcher, "1 2 3 4 5 6 7 8")
        assert backend.busy.wait(timeout=20)
        _until(lambda: batcher.waiting == 1)
        assert batcher.executing == 1
        others = [Caller().send(batcher, str(n)) for n in range(2)]
        with pytest.raises(Overloaded):
            Caller().send(batcher, "9")
        backend.gate.set()
        assert long.sums() == [9]
        assert [caller.sums() for caller in others] == [[0], [1]]
        assert batcher.waiting == 0
    assert backend.shapes[:4] == [(1, 2)] * 4


def test_a_caller_who_leaves_takes_the_windows_that_wait_along() -> None:
    backend, notes = SumBackend(), Notes()
    with running(backend, Limits(max_batch_size=1), observer=notes, task=WordTask(window=2)) as batcher:
        backend.gate.clear()
        caller = Caller().send(batcher, "1 2 3 4 5 6 7 8")
        assert backend.busy.wait(timeout=20)
        assert caller.ticket is not None
        assert caller.ticket.fail(DeadlineExceeded("left"), time.perf_counter())
        backend.gate.set()
        assert Caller().send(batcher, "9").sums() == [9]
        assert batcher.waiting == 0
    assert backend.shapes == [(1, 2), (1, 1)]
    assert caller.answers == 1
    assert [batch["inputs"] for batch in notes.batches] == [0, 1]


def test_a_deadline_between_two_windows_ends_the_input_once() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1), task=WordTask(window=2)) as batcher:
        backend.gate.clear()
        caller = Caller().send(batcher, "1 2 3 4 5 6", timeout_seconds=0.05)
        assert backend.busy.wait(timeout=20)
        assert not caller.answered.wait(timeout=0.1)
        backend.gate.set()
        assert isinstance(caller.error(), DeadlineExceeded)
    assert backend.shapes == [(1, 2)]
    assert caller.answers == 1


@pytest.mark.parametrize("size", [1, 16])
def test_a_bad_window_fails_its_input_once_and_no_other(size: int) -> None:
    backend, notes = SumBackend(), Notes()
    with running(backend, Limits(max_batch_size=size), observer=notes, task=WordTask(window=2)) as batcher:
        with held(backend, batcher):
            bad, good = Caller().send(batcher, "-1 2 -1 4 5 6"), Caller().send(batcher, "1 2 3 4")
        assert isinstance(bad.error(), BackendFailed)
        assert good.sums() == [5]
    assert (bad.answers, good.answers) == (1, 1)
    assert sum(isinstance(outcome, BackendFailed) for _, outcome in notes.seen) == 1
    assert len(notes.seen) == 3


def test_a_backend_that_fails_on_one_window_fails_the_input() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1), task=WordTask(window=2)) as batcher:
        backend.gate.clear()
        caller = Caller().send(batcher, "1 2 3 4 5 6")
        assert backend.busy.wait(timeout=20)
        backend.fails = True
        backend.gate.set()
        assert isinstance(caller.error(), BackendFailed)
        backend.fails = False
        assert Caller().send(batcher, "1 2 3 4").sums() == [5]
    assert caller.answers == 1


def test_too_long_and_truncated_are_said_of_the_whole_text() -> None:
    with running(SumBackend(), task=WordTask(max_input_tokens=8, window=3)) as batcher:
        error = Caller().send(batcher, "1", "1 " * 9).error()
        assert isinstance(error, InputTooLong)
        assert "inputs[1]" in error.message
        caller = Caller().send(batcher, "1 2 3 4 5 6 7 8 9", truncate=True)
        assert caller.sums() == [12]
        assert caller.ticket is not None
        answer = caller.ticket.result()
        assert (answer.input_tokens, answer.truncated, answer.windows) == ((8,), (True,), (3,))


def test_an_input_in_windows_is_cached_whole_and_joined_while_it_runs() -> None:
    backend, cache = SumBackend(), ResponseCache(10_000)
    with running(backend, Limits(max_batch_size=1), cache=cache, task=WordTask(window=2)) as batcher:
        backend.gate.clear()
        first = Caller().send(batcher, "1 2 3 4", timeout_seconds=0.05, priority="batch")
        assert backend.busy.wait(timeout=20)
        patient = Caller().send(batcher, "1 2 3 4", timeout_seconds=60)
        assert not first.answered.wait(timeout=0.1)
        backend.gate.set()
        assert patient.sums() == [5]
        again = Caller().send(batcher, "1 2 3 4")
        assert again.sums() == [5]
        assert again.ticket is not None
        assert again.ticket.result().cached == {0}
        assert again.ticket.result().windows == (2,)
    assert backend.shapes == [(1, 2), (1, 2)]
    assert cache.under_way == 0


def test_a_hung_window_fails_its_input_and_is_not_remembered() -> None:
    backend, cache = SumBackend(), ResponseCache(10_000)
    with running(
        backend, Limits(max_batch_size=1), execution_timeout_seconds=0.1, cache=cache, task=WordTask(window=2)
    ) as batcher:
        backend.gate.clear()
        caller = Caller().send(batcher, "1 2 3 4")
        assert isinstance(caller.error(), BackendFailed)
        backend.gate.set()
        assert Caller().send(batcher, "1 2 3 4").sums() == [5]
    assert caller.answers == 1


def test_run_together_holds_every_window_in_one_execution() -> None:
    backend = SumBackend()
    with running(backend, Limits(max_batch_size=1), task=WordTask(window=2)) as batcher:
        together = [prediction.score for prediction in batcher.run_together(["1 2 3 4 5", "7", "1 2 3 4 5 6"])]
    assert together == [mean_of_windows("1 2 3 4 5", 2), 7, mean_of_windows("1 2 3 4 5 6", 2)]
    assert backend.shapes == [(7, 2)]


class Traffic(RuleBasedStateMachine):
    """Anybody sends, leaves or expires, the backend stalls and fails, the cache is small: one right answer each."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()  # what pytest keeps of a logged exception holds on to the batch it was about
        self.backend = SumBackend()
        self.cache = ResponseCache(2_500)
        self.batcher = Batcher(self.backend, WordTask(window=2), Limits(max_batch_size=2), workers=2)
        self.batcher.remember(self.cache)
        self.sent: list[tuple[tuple[str, ...], set[type[InferenceError]], Caller]] = []
        self.failures = False

    @rule(
        values=st.lists(
            st.sampled_from(["1", "2", "3 4", "5 6 7", "8 9 1 2 3", "-1", "1 2 3 -1", "explode", "1 " * 20]),
            min_size=1,
            max_size=3,
        ),
        priority=st.sampled_from(["interactive", "batch"]),
        seconds=st.sampled_from([None, 1e-9, 60.0]),
    )
    def send(self, values: list[str], priority: Priority, seconds: float | None) -> None:
        may: set[type[InferenceError]] = {DeadlineExceeded} if seconds == 1e-9 else set()
        may |= {BackendFailed} if self.failures or {"-1", "1 2 3 -1", "explode"} & set(values) else set()
        may |= {InputTooLong} if "1 " * 20 in values else set()
        try:
            caller = Caller().send(self.batcher, *values, priority=priority, timeout_seconds=seconds)
        except Overloaded:
            assert seconds == 1e-9
            return
        self.sent.append((tuple(values), may, caller))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, may, caller = data.draw(st.sampled_from(self.sent))
        assert caller.ticket is not None
        if caller.ticket.fail(DeadlineExceeded("left"), time.perf_counter()):
            may.add(DeadlineExceeded)

    @rule()
    def stall(self) -> None:
        self.backend.gate.clear()

    @rule()
    def go_on(self) -> None:
        self.backend.gate.set()

    @rule(fails=st.booleans())
    def fail(self, fails: bool) -> None:
        self.backend.fails = fails
        if fails:
            self.failures = True
            for _, may, _ in self.sent:
                may.add(BackendFailed)

    @invariant()
    def bounded(self) -> None:
        assert self.batcher.cached_bytes <= 2_500

    def teardown(self) -> None:
        self.backend.gate.set()
        self.batcher.close()
        logging.disable(logging.NOTSET)
        for values, may, caller in self.sent:
            assert caller.answers == 1
            with contextlib.suppress(*may):
                assert caller.sums_or_error() == [mean_of_windows(value, 2) for value in values]
        assert self.batcher.waiting == self.batcher.executing == self.cache.under_way == 0


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
