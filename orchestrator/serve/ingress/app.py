"""ASGI application of the HTTP interface: its routes and the middleware around them.

It knows no Ray: tests run it on a fake engine.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from fastapi import FastAPI

from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import Engine
from orchestrator.serve.ingress.asking import Asker
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.front import Front
from orchestrator.serve.ingress.keeping import Keeper
from orchestrator.serve.ingress.looks import Looks
from orchestrator.serve.ingress.middleware.access_log import AccessLog
from orchestrator.serve.ingress.middleware.admission import Admission, AdmissionGate
from orchestrator.serve.ingress.middleware.auth import KnownTokens, RequireToken
from orchestrator.serve.ingress.middleware.cors import Cors
from orchestrator.serve.ingress.middleware.drain import Drain, DrainGate
from orchestrator.serve.ingress.middleware.encoding import DecodeBody
from orchestrator.serve.ingress.middleware.methods import Methods
from orchestrator.serve.ingress.middleware.metrics import Metrics
from orchestrator.serve.ingress.middleware.tracing import TraceRequests
from orchestrator.serve.ingress.peers import Families, Peers, render_page
from orchestrator.serve.ingress.problems import CatchUnexpected, install_problem_handlers
from orchestrator.serve.ingress.recent import Recent
from orchestrator.serve.ingress.routes import batch, docs, explain, health, open_inference, predict, tasks
from orchestrator.serve.ingress.shadow import Shadows
from orchestrator.serve.ingress.sightings import Sightings
from orchestrator.serve.options import Limits
from orchestrator.tracing import Tracer
from ship.backbone_info import BackboneInfo

__all__ = ["make_app", "read_families"]

_ROUTERS = (predict, batch, explain, tasks, health, docs, open_inference)


def make_app(
    engine: Engine,
    backbone: BackboneInfo | Sequence[BackboneInfo],
    limits: Limits | None = None,
    drain: Drain | None = None,
    tokens: KnownTokens | None = None,
    looks: Looks | None = None,
    peers: Peers | None = None,
    *,
    sightings: Sightings | None = None,
    keeper: Keeper | None = None,
    names_responses: bool = True,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The ASGI application.

    Args:
        engine: Engine that answers.
        backbone: Backbone that the engine runs, or the backbones of an engine of several, see ``Engines``.
        limits: Limits on requests.
        drain: Closes the application.
        tokens: Tokens that have access; None turns access control off.
        looks: Ages of the last looks; by default none is known.
        peers: All ingresses of the endpoint; by default there is this one.
        sightings: Hands answers on to the watch for drift; by default nothing watches.
        keeper: Keeps pictures; by default none are kept.
        names_responses: See ``AccessLog``.
        tracer: Begins a span for each request; None traces nothing.
    """
    limits = limits or Limits()
    backbones = [*backbone] if isinstance(backbone, Sequence) else [backbone]
    # FastAPI's own pages of documentation load their scripts from another host. A redirect would repeat what
    # a client says its host is.
    app = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        # Its own spans would have paths and queries, and exceptions with their text.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        routes=[route for module in _ROUTERS for route in module.router.routes],
    )
    page = Recent(lambda: _render(app.state.front, tokens, peers), limits.probe_keep_s)
    app.state.front = _make_front(
        engine, backbones, limits, page, looks or Looks(), sightings or Sightings(), keeper
    )
    _add_middleware(app, drain or Drain(), tokens, names_responses=names_responses)
    if tracer is not None:
        app.add_middleware(TraceRequests, tracer=tracer)
    install_problem_handlers(app)
    return app


def _make_front(
    engine: Engine,
    backbones: Sequence[BackboneInfo],
    limits: Limits,
    metrics_page: Recent[bytes],
    looks: Looks,
    sightings: Sightings,
    keeper: Keeper | None,
) -> Front:
    metrics = Metrics()
    # An endpoint of one backbone names none in its questions.
    named = tuple(one.fingerprint for one in backbones) if len(backbones) > 1 else ()
    return Front(
        engine=engine,
        asker=Asker(engine, named),
        backbones={one.fingerprint: one for one in backbones},
        limits=limits,
        admission=Admission(limits),
        decoder=Decoder(backbones[0], limits),
        shadows=Shadows(engine, metrics.observe_comparison, backbones=named),
        metrics=metrics,
        sightings=sightings,
        keeper=keeper,
        looks=looks,
        readiness=Recent(engine.readiness, limits.probe_keep_s),
        metrics_page=metrics_page,
    )


async def _render(front: Front, tokens: KnownTokens | None, peers: Peers | None) -> bytes:
    metrics, looks, limits = front.metrics, front.looks, front.limits
    # Metrics matter most while no engine answers.
    with suppress(ServeError, TimeoutError):
        async with asyncio.timeout(limits.stats_timeout_s):
            for stats in await front.engine.stats():
                metrics.note_residency(stats)
    if (described := await front.sightings.describe()) is not None:
        metrics.note_drift(*described)
    if front.keeper is not None:
        metrics.note_kept(front.keeper.counts)
    own = await read_families(metrics, looks, limits, tokens)
    found = {"": own} if peers is None else await peers.families(own, limits.stats_timeout_s)
    return render_page(found, metrics.engine_families())


async def read_families(
    metrics: Metrics, looks: Looks, limits: Limits, tokens: KnownTokens | None
) -> Families:
    """Metrics of one ingress, with its last looks and its tokens."""
    metrics.note_looks(await looks.ages_s(), looks.num_broken)
    if tokens is not None and tokens.tokens is not None:
        metrics.note_tokens(limits.token_grace_s, is_stale=tokens.is_stale)
    return metrics.families()


def _add_middleware(app: FastAPI, drain: Drain, tokens: KnownTokens | None, *, names_responses: bool) -> None:
    front: Front = app.state.front
    # From the innermost to the outermost: every reply is counted, named and logged.
    app.add_middleware(CatchUnexpected)
    app.add_middleware(AdmissionGate, admission=front.admission, limits=front.limits)
    # What counts is the body that comes out.
    app.add_middleware(DecodeBody)
    # Requests without a valid token take no places from the others.
    app.add_middleware(RequireToken, known=tokens)
    app.add_middleware(DrainGate, drain=drain)
    app.add_middleware(Methods)
    # Before any other answer, so that a page can read refusals, too.
    app.add_middleware(Cors, origins=front.limits.cors_origins)
    app.add_middleware(AccessLog, count=front.metrics.count_request, names_responses=names_responses)
