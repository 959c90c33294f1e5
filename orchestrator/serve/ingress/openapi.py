"""OpenAPI document: made by FastAPI from the routes, completed with headers, bodies, problems and tokens."""

import json
import re
from collections.abc import Sequence
from importlib.metadata import version as version_of
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.routing import BaseRoute

from orchestrator.names import TASK_NAME_PATTERN
from orchestrator.serve.ingress.bodies.schemas import BatchBody
from orchestrator.serve.ingress.bodies.tensor_schemas import TensorBody
from orchestrator.serve.ingress.headers import KEY_PATTERN, MAX_PAGE, SECONDS_PATTERN, VERSION_PATTERN
from orchestrator.serve.ingress.middleware.encoding import ACCEPTED_ENCODINGS
from orchestrator.serve.ingress.problem_kinds import KINDS
from orchestrator.serve.ingress.problems import MEDIA_TYPE, ErrorReply, Problem, ProblemReply, respond

__all__ = ["BINARY", "REPLY_HEADERS", "describe", "make_document", "operation_id", "reply"]

_DESCRIPTION = (
    "One frozen backbone answers for thousands of tasks; the header Ship-Task names the task. Errors are "
    "problem documents (RFC 9457); below /v2 they have the form of the Open Inference Protocol."
)
_SCHEMA = "#/components/schemas/{model}"
_PROBLEMS = "x-problems"
_NAME = re.compile(r"{(\w+)}")
BINARY = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}
_TASK = {"type": "string", "pattern": f"^{TASK_NAME_PATTERN}$"}
_VERSION = {"type": "string", "pattern": f"^{VERSION_PATTERN}$"}
_IN_PATH: dict[str, dict[str, Any]] = {
    "task": {"name": "task", "in": "path", "required": True, "schema": _TASK, "example": "bolts"},
    "version": {"name": "version", "in": "path", "required": True, "schema": _VERSION, "example": "2"},
}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "Ship-Task": {"required": True, "schema": _TASK, "description": "Task to ask.", "example": "bolts"},
    "Ship-Version": {
        "schema": _VERSION,
        "description": "Version that must answer; by default the one that is served.",
        "example": "2",
    },
    "Ship-Key": {
        "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
        "description": "While a canary runs, the same version answers all requests with the same key.",
        "example": "line 7",
    },
    "Ship-Timeout": {
        "schema": {"type": "string", "pattern": f"^{SECONDS_PATTERN}$"},
        "description": "Seconds above 0 that the request may take, reading and decoding included; the "
        "endpoint has a limit of its own.",
        "example": "2.5",
    },
    "Ship-Keep": {
        "schema": {"type": "string", "enum": ["yes", "no"]},
        "description": "`no` keeps the picture out of the store, where the endpoint keeps some.",
        "example": "no",
    },
    "Content-Encoding": {
        "schema": {"type": "string", "enum": list(ACCEPTED_ENCODINGS)},
        "description": "How the body is compressed; limits on its size hold for what it decompresses to.",
    },
    "X-Request-ID": {
        "schema": _TEXT,
        "description": "Id for the reply and the request log: 1 to 128 letters, digits and `._:/+=@-`; by "
        "default the endpoint makes one.",
    },
}
REPLY_HEADERS = {
    "Ship-Backbone": {
        "description": "Fingerprint of the backbone; of a reply about no single task, those of all backbones "
        "with commas between them.",
        "schema": _TEXT,
    },
    "Ship-Task": {"description": "Task that answered.", "schema": _TASK},
    "Ship-Version": {"description": "Version that answered.", "schema": _VERSION},
    "Ship-Digest": {"description": "SHA-256 of the prompt's artifact.", "schema": _TEXT},
    "Ship-Precision": {"description": "Precision of the arithmetic.", "schema": _TEXT},
}
_QUERY: dict[str, dict[str, Any]] = {
    "limit": {
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": MAX_PAGE},
        "description": "Most tasks of the page.",
        "example": 100,
    },
    "cursor": {
        "schema": _TASK,
        "description": "`next_cursor` of the page before; the list is in the order of the tasks' names.",
        "example": "bolts",
    },
}
_REQUEST_ID = {"description": "Id of the request.", "schema": _TEXT}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": _TEXT}}
_PROBLEM_HEADERS = {401: _CHALLENGE, 403: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of `ship token create`; with `--no-auth` the endpoint asks for none.",
}


def operation_id(route: APIRoute) -> str:
    """Name of the route's function; of two routes with one function, the second is that of a version."""
    return f"{route.name}_version" if "{version}" in route.path else route.name


