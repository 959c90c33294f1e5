"""Probes and counters of the endpoint: ``GET /healthz``, ``/readyz`` and ``/metrics``."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from orchestrator.serve.ingress.bodies.schemas import HealthReply, ReadinessReply
from orchestrator.serve.ingress.front import front_of
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.middleware.metrics import CONTENT_TYPE
from orchestrator.serve.ingress.openapi import describe, operation_id, reply

__all__ = ["router"]

router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)


@router.get("/healthz", responses=reply(HealthReply), openapi_extra=describe(is_open=True))
async def healthz() -> Response:
    """Whether this process runs."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    responses=reply(ReadinessReply),
    openapi_extra=describe("not-ready tokens-too-old busy unavailable", is_open=True),
)
async def readyz(request: Request) -> Response:
    """Whether the endpoint answers requests: it has loaded a catalog."""
    front = front_of(request)
    readiness = await front.check_ready()
    ages_s = {"catalog": readiness.catalog_age_s, **await front.looks.ages_s()}
    return JSONResponse({"status": "ready", **asdict(readiness), "last_look_s": ages_s})


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=reply(),
    openapi_extra=describe("not-allowed"),
)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    principal_of(request).check_may_read_metrics()
    return Response(await front_of(request).metrics_page.get(), media_type=CONTENT_TYPE)
