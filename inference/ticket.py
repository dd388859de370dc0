"""One accepted request and its one answer."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.errors import InferenceError
from inference.tasks.base import Prediction, Prepared


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds; the first three add up to the last.

    Queue: waiting for a worker. Tokenization: text to ids, of all its inputs. Inference: from the start of its first
    execution to its last answer.
    """

    queue_seconds: float
    tokenization_seconds: float
    inference_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets: one prediction, token count and truncation flag per input, in the order sent.

    `cached` holds the indices of inputs that were answered from the response cache. `windows` says in how many windows
    each input was read, and is empty where none took more than one.
    """

    predictions: tuple[Prediction, ...]
    input_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    timings: Timings
    cached: frozenset[int] = frozenset()
    windows: tuple[int, ...] = ()


class Ticket:
    """Collects the outcomes of one request's inputs. Whatever happens first ends it, exactly once.

    Used by worker threads and by the caller at the same time; `on_done` is called once, on the thread that ended it.
    """

    __slots__ = (
        "_error",
        "_finished",
        "_left",
        "_lock",
        "_on_done",
        "_outcomes",
        "_recalled",
        "_started",
        "_submitted",
        "_tokenization",
        "_windowed",
    )

    def __init__(self, size: int, submitted: float, on_done: Callable[["Ticket"], None]) -> None:
        self._lock = threading.Lock()
        self._outcomes: list[tuple[Prepared, Prediction] | None] = [None] * size
        self._left = size
        self._error: InferenceError | None = None
        self._on_done = on_done
        self._submitted = submitted
        self._started = math.inf
        self._recalled: tuple[int, ...] = ()
        self._finished: float | None = None
        self._tokenization = 0.0
        self._windowed = False

    @property
    def done(self) -> bool:
        """Whether the one answer exists."""
        return self._finished is not None

    def settle(self, index: int, prepared: Prepared, prediction: Prediction, *, started: float, now: float) -> bool:
        """Record one input's prediction; the last one ends the ticket. False when that input, or all, had ended."""
        with self._lock:
            if self.done or self._outcomes[index] is not None:
                return False
            self._outcomes[index] = (prepared, prediction)
            if prepared.windows > 1:
                self._windowed = True
            self._started = min(self._started, started)
            self._left -= 1
            if self._left:
                return True
            self._finished = now
        self._on_done(self)
        return True

    def recall(self, index: int, prepared: Prepared, prediction: Prediction, now: float) -> None:
        """Record a prediction that was known before: nothing was executed for it."""
        with self._lock:
            self._recalled = (*self._recalled, index)
        self.settle(index, prepared, prediction, started=math.inf, now=now)

    def fail(self, error: InferenceError, now: float) -> bool:
        """End the ticket with `error`. False when it had ended already."""
        with self._lock:
            if self.done:
                return False
            self._error = error
            self._finished = now
        self._on_done(self)
        return True

    def add_tokenization(self, seconds: float) -> None:
        """Account for time spent turning one of its inputs into ids."""
        with self._lock:
            self._tokenization += seconds

    def result(self) -> Answer:
        """The answer. Raises the InferenceError that ended the ticket; only to be called once it is done."""
        if self._finished is None:
            raise RuntimeError("the ticket has no answer yet")
        if self._error is not None:
            raise self._error
        outcomes: Sequence[tuple[Prepared, Prediction]] = [outcome for outcome in self._outcomes if outcome]
        return Answer(
            predictions=tuple(prediction for _, prediction in outcomes),
            input_tokens=tuple(prepared.tokens for prepared, _ in outcomes),
            truncated=tuple(prepared.truncated for prepared, _ in outcomes),
            timings=self._timings(self._finished),
            cached=frozenset(self._recalled),
            windows=tuple(prepared.windows for prepared, _ in outcomes) if self._windowed else (),
        )

    def _timings(self, finished: float) -> Timings:
        total = finished - self._submitted
        # Who joined while the text was being tokenized waited for less than all of that.
        tokenization = min(self._tokenization, total)
        queued = max(0.0, min(self._started, finished) - self._submitted - tokenization)
        return Timings(
            queue_seconds=queued,
            tokenization_seconds=tokenization,
            inference_seconds=max(0.0, total - queued - tokenization),
            total_seconds=total,
        )
