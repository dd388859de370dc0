"""The waiting room: inputs that were accepted and are not yet executing. Plain state; its owner holds the lock."""

import bisect
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inference.flight import Flight
from inference.policy import Limits, choose
from inference.tasks.base import Prepared
from inference.ticket import Ticket

UNPREPARED = Prepared((), 0)

# What a text is taken to cost until it is tokenized; corrected by what was seen (English is near 0.25).
_TOKENS_PER_CHARACTER = 0.25


@dataclass(slots=True, eq=False, weakref_slot=True)
class Entry:
    """One input. `order` is when it counts as having arrived; `estimate` is its tokens, guessed until prepared."""

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


class WaitingRoom:
    """Fresh entries in arrival order, prepared ones by `order`, and how many tokens all of them are."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fresh: deque[Entry] = deque()
        self._ready: list[Entry] = []
        self._tokens_per_character = _TOKENS_PER_CHARACTER
        self.tokens = 0.0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._ready)

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
        """Put entries that are ready to run in their place."""
        for entry in prepared:
            seen = entry.prepared.tokens / max(1, len(entry.value))
            if not entry.prepared.truncated:
                self._tokens_per_character += 0.02 * (min(seen, 2.0) - self._tokens_per_character)
            entry.estimate = entry.prepared.tokens
            self.tokens += entry.estimate
            bisect.insort(self._ready, entry, key=lambda waiting: waiting.order)

    def hasten(self, entry: Entry, order: float) -> None:
        """Let an entry, wherever it is, count as having arrived at `order` if that is earlier."""
        if order < entry.order:
            entry.order = order
            self._ready.sort(key=lambda waiting: waiting.order)

    def forget_the_gone(self) -> None:
        """Drop entries whose ticket has ended: their callers left, or a sibling failed."""
        self._fresh = deque(entry for entry in self._fresh if not entry.ticket.done)
        self._ready = [entry for entry in self._ready if not entry.ticket.done]
        self.tokens = sum(entry.estimate for entry in (*self._fresh, *self._ready))

    def take_all(self) -> list[Entry]:
        """Remove and return everything."""
        everything = [*self._fresh, *self._ready]
        self._fresh.clear()
        self._ready.clear()
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
        return batch
