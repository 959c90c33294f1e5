"""The interface's own description: ``GET /openapi.json`` for programs, ``GET /docs`` for people.

The page is Swagger UI, with all of its files from this endpoint; a browser is told to load nothing else.
"""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from orchestrator.serve.ingress.openapi import describe, make_document, operation_id, reply

__all__ = ["router"]

_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>SHIP</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = (
    'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
)
_FILES = Path(fastapi_offline.__file__).parent / "static"
_TYPES = {"favicon.png": "image/png", "swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)


@router.get(
    "/openapi.json",
    responses=reply(content={"application/json": {"schema": {"type": "object"}}}),
    openapi_extra=describe(),
)
def openapi(request: Request) -> Response:
    """This document."""
    state = request.app.state
    if not hasattr(state, "document"):
        state.document = JSONResponse(make_document(request.app.routes)).body
    return Response(state.document, media_type="application/json")


@router.get("/docs", include_in_schema=False)
def docs() -> Response:
    """Swagger UI."""
    return HTMLResponse(_PAGE, headers=_POLICY)


@router.get("/docs/{file}", include_in_schema=False)
def docs_file(file: str) -> Response:
    """A file of Swagger UI."""
    if file == "start.js":
        return Response(_START, media_type="text/javascript", headers=_POLICY)
    if file not in _TYPES:
        raise HTTPException(404)
    return FileResponse(_FILES / file, media_type=_TYPES[file], headers=_POLICY)
