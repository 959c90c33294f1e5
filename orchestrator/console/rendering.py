"""How pages are made: templates that escape everything, and each page's data as JSON beside it."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel

from orchestrator.console.access import CSRF_FIELD, CSRF_HEADER, Person, Scope
from orchestrator.console.assets import asset_url
from orchestrator.report.charts import draw_learning_curve
from ship.redaction import redact_values

__all__ = ["add_page", "plain", "render", "with_query"]

# Of the header: those that this console has.
NAVIGATION = (
    ("Fleet", "/fleet"),
    ("Runs", "/runs"),
    ("Review", "/review"),
    ("Try", "/try"),
    ("Endpoint", "/endpoint"),
    ("Audit", "/audit"),
)


def add_page(router: APIRouter, path: str, template: str, read: Callable[..., Any]) -> None:
    """Add a page at ``path``, and its data at ``path.json``.

    Args:
        router: Router of the page.
        path: Path; it ends in a fixed word, as a task may be called ``caps.json``.
        template: Name of the template, which gets what ``read`` gives as ``data``.
        read: A FastAPI dependency that gives the data: a pydantic model, or plain values. Its parameters are
            those of the page's URL.
    """
    assert not path.endswith(("}", "/")), f"{path}: expected to end in a word"

    @router.get(f"{path}.json", name=f"{template}.json")
    def get_json(data: Any = Depends(read)) -> Response:
        # Names of files may have half characters, which only an escape can write.
        return Response(json.dumps(plain(data)), media_type="application/json")

    @router.get(path, name=template)
    def get_page(request: Request, data: Any = Depends(read)) -> Response:
        json_url = with_query(f"{request.scope['path']}.json", dict(request.query_params))
        return render(request, template, data, json_url=json_url)


def render(request: Request, template: str, data: Any, *, status: int = 200, **more: Any) -> HTMLResponse:
    """A page, or a part of one.

    Args:
        request: The request.
        template: Name of the template.
        data: Plain values or a pydantic model; the template gets them as ``data``, with text that cannot be
            printed replaced.
        status: HTTP status.
        **more: Further variables of the template.
    """
    person: Person | None = getattr(request.state, "person", None)
    context = {
        "data": _printable(plain(data)),
        "person": person,
        "csrf": person.csrf if person else "",
        "path": request.scope["path"],
        "query": dict(request.query_params),
        "json_url": None,
        "navigation": [(name, path) for name, path in NAVIGATION if path in request.app.state.paths],
        "auth": request.app.state.access.auth,
        "may_decide": person is not None and person.scope >= Scope.DECIDE,
        "is_admin": person is not None and person.scope >= Scope.ADMIN,
        **more,
    }
    return HTMLResponse(_environment().get_template(template).render(context), status_code=status)


def plain(data: Any) -> Any:
    """JSON values of a page's data: without secrets, and null for what is no number."""
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json")
    return redact_values(_finite(data))


def with_query(path: str, query: Mapping[str, Any], **changes: Any) -> str:
    """A URL with parameters, of which some are changed; those that are None or empty are left out."""
    kept = {name: value for name, value in {**query, **changes}.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(kept, doseq=True)}" if kept else path


@cache
def _environment() -> Environment:
    """The templates, compiled once."""
    environment = Environment(
        loader=PackageLoader("orchestrator.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        asset=asset_url, with_query=with_query, csrf_field=CSRF_FIELD, csrf_header=CSRF_HEADER
    )
    environment.filters.update(
        moment=_moment, share="{:.3f}".format, percent="{:.1%}".format, curve=_draw_curve
    )
    return environment


def _draw_curve(found: Mapping[str, Any]) -> Markup:
    """A learning curve as SVG, which has no text of others."""
    return Markup(draw_learning_curve(found["probe"], found["expected"]))


def _moment(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime(form)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value


def _printable(value: Any) -> Any:
    """The same with whatever cannot be printed replaced: controls, half characters, changed directions."""
    if isinstance(value, str):
        return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in value)
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value
