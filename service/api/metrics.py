"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from service.context import Context
from service.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Every series, in the Prometheus text format."""
    context: Context = request.app.state.context
    context.refresh_metrics()
    return Response(context.metrics.render(), media_type=CONTENT_TYPE)
