"""One call of /predict, from its body to its reply, as plain callbacks on the event loop: no task, no ASGI."""

import asyncio
import time
from collections.abc import Callable, Mapping

import orjson

from inference.errors import DeadlineExceeded, InferenceError
from inference.model import Request
from inference.ticket import Answer, Ticket
from service.context import Context, RequestInfo
from service.errors import ClientLeft, UnsupportedMediaType
from service.registry import Served
from service.responses import Reply
from service.schemas import Call, parse_call
from service.telemetry import refuse


class Exchange:
    """`begin` once; `on_reply` is called exactly once, perhaps at once. Everything happens on the loop's thread."""

    __slots__ = ("_context", "_deadline", "_info", "_legacy", "_on_reply", "_ticket")

    def __init__(self, context: Context, info: RequestInfo, on_reply: Callable[[Reply], None]) -> None:
        self._context = context
        self._info = info
        self._on_reply = on_reply
        self._ticket: Ticket | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._legacy = False

    def begin(self, body: bytes, content_type: str | None) -> None:
        """Check the body and queue its inputs; what is wrong with it is the reply."""
        settings = self._context.settings
        try:
            check_content_type(content_type)
            call = parse_call(
                body, max_inputs=settings.max_inputs_per_request, max_timeout_seconds=settings.max_timeout_seconds
            )
            self._legacy = call.legacy
            self._submit(call, self._context.registry.find(call.model, call.version))
        except Exception as error:
            self._refuse(error)

    def leave(self) -> bool:
        """The caller is gone: what waits is no longer computed. False if nothing was begun, and no reply will come."""
        self._end(ClientLeft("the caller left"))
        return self._ticket is not None

    def _submit(self, call: Call, served: Served) -> None:
        self._info.served = served
        bridge = self._context.bridge
        seconds = call.timeout_seconds or self._context.settings.default_timeout_seconds
        request = Request(call.inputs, call.truncate, seconds, call.priority)
        on_done = bridge.expect(lambda ticket: self._answered(ticket, served))
        self._ticket = served.ready_model().submit(request, on_done)
        self._deadline = bridge.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._end(DeadlineExceeded("the deadline passed before the answer was there"))

    def _end(self, error: InferenceError) -> None:
        """The ticket's end brings the reply, through the bridge like any other."""
        if self._ticket is not None:
            self._ticket.fail(error, time.perf_counter())

    def _answered(self, ticket: Ticket, served: Served) -> None:
        self._ticket = None  # it holds us (service/direct.py says why that matters)
        if self._deadline is not None:
            self._deadline.cancel()
        try:
            answer = ticket.result()
            self._info.tokens = sum(answer.input_tokens)
            body = legacy_body(answer) if self._legacy else answer_body(answer, served)
            reply = Reply(200, orjson.dumps(body))
        except Exception as error:
            self._refuse(error)
        else:
            self._on_reply(reply)

    def _refuse(self, error: Exception) -> None:
        if self._legacy and isinstance(error, InferenceError):
            error = in_the_tutorials_words(error)
        self._on_reply(refuse(self._context, self._info, error))


def check_content_type(value: str | None) -> None:
    """JSON or silence. A browser's form cannot send either, so another site's page cannot post here."""
    if value is None or value == "application/json":
        return
    kind = value.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType("send the body as content-type: application/json")


def in_the_tutorials_words(error: InferenceError) -> InferenceError:
    """Name the field as the caller did."""
    if error.field is not None and error.field.startswith("inputs"):
        field = f"input_data{error.field[len('inputs') :]}"
        error.message = error.message.replace(error.field, field, 1)
        error.field = field
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
        "usage": usage_of(answer),
        "timings": answer.timings,
    }


def usage_of(answer: Answer) -> Mapping[str, object]:
    """What the inputs cost; `cached` only where something was, `windows` only where one input took several."""
    usage: dict[str, object] = {"input_tokens": answer.input_tokens, "truncated": answer.truncated}
    if answer.cached:
        usage["cached"] = [index in answer.cached for index in range(len(answer.predictions))]
    if answer.windows:
        usage["windows"] = answer.windows
    return usage


def legacy_body(answer: Answer) -> Mapping[str, object]:
    """The answer to `input_data`."""
    return {"output_data": [each.scores for each in answer.predictions]}
