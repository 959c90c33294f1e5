"""Sign-in with a token of the store, and sign-out."""

import math
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.console.access import (
    Access,
    check_csrf,
    check_request,
    find_token,
    identify,
    make_person,
    services_of,
)
from orchestrator.console.rendering import render
from orchestrator.console.sessions import COOKIE, LIFETIME_S

__all__ = ["HOME", "SIGN_IN", "router", "safe_next"]

router = APIRouter(dependencies=[Depends(check_request)])
HOME, SIGN_IN = "/fleet", "/sign-in"


@router.get(SIGN_IN)
def show_sign_in(request: Request, next: str = HOME) -> Response:
    """The form."""
    return render(request, "sign_in.html", {"next": safe_next(next), "problem": None})


@router.post(SIGN_IN)
def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = HOME,
) -> Response:
    """Begin a session. The cookie holds a random id, and not the token."""
    access: Access = request.app.state.access
    address = request.client.host if request.client else "unknown"
    if (wait_s := access.limit.wait_s(address)) > 0:
        return _refuse(request, next, "Too many tries: wait a minute.", 429, wait_s)
    found = find_token(services_of(request), token)
    if found is None:
        access.limit.add_failure(address)
        return _refuse(request, next, "The token is unknown, expired or revoked.", 401)
    name, known, secret = found
    try:
        make_person(name, known)
    except HTTPException as error:
        return _refuse(request, next, error.detail, 403)
    reply = RedirectResponse(safe_next(next), 303)
    reply.set_cookie(
        COOKIE,
        access.sessions.begin(secret.token_id, secret.sha256),
        max_age=round(LIFETIME_S),
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https",
    )
    return reply


@router.post("/sign-out", dependencies=[Depends(identify), Depends(check_csrf)])
def sign_out(request: Request) -> Response:
    """End the session."""
    access: Access = request.app.state.access
    access.sessions.end(request.cookies.get(COOKIE, ""))
    reply = RedirectResponse(SIGN_IN, 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.scope["scheme"] == "https")
    return reply


def safe_next(url: str) -> str:
    """A page of this console to go on with; that of the fleet in place of any other address."""
    is_ours = url.startswith("/") and not url.startswith("//") and url.isprintable() and "\\" not in url
    return url if is_ours else HOME


def _refuse(request: Request, next: str, problem: str, status: int, wait_s: float = 0.0) -> Response:
    reply = render(request, "sign_in.html", {"next": safe_next(next), "problem": problem}, status=status)
    if wait_s > 0:
        reply.headers["Retry-After"] = str(math.ceil(wait_s))
    return reply
