"""Dynamic batching on worker threads: a batch is what gathered while the workers were busy.

There is no timer. A worker that becomes free tokenizes what arrived, takes the batch `policy.choose` names and runs
it. What waits and runs is rows: an input each, or a window of a long one. Windows run in any order, on any worker and
among any rows of like length; the execution that ends the last of an input merges them. All mutable state belongs to
`Batcher` and is touched only under its one lock; tokenizing and computing happen outside it. A watchdog answers for
executions that hang and puts a new worker in the place of the stuck one.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from inference.backends.base import Backend
from inference.cache import Known, ResponseCache, shared
from inference.cost import CostModel
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
from inference.tasks.base import Prediction, Prepared, Task
from inference.ticket import Ticket
from inference.waiting import Entry, WaitingRoom, rows

Priority = Literal["interactive", "batch"]
Outcome = Prediction | BackendFailed

_log = logging.getLogger("slipway.batcher")

# A `batch` entry queues as if it had arrived this much later: interactive work goes first, and nothing starves.
_BATCH_HANDICAP_SECONDS = 2.0
# Inputs tokenized in one go before a worker computes again: keeps one huge body from holding back the others.
_TOKENIZE_AT_MOST = 64
# Share of a request's time that predicted waiting and computing may fill. The prediction knows nothing of parsing, the
# event loop and other processes, and an answer that comes just after its deadline is work thrown away.
_ADMISSIBLE_SHARE = 0.3
# Stuck threads cannot be ended. With this many per worker the process is beyond repair and says so.
_STUCK_PER_WORKER = 4


class Observer(Protocol):
    """What wants to know of every execution. Called from worker threads, once each.

    Its last two methods are called only where there is a response cache, by callers' threads too.
    """

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
        """What was computed: `rows` with their tokens, which ended `inputs`, fewer where some were windows.

        `queue_seconds` has one figure per input that ended, until the first of it ran, and `tokenization_seconds` is
        theirs; `inference_seconds` is that of the execution.
        """
        ...

    def inputs_done(self, inputs: Sequence[Prepared], outcomes: Sequence[Outcome]) -> None:
        """The inputs that ended with one execution and what came of them, after their callers have been answered."""
        ...

    def inputs_looked_up(self, *, hits: int, joined: int, misses: int) -> None:
        """How many of one request's inputs were known, under way as somebody else's, or neither."""
        ...

    def inputs_answered_again(self, inputs: Sequence[Prepared], predictions: Sequence[Prediction]) -> None:
        """What was answered beside what was executed: known inputs, and further callers of an executed one."""
        ...


class SilentObserver:
    """Nobody is watching."""

    def batch_done(self, **_: object) -> None:
        """Do nothing."""

    def inputs_done(self, inputs: object, outcomes: object) -> None:
        """Do nothing."""

    def inputs_looked_up(self, **_: object) -> None:
        """Do nothing."""

    def inputs_answered_again(self, inputs: object, predictions: object) -> None:
        """Do nothing."""


@dataclass(slots=True, eq=False)
class Execution:
    """A batch in a worker's hands. `overdue` once the watchdog has answered for it."""

    batch: list[Entry]
    worker: threading.Thread
    started: float
    observer: Observer
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the response cache said of one request: what was known by index, and how many of the others were new."""

    hits: Sequence[tuple[int, Known]]
    joined: int
    misses: int
    observer: Observer


class Batcher:
    """Waiting room, policy and worker threads around one backend. `close` answers everything accepted."""

    def __init__(
        self,
        backend: Backend,
        task: Task,
        limits: Limits,
        *,
        workers: int = 1,
        execution_timeout_seconds: float = 30.0,
    ) -> None:
        self._backend = backend
        self._task = task
        self._limits = limits
        self._observer: Observer = SilentObserver()
        self._cache: ResponseCache | None = None
        self._execution_timeout = execution_timeout_seconds
        self._lock = threading.Lock()
        self._waiting = WaitingRoom(limits)
        self._cost = CostModel()
        self._running: set[Execution] = set()
        # One bell per waiting worker, the last to wait rung first: its core still holds what the next batch needs.
        self._idle: list[threading.Condition] = []
        self._executing = 0
        # Whether any input ran as several windows so far; set before the first of them waits, and never again unset.
        self._windowed = False
        self._stuck = 0
        self._closing = False
        self._closed = threading.Event()
        self._size = workers
        self._workers: set[threading.Thread] = set()
        for _ in range(workers):
            self._start_worker()
        threading.Thread(target=self._watch, name="slipway-watchdog", daemon=True).start()

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every execution that starts from now on; one that runs already was somebody else's."""
        with self._lock:
            self._observer = observer

    def remember(self, cache: ResponseCache) -> None:
        """From now on answer what `cache` knows from it, and compute identical concurrent inputs once."""
        with self._lock:
            self._cache = cache

    @property
    def cached_bytes(self) -> int:
        """What the response cache holds; zero without one."""
        return 0 if self._cache is None else self._cache.bytes

    @property
    def waiting(self) -> int:
        """Inputs accepted and not yet executing."""
        return len(self._waiting)

    @property
    def executing(self) -> int:
        """Rows a worker has taken and not yet computed: inputs, and of a long one its windows."""
        return self._executing

    @property
    def failed(self) -> bool:
        """Whether so many executions hung that only a new process can help."""
        return self._stuck >= _STUCK_PER_WORKER * self._size

    def predicted_wait_seconds(self, more_tokens: float = 0.0, more_inputs: int = 0) -> float:
        """How long until work that joined the queue now would be done, from the learned cost. Zero before any."""
        tokens = self._waiting.tokens + more_tokens
        inputs = len(self._waiting) + more_inputs
        executions = max(inputs / self._limits.max_batch_size, tokens / self._limits.max_batch_tokens)
        return self._cost.predict(tokens, tokens, executions) / self._size

    def submit(
        self,
        values: Sequence[str],
        on_done: Callable[[Ticket], None],
        *,
        truncate: bool = False,
        timeout_seconds: float | None = None,
        priority: Priority = "interactive",
    ) -> Ticket:
        """Queue checked inputs and return at once: a body is taken whole or not at all.

        `on_done` is called on the thread that ends the ticket: this one, before `submit` returns, where the response
        cache knows every input. Raises NotReady when closing or failed, Overloaded when the queue is full or, as far
        as can be told, the answer would come after the deadline.
        """
        now = time.perf_counter()
        ticket = Ticket(len(values), now, on_done)
        order = now + (_BATCH_HANDICAP_SECONDS if priority == "batch" else 0.0)
        deadline = None if timeout_seconds is None else now + timeout_seconds
        entries = [Entry(ticket, index, value, truncate, now, order, deadline) for index, value in enumerate(values)]
        with self._lock:
            if self._closing or self.failed:
                raise NotReady("the model is closing" if self._closing else "the model stopped answering")
            if self._cache is None:
                self._refuse_what_cannot_be_done(values, timeout_seconds)
                self._waiting.add(entries)
                self._wake(len(entries))
                return ticket
            lookup = self._look_up(self._cache, ticket, entries, timeout_seconds)
        self._recall(ticket, lookup)
        return ticket

    def _look_up(
        self, cache: ResponseCache, ticket: Ticket, entries: Sequence[Entry], timeout_seconds: float | None
    ) -> Lookup:
        """Queue what is neither known nor under way. Under the lock: what is known is settled after it."""
        found = [(entry, cache.find(entry)) for entry in entries]
        unknown = [entry for entry, known in found if known is None]
        if new := cache.to_compute(unknown):
            self._refuse_what_cannot_be_done(new, timeout_seconds)
        fresh = []
        for entry in unknown:
            carrier = cache.carrier(entry, ticket)
            if carrier is entry:
                fresh.append(entry)
            else:
                self._waiting.hasten(carrier, entry.order)
        self._waiting.add(fresh)
        self._wake(len(fresh))
        hits = [(entry.index, known) for entry, known in found if known is not None]
        return Lookup(hits, len(unknown) - len(fresh), len(fresh), self._observer)

    def _recall(self, ticket: Ticket, lookup: Lookup) -> None:
        """Settle what was known, and say so. The request is accepted by now: an observer cannot undo that."""
        for index, known in lookup.hits:
            ticket.recall(index, known.prepared, known.prediction, time.perf_counter())
        try:
            hits = [known for _, known in lookup.hits]
            lookup.observer.inputs_looked_up(hits=len(hits), joined=lookup.joined, misses=lookup.misses)
            lookup.observer.inputs_answered_again([k.prepared for k in hits], [k.prediction for k in hits])
        except Exception:
            _log.exception("observing a request failed")

    def _wake(self, most: int) -> None:
        """Ring for up to `most` of the workers that wait. Under the lock."""
        for _ in range(min(most, len(self._idle))):
            self._idle.pop().notify()

    def _refuse_what_cannot_be_done(self, values: Sequence[str], timeout_seconds: float | None) -> None:
        if self.waiting + len(values) > self._limits.max_queue_size:
            self._waiting.forget_the_gone()
        if self.waiting + len(values) > self._limits.max_queue_size:
            raise Overloaded(
                f"{self.waiting} inputs are waiting and the queue holds {self._limits.max_queue_size}",
                retry_after_seconds=max(0.1, self.predicted_wait_seconds()),
            )
        if timeout_seconds is None or not self.waiting:
            return
        needed = self.predicted_wait_seconds(self._waiting.estimate(values), len(values))
        if needed > _ADMISSIBLE_SHARE * timeout_seconds:
            raise Overloaded(
                f"the answer would take about {needed:.1f} seconds and the request allows {timeout_seconds:g}",
                retry_after_seconds=max(0.1, self.predicted_wait_seconds()),
            )

    def run_together(self, values: Sequence[str]) -> list[Prediction]:
        """Run checked inputs as exactly one execution, on the caller's thread, the way a worker would.

        Longer inputs are truncated. This is how the gate puts a text among chosen neighbours.
        Raises the first input's InferenceError.
        """
        now = time.perf_counter()
        ticket = Ticket(len(values), now, lambda _: None)
        batch = [Entry(ticket, index, value, True, now, now, None) for index, value in enumerate(values)]
        self._finish(Execution(self._prepare(batch), threading.current_thread(), now, SilentObserver()))
        return list(ticket.result().predictions)

    def close(self) -> None:
        """Accept nothing more, answer everything accepted, stop the workers. Stuck ones are left behind."""
        with self._lock:
            self._closing = True
            self._wake(len(self._idle))
        while worker := self._any_worker():
            worker.join(timeout=0.1)
        self._closed.set()

    def _any_worker(self) -> threading.Thread | None:
        with self._lock:
            return next(iter(self._workers), None)

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="slipway-worker", daemon=True)
        self._workers.add(worker)
        worker.start()

    def _work(self) -> None:
        bell = threading.Condition(self._lock)
        while (execution := self._next(bell)) is not None:
            try:
                self._finish(execution)
            except Exception:  # the observer's fault or ours: the worker and the other callers go on
                _log.exception("finishing a batch failed")
                fail(execution.batch, BackendFailed("the batch could not be finished"))
            if not self._still_needed(execution):
                return
        with self._lock:
            self._workers.discard(threading.current_thread())

    def _still_needed(self, execution: Execution) -> bool:
        """Book an execution as over. False for a worker that was replaced while it hung."""
        with self._lock:
            if not execution.overdue:
                self._running.discard(execution)
                self._executing -= len(execution.batch)
                return True
            self._stuck -= 1
            if len(self._workers) < self._size:
                self._workers.add(threading.current_thread())
                return True
            return False

    def _next(self, bell: threading.Condition) -> Execution | None:
        """Block until there is a batch to run; None once closed and empty."""
        while True:
            with self._lock:
                while not self._waiting:
                    if self._closing:
                        return None
                    self._idle.append(bell)
                    bell.wait()
                fresh = self._waiting.take_fresh(_TOKENIZE_AT_MOST)
                self._executing += len(fresh)
            prepared = self._prepare(fresh)
            with self._lock:
                self._executing -= len(fresh)
                self._waiting.admit(prepared)
                execution = self._take()
            if execution is not None:
                return execution

    def _prepare(self, entries: Sequence[Entry]) -> list[Entry]:
        """Tokenize into rows to run; entries that can never run are answered here and left out."""
        prepared: list[Entry] = []
        for entry in entries:
            if not entry.ticket.done and self._prepared(entry):
                if entry.prepared.windows == 1:
                    prepared.append(entry)
                else:
                    self._windowed = True
                    prepared.extend(rows(entry))
        return prepared

    def _prepared(self, entry: Entry) -> bool:
        started = time.perf_counter()
        try:
            entry.prepared = self._task.prepare(entry.value, truncate=entry.truncate)
        except Exception:
            _log.exception("preparing an input failed")
            entry.ticket.fail(BackendFailed("the input could not be prepared"), time.perf_counter())
            return False
        now = time.perf_counter()
        entry.tokenization_seconds = now - started
        entry.ticket.add_tokenization(entry.tokenization_seconds)
        if (refusal := self._refusal(entry)) is not None:
            entry.ticket.fail(refusal, now)
        return refusal is None

    def _refusal(self, entry: Entry) -> InferenceError | None:
        """Why a prepared entry can never run, if so."""
        field = f"inputs[{entry.index}]"
        if entry.prepared.excess:
            return InputTooLong(field, entry.prepared.tokens, self._task.max_input_tokens)
        if entry.prepared.blank:
            return BadInput(field, "holds nothing but what this model's preprocessing takes out")
        return None

    def _take(self) -> Execution | None:
        """The next batch, if any waits; entries past their deadline are answered on the way. Under the lock."""
        now = time.perf_counter()
        fail(self._waiting.late(now), DeadlineExceeded("the deadline passed before the input could be run"))
        batch = self._waiting.take_batch(len(self._idle) + 1)
        if self._waiting:
            self._wake(1)
        if not batch:
            return None
        execution = Execution(batch, threading.current_thread(), now, self._observer)
        self._running.add(execution)
        self._executing += len(batch)
        return execution

    def _finish(self, execution: Execution) -> None:
        """Run one batch and give every input that ends with it its outcome."""
        batch, started = execution.batch, time.perf_counter()
        execution.started = started
        outcomes = self._infer(batch)
        now = time.perf_counter()
        real = sum(entry.prepared.tokens for entry in batch)
        padded = max(entry.prepared.tokens for entry in batch) * len(batch)
        failed = any(isinstance(outcome, InferenceError) for outcome in outcomes)
        entries, starts = batch, [started] * len(batch)
        if self._windowed:
            entries, outcomes, starts = self._ended(batch, outcomes, started)
        if self._cache is not None:
            with self._lock:
                if not execution.overdue:
                    self._cache.keep(entries, outcomes)
        settle(entries, outcomes, starts, now)
        with self._lock:
            if not failed and not execution.overdue:
                self._cost.observe(real, padded, now - started)
        execution.observer.batch_done(
            inputs=len(entries),
            rows=len(batch),
            real_tokens=real,
            padded_tokens=padded,
            queue_seconds=[
                max(0.0, began - entry.submitted - entry.tokenization_seconds)
                for entry, began in zip(entries, starts, strict=True)
            ],
            tokenization_seconds=sum(entry.tokenization_seconds for entry in entries),
            inference_seconds=now - started,
            failed=failed or execution.overdue,
        )
        execution.observer.inputs_done([entry.prepared for entry in entries], outcomes)
        if self._cache is not None:
            execution.observer.inputs_answered_again(*shared(entries, outcomes))

    def _ended(
        self, batch: Sequence[Entry], outcomes: Sequence[Outcome], started: float
    ) -> tuple[list[Entry], list[Outcome], list[float]]:
        """The inputs that end with an execution, what became of them and when each was begun.

        A row that is an input ends with it. One in windows ends with the last of them, or the first that fails.
        """
        found = [self._end_of(entry, outcome, started) for entry, outcome in zip(batch, outcomes, strict=True)]
        ended = [each for each in found if each is not None]
        return [entry for entry, _, _ in ended], [outcome for _, outcome, _ in ended], [began for _, _, began in ended]

    def _end_of(self, row: Entry, outcome: Outcome, started: float) -> tuple[Entry, Outcome, float] | None:
        """The input that ends with a row, what became of it and when it was begun; None while windows are missing."""
        whole = row.whole
        if whole is None:
            return row, outcome, started
        with self._lock:
            if not whole.add(row.index, outcome, started):
                return None
        if isinstance(outcome, Prediction):
            outcome = self._task.merge([prediction for prediction in whole.predictions if prediction])
        return whole.entry, outcome, whole.started

    def _infer(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        """One outcome per entry, whatever the backend does."""
        try:
            outputs = self._backend.infer(self._task.collate([entry.prepared for entry in batch]))
            outcomes = self._task.decode(outputs)
        except BackendFailed as error:
            _log.error("a batch of %d failed: %s", len(batch), error.message)
            return [error] * len(batch)
        except Exception:
            _log.exception("a batch of %d failed", len(batch))
            return [BackendFailed("the model failed on this batch")] * len(batch)
        if len(outcomes) != len(batch):
            _log.error("the backend returned %d rows for %d inputs", len(outcomes), len(batch))
            return [BackendFailed("the model returned another number of rows than it was given")] * len(batch)
        return outcomes

    def _watch(self) -> None:
        """Look for executions that take too long, until closed."""
        while not self._closed.wait(min(1.0, self._execution_timeout / 4)):
            with self._lock:
                limit = time.perf_counter() - self._execution_timeout
                overdue = [execution for execution in self._running if execution.started < limit]
                for execution in overdue:
                    self._give_up(execution)

    def _give_up(self, execution: Execution) -> None:
        """Answer for a hung execution and replace its worker, unless too many hang already. Under the lock."""
        _log.error("a batch of %d hung for %.0f s", len(execution.batch), self._execution_timeout)
        execution.overdue = True
        self._running.discard(execution)
        self._executing -= len(execution.batch)
        self._stuck += 1
        error = BackendFailed(f"the model did not answer within {self._execution_timeout:g} seconds")
        self._workers.discard(execution.worker)
        fail(execution.batch, error)
        if not self.failed:
            self._start_worker()
            return
        _log.critical("%d executions hang: this process cannot recover and answers nothing more", self._stuck)
        fail(self._waiting.take_all(), error)


def settle(entries: Sequence[Entry], outcomes: Sequence[Outcome], starts: Sequence[float], now: float) -> None:
    """Give every input exactly one outcome. A caller who left already has theirs."""
    for entry, outcome, started in zip(entries, outcomes, starts, strict=True):
        if isinstance(outcome, InferenceError):
            entry.ticket.fail(outcome, now)
        else:
            entry.ticket.settle(entry.index, entry.prepared, outcome, started=started, now=now)


def fail(entries: Sequence[Entry], error: InferenceError) -> None:
    """End every entry's ticket with `error`, where it has not ended already."""
    now = time.perf_counter()
    for entry in entries:
        entry.ticket.fail(error, now)
