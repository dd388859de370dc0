"""The application: routes, one middleware, one place where errors become answers."""

import importlib.util
import time
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifact.errors import SlipwayError
from inference.errors import BadInput
from service.api import health, metrics, models, predict
from service.context import INFO, Context, RequestInfo, info_of
from service.errors import ClientLeft, HttpError, MethodNotAllowed, RouteNotFound
from service.logs import REQUEST_ID, TRACE_ID, logger
from service.responses import error_response, presentable
from service.schemas import PredictRequest

_ASSETS: Final = "/docs/assets"
_UNMATCHED: Final = "unmatched"
_PROBES: Final = ("/health", "/metrics")
_NOBODY: Final = ("", "", "")


def create_app(context: Context) -> FastAPI:
    """The service around `context`. Loading and draining are the server's business."""
    app = Application(
        title="Slipway",
        summary="Predictions from a checked, versioned artifact.",
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    for module in (predict, health, models, metrics):
        app.include_router(module.router)
    _add_docs(app)
    app.add_exception_handler(SlipwayError, _answer_slipway_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_middleware(Telemetry, context=context)
    return app


def _add_docs(app: FastAPI) -> None:
    """Swagger UI at /docs: from this process where `fastapi-offline` is installed, else from its public CDN."""
    found = importlib.util.find_spec("fastapi_offline")
    assets: dict[str, Any] = {}
    if found is not None and found.origin is not None:
        app.mount(_ASSETS, StaticFiles(directory=Path(found.origin).parent / "static"))
        names = {"swagger_js_url": "swagger-ui-bundle.js", "swagger_css_url": "swagger-ui.css"}
        assets = {key: f"{_ASSETS}/{name}" for key, name in names.items()} | {"swagger_favicon_url": "data:,"}

    async def docs(_: Request) -> Response:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Slipway", **assets)

    app.add_route("/docs", docs, include_in_schema=False)


class Application(FastAPI):
    """FastAPI, with the request schema of the route that FastAPI only documents."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document. Its examples run against this very service."""
        if self.openapi_schema is None:
            document = super().openapi()
            _, definitions = models_json_schema(
                [(PredictRequest, "validation")], ref_template="#/components/schemas/{model}"
            )
            document["components"]["schemas"].update(definitions["$defs"])
            body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
            body["examples"] = examples()
        return super().openapi()


def examples() -> dict[str, Any]:
    """Bodies of /predict that work with any text model."""
    return {
        "one": {"summary": "One text", "value": {"inputs": "A warm, funny and beautifully acted film."}},
        "many": {
            "summary": "Several texts",
            "value": {"inputs": ["A warm, funny film.", "Two hours of my life I will not get back."]},
        },
        "parameters": {
            "summary": "Cut what is too long, give up after twenty seconds, let interactive work go first",
            "value": {
                "inputs": ["It never ends. " * 200],
                "parameters": {"truncate": True},
                "timeout_seconds": 20,
                "priority": "batch",
            },
        },
        "legacy": {"summary": "The Flask tutorial's body", "value": {"input_data": ["A dull, lifeless mess."]}},
    }


async def _answer_slipway_error(request: Request, error: Exception) -> Response:
    context: Context = request.app.state.context
    shown = presentable(error)
    if shown is not error:
        logger().error("request failed", exc_info=error)
    context.metrics.rejected.labels(shown.code).inc()
    return error_response(shown, info_of(request.scope).request_id)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses: no such path, no such method, a malformed request."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for nothing else)
    refusals = {404: RouteNotFound("no such path; see /docs"), 405: MethodNotAllowed("this path has other methods")}
    refusal = refusals.get(error.status_code, HttpError("the request cannot be understood"))
    context: Context = request.app.state.context
    context.metrics.rejected.labels(refusal.code).inc()
    return error_response(refusal, info_of(request.scope).request_id, error.headers)


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    """What FastAPI finds wrong with a declared parameter: the field's name, never its value."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  (registered for nothing else)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return await _answer_slipway_error(request, BadInput(where, str(first["msg"])))


class Telemetry:
    """Ids, headers, the access line and the metrics of every request; the last resort for what nobody caught."""

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
            self._record(scope, info, time.perf_counter() - started)

    async def _run(self, scope: Scope, receive: Receive, send: Send, info: RequestInfo) -> None:
        async def send_tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message["headers"], *info.headers()]
                if self._context.draining:
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
            await error_response(shown, info.request_id)(scope, receive, send_tagged)

    def _record(self, scope: Scope, info: RequestInfo, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "docs" if "endpoint" in scope else _UNMATCHED)
        served = info.served
        labels = (served.name, str(served.version), served.task) if served else _NOBODY
        status = info.status or ClientLeft.status
        self._context.metrics.requests.labels(*labels, route, str(status)).inc()
        self._context.metrics.request_duration.labels(route).observe(seconds)
        log = logger().debug if route.startswith(_PROBES) else logger().info
        more: dict[str, object] = {"model": served.name, "version": served.version} if served else {}
        if info.tokens is not None:
            more["tokens"] = info.tokens
        log("request", method=scope["method"], route=route, status=status, seconds=round(seconds, 6), **more)