def reply(body: Any = None, *headers: str, **more: Any) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: type of its JSON body, names of its headers, other media types."""
    named = {name: REPLY_HEADERS[name] for name in headers}
    text = body.__doc__ if body else "The reply."
    return {200: {"model": body, "description": text, "headers": named, **more}}


def describe(
    problems: str = "",
    *,
    headers: str = "",
    query: str = "",
    body: dict[str, Any] | None = None,
    is_open: bool = False,
) -> dict[str, Any]:
    """``openapi_extra`` of a route.

    Args:
        problems: Kinds of problem that the route itself answers with, with blanks between them.
        headers: Names of the headers that it reads, likewise; those that end in ``?`` are optional.
        query: Names of the parameters of its query, likewise.
        body: Its request body.
        is_open: It needs no token.
    """
    parameters = [{"name": name, "in": "query", **_QUERY[name]} for name in query.split()]
    about_body = ["Content-Encoding"] if body else []
    parameters += [_header(name) for name in (*headers.split(), *about_body, "X-Request-ID")]
    kinds = problems.split() + (["body-corrupt", "content-encoding-unsupported"] if body else [])
    extra: dict[str, Any] = {_PROBLEMS: kinds, "parameters": parameters}
    return extra | ({"requestBody": body} if body else {}) | ({"security": []} if is_open else {})


def _header(name: str) -> dict[str, Any]:
    optional = {"required": False} if name.endswith("?") else {}
    name = name.removesuffix("?")
    return {"name": name, "in": "header", **_PARAMETERS[name], **optional}


def make_document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """OpenAPI 3.1, in plain JSON values."""
    document = get_openapi(
        title="SHIP",
        version=version_of("ship-prompts"),
        description=_DESCRIPTION,
        routes=routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    bodies: list[Any] = [ErrorReply, ProblemReply, BatchBody, TensorBody]
    _, found = TypeAdapter.json_schemas(
        [(body, "validation", TypeAdapter(body)) for body in bodies], ref_template=_SCHEMA
    )
    schemas: dict[str, Any] = {**document["components"]["schemas"], **found["$defs"]}
    del schemas["HTTPValidationError"], schemas["ValidationError"]
    document["components"] = {"schemas": schemas, "securitySchemes": {"bearer": _BEARER}}
    # An endpoint that was started with --no-auth asks for no token.
    document["security"] = [{"bearer": []}, {}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation, schemas)
    return document


def _complete(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add what is common to all operations: summary, examples, the request's id and problems."""
    operation["summary"], _, text = operation.pop("description").partition("\n\n")
    if text:
        operation["description"] = text
    headers = [found for found in operation["parameters"] if found["in"] == "header"]
    operation["parameters"] = [_IN_PATH[name] for name in _NAME.findall(path)] + headers
    responses = operation["responses"]
    responses["200"]["headers"]["X-Request-ID"] = _REQUEST_ID
    for body in (responses["200"], operation.get("requestBody", {"content": {}})):
        content = body["content"].get("application/json", {"schema": {}})
        if "$ref" in content["schema"]:
            content["example"] = _example(content["schema"], schemas)
    # FastAPI validates nothing here; a problem may take its place.
    responses.pop("422", None)
    kinds = ["closing", *operation.pop(_PROBLEMS)]
    if operation.get("security") != []:
        # The page of metrics goes on, and says so.
        kinds += ["token-missing", "token-invalid"] + (["tokens-too-old"] if path != "/metrics" else [])
    for status in sorted({KINDS[kind].status for kind in kinds}):
        found = [kind for kind in kinds if KINDS[kind].status == status]
        responses[str(status)] = _problems(path, status, found)


def _problems(path: str, status: int, kinds: Sequence[str]) -> dict[str, Any]:
    answers = {kind: respond(path, Problem(kind, KINDS[kind].when)) for kind in kinds}
    media_type = answers[kinds[0]].media_type or ""
    model = "ProblemReply" if media_type == MEDIA_TYPE else "ErrorReply"
    examples = {kind: {"value": json.loads(bytes(answer.body))} for kind, answer in answers.items()}
    response = {
        "description": "\n".join(f"- `{kind}`: {KINDS[kind].when}" for kind in kinds),
        "content": {media_type: {"schema": {"$ref": _SCHEMA.format(model=model)}, "examples": examples}},
    }
    return response | ({"headers": _PROBLEM_HEADERS[status]} if status in _PROBLEM_HEADERS else {})


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value of a schema, put together from the examples of its fields."""
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], schemas)
    if schema["type"] == "array":
        return [_example(item, schemas) for item in schema["items"].get("anyOf", [schema["items"]])]
    if schema["type"] == "object":
        return {name: _example(field, schemas) for name, field in schema.get("properties", {}).items()}
    return 1
