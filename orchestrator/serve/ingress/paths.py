"""Paths of the routes, and the route of a request's path, for metrics and the request log.

A path without a route is ``other``: paths that clients make up must not become label values or log entries.
"""

import re

__all__ = ["BATCH_PATH", "CLIENT_CLOSED_REQUEST", "PATHS", "template_of"]

CLIENT_CLOSED_REQUEST = 499

BATCH_PATH = "/v1/predict:batch"

PATHS = (
    "/v1/predict",
    BATCH_PATH,
    "/v1/explain",
    "/v1/tasks",
    "/v1/tasks/{task}",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/{file}",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{task}",
    "/v2/models/{task}/ready",
    "/v2/models/{task}/infer",
    "/v2/models/{task}/versions/{version}",
    "/v2/models/{task}/versions/{version}/ready",
    "/v2/models/{task}/versions/{version}/infer",
)
_PATTERNS = [
    (path, re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)), re.DOTALL)) for path in PATHS
]


def template_of(path: str) -> str:
    """Path of the route, with the names of its parameters; ``other`` if there is no such route."""
    for template, pattern in _PATTERNS:
        if pattern.fullmatch(path):
            return template
    return "other"
