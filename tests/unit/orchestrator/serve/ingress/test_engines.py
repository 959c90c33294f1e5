"""Engines of two backbones behind one interface, of which one may be away, behind, or wrong."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    EngineBusyError,
    EngineUnavailableError,
    Image,
    Refusal,
    RefusalReason,
    TaskPage,
)
from orchestrator.serve.ingress.asking import Asker, Picture
from orchestrator.serve.ingress.engines import Engines
from ship.settings.view import View
from tests.unit.orchestrator.client.endpoint import BACKBONE
from tests.unit.orchestrator.serve.factory import BOLTS, FakeEngine

SMALL, LARGE = "a" * 64, "b" * 64
SIDES = {SMALL: 4, LARGE: 8}


@dataclass
class OneOfTwo(FakeEngine):
    """Engine of a backbone that answers for its tasks, and sends the others on; ``stays`` has what it had."""

    own: str = SMALL
    homes: dict[str, str] = field(default_factory=dict)
    stays: frozenset[str] = frozenset()
    refuses: RefusalReason | None = None

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        assert {image.shape[-1] for image in images} == {SIDES[self.own]}, "decoded for this backbone"
        replies = await super().predict(images, asks, patience_s)
        return [self._send_on(ask) or reply for ask, reply in zip(asks, replies, strict=True)]

    def _send_on(self, ask: Ask) -> Refusal | None:
        home = self.homes.get(ask.task, SMALL)
        if home != self.own and not (ask.stays and ask.task in self.stays):
            return Refusal(reason="other_backbone", detail="another", backbone=home, is_lasting=True)
        return None if self.refuses is None or ask.stays else Refusal(reason=self.refuses, detail="cannot")


class Two:
    """Engines of both, and an ingress' way to them."""

    def __init__(self, homes: dict[str, str] | None = None) -> None:
        homes = {"bolts": SMALL, "gears": LARGE} if homes is None else homes
        self.small, self.large = OneOfTwo(own=SMALL, homes=homes), OneOfTwo(own=LARGE, homes=homes)
        infos = {SMALL: replace(BACKBONE, name="small"), LARGE: replace(BACKBONE, name="large")}
        self.engines = Engines({SMALL: self.small, LARGE: self.large}, infos)
        self.asker = Asker(self.engines, [SMALL, LARGE])
        self.decoded: list[str] = []

    def picture(self) -> Picture:
        async def decode(view: View, backbone: str) -> Image:
            self.decoded.append(backbone)
            return np.zeros((3, SIDES[backbone], SIDES[backbone]), dtype=np.uint8)

        return Picture(decode, b"a picture")

    def ask(self, *tasks: str) -> list[str | None]:
        """Backbone of each answer; the reason of a refusal."""
        found = asyncio.run(self.asker.predict([self.picture()], [Ask(task=task) for task in tasks], 5.0))
        return [one.backbone if isinstance(one, Answer) else getattr(one, "reason", None) for one in found]


def test_what_is_asked_once_is_known() -> None:
    two = Two()
    for _ in range(3):
        assert two.ask("gears", "bolts") == [LARGE, SMALL]
    assert [ask.task for ask in two.small.asks] == ["gears", "bolts", "bolts", "bolts"]
    assert [ask.task for ask in two.large.asks] == ["gears"] * 3
    assert sorted(two.decoded) == [SMALL] * 3 + [LARGE] * 3, (
        "at the size of each backbone, once for each request"
    )


@pytest.mark.parametrize(
    ("error", "reason"), [(EngineUnavailableError("died"), "unavailable"), (EngineBusyError("full"), "busy")]
)
def test_an_engine_that_is_away_costs_its_own_tasks_alone(error: Exception, reason: str) -> None:
    two = Two()
    two.ask("gears", "bolts")
    two.large.error = error
    assert two.ask("gears", "bolts") == [reason, SMALL]
    two.large.error = None
    assert two.ask("gears") == [LARGE]


def test_while_the_first_is_away_the_other_is_asked_about_tasks_that_are_not_known() -> None:
    two = Two()
    two.small.error = EngineUnavailableError("died")
    assert two.ask("gears", "bolts") == [LARGE, "unavailable"]
    two.small.error = None
    assert two.ask("gears", "bolts") == [LARGE, SMALL]


@pytest.mark.parametrize("reason", ["not_loaded", "not_ready", "other_version"])
def test_what_its_backbone_cannot_answer_the_one_before_does(reason: RefusalReason) -> None:
    two = Two()
    two.small.stays, two.large.refuses = frozenset({"gears"}), reason
    assert two.ask("gears") == two.ask("gears") == [SMALL]
    two.large.refuses = None
    assert two.ask("gears") == [LARGE]


def test_without_one_before_the_cause_is_told() -> None:
    two = Two()
    two.large.refuses = "not_loaded"
    assert two.ask("gears") == ["not_loaded"]


def test_engines_that_send_to_each_other_are_given_up() -> None:
    two = Two({})
    two.small.homes = {"gears": LARGE}
    two.large.homes = {"gears": SMALL}
    assert two.ask("gears") == ["other_backbone"]
    assert len(two.small.asks) + len(two.large.asks) == 3


def test_a_backbone_that_is_not_served_is_told_by_name() -> None:
    two = Two({"gears": "f" * 64})
    [found] = asyncio.run(two.asker.predict([two.picture()], [Ask(task="gears")], 5.0))
    assert isinstance(found, Refusal)
    assert found.reason == "not_loaded"
    assert (
        found.detail
        == f"another ({'f' * 12}); this endpoint serves 'small' ({'a' * 12}), 'large' ({'b' * 12})"
    )


def test_pages_of_both_are_one_list() -> None:
    two = Two()
    names = ["a", "b", "c", "d"]
    for engine, own in ((two.small, "ac"), (two.large, "bd")):
        other = LARGE if engine is two.small else SMALL
        engine.state = replace(BOLTS, task="a", backbone="" if own == "ac" else other)
        engine.more = {
            name: replace(BOLTS, task=name, backbone="" if name in own else other) for name in names
        }
    found = asyncio.run(two.engines.tasks(TaskPage(after="a", limit=2)))
    assert [(state.task, state.backbone) for state in found] == [("b", LARGE), ("c", SMALL)]


def test_readiness_and_figures_of_both_are_put_together() -> None:
    two = Two()
    two.small.num_broken, two.large.num_broken = 2, 1
    ready = asyncio.run(two.engines.readiness())
    assert (ready.ready, ready.num_served, ready.num_broken) == (True, 2, 2)
    assert ready.precision == "float32"
    assert ready.detail == "small: 1 tasks are served; large: 1 tasks are served"
    two.large.error = EngineUnavailableError("no engine answers")
    ready = asyncio.run(two.engines.readiness())
    assert (ready.ready, ready.detail) == (False, "large: no engine answers")
    assert len(asyncio.run(two.engines.stats())) == 1
