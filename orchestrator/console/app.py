"""The console as an ASGI application: pages, sign-in, static files, security headers and errors."""

import logging
import pkgutil
import secrets
from importlib import import_module
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from orchestrator.console import assets, pages, sign_in
from orchestrator.console.access import Access, SignInNeeded, check_csrf, check_request, identify
from orchestrator.console.bodies import LIMITS, SIGN_IN_LIMITS, BodyGate
from orchestrator.console.rendering import render, with_query
from orchestrator.console.security import SecureHeaders
from orchestrator.console.services import Services
from orchestrator.errors import ManifestError, StoreError
from orchestrator.registry.session import RegistryDown
from orchestrator.serve.options import Limits
from ship.errors import ShipError
from ship.redaction import redact_text

__all__ = ["make_app"]

_log = logging.getLogger(__name__)


def make_app(
    services: Services,
    access: Access | None = None,
    *,
    limits: Limits = LIMITS,
    sign_in_limits: Limits = SIGN_IN_LIMITS,
) -> FastAPI:
    """The console.

    Args:
        services: What its pages read and change.
        access: Access control; by default people sign in, at any host name.
        limits: Limits on bodies of people who are signed in.
        sign_in_limits: Limits on bodies of the sign-in form.
    """
    app = _Console(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.services, app.state.access = services, access or Access()
    app.state.csrf = secrets.token_urlsafe(32)
    app.include_router(assets.router)
    app.include_router(sign_in.router)
    guard = [Depends(check_request), Depends(identify), Depends(check_csrf)]
    found = [import_module(f"{pages.__name__}.{one.name}") for one in pkgutil.iter_modules(pages.__path__)]
    for page in found:
        app.include_router(page.router, dependencies=guard)
    app.state.paths = {route.path for page in found for route in page.router.routes}
    app.add_api_route("/", _go_to_fleet, include_in_schema=False)
    app.add_api_route("/healthz", _be_alive, include_in_schema=False)
    app.add_exception_handler(SignInNeeded, _ask_to_sign_in)
    app.add_exception_handler(AnyHTTPException, _show_refusal)
    app.add_exception_handler(RequestValidationError, _show_bad_request)
    app.add_exception_handler(ShipError, _show_error)
    app.add_middleware(BodyGate, limits=limits, sign_in_limits=sign_in_limits)
    # What the gate refuses is shown as what a route refuses is.
    app.add_middleware(ExceptionMiddleware, handlers=app.exception_handlers)
    return app


class _Console(FastAPI):
    """FastAPI with the headers set outside of all else: no middleware sees a reply to an unexpected error."""

    def build_middleware_stack(self) -> ASGIApp:
        return SecureHeaders(super().build_middleware_stack())


def _go_to_fleet() -> Response:
    return RedirectResponse(sign_in.HOME, 303)


async def _be_alive() -> Response:
    """In the event loop: threads may all wait for a store that is away, and the process is alive."""
    return JSONResponse({"status": "ok"})


async def _ask_to_sign_in(request: Request, error: Exception) -> Response:
    # Not of `request.url`, which raises an error for a query that is no UTF-8.
    query = request.scope["query_string"].decode("latin-1")
    wanted = quote(request.scope["path"]) + (f"?{query}" if query else "")
    form = with_query(sign_in.SIGN_IN, {"next": wanted if request.method == "GET" else None})
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"HX-Redirect": sign_in.SIGN_IN})
    if request.scope["path"].endswith(".json") or request.method != "GET":
        return _refusal(request, 401, "Sign in, or send `Authorization: Bearer ship_...`.")
    return RedirectResponse(form, 303)


async def _show_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    reply = _refusal(request, error.status_code, str(error.detail))
    # Such as the methods that a path does have.
    reply.headers.update(error.headers or {})
    return reply


async def _show_bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = [f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()]
    return _refusal(request, 422, "; ".join(said))


async def _show_error(request: Request, error: Exception) -> Response:
    """An error that a person can do something about: 503 what is away, 400 bad input, 409 a refusal."""
    if isinstance(error, (RegistryDown, StoreError)):
        _log.warning("%s: %s", quote(request.scope["path"]), redact_text(str(error)))
    is_away = isinstance(error, (RegistryDown, StoreError))
    status = 503 if is_away else 400 if isinstance(error, ManifestError) else 409
    return _refusal(request, status, str(error))


def _refusal(request: Request, status: int, message: str) -> Response:
    """An error in the form that its reader reads; made in the event loop, as threads may all be taken."""
    said = {"error": {"status": status, "message": redact_text(message)}}
    if request.scope["path"].endswith(".json"):
        return JSONResponse(said, status)
    template = "refusal.html" if request.headers.get("hx-request") else "error.html"
    return render(request, template, said, status=status)
