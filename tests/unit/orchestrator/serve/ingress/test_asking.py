"""Questions go out by the view of the version that answers, and are asked again where it was another."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.serve.engine_api import Answer, Ask, Explanation, Image, Refusal
from orchestrator.serve.ingress.asking import Asker, Picture
from orchestrator.serve.ingress.problems import Problem
from ship.settings.view import DEFAULT_VIEW, View
from tests.unit.orchestrator.serve.factory import FakeEngine

TILED, CUT, DEEP = View(tiles="2x2"), View(crop=(0, 0, 4, 4)), View(bits=12)


@dataclass
class Engine(FakeEngine):
    """Has a view for each task; refuses pictures that were decoded by another."""

    views: dict[str, View] = field(default_factory=dict)
    is_lasting: bool = True

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        replies = await super().predict(images, asks, patience_s)
        return [self._check(ask) or reply for ask, reply in zip(asks, replies, strict=True)]

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        return self._check(ask) or await super().explain(image, ask, patience_s)

    def _check(self, ask: Ask) -> Refusal | None:
        wanted = self.views.get(ask.task, DEFAULT_VIEW)
        if ask.view == wanted:
            return None
        return Refusal(
            reason="other_view",
            detail="another",
            view=wanted,
            is_lasting=self.is_lasting,
        )


class Pictures:
    """Pictures that count how often they are decoded; one that does not hold a crop is refused."""

    def __init__(self, refused_bits: Collection[int | str] = ()) -> None:
        self.decoded: list[View] = []
        self.refused_bits = refused_bits

    async def decode(self, view: View, backbone: str) -> Image:
        self.decoded.append(view)
        if view == CUT:
            raise Problem("image-too-small", "too small")
        if view.bits in self.refused_bits:
            raise Problem("image-unsupported", f"of {view.bits} bits")
        return np.zeros((3, 4, 4), dtype=np.uint8)

    def make(self) -> Picture:
        return Picture(self.decode)


def test_a_task_of_the_default_view_is_asked_once() -> None:
    engine, pictures = Engine(), Pictures()
    [found] = asyncio.run(Asker(engine).predict([pictures.make()], [Ask(task="bolts")], 5.0))
    assert isinstance(found, Answer)
    assert (engine.asks, engine.patience_s) == ([Ask(task="bolts")], [5.0])
    assert pictures.decoded == [DEFAULT_VIEW]


def test_the_view_is_learned_from_the_engine_and_kept() -> None:
    engine, pictures = Engine(views={"bolts": TILED}), Pictures()

    async def run() -> None:
        asker = Asker(engine)
        for _ in range(2):
            [found] = await asker.predict([pictures.make()], [Ask(task="bolts")], 5.0)
            assert isinstance(found, Answer)
        engine.views = {}
        [found] = await asker.predict([pictures.make()], [Ask(task="bolts")], 5.0)
        assert isinstance(found, Answer), "the view of a new champion is learned as well"
        assert asker.with_way(Ask(task="bolts")).view == DEFAULT_VIEW

    asyncio.run(run())
    assert pictures.decoded == [DEFAULT_VIEW, TILED, TILED, TILED, DEFAULT_VIEW]


def test_the_view_of_a_canary_is_not_kept() -> None:
    engine = Engine(views={"bolts": TILED}, is_lasting=False)
    asker = Asker(engine)
    asyncio.run(asker.predict([Pictures().make()], [Ask(task="bolts")], 5.0))
    assert asker.with_way(Ask(task="bolts")).view == DEFAULT_VIEW


def test_only_those_of_a_batch_are_asked_again_whose_view_was_another() -> None:
    engine, pictures = Engine(views={"tiled": TILED, "cut": CUT}), Pictures()
    asks = [Ask(task=task, image=image) for image in (0, 1) for task in ("bolts", "tiled", "cut")]
    found = asyncio.run(Asker(engine).predict([pictures.make(), pictures.make()], asks, 5.0))
    assert [type(reply) for reply in found] == [Answer, Answer, Problem] * 2
    assert [reply.task for reply in found if isinstance(reply, Answer)] == ["bolts", "tiled"] * 2
    assert engine.num_images == [2, 2], "each picture goes out once for each view"
    assert [ask.image for ask in engine.asks[6:]] == [0, 1]
    assert len(pictures.decoded) == 6


def test_a_view_that_changes_each_time_is_given_up() -> None:
    class Restless(Engine):
        def _check(self, ask: Ask) -> Refusal | None:
            view = DEFAULT_VIEW if ask.view == TILED else TILED
            return Refusal(reason="other_view", detail="another", view=view)

    engine = Restless()
    [found] = asyncio.run(Asker(engine).predict([Pictures().make()], [Ask(task="bolts")], 5.0))
    assert isinstance(found, Refusal)
    assert found.reason == "other_view"
    assert len(engine.asks) == 6


def test_an_explanation_is_asked_for_again_too() -> None:
    found, view = asyncio.run(
        Asker(Engine(views={"bolts": TILED})).explain(Pictures().make(), Ask(task="bolts"), 5.0)
    )
    assert isinstance(found, Explanation)
    assert view == TILED
    refused, _ = asyncio.run(
        Asker(Engine(views={"bolts": CUT})).explain(Pictures().make(), Ask(task="bolts"), 5.0)
    )
    assert isinstance(refused, Problem)


def test_a_depth_that_the_known_view_refuses_is_learned_from_the_engine() -> None:
    """A dark picture of 16 bits is refused by `auto`, and the task's bits are not known yet."""
    asker, dark = Asker(Engine(views={"bolts": DEEP})), Pictures(refused_bits=["auto"])
    [found] = asyncio.run(asker.predict([dark.make()], [Ask(task="bolts")], 5.0))
    assert isinstance(found, Answer)
    assert dark.decoded == [DEFAULT_VIEW, View(bits=16), DEEP]
    assert asker.with_way(Ask(task="bolts")).view == DEEP
    explained, view = asyncio.run(
        Asker(Engine(views={"bolts": DEEP})).explain(dark.make(), Ask(task="bolts"), 5.0)
    )
    assert isinstance(explained, Explanation)
    assert view == DEEP


def test_a_depth_that_the_task_refuses_is_the_pictures_problem() -> None:
    dark = Pictures(refused_bits=["auto", 12])
    for views in ({}, {"bolts": DEEP}):
        [found] = asyncio.run(Asker(Engine(views=views)).predict([dark.make()], [Ask(task="bolts")], 5.0))
        assert isinstance(found, Problem)
        explained, _ = asyncio.run(Asker(Engine(views=views)).explain(dark.make(), Ask(task="bolts"), 5.0))
        assert isinstance(explained, Problem)


def test_what_no_view_reads_is_not_asked_about() -> None:
    engine = Engine()
    broken = Pictures(refused_bits=["auto", 16])
    [found] = asyncio.run(Asker(engine).predict([broken.make()], [Ask(task="bolts")], 5.0))
    assert isinstance(found, Problem)
    assert engine.asks == []
