"""POST /predict: from bytes to an answer, without a model class in between."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive

from inference.errors import DeadlineExceeded, InferenceError
from inference.model import Model
from inference.model import Request as InferenceRequest
from inference.ticket import Answer, Ticket
from service.bridge import Bridge
from service.context import Context, info_of
from service.errors import BodyTooLarge, ClientLeft, RequestTimeout, UnsupportedMediaType
from service.registry import Served
from service.responses import JsonResponse
from service.schemas import Call, ErrorBody, LegacyResponse, PredictResponse, parse_call

# Looking for a caller who left costs a task; most answers are there before it would be worth it.
_WATCH_AFTER_SECONDS: Final = 0.05
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
    _check_content_type(request.headers.get("content-type"))
    body = await read_body(request, settings.max_body_bytes, settings.body_timeout_seconds)
    call = parse_call(
        body, max_inputs=settings.max_inputs_per_request, max_timeout_seconds=settings.max_timeout_seconds
    )
    served = context.registry.find(call.model, call.version)
    info = info_of(request.scope)
    info.served = served
    try:
        answer = await ask(
            served.ready_model(),
            call,
            context.bridge,
            request.receive,
            call.timeout_seconds or settings.default_timeout_seconds,
        )
    except InferenceError as error:
        raise _in_the_callers_words(error, call) from None
    info.tokens = sum(answer.input_tokens)
    return JsonResponse(legacy_body(answer) if call.legacy else answer_body(answer, served))


def _check_content_type(value: str | None) -> None:
    """JSON or silence. A browser's form cannot send either, so another site's page cannot post here."""
    if value is None:
        return
    kind = value.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType("send the body as content-type: application/json")


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


async def ask(model: Model, call: Call, bridge: Bridge, receive: Receive, timeout_seconds: float) -> Answer:
    """Submit and wait, at most until the deadline or until the caller leaves. Raises InferenceError."""
    future, on_done = bridge.expect()
    ticket = model.submit(
        InferenceRequest(call.inputs, call.truncate, timeout_seconds, call.priority),
        on_done,
    )
    loop = asyncio.get_running_loop()
    deadline = loop.call_later(timeout_seconds, _expire, ticket)
    watch = _Watch(loop, receive, ticket)
    try:
        return (await future).result()
    finally:
        deadline.cancel()
        watch.stop()
        if not ticket.done:
            ticket.fail(ClientLeft("the caller left"), time.perf_counter())


def _expire(ticket: Ticket) -> None:
    ticket.fail(DeadlineExceeded("the deadline passed before the answer was there"), time.perf_counter())


class _Watch:
    """After a moment, waits for the caller to leave; their inputs are then no longer computed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, ticket: Ticket) -> None:
        self._receive = receive
        self._ticket = ticket
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._timer = loop.call_later(_WATCH_AFTER_SECONDS, self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._ticket.fail(ClientLeft("the caller left"), time.perf_counter())

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def _in_the_callers_words(error: InferenceError, call: Call) -> InferenceError:
    """Name the field as the caller did."""
    if call.legacy and error.field is not None and error.field.startswith("inputs"):
        error.message = error.message.replace(error.field, f"input_data{error.field[len('inputs') :]}", 1)
        error.field = f"input_data{error.field[len('inputs') :]}"
    return error


def answer_body(answer: Answer, served: Served) -> Mapping[str, object]:
    """The answer to `inputs`."""
    labels = served.labels
    return {
        "predictions": [
            {"label": each.label, "score": each.score, "scores": dict(zip(labels, each.scores, strict=True))}
            for each in answer.predictions
        ],
        "model": served.identity,
        "usage": {"input_tokens": answer.input_tokens, "truncated": answer.truncated},
        "timings": answer.timings,
    }


def legacy_body(answer: Answer) -> Mapping[str, object]:
    """The answer to `input_data`."""
    return {"output_data": [each.scores for each in answer.predictions]}
