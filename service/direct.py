"""POST /predict, answered on the connection itself.

FastAPI documents the route and answers whatever is unusual about a request: a body without a declared length, one
behind another request on the same connection, one that waits for `100 Continue`. The ordinary one passes through
here, because what the layers in between cost is worth a sixth of the machine (docs/log.md).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.context import Context, RequestInfo
from service.errors import RequestTimeout
from service.exchange import Exchange
from service.responses import Reply
from service.telemetry import record, refuse

ROUTE: Final = "/predict"
_URL: Final = ROUTE.encode()
Headers = Sequence[tuple[bytes, bytes]]


def is_ordinary(method: bytes, url: bytes, headers: Headers, max_body_bytes: int) -> bool:
    """Whether a request can be answered here; its headers are lower case, as HTTP has no case."""
    if url != _URL or method != b"POST":
        return False
    declared = None
    for name, value in headers:
        if name == b"content-length":
            declared = value
        elif name in (b"expect", b"transfer-encoding", b"upgrade"):
            return False
    return declared is not None and declared.isdigit() and int(declared) <= max_body_bytes


def as_bytes(reply: Reply, headers: Headers, *, keep_alive: bool) -> bytes:
    """The reply as HTTP/1.1, for those who write to the connection themselves."""
    lines = [STATUS_LINE[reply.status]]
    lines += [b"%b: %b\r\n" % pair for pair in headers]
    lines.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(reply.body))
    if reply.retry_after is not None:
        lines.append(b"retry-after: %d\r\n" % reply.retry_after)
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join([*lines, reply.body])


class DirectCycle:
    """One ordinary request. Has what uvicorn's protocol reads and writes of a cycle, and needs no task."""

    def __init__(
        self,
        context: Context,
        headers: Headers,
        transport: asyncio.Transport,
        default_headers: Headers,
        *,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self._context = context
        self._transport = transport
        self._default_headers = default_headers
        self._on_response = on_response
        self._started = time.perf_counter()
        self._info = RequestInfo(headers)
        self._exchange: Exchange | None = Exchange(context, self._info, self._answer)
        self._content_type = next((value.decode("latin-1") for name, value in headers if name == b"content-type"), None)
        self._parts: list[bytes] = []
        context.in_flight += 1

    @property
    def message_event(self) -> asyncio.Event:
        """What uvicorn sets when the connection is lost. Nobody waits here, so there is none before it asks."""
        return asyncio.Event()

    def feed(self, part: bytes) -> None:
        """A part of the body."""
        self._parts.append(part)

    def begin(self) -> None:
        """The body is whole."""
        if self._exchange is not None:
            self._exchange.begin(b"".join(self._parts), self._content_type)

    def too_slow(self) -> None:
        """The body did not arrive in time."""
        self.keep_alive = False
        self._answer(refuse(self._context, self._info, RequestTimeout("the body did not arrive in time")))

    def left(self) -> None:
        """The connection is gone. Without a whole body there is nothing to wait for."""
        self.disconnected = True
        if self._exchange is None or not self._exchange.leave():
            self._finish(0)

    def _answer(self, reply: Reply) -> None:
        if self.response_complete:
            return
        if not self.disconnected:
            if self._context.closing:
                # Whoever keeps this connection alive must find another process before this one is gone.
                self.keep_alive = False
            headers = (*self._default_headers, *self._info.headers())
            self._transport.write(as_bytes(reply, headers, keep_alive=self.keep_alive))
        self._finish(0 if self.disconnected else reply.status)

    def _finish(self, status: int) -> None:
        self.response_complete = True
        self._exchange = None  # it holds us: what counting frees costs no search for what only holds itself
        self._context.in_flight -= 1
        self._info.status = status
        record(self._context, self._info, "POST", ROUTE, time.perf_counter() - self._started)
        if self.disconnected:
            return
        if not self.keep_alive:
            self._transport.close()
        self._on_response()
