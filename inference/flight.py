"""One computation that several callers wait for, because they sent the same input."""

import threading
from dataclasses import dataclass

from inference.errors import DeadlineExceeded, InferenceError, InputTooLong
from inference.tasks.base import Prediction, Prepared
from inference.ticket import Ticket


@dataclass(frozen=True, slots=True)
class Follower:
    """A caller's share in a flight: which input of which ticket, and until when it may start."""

    ticket: Ticket
    index: int
    deadline: float | None


class Flight:
    """Stands in an entry for the tickets of all who sent its input, and is used like a ticket of one input.

    It is done once it was given its outcome or nobody waits for it any more, and nobody can join what is done: whoever
    sees `done` may drop the entry, and no caller is dropped with it. Used by several threads at the same time.
    """

    __slots__ = ("_followers", "_lock", "answered")

    def __init__(self, first: Follower) -> None:
        self._lock = threading.Lock()
        self._followers = [first]
        self.answered = 0

    @property
    def done(self) -> bool:
        """Whether there is nobody to compute for."""
        with self._lock:
            return self._deserted()

    def join(self, follower: Follower) -> bool:
        """Give `follower` what the others will get. False when there is nothing to get any more."""
        with self._lock:
            if self._deserted():
                return False
            self._followers.append(follower)
            return True

    def settle(self, _: int, prepared: Prepared, prediction: Prediction, *, started: float, now: float) -> None:
        """Give every follower the prediction, each at its own index; not those whose deadline came before the start."""
        for each in self._land():
            if each.deadline is not None and each.deadline < started:
                each.ticket.fail(DeadlineExceeded("the deadline passed before the input could be run"), now)
            elif each.ticket.settle(each.index, prepared, prediction, started=started, now=now):
                self.answered += 1

    def fail(self, error: InferenceError, now: float) -> bool:
        """End every follower's ticket with `error`. False when there was none to end."""
        ended = [each.ticket.fail(_addressed(error, each.index), now) for each in self._land()]
        return any(ended)

    def add_tokenization(self, seconds: float) -> None:
        """Account for time spent turning the input into ids: those who wait by now waited for that."""
        with self._lock:
            followers = self._followers.copy()
        for each in followers:
            each.ticket.add_tokenization(seconds)

    def _land(self) -> list[Follower]:
        with self._lock:
            followers, self._followers = self._followers, []
        return followers

    def _deserted(self) -> bool:
        return all(each.ticket.done for each in self._followers)


def _addressed(error: InferenceError, index: int) -> InferenceError:
    """The error as the caller whose input stands at `index` should read it."""
    return error.at(f"inputs[{index}]") if isinstance(error, InputTooLong) else error
