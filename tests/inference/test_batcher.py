"""The batcher: one answer each, whatever happens."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from inference.batcher import Batcher, Outcome, Priority
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
) -> Iterator[Batcher]:
    batcher = Batcher(
        backend,
        WordTask(),
        limits or Limits(),
        workers=workers,
        execution_timeout_seconds=execution_timeout_seconds,
    )
    if observer is not None:
        batcher.observe(observer)
    try:
        yield batcher
    finally:
        backend.gate.set()
        batcher.close()


@contextlib.contextmanager
def held(backend: SumBackend, batcher: Batcher) -> Iterator[Caller]:
    """Keep one execution in flight, so that what is sent meanwhile gathers in the queue."""
    backend.gate.clear()
    first = Caller().send(batcher, "1000")
    assert backend.busy.wait(timeout=20)
    yield first
    backend.gate.set()
    assert first.sums() == [1000]


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.batches: list[dict[str, object]] = []
        self.seen: list[tuple[int, Outcome]] = []

    def batch_done(
        self,
        *,
        inputs: int,
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

    def inputs_done(self, inputs: Sequence[Prepared], outcomes: Sequence[Outcome]) -> None:
        self.seen.extend(zip((prepared.tokens for prepared in inputs), outcomes, strict=True))


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
        assert batcher.predicted_wait_seconds(more_tokens=1, more_inputs=1) == pytest.approx(0.02, rel=1)
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
