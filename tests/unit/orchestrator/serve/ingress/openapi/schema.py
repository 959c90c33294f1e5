"""The document, and values held against its schemas."""

from typing import Any

from jsonschema import Draft202012Validator

from orchestrator.serve.ingress.openapi.document import make_document

__all__ = ["DOCUMENT", "check_schema"]

DOCUMENT = make_document()


def check_schema(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)
