"""GET /models: what is loaded, and what its manifest says of it."""

from itertools import groupby

from fastapi import APIRouter, Request
from starlette.responses import Response

from artifact.manifest import Estimate
from inference.model import Model
from service.config import Settings
from service.context import Context
from service.registry import Served
from service.responses import JsonResponse
from service.schemas import ModelsResponse

router = APIRouter(tags=["models"])


@router.get("/models", response_model=ModelsResponse)
async def models(request: Request) -> Response:
    """Loaded models with their versions, aliases, task, labels, limits and measured metrics."""
    context: Context = request.app.state.context
    ready = [(served, served.model) for served in context.registry.served if served.model is not None]
    groups = groupby(ready, key=lambda pair: pair[0].name)
    return JsonResponse({"models": [_describe(name, list(group), context.settings) for name, group in groups]})


def _describe(name: str, versions: list[tuple[Served, Model]], settings: Settings) -> dict[str, object]:
    served, model = next((pair for pair in versions if pair[0].default), versions[0])
    return {
        "name": name,
        "task": model.manifest.task,
        "labels": model.manifest.labels,
        "limits": {
            "max_input_tokens": model.manifest.limits.max_input_tokens,
            "max_inputs_per_request": settings.max_inputs_per_request,
            "max_body_bytes": settings.max_body_bytes,
        },
        "metrics": _metrics(model),
        "default_version": served.version,
        "aliases": {alias: each.version for each, _ in versions for alias in each.aliases},
        "versions": [_version(*pair) for pair in versions],
    }


def _version(served: Served, model: Model) -> dict[str, object]:
    return {
        "version": served.version,
        "default": served.default,
        "aliases": served.aliases,
        "digest": model.digest,
        "variant": model.variant.name,
        "variants": [variant.name for variant in model.manifest.variants],
        "created": model.manifest.provenance.created.isoformat(),
        "metrics": _metrics(model),
    }


def _metrics(model: Model) -> dict[str, dict[str, float]]:
    """Those of the variant that is served; of the reference where the gate kept none for it."""
    gate = model.manifest.gate
    found: dict[str, Estimate] = next((v.metrics for v in gate.variants if v.name == model.variant.name), {})
    return {name: estimate.model_dump() for name, estimate in (found or gate.reference_metrics).items()}
