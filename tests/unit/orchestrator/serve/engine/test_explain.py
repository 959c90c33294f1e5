"""Explanations: what is drawn and told, and that they wait for one another, few at a time."""

import asyncio
import io
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from orchestrator.serve.engine.explain import Explainer
from orchestrator.serve.engine_api import EngineBusyError, Explanation, Refusal
from ship.backbone import Backbone
from ship.runtime.explain import explain
from ship.runtime.runtime import Runtime
from tests.unit.orchestrator.serve.caller import PNG, TO_BOLTS, Caller, assert_problem
from tests.unit.orchestrator.serve.factory import make_served


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def ask(call: Caller, **headers: str) -> object:
    return call("POST", "/v1/explain", content=PNG, headers={**TO_BOLTS, **headers})


def test_two_panels_are_drawn_side_by_side(call: Caller) -> None:
    reply = ask(call)
    assert reply.status_code == 200, reply.text
    assert (reply.headers["content-type"], reply.headers["ship-version"]) == ("image/png", "2")
    picture = np.asarray(PillowImage.open(io.BytesIO(reply.content)))
    # 320 pixels each, margins of 12, two lines of text above.
    left, right = picture[48 : 48 + 320, 12 : 12 + 320], picture[48 : 48 + 320, 344 : 344 + 320]
    half = 160
    red = [side[:half, :half, 0].mean() - side[:half, half:, 0].mean() for side in (left, right)]
    assert abs(red[0]) < 30, "attention is even with this prompt"
    assert red[1] > 60, "all on the diagonal without it"


def test_json_has_both_maps_and_what_tells_them_apart(call: Caller) -> None:
    reply = ask(call, Accept="application/json", **{"Ship-Version": "2", "Ship-Key": "k"})
    assert reply.json() == {
        "task": "bolts",
        "version": 2,
        "digest": "d" * 64,
        "layer": "last",
        "attention": [[0.25, 0.25], [0.25, 0.25]],
        "bare_attention": [[0.5, 0.0], [0.0, 0.5]],
        "entropy": 1.0,
        "bare_entropy": 0.5,
        "distance": 0.5,
    }
    [asked] = call.engine.asks
    assert (asked.task, asked.version, asked.key) == ("bolts", 2, "k")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("text/html, image/avif, */*;q=0.8", "image/png"),
        ("application/json, */*", "application/json"),
        ("application/*", "application/json"),
        ("image/png;q=0, application/json", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("*/*;q=0.1, IMAGE/PNG ; Q=0.000", "application/json"),
        ("image/*;q=0, */*", "application/json"),
        ("image/*;q=0, image/png", "image/png"),
        ("application/json;q=0, */*", "image/png"),
        ("application/json;q=0.01, image/png;q=0", "application/json"),
    ],
)
def test_the_form_that_is_wanted(call: Caller, accept: str, form: str) -> None:
    assert ask(call, Accept=accept).headers["content-type"] == form


def test_the_stages_of_explanations_are_counted(call: Caller) -> None:
    ask(call)
    ask(call, Accept="application/json")
    ask(call, Accept="text/html")
    counted = call("GET", "/metrics").text.splitlines()
    for stage, num in (("read", 2), ("decode", 2), ("engine", 2), ("draw", 1)):
        assert f'ship_stage_seconds_count{{stage="{stage}"}} {num}.0' in counted
    assert not any('stage="forward"' in line for line in counted), "that is of predictions"


def test_what_is_refused(call: Caller) -> None:
    for accept in (
        "text/html",
        "application/json;q=0",
        "*/*;q=0",
        "*/*, image/*;q=0, application/*;q=0.0, multipart/*;q=0",
    ):
        assert_problem(ask(call, Accept=accept), 406, "not-acceptable")
    assert_problem(ask(call, **{"Ship-Task": "../x"}), 400, "task-invalid")
    assert_problem(call("POST", "/v1/explain", content=b"<svg/>", headers=TO_BOLTS), 415, "image-unsupported")
    call.engine.refusal = Refusal(reason="busy", detail="8 explanations wait")
    assert_problem(ask(call), 429, "busy")
    call.engine.error = EngineBusyError("full")
    assert_problem(ask(call), 429, "busy")


def test_the_replica_explains_what_it_serves(backbone: Backbone, runtime: Runtime) -> None:
    served = make_served(runtime, "bolts", version=3, seed=5)
    image_3HW = np.random.default_rng(0).integers(0, 256, (3, *backbone.image_size), dtype=np.uint8)
    found = asyncio.run(Explainer(runtime).explain(image_3HW, served, 30.0))
    assert isinstance(found, Explanation)
    assert (found.task, found.version, found.digest) == ("bolts", 3, served.digest)
    expected = explain(runtime, torch.from_numpy(image_3HW), served.slot)
    np.testing.assert_array_equal(found.prompted_TYX, expected.prompted_TYX.numpy())
    np.testing.assert_array_equal(found.bare_TYX, expected.bare_TYX.numpy())
    assert (found.entropy, found.distance) == (expected.entropy, expected.distance)


def test_one_at_a_time_and_few_in_line(backbone: Backbone, runtime: Runtime) -> None:
    go_on, seen = threading.Event(), []

    def slow(*args: Any) -> Any:
        seen.append(args)
        assert not running.is_set(), "another one is under way"
        running.set()
        go_on.wait(30)
        running.clear()
        return explain(*args)

    running = threading.Event()
    served = make_served(runtime, "bolts")
    image_3HW = np.zeros((3, *backbone.image_size), dtype=np.uint8)

    async def ask_five() -> list[Explanation | Refusal]:
        explainer = Explainer(runtime, max_waiting=2, measure=slow)
        first = asyncio.ensure_future(explainer.explain(image_3HW, served, 30.0))
        while not running.is_set():
            await asyncio.sleep(0.01)
        waiting = [asyncio.ensure_future(explainer.explain(image_3HW, served, s)) for s in (30.0, 0.05)]
        await asyncio.sleep(0)
        turned_away = await explainer.explain(image_3HW, served, 30.0)
        late = await waiting[1]
        go_on.set()
        return [await first, await waiting[0], late, turned_away]

    first, second, late, turned_away = asyncio.run(ask_five())
    assert isinstance(first, Explanation)
    assert isinstance(second, Explanation)
    assert isinstance(late, Refusal)
    assert isinstance(turned_away, Refusal)
    assert (late.reason, turned_away.reason) == ("late", "busy")
    assert len(seen) == 2


def test_a_pass_that_fails_is_a_refusal_and_the_next_one_goes(
    backbone: Backbone, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make_served(runtime, "bolts")
    explainer = Explainer(runtime)
    wrong_3HW = np.zeros((3, 5, 5), dtype=np.uint8)
    right_3HW = np.zeros((3, *backbone.image_size), dtype=np.uint8)

    async def ask_both() -> tuple[object, object]:
        return await explainer.explain(wrong_3HW, served, 30.0), await explainer.explain(
            right_3HW, served, 30.0
        )

    failed, found = asyncio.run(ask_both())
    assert isinstance(failed, Refusal)
    assert failed.reason == "failed"
    assert isinstance(found, Explanation)
