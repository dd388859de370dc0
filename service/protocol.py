"""One connection: uvicorn's protocol with the bounds it lacks.

Adds a timer for headers and one for bodies, a bound on the size of headers, a cap on connections, and errors in the
API's own shape. A client that trickles bytes is cut off when its timer ends, whatever it sends meanwhile.
"""

import asyncio
import fcntl
import struct
import termios
from dataclasses import dataclass
from typing import Final, Literal, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from artifact.errors import SlipwayError
from inference.errors import Overloaded
from service.context import Context, RequestInfo
from service.direct import DirectCycle, as_bytes, is_ordinary
from service.errors import HeadersTooLarge, HttpError, RequestTimeout
from service.responses import error_reply

_Phase = Literal["idle", "headers", "body"]
# How long bytes that lie in the kernel when a client's time is over are given to be read.
_LATE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may cost."""

    header_timeout_seconds: float
    body_timeout_seconds: float
    max_header_bytes: int
    max_connections: int


class Connection(HttpToolsProtocol):
    """See the module. `phase` is what the client owes us next; a timer runs in every phase but a busy `idle`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        bounds: Bounds,
    ) -> None:
        super().__init__(config, server_state, {}, loop)
        self._context = context
        self._bounds = bounds
        self._phase: _Phase = "idle"
        self._timed: _Phase | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._requests = 0
        self._direct: DirectCycle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse the connection beyond the cap; otherwise its first header is due."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows asyncio's own signature
        if len(self.connections) > self._bounds.max_connections:
            self._context.metrics.rejected.labels("connections").inc()
            self._refuse(Overloaded("too many connections are open"), status=503)
            return
        self._arm("headers")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._disarm()
        if self._direct is not None and not self._direct.response_complete:
            self._direct.left()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then see what is still owed."""
        if self.transport.is_closing():
            return
        before, seen = self._phase, self._requests
        super().data_received(data)
        if before == "body" or self._requests != seen:
            self._header_bytes = 0
        else:
            self._header_bytes += len(data)
            if self._header_bytes > self._bounds.max_header_bytes:
                self._refuse(HeadersTooLarge("the request line and headers are too large"))
                return
        self._keep_time()

    def _keep_time(self) -> None:
        """Run the timer of the phase we are in; an ordinary request that arrives whole needs none."""
        if self._phase == "body":
            self._arm("body")
        elif self._phase == "idle" and (not self.idle or self.timeout_keep_alive_task is not None):
            self._disarm()
        else:
            # Bytes that begin no request (blank lines) also end up here, and do not restart the clock.
            self._arm("headers")

    @property
    def idle(self) -> bool:
        """Whether the client has no request with us, not even half of one."""
        return self._phase == "idle" and (self.cycle is None or self.cycle.response_complete)

    @property
    def unread(self) -> bool:
        """Whether the kernel holds bytes of this connection that we have not seen."""
        handle = self.transport.get_extra_info("socket")
        if handle is None or self.transport.is_closing():
            return False
        try:
            (waiting,) = struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.FIONREAD, bytes(4)))
        except OSError:
            return False
        return bool(waiting)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._phase = "headers"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are there. What is ordinary is answered here, the rest through the application."""
        self._phase = "body"
        self._requests += 1
        free = (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused
        limit = self._context.settings.max_body_bytes
        if not free or not is_ordinary(self.parser.get_method(), self.url, self.headers, limit):
            super().on_headers_complete()
            return
        self._direct = DirectCycle(
            self._context,
            self.headers,
            self.transport,
            self.server_state.default_headers,
            keep_alive=self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self.cycle = cast("RequestResponseCycle", self._direct)

    def on_body(self, body: bytes) -> None:
        """A part of its body. What comes after the answer is read and dropped."""
        direct = self._current_direct
        if direct is None:
            super().on_body(body)
        elif not direct.response_complete:
            direct.feed(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._phase = "idle"
        direct = self._current_direct
        if direct is None:
            super().on_message_complete()
        elif not direct.response_complete:
            direct.begin()

    @property
    def _current_direct(self) -> DirectCycle | None:
        """The request being read, if it is one that is answered here: behind it others may have queued up."""
        return self._direct if cast("object", self.cycle) is self._direct else None

    def on_response_complete(self) -> None:
        """The answer is written. Whatever body is still coming keeps its deadline."""
        super().on_response_complete()
        if self._phase == "body":
            self._unset_keepalive_if_required()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the API's own shape."""
        self._refuse(HttpError("this is not a valid HTTP/1.1 request"))

    def _arm(self, phase: _Phase) -> None:
        if self._timed == phase:
            return
        self._disarm()
        bounds = self._bounds
        seconds = bounds.header_timeout_seconds if phase == "headers" else bounds.body_timeout_seconds
        self._timed = phase
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        self._timed = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """Cut the client off. A request being handled is answered first: the application has this deadline too."""
        self._timer = None
        if self.transport.is_closing():
            return
        if self._phase == "headers" and self.unread:
            # They came in time and we are late. Closing now would also reset the connection, and take the answer along.
            self._timer = self.loop.call_later(_LATE_SECONDS, self._too_slow)
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if (direct := self._current_direct) is not None:
                direct.too_slow()
            self.cycle.keep_alive = False
            return
        if self._phase == "headers":
            self._refuse(RequestTimeout("the headers did not arrive in time"))
        else:
            self.transport.close()

    def _refuse(self, error: SlipwayError, status: int | None = None) -> None:
        """Answer without the application, and close."""
        self._disarm()
        info = RequestInfo(())
        reply = error_reply(error, info.request_id)
        if status is not None:
            reply = reply._replace(status=status)
        headers = (*self.server_state.default_headers, *info.headers())
        self.transport.write(as_bytes(reply, headers, keep_alive=False))
        self.transport.close()
