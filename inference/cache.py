"""The response cache: predictions by input, and the inputs under way. Plain state; its owner holds the lock.

It belongs to one loaded model, so a key need not name the artifact. It holds texts that callers sent.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from inference.errors import InferenceError
from inference.flight import Flight, Follower
from inference.tasks.base import Prediction, Prepared
from inference.ticket import Ticket
from inference.waiting import Entry

Key = tuple[str, bool]

# What an item takes beside its text and scores (objects and its place in the dictionary), and each score. Measured
# with tracemalloc on CPython 3.11, rounded up; a test compares.
_ITEM_BYTES: Final = 600
_SCORE_BYTES: Final = 32


class Known(NamedTuple):
    """A prediction that was made before. `prepared` has lost its ids: nobody will compute with it."""

    prepared: Prepared
    prediction: Prediction
    size: int


class ResponseCache:
    """At most `most_bytes` of predictions, the least recently used dropped first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._known: OrderedDict[Key, Known] = OrderedDict()
        # Weak: an input is under way as long as the waiting room or a worker holds its entry, and no longer, whichever
        # way it leaves them.
        self._carriers: WeakValueDictionary[Key, Entry] = WeakValueDictionary()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def under_way(self) -> int:
        """Inputs whose entry is waiting or executing."""
        return len(self._carriers)

    def find(self, entry: Entry) -> Known | None:
        """The prediction for an entry's input, if it is known."""
        known = self._known.get(_key(entry))
        if known is not None:
            self._known.move_to_end(_key(entry))
        return known

    def to_compute(self, entries: Iterable[Entry]) -> list[str]:
        """The texts among unknown `entries` that no entry under way would answer for, each once."""
        missing = dict.fromkeys(_key(entry) for entry in entries)
        return [key[0] for key in missing if key not in self._carriers or self._carriers[key].ticket.done]

    def carrier(self, entry: Entry, ticket: Ticket) -> Entry:
        """The entry that will answer `ticket`: an identical one under way, or `entry`, which others may join now."""
        follower = Follower(ticket, entry.index, entry.deadline)
        under_way = self._carriers.get(_key(entry))
        if under_way is not None and isinstance(under_way.ticket, Flight) and under_way.ticket.join(follower):
            under_way.deadline = _later(under_way.deadline, entry.deadline)
            return under_way
        entry.ticket = Flight(follower)
        self._carriers[_key(entry)] = entry
        return entry

    def keep(self, batch: Sequence[Entry], outcomes: Sequence[Prediction | InferenceError]) -> None:
        """Remember the predictions among the outcomes of flights. What failed is tried again next time."""
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(entry.ticket, Flight) and isinstance(outcome, Prediction):
                self._keep(_key(entry), replace(entry.prepared, ids=()), outcome)

    def _keep(self, key: Key, prepared: Prepared, prediction: Prediction) -> None:
        size = _ITEM_BYTES + sys.getsizeof(key[0]) + _SCORE_BYTES * len(prediction.scores)
        if size > self._most_bytes:
            return
        if (before := self._known.pop(key, None)) is not None:
            self.bytes -= before.size
        self._known[key] = Known(prepared, prediction, size)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self.bytes -= self._known.popitem(last=False)[1].size


def shared(
    batch: Sequence[Entry], outcomes: Sequence[Prediction | InferenceError]
) -> tuple[list[Prepared], list[Prediction]]:
    """What flights answered beyond one caller each, once for every further caller."""
    again = [
        (entry.prepared, outcome)
        for entry, outcome in zip(batch, outcomes, strict=True)
        if isinstance(entry.ticket, Flight) and isinstance(outcome, Prediction)
        for _ in range(entry.ticket.answered - 1)
    ]
    return [prepared for prepared, _ in again], [prediction for _, prediction in again]


def _key(entry: Entry) -> Key:
    return entry.value, entry.truncate


def _later(one: float | None, other: float | None) -> float | None:
    """The later of two deadlines; None is never."""
    return None if one is None or other is None else max(one, other)
