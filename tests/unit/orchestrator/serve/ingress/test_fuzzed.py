"""Requests that Schemathesis makes up from the OpenAPI document, valid and not: every reply is as described.

The same ones each time: what is drawn depends on the test alone.
"""

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed; pip install -e '.[dev]' brings it")

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.serve.ingress.app import make_app
from tests.unit.orchestrator.serve.caller import LIMITS
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.ship.factory import make_backbone

load_all_checks()
schemathesis.serializer.alias(["image/bmp", "image/tiff"], "application/octet-stream")
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", make_app(FakeEngine(), make_backbone().info, LIMITS))


@SCHEMA.parametrize()
@settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_replies_are_as_described(case: schemathesis.Case) -> None:
    reply = case.call()
    assert reply.status_code != 500, reply.text
    case.validate_response(reply, checks=CHECKS)
