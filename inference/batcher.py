"""Dynamic batching on worker threads: a batch is what gathered while the workers were busy.

There is no timer. A worker that becomes free tokenizes what arrived, takes the batch `policy.choose` names and runs
it. All mutable state is in `Batcher`, touched only under its one lock; tokenizing and computing happen outside it.
"""

import bisect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from inference.backends.base import Backend
from inference.errors import BackendFailed, DeadlineExceeded, InferenceError, InputTooLong, NotReady, Overloaded
from inference.policy import Limits, choose
from inference.tasks.base import Prediction, Prepared, Task
from inference.ticket import Ticket

Priority = Literal["interactive", "batch"]

_log = logging.getLogger("slipway.batcher")

# A `batch` entry queues as if it had arrived this much later: interactive work goes first, and nothing starves.
_BATCH_HANDICAP_SECONDS = 2.0
# Inputs tokenized in one go before a worker computes again: keeps one huge body from holding back the others.
_TOKENIZE_AT_MOST = 64


class Observer(Protocol):
    """What wants to know of every execution. Called from worker threads, once each."""

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
        """`queue_seconds` has one figure per input; the other times are those of the whole batch."""
        ...


class SilentObserver:
    """Nobody is watching."""

    def batch_done(self, **_: object) -> None:
        """Do nothing."""


@dataclass(slots=True, eq=False)
class Entry:
    """One input in the queue. `order` is when it counts as having arrived."""

    ticket: Ticket
    index: int
    value: str
    truncate: bool
    submitted: float
    order: float
    deadline: float | None
    prepared: Prepared
    tokenization_seconds: float = 0.0


_UNPREPARED = Prepared((), 0)


