"""Structured logs on standard error: one line an event, each with the request's id, none with a caller's text."""

import logging
import sys
from contextvars import ContextVar
from typing import Any, Final, Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("slipway_request_id", default=None)
TRACE_ID: Final[ContextVar[str | None]] = ContextVar("slipway_trace_id", default=None)


def configure(level: str, form: Literal["json", "console"], worker: int | None = None) -> None:
    """Send our own events and those of every library through one pipeline, from `level` up.

    Of several processes that write to one place each line names its own, by `worker`.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        _add_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        shared.insert(0, _naming(worker))
    structlog.configure(
        processors=[*shared, *_rendering(form)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(number, logging.INFO), force=True)
    # A line for every connection that sends nonsense would let anybody fill the disk.
    logging.getLogger("uvicorn").setLevel(max(number, logging.ERROR))


def logger() -> FilteringBoundLogger:
    """The service's logger."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def _rendering(form: Literal["json", "console"]) -> list[Processor]:
    if form == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]


def _dumps(event: object, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _naming(worker: int) -> Processor:
    def name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["worker"] = worker
        return event

    return name


def _add_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the ids of the request this code runs for, if any."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
        trace_id = TRACE_ID.get()
        if trace_id is not None:
            event.setdefault("trace_id", trace_id)
    return event


class _Forward(logging.Handler):
    """Hands the standard library's records, ours from `inference` included, to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None)
        except Exception:
            self.handleError(record)
