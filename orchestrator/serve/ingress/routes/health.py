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

# Counts alone: a probe needs no token, so it learns no names.
_BROKEN = {
    "catalog": "entries of the catalog cannot be read",
    "registry": "tasks are broken in the registry (`ship ls` names them)",
    "tokens": "tokens cannot be read (`ship token ls` names them)",
}

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
    num_broken = {"catalog": readiness.num_broken, **front.looks.num_broken}
    detail = readiness.detail + "".join(f", {n} {_BROKEN[of]}" for of, n in num_broken.items() if n)
    told = {**asdict(readiness), "detail": detail, "num_broken": num_broken}
    return JSONResponse({"status": "ready", **told, "last_look_s": ages_s})


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