class Batcher:
    """Queue, policy and worker threads around one backend. `close` answers everything accepted."""

    def __init__(
        self, backend: Backend, task: Task, limits: Limits, *, workers: int = 1, observer: Observer | None = None
    ) -> None:
        self._backend = backend
        self._task = task
        self._limits = limits
        self._observer: Observer = observer or SilentObserver()
        self._changed = threading.Condition()
        self._fresh: deque[Entry] = deque()
        self._ready: list[Entry] = []
        self._idle = 0
        self._executing = 0
        self._closing = False
        self._seconds_per_input = 0.0
        self._workers = [
            threading.Thread(target=self._work, name=f"slipway-worker-{n}", daemon=True) for n in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """Inputs accepted and not yet executing."""
        return len(self._fresh) + len(self._ready)

    @property
    def executing(self) -> int:
        """Inputs a worker has taken and not yet answered."""
        return self._executing

    def predicted_wait_seconds(self) -> float:
        """How long an input that joined the queue now would wait, from the measured pace. Zero before any."""
        return self.waiting * self._seconds_per_input / len(self._workers)

    def submit(
        self,
        values: Sequence[str],
        on_done: Callable[[Ticket], None],
        *,
        truncate: bool = False,
        timeout_seconds: float | None = None,
        priority: Priority = "interactive",
    ) -> Ticket:
        """Queue checked inputs and return at once. Raises NotReady, Overloaded: a body is taken whole or not at all."""
        now = time.perf_counter()
        ticket = Ticket(len(values), now, on_done)
        order = now + (_BATCH_HANDICAP_SECONDS if priority == "batch" else 0.0)
        deadline = None if timeout_seconds is None else now + timeout_seconds
        entries = [
            Entry(ticket, index, value, truncate, now, order, deadline, _UNPREPARED)
            for index, value in enumerate(values)
        ]
        with self._changed:
            if self._closing:
                raise NotReady("the model is closing")
            self._make_room(len(entries))
            self._fresh.extend(entries)
            self._changed.notify(len(entries))
        return ticket

    def _make_room(self, count: int) -> None:
        if self.waiting + count > self._limits.max_queue_size:
            self._fresh = deque(entry for entry in self._fresh if not entry.ticket.done)
            self._ready = [entry for entry in self._ready if not entry.ticket.done]
        if self.waiting + count > self._limits.max_queue_size:
            raise Overloaded(
                f"{self.waiting} inputs are waiting and the queue holds {self._limits.max_queue_size}",
                retry_after_seconds=max(0.1, self.predicted_wait_seconds()),
            )

    def run_together(self, values: Sequence[str]) -> list[Prediction]:
        """Run checked inputs as exactly one execution, on the caller's thread, the way a worker would.

        Longer inputs are truncated. This is how the gate puts a text among chosen neighbours.
        Raises the first input's InferenceError.
        """
        now = time.perf_counter()
        ticket = Ticket(len(values), now, lambda _: None)
        batch = [Entry(ticket, index, value, True, now, now, None, _UNPREPARED) for index, value in enumerate(values)]
        self._prepare(batch)
        self._run(batch)
        return list(ticket.result().predictions)

    def close(self) -> None:
        """Accept nothing more, answer everything accepted, stop the workers."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self._run(batch)
            with self._changed:
                self._executing -= len(batch)

    def _next(self) -> list[Entry] | None:
        """Block until there is a batch to run; None once closed and empty."""
        while True:
            with self._changed:
                while not self.waiting:
                    if self._closing:
                        return None
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                fresh = [self._fresh.popleft() for _ in range(min(len(self._fresh), _TOKENIZE_AT_MOST))]
                self._executing += len(fresh)
            prepared = self._prepare(fresh)
            with self._changed:
                self._executing -= len(fresh)
                for entry in prepared:
                    bisect.insort(self._ready, entry, key=lambda waiting: waiting.order)
                batch = self._take()
                self._executing += len(batch)
                if self.waiting and self._idle:
                    self._changed.notify()
            if batch:
                return batch

    def _prepare(self, entries: Sequence[Entry]) -> list[Entry]:
        """Tokenize; entries that can never run are answered here and left out."""
        runnable = []
        for entry in entries:
            if entry.ticket.done:
                continue
            started = time.perf_counter()
            try:
                entry.prepared = self._task.prepare(entry.value, truncate=entry.truncate)
            except Exception:
                _log.exception("preparing an input failed")
                entry.ticket.fail(BackendFailed("the input could not be prepared"), time.perf_counter())
                continue
            now = time.perf_counter()
            entry.tokenization_seconds = now - started
            entry.ticket.add_tokenization(entry.tokenization_seconds)
            if entry.prepared.excess:
                limit = self._task.max_input_tokens
                entry.ticket.fail(InputTooLong(f"inputs[{entry.index}]", entry.prepared.tokens, limit), now)
                continue
            runnable.append(entry)
        return runnable

    def _take(self) -> list[Entry]:
        """Remove and return the next batch; callers who left or whose deadline passed are dropped on the way."""
        now = time.perf_counter()
        late = [entry for entry in self._ready if entry.deadline is not None and entry.deadline < now]
        for entry in late:
            entry.ticket.fail(DeadlineExceeded("the deadline passed before the input could be run"), now)
        self._ready = [entry for entry in self._ready if not entry.ticket.done]
        positions = choose([entry.prepared.tokens for entry in self._ready], self._limits, self._idle + 1)
        batch = [self._ready[position] for position in positions]
        for position in sorted(positions, reverse=True):
            del self._ready[position]
        return batch

    def _run(self, batch: Sequence[Entry]) -> None:
        """Execute one batch and give every entry its outcome."""
        started = time.perf_counter()
        outcomes = self._infer(batch)
        now = time.perf_counter()
        with self._changed:
            pace = (now - started) / len(batch)
            self._seconds_per_input += (pace - self._seconds_per_input) * (0.1 if self._seconds_per_input else 1.0)
        settle(batch, outcomes, started=started, now=now)
        self._observer.batch_done(
            inputs=len(batch),
            real_tokens=sum(entry.prepared.tokens for entry in batch),
            padded_tokens=max(entry.prepared.tokens for entry in batch) * len(batch),
            queue_seconds=[max(0.0, started - entry.submitted - entry.tokenization_seconds) for entry in batch],
            tokenization_seconds=sum(entry.tokenization_seconds for entry in batch),
            inference_seconds=now - started,
            failed=any(isinstance(outcome, InferenceError) for outcome in outcomes),
        )

    def _infer(self, batch: Sequence[Entry]) -> Sequence[Prediction | BackendFailed]:
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


def settle(
    batch: Sequence[Entry], outcomes: Sequence[Prediction | BackendFailed], *, started: float, now: float
) -> None:
    """Give every entry exactly one outcome. A caller who left already has theirs."""
    for entry, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, InferenceError):
            entry.ticket.fail(outcome, now)
        else:
            entry.ticket.settle(entry.index, entry.prepared, outcome, started=started, now=now)
