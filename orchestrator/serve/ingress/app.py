"""The HTTP interface: which route is where, and what is around all of them.

It knows no Ray: tests run it on a fake engine.
"""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Engine
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.front import Front
from orchestrator.serve.ingress.middleware.access_log import AccessLog
from orchestrator.serve.ingress.middleware.admission import Admission, AdmissionGate
from orchestrator.serve.ingress.middleware.auth import KnownTokens, RequireToken
from orchestrator.serve.ingress.middleware.drain import Drain, DrainGate
from orchestrator.serve.ingress.middleware.metrics import CountRequests, Metrics
from orchestrator.serve.ingress.openapi.document import make_document
from orchestrator.serve.ingress.paths import BATCH_PATH
from orchestrator.serve.ingress.problems import CatchUnexpected, install_problem_handlers
from orchestrator.serve.ingress.routes.batch import BatchRoute
from orchestrator.serve.ingress.routes.explain import ExplainRoute
from orchestrator.serve.ingress.routes.health import HealthRoutes
from orchestrator.serve.ingress.routes.open_inference import OpenInferenceRoutes
from orchestrator.serve.ingress.routes.predict import PredictRoute
from orchestrator.serve.ingress.routes.tasks import TaskRoutes
from orchestrator.serve.ingress.shadow import Shadows
from orchestrator.serve.options import Limits
from ship.backbone import BackboneInfo

__all__ = ["make_app"]


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
    # Pages of documentation would load their scripts from a foreign host, and the document is our own. A
    # redirect would repeat what a client says its host is.
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    _add_routes(app, front)
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


def _add_routes(app: FastAPI, front: Front) -> None:
    tasks, health = TaskRoutes(front), HealthRoutes(front)
    app.post("/v1/predict")(PredictRoute(front).predict)
    app.post(BATCH_PATH)(BatchRoute(front).predict_batch)
    app.post("/v1/explain")(ExplainRoute(front).explain)
    app.get("/v1/tasks")(tasks.list_tasks)
    app.get("/v1/tasks/{task}")(tasks.show_task)
    app.get("/healthz")(health.healthz)
    app.get("/readyz")(health.readyz)
    app.get("/metrics")(health.show_metrics)
    document = make_document()
    app.get("/openapi.json")(lambda: JSONResponse(document))
    protocol = OpenInferenceRoutes(front)
    app.get("/v2")(protocol.server)
    app.get("/v2/health/live")(protocol.live)
    app.get("/v2/health/ready")(protocol.ready)
    for model in ("/v2/models/{task}", "/v2/models/{task}/versions/{version}"):
        app.get(model)(protocol.model)
        app.get(f"{model}/ready")(protocol.model_ready)
        app.post(f"{model}/infer")(protocol.infer)
