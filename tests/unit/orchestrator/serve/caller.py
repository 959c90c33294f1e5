"""Calls an application in this process, and checks problem documents."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
from fastapi import FastAPI

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from ship.images.decoding import decode_pixels
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png

__all__ = ["PNG", "TO_BOLTS", "Caller", "assert_problem", "decode_with"]

PNG = draw_png()
TO_BOLTS = {"Ship-Task": "bolts", "Content-Type": "image/png"}
LIMITS = Limits(
    max_body_bytes=100_000,
    max_pixels=40 * 30,
    max_batch_items=8,
    max_batch_images=4,
    max_batch_bytes=300_000,
    body_idle_s=0.2,
    probe_keep_s=0.0,
)


class Caller:
    """A client of one application."""

    def __init__(self, backbone: Backbone, limits: Limits = LIMITS) -> None:
        self.engine = FakeEngine()
        self.app = make_app(self.engine, backbone.info, limits)
        # Processes have tests of their own; each would take a third of a second to start.
        decode_with(self.app, Decoder(backbone.info, limits, decode_pixels))

    def __call__(self, method: str, path: str, **request: object) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
                return await client.request(method, path, **request)

        return asyncio.run(send())

    def predict(self, content: bytes = PNG, **headers: str) -> httpx.Response:
        return self("POST", "/v1/predict", content=content, headers={**TO_BOLTS, **headers})

    def batch(self, images: dict[str, bytes], items: list[dict[str, Any]] | None, **headers: str) -> Any:
        parts: list[tuple[str, Any]] = [(name, (f"{name}.png", image)) for name, image in images.items()]
        if items is not None:
            document = json.dumps({"items": items})
            parts.insert(0, ("request", (None, document, "application/json")))
        return self("POST", "/v1/predict:batch", files=parts, headers=headers)


def decode_with(app: FastAPI, decoder: Decoder) -> None:
    """Put another decoder into an application."""
    app.state.front = replace(app.state.front, decoder=decoder)


def assert_problem(reply: httpx.Response, status: int, kind: str | None = None) -> str:
    """Check that the reply is a problem document; returns its detail."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["type"] == ("about:blank" if kind is None else f"urn:ship:problem:{kind}")
    assert problem["title"]
    detail: str = problem["detail"]
    return detail
