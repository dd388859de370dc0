"""JSON answers, and the one shape of every error."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from artifact.errors import SlipwayError
from inference.errors import InferenceError
from service.errors import Internal, ServiceError


class Reply(NamedTuple):
    """An answer before it is HTTP. `body` is JSON; `retry_after` whole seconds, where coming back makes sense."""

    status: int
    body: bytes
    retry_after: int | None = None


class JsonResponse(Response):
    """JSON through orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body's bytes; what is bytes already stays as it is."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


def error_detail(error: SlipwayError, request_id: str | None) -> dict[str, object]:
    """The value of `error` in an error body: never the caller's data, never a cause meant for the log."""
    detail: dict[str, object] = {"code": error.code, "message": error.message}
    if isinstance(error, InferenceError):
        if error.field is not None:
            detail["field"] = error.field
        if error.retry_after_seconds is not None:
            detail["retry_after_seconds"] = round(error.retry_after_seconds, 3)
    if request_id is not None:
        detail["request_id"] = request_id
    return detail


def presentable(error: Exception) -> SlipwayError:
    """The error as a caller may see it: what is not part of the API becomes Internal."""
    if isinstance(error, (InferenceError, ServiceError)):
        return error
    return Internal("something went wrong here; the log has the cause under this request's id")


def error_reply(error: SlipwayError, request_id: str | None) -> Reply:
    """The answer that says why there is none."""
    body = orjson.dumps({"error": error_detail(error, request_id)})
    if isinstance(error, InferenceError) and error.retry_after_seconds is not None:
        return Reply(error.status, body, max(1, math.ceil(error.retry_after_seconds)))
    return Reply(error.status, body)


def as_response(reply: Reply, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """The reply for those who speak ASGI."""
    found = dict(headers or {})
    if reply.retry_after is not None:
        found["retry-after"] = str(reply.retry_after)
    return JsonResponse(reply.body, reply.status, found)
