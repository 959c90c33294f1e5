"""The OpenAPI document."""

from importlib.metadata import version as version_of
from typing import Any

from orchestrator.serve.ingress.openapi.operations import PATHS
from orchestrator.serve.ingress.openapi.protocol_operations import PATHS as PROTOCOL_PATHS
from orchestrator.serve.ingress.openapi.schemas import PARAMETERS, schemas

__all__ = ["make_document"]

_DESCRIPTION = (
    "One frozen backbone answers for thousands of tasks; header Ship-Task says which one is asked. Errors "
    "are problem documents (RFC 9457); below /v2 they are worded as the Open Inference Protocol has them."
)


def make_document() -> dict[str, Any]:
    """OpenAPI 3.1, in plain JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SHIP",
            "version": version_of("ship-prompts"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Started with --no-auth, an endpoint asks for none.
        "security": [{"bearer": []}, {}],
        "paths": {**PATHS, **PROTOCOL_PATHS},
        "components": {
            "schemas": schemas(),
            "parameters": PARAMETERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `ship token create`; with `--no-auth` none is asked for.",
                }
            },
        },
    }
