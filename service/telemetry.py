"""What is recorded of every request: the access line and the metrics."""

import time
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.context import INFO, Context, RequestInfo
from service.errors import ClientLeft
from service.logs import REQUEST_ID, TRACE_ID, logger
from service.responses import Reply, as_response, error_reply, presentable

_UNMATCHED: Final = "unmatched"
_PROBES: Final = ("/health", "/metrics")
_NOBODY: Final = ("", "", "")


def record(context: Context, info: RequestInfo, method: str, route: str, seconds: float) -> None:
    """Count one answered request and write its access line; probes only when debugging."""
    served = info.served
    labels = (served.name, str(served.version), served.task) if served else _NOBODY
    status = info.status or ClientLeft.status
    context.metrics.request_done(labels, route, status, seconds)
    log = context.log.debug if route.startswith(_PROBES) else context.log.info
    more: dict[str, object] = {"model": served.name, "version": served.version} if served else {}
    if info.tokens is not None:
        more["tokens"] = info.tokens
    log("request", method=method, route=route, status=status, seconds=round(seconds, 6), **more, **info.ids())


def refuse(context: Context, info: RequestInfo, error: Exception) -> Reply:
    """The answer to a request that failed: counted by its code, and logged where it is our own fault."""
    shown = presentable(error)
    if shown is not error:
        logger().error("request failed", exc_info=error, **info.ids())
    context.metrics.rejected.labels(shown.code).inc()
    return error_reply(shown, info.request_id)


class Telemetry:
    """ASGI middleware: ids, headers, the record of every request; the last resort for what nobody caught."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        info = scope[INFO] = RequestInfo(scope["headers"])
        REQUEST_ID.set(info.request_id)
        TRACE_ID.set(info.trace_id)
        self._context.in_flight += 1
        try:
            await self._run(scope, receive, send, info)
        finally:
            self._context.in_flight -= 1
            route = getattr(scope.get("route"), "path", "docs" if "endpoint" in scope else _UNMATCHED)
            record(self._context, info, scope["method"], route, time.perf_counter() - started)

    async def _run(self, scope: Scope, receive: Receive, send: Send, info: RequestInfo) -> None:
        async def send_tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message["headers"], *info.headers()]
                if self._context.closing:
                    # Whoever keeps this connection alive must find another process before this one is gone.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, send_tagged)
        except ClientDisconnect:
            info.status = ClientLeft.status
        except Exception as error:
            logger().exception("request failed unexpectedly")
            if info.status:
                raise
            shown = presentable(error)
            self._context.metrics.rejected.labels(shown.code).inc()
            await as_response(error_reply(shown, info.request_id))(scope, receive, send_tagged)
