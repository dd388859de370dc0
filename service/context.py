"""What handlers share: made once at start, passed down through the application, never a global."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from structlog.typing import FilteringBoundLogger

from service.bridge import Bridge
from service.config import Settings
from service.logs import logger
from service.metrics import Metrics
from service.registry import Registry, Served, Status

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Scope
INFO: Final = "slipway.info"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
# W3C Trace Context, section 3.2: version 00, and later versions as far as they look the same.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?"
)


@dataclass(eq=False)
class Traffic:
    """What the connections of one server have in common; has what uvicorn's protocol reads and writes of its state."""

    connections: set[Any] = field(default_factory=set)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    total_requests: int = 0


@dataclass(eq=False)
class Context:
    """One running service."""

    settings: Settings
    metrics: Metrics
    registry: Registry
    bridge: Bridge
    draining: bool = False
    # Of several processes those that are ready take the traffic: one that is not sends its clients to them.
    turning_away: bool = False
    in_flight: int = 0
    connections: Iterable[Any] = field(default_factory=tuple)
    # Bound once, as configured at this moment: the access line is written for every request.
    log: FilteringBoundLogger = field(default_factory=lambda: logger().bind())

    def status(self) -> Status | str:
        """The registry's status, unless the process is on its way out."""
        return "draining" if self.draining else self.registry.status()

    @property
    def ready(self) -> bool:
        """Whether this process wants traffic."""
        return self.status() == "ready"

    @property
    def closing(self) -> bool:
        """Whether each answer closes its connection, so that the client finds another process."""
        return self.draining or self.turning_away

    def refresh_metrics(self) -> None:
        """Bring the gauges up to date for a scrape. It does not count itself: an idle service must look idle."""
        self.registry.refresh_metrics()
        self.metrics.in_flight.set(max(0, self.in_flight - 1))
        self.metrics.connections.set(sum(1 for _ in self.connections))
        self.metrics.ready.set(self.ready)
        self.metrics.ready_processes.set(self.ready)


class RequestInfo:
    """What is known of one HTTP request, for its answer's headers, the access line and the metrics."""

    __slots__ = ("request_id", "served", "status", "tokens", "trace_id", "traceparent")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        given, trace = b"", b""
        for name, value in headers:
            if name == b"x-request-id":
                given = value
            elif name == b"traceparent":
                trace = value
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.trace_id: str | None = None
        self.traceparent: bytes | None = None
        if trace and (match := _TRACEPARENT.fullmatch(trace)):
            self.trace_id = match[1].decode()
            self.traceparent = b"00-%s-%s-%s" % (match[1], secrets.token_hex(8).encode(), match[2])
        self.status = 0
        self.tokens: int | None = None
        self.served: Served | None = None

    def ids(self) -> dict[str, str]:
        """What a log line about this request carries."""
        return {"request_id": self.request_id, **({"trace_id": self.trace_id} if self.trace_id else {})}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of every answer, errors included."""
        found = [(b"x-request-id", self.request_id.encode())]
        if self.traceparent is not None:
            found.append((b"traceparent", self.traceparent))
        return found


def info_of(scope: "Scope") -> RequestInfo:
    """The record the middleware keeps for this request."""
    return cast("RequestInfo", scope[INFO])
