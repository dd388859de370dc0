"""Three questions that must not be one: is it alive, does it want traffic, and how is every model."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from inference.errors import NotReady
from service.context import Context, info_of
from service.registry import Served
from service.responses import JsonResponse, error_detail
from service.schemas import HealthResponse, LiveResponse, ReadyResponse

router = APIRouter(tags=["health"])


@router.get(
    "/health", response_model=HealthResponse, responses={503: {"model": HealthResponse, "description": "Not ready."}}
)
async def health(request: Request) -> Response:
    """Readiness, with the state of every model and, where something is wrong, what to do about it."""
    context: Context = request.app.state.context
    return _answer(request, {"message": _message(context), "models": [_state(s) for s in context.registry.served]})


@router.get(
    "/health/live", response_model=LiveResponse, responses={503: {"model": LiveResponse, "description": "Restart it."}}
)
async def live(request: Request) -> Response:
    """Whether to restart the process: only if a model's executions hang for good. Loading and draining are alive."""
    context: Context = request.app.state.context
    if not any(served.stuck for served in context.registry.served):
        return JsonResponse({"status": "alive"})
    error = NotReady(context.registry.message())
    return JsonResponse({"status": "stuck", "error": error_detail(error, info_of(request.scope).request_id)}, 503)


@router.get(
    "/health/ready",
    response_model=ReadyResponse,
    responses={503: {"model": ReadyResponse, "description": "Not ready."}},
)
async def ready(request: Request) -> Response:
    """Whether to send traffic."""
    return _answer(request, {})


def _answer(request: Request, more: dict[str, object]) -> Response:
    context: Context = request.app.state.context
    body: dict[str, object] = {"status": context.status(), "ready": context.ready, **more}
    if context.ready:
        return JsonResponse(body)
    body["error"] = error_detail(NotReady(_message(context)), info_of(request.scope).request_id)
    return JsonResponse(body, 503, {"retry-after": "1"})


def _message(context: Context) -> str:
    return "the process is closing" if context.draining else context.registry.message()


def _state(served: Served) -> dict[str, object]:
    found: dict[str, object] = {
        "name": served.name,
        "version": served.version,
        "state": served.health(),
        "default": served.default,
        "aliases": served.aliases,
    }
    if served.reason is not None:
        found["reason"] = served.reason
    if served.model is not None:
        plan = served.model.plan
        found |= {
            "digest": served.model.digest,
            "variant": plan.variant,
            "engine": plan.engine,
            "why": served.model.why,
        }
    return found
