"""The application: routes, one middleware, one place where errors become answers."""

import importlib.util
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from artifact.errors import SlipwayError
from inference.errors import BadInput
from service.api import health, metrics, models, predict
from service.context import Context, info_of
from service.errors import HttpError, MethodNotAllowed, RouteNotFound
from service.responses import as_response
from service.schemas import PredictRequest
from service.telemetry import Telemetry, refuse

_ASSETS: Final = "/docs/assets"


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
    return as_response(refuse(request.app.state.context, info_of(request.scope), error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses: no such path, no such method, a malformed request."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for nothing else)
    refusals = {404: RouteNotFound("no such path; see /docs"), 405: MethodNotAllowed("this path has other methods")}
    refusal = refusals.get(error.status_code, HttpError("the request cannot be understood"))
    return as_response(refuse(request.app.state.context, info_of(request.scope), refusal), error.headers)


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    """What FastAPI finds wrong with a declared parameter: the field's name, never its value."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  (registered for nothing else)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return await _answer_slipway_error(request, BadInput(where, str(first["msg"])))
