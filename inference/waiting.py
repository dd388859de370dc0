"""The waiting room: inputs that were accepted and are not yet executing. Plain state; its owner holds the lock."""

import bisect
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from inference.errors import BackendFailed
from inference.flight import Flight
from inference.policy import Limits, choose
from inference.tasks.base import Prediction, Prepared
from inference.tasks.windows import rows_of
from inference.ticket import Ticket

UNPREPARED = Prepared((), 0)

# What a text is taken to cost until it is tokenized; corrected by what was seen (English is near 0.25).
_TOKENS_PER_CHARACTER = 0.25


@dataclass(slots=True, eq=False, weakref_slot=True)
class Entry:
    """One row to run: input `index` of its ticket, or window `index` of an input that is `whole` only with the others.

    `order` is when it counts as having arrived; `estimate` is its tokens, guessed until prepared. A window has its
    input's ticket, so whatever fails it or ends the ticket does so to the input.
    """

    ticket: Ticket | Flight
    index: int
    value: str
    truncate: bool
    submitted: float
    order: float
    deadline: float | None
    prepared: Prepared = UNPREPARED
    estimate: float = 0.0
    tokenization_seconds: float = 0.0
    whole: "Whole | None" = None


@dataclass(slots=True, eq=False)
class Whole:
    """An input that runs as several windows: its own entry, and what came of them. The batcher's lock guards it.

    `waiting` of them are in the waiting room, `left` are still to come; `started` is when the first one was run.
    """

    entry: Entry
    waiting: int
    left: int
    predictions: list[Prediction | None] = field(default_factory=list)
    started: float = math.inf

    def add(self, place: int, outcome: Prediction | BackendFailed, started: float) -> bool:
        """Take one window's outcome. True where it ends the input: the last one, or the first that failed."""
        if not self.left:
            return False
        self.started = min(self.started, started)
        if isinstance(outcome, Prediction):
            self.predictions[place] = outcome
            self.left -= 1
        else:
            self.left = 0
        return not self.left


def rows(entry: Entry) -> list[Entry]:
    """What waits and runs for a prepared entry: itself, or an entry for each of its windows."""
    if entry.prepared.windows == 1:
        return [entry]
    count = entry.prepared.windows
    whole = Whole(entry, count, count, [None] * count)
    return [
        Entry(
            entry.ticket,
            place,
            entry.value,
            entry.truncate,
            entry.submitted,
            entry.order,
            entry.deadline,
            prepared,
            whole=whole,
        )
        for place, prepared in enumerate(rows_of(entry.prepared))
    ]


class WaitingRoom:
    """Fresh entries in arrival order, prepared ones by `order`, and how many tokens all of them are.

    Its length is that of inputs: of one that waits as several windows these count as one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fresh: deque[Entry] = deque()
        self._ready: list[Entry] = []
        # Windows that wait beside the one that counts for their input.
        self._beside = 0
        self._tokens_per_character = _TOKENS_PER_CHARACTER
        self.tokens = 0.0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._ready) - self._beside

    def estimate(self, values: Iterable[str]) -> float:
        """Tokens that texts will probably have, special tokens included."""
        return sum(2 + len(value) * self._tokens_per_character for value in values)

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in entries that are not prepared yet."""
        for entry in entries:
            entry.estimate = self.estimate((entry.value,))
            self.tokens += entry.estimate
        self._fresh.extend(entries)

    def take_fresh(self, most: int) -> list[Entry]:
        """Remove and return up to `most` entries to be prepared."""
        taken = [self._fresh.popleft() for _ in range(min(len(self._fresh), most))]
        self.tokens -= sum(entry.estimate for entry in taken)
        return taken

    def admit(self, prepared: Iterable[Entry]) -> None:
        """Put entries that are ready to run in their place; of an input in windows all of them, in their order."""
        for entry in prepared:
            text: Entry | None = entry
            if entry.whole is not None:
                _follow(entry, entry.whole.entry)
                self._beside += entry.index > 0
                text = None if entry.index else entry.whole.entry
            if text is not None and not text.prepared.truncated:
                seen = text.prepared.tokens / max(1, len(text.value))
                self._tokens_per_character += 0.02 * (min(seen, 2.0) - self._tokens_per_character)
            entry.estimate = entry.prepared.tokens
            self.tokens += entry.estimate
            bisect.insort(self._ready, entry, key=lambda waiting: waiting.order)

    def hasten(self, entry: Entry, order: float) -> None:
        """Let an entry, wherever it is, count as having arrived at `order` if that is earlier.

        Windows of it take over its deadline too, which may have changed since they were made.
        """
        earlier = order < entry.order
        if earlier:
            entry.order = order
        if entry.prepared.windows > 1:
            for waiting in self._ready:
                if waiting.whole is not None and waiting.whole.entry is entry:
                    _follow(waiting, entry)
        if earlier:
            self._ready.sort(key=lambda waiting: waiting.order)

    def forget_the_gone(self) -> None:
        """Drop entries whose ticket has ended: their callers left, or a sibling failed."""
        self._fresh = deque(entry for entry in self._fresh if not entry.ticket.done)
        gone = [entry for entry in self._ready if entry.ticket.done]
        self._ready = [entry for entry in self._ready if not entry.ticket.done]
        self._uncount(gone)
        self.tokens = sum(entry.estimate for entry in (*self._fresh, *self._ready))

    def take_all(self) -> list[Entry]:
        """Remove and return everything."""
        everything = [*self._fresh, *self._ready]
        self._fresh.clear()
        self._ready.clear()
        self._beside = 0
        self.tokens = 0.0
        return everything

    def late(self, now: float) -> list[Entry]:
        """Prepared entries whose deadline has passed."""
        return [entry for entry in self._ready if entry.deadline is not None and entry.deadline < now]

    def take_batch(self, idle_workers: int) -> list[Entry]:
        """Remove and return what runs next, by `policy.choose`; entries whose ticket ended are dropped on the way."""
        if any(entry.ticket.done for entry in self._ready):
            self.forget_the_gone()
        positions = choose([entry.prepared.tokens for entry in self._ready], self._limits, idle_workers)
        batch = [self._ready[position] for position in positions]
        for position in sorted(positions, reverse=True):
            del self._ready[position]
        self.tokens -= sum(entry.estimate for entry in batch)
        if self._beside:
            self._uncount(batch)
        return batch

    def _uncount(self, taken: Iterable[Entry]) -> None:
        """Book windows as no longer waiting; the last of an input was the one that counted."""
        for entry in taken:
            if entry.whole is not None:
                entry.whole.waiting -= 1
                self._beside -= entry.whole.waiting > 0


def _follow(window: Entry, entry: Entry) -> None:
    """Give a window its input's place and deadline."""
    window.order, window.deadline = entry.order, entry.deadline
