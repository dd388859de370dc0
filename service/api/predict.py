"""POST /predict as FastAPI knows it: documented for everybody, run for what service/direct.py does not take."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive

from service.context import Context, info_of
from service.errors import BodyTooLarge, RequestTimeout
from service.exchange import Exchange
from service.responses import Reply, as_response
from service.schemas import ErrorBody, LegacyResponse, PredictResponse

_REFUSALS: Final = {
    400: "Not JSON.",
    404: "No such model or version is loaded.",
    408: "The body did not arrive in time.",
    413: "Body too large, too many inputs, or an input with too many tokens.",
    415: "Not declared as JSON.",
    422: "A field is wrong; `error.field` names it.",
    429: "The queue is full; come back after `Retry-After` seconds.",
    500: "The model failed.",
    503: "Not ready; come back after `Retry-After` seconds.",
    504: "The deadline passed.",
}


class LeanRoute(APIRoute):
    """Documented by FastAPI, run without it: the endpoint reads the request and makes the response itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, with nothing around it."""
        return cast("Callable[[Request], Coroutine[Any, Any, Response]]", self.endpoint)


router = APIRouter(route_class=LeanRoute, tags=["predict"])


@router.post(
    "/predict",
    summary="Predict",
    response_model=PredictResponse | LegacyResponse,
    responses={status: {"model": ErrorBody, "description": text} for status, text in _REFUSALS.items()},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictRequest"}}},
        }
    },
)
async def predict(request: Request) -> Response:
    """Label one text or many. `{"input_data": [...]}` is understood too and answered with `output_data`."""
    context: Context = request.app.state.context
    settings = context.settings
    body = await read_body(request, settings.max_body_bytes, settings.body_timeout_seconds)
    loop = asyncio.get_running_loop()
    replied: asyncio.Future[Reply] = loop.create_future()
    exchange = Exchange(context, info_of(request.scope), replied.set_result)
    exchange.begin(body, request.headers.get("content-type"))
    watch = loop.create_task(_until_left(request.receive, exchange))
    try:
        return as_response(await asyncio.shield(replied))
    finally:
        watch.cancel()


async def _until_left(receive: Receive, exchange: Exchange) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.leave()


async def read_body(request: Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """The body, if it is small enough and arrives in time. Raises BodyTooLarge, RequestTimeout, ClientDisconnect."""
    declared = request.headers.get("content-length")
    if declared is not None and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    message = await _receive_in_time(request.receive, timeout_seconds)
    if not message.get("more_body", False):
        return _checked(cast("bytes", message.get("body", b"")), max_bytes)
    parts = [cast("bytes", message.get("body", b""))]
    size = len(parts[0])
    deadline = time.perf_counter() + timeout_seconds
    while message.get("more_body", False):
        message = await _receive_in_time(request.receive, deadline - time.perf_counter())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
    return b"".join(parts)


def _checked(body: bytes, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {max_bytes} bytes; send fewer or shorter inputs")


async def _receive_in_time(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise RequestTimeout("the body did not arrive in time") from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message
