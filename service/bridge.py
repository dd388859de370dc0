"""From worker threads to the event loop: answers that finish together cost the loop one wake-up together."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from inference.ticket import Ticket
from service.logs import logger

Then = Callable[[Ticket], None]


class Bridge:
    """Turns `on_done` calls from any thread into calls on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._finished: deque[tuple[Then, Ticket]] = deque()
        self._lock = threading.Lock()
        self._awake = False
        self.wake_ups = 0

    def expect(self, then: Then) -> Then:
        """The `on_done` of a ticket for which `then` is to be called on the loop. Never before this turn is over."""

        def on_done(ticket: Ticket) -> None:
            with self._lock:
                self._finished.append((then, ticket))
                if self._awake:
                    return
                self._awake = True
            # The loop is closed only once nobody waits for an answer any more.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._settle)

        return on_done

    def _settle(self) -> None:
        with self._lock:
            finished, self._finished = self._finished, deque()
            self._awake = False
        self.wake_ups += 1
        for then, ticket in finished:
            try:
                then(ticket)
            except Exception:  # one caller's trouble is not the next one's
                logger().exception("an answer could not be delivered")
