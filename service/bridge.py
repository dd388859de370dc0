"""From worker threads to the event loop: answers that finish together cost the loop one wake-up together."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from inference.ticket import Ticket


class Bridge:
    """Turns `on_done` calls from any thread into resolved futures on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._finished: deque[tuple[asyncio.Future[Ticket], Ticket]] = deque()
        self._lock = threading.Lock()
        self._awake = False
        self.wake_ups = 0

    def expect(self) -> tuple[asyncio.Future[Ticket], Callable[[Ticket], None]]:
        """A future of the ticket, and the `on_done` that resolves it."""
        future: asyncio.Future[Ticket] = self._loop.create_future()

        def on_done(ticket: Ticket) -> None:
            with self._lock:
                self._finished.append((future, ticket))
                if self._awake:
                    return
                self._awake = True
            # The loop is closed only once nobody waits for an answer any more.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._settle)

        return future, on_done

    def _settle(self) -> None:
        with self._lock:
            finished, self._finished = self._finished, deque()
            self._awake = False
        self.wake_ups += 1
        for future, ticket in finished:
            if not future.done():
                future.set_result(ticket)
