"""The document, and values held against its schemas."""

from typing import Any

from jsonschema import Draft202012Validator

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.openapi import make_document
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.ship.factory import make_backbone

__all__ = ["DOCUMENT", "check_schema"]

DOCUMENT = make_document(make_app(FakeEngine(), make_backbone().info).routes)


def check_schema(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)
