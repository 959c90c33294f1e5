"""The HTTP interface: which route is where, and what is around all of them.

It knows no Ray: tests run it on a fake engine.
"""

from fastapi import FastAPI

from orchestrator.serve.engine_api import Engine
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.front import Front
from orchestrator.serve.ingress.middleware.access_log import AccessLog
from orchestrator.serve.ingress.middleware.admission import Admission, AdmissionGate
from orchestrator.serve.ingress.middleware.auth import KnownTokens, RequireToken
from orchestrator.serve.ingress.middleware.drain import Drain, DrainGate
from orchestrator.serve.ingress.middleware.metrics import CountRequests, Metrics
from orchestrator.serve.ingress.problems import CatchUnexpected, install_problem_handlers
from orchestrator.serve.ingress.routes import batch, docs, explain, health, open_inference, predict, tasks
from orchestrator.serve.ingress.shadow import Shadows
from orchestrator.serve.options import Limits
from ship.backbone import BackboneInfo

__all__ = ["make_app"]

_ROUTERS = (predict, batch, explain, tasks, health, docs, open_inference)


def make_app(
    engine: Engine,
    backbone: BackboneInfo,
    limits: Limits | None = None,
    drain: Drain | None = None,
    tokens: KnownTokens | None = None,
    *,
    names_responses: bool = True,
) -> FastAPI:
    """The ASGI application.

    Args:
        engine: That answers.
        backbone: That the engine runs; says how images are resized.
        limits: What the door lets in.
        drain: Closes it.
        tokens: Of those who may ask; None lets anybody.
        names_responses: See ``AccessLog``.
    """
    limits, metrics = limits or Limits(), Metrics()
    admission = Admission(limits)
    front = Front(
        engine=engine,
        backbone=backbone,
        limits=limits,
        admission=admission,
        decoder=Decoder(backbone, limits),
        shadows=Shadows(engine, metrics.observe_comparison),
        metrics=metrics,
    )
    # FastAPI's own pages of documentation load their scripts from another host. A redirect would repeat what
    # a client says its host is.
    app = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        routes=[route for module in _ROUTERS for route in module.router.routes],
    )
    app.state.front = front
    # From the innermost to the outermost: whatever answers is counted, named and logged.
    app.add_middleware(CatchUnexpected)
    app.add_middleware(AdmissionGate, admission=admission, limits=limits)
    # Strangers take no places from those who may ask.
    app.add_middleware(RequireToken, known=tokens)
    app.add_middleware(DrainGate, drain=drain or Drain())
    app.add_middleware(CountRequests, metrics=front.metrics)
    app.add_middleware(AccessLog, names_responses=names_responses)
    install_problem_handlers(app)
    return app
