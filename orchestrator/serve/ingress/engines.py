"""Engines of several backbones behind the interface of one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from orchestrator.serve.engine_api import (
    ALL_TASKS,
    Answer,
    Ask,
    Engine,
    EngineBusyError,
    EngineUnavailableError,
    Explanation,
    Image,
    Readiness,
    Refusal,
    ResidencyStats,
    ServingState,
    TaskPage,
)
from ship.backbone_info import BackboneInfo

__all__ = ["Engines"]

_Reply = TypeVar("_Reply")


class Engines:
    """An ``engine_api.Engine`` of several backbones: a question goes to the engine of its ``Ask.backbone``.

    Each engine knows the whole catalog, and refuses by name what belongs to another backbone.

    Args:
        engines: Engine by the fingerprint of its backbone, two or more; the first one is asked about what no
            backbone is known of.
        backbones: Description of each backbone.
    """

    def __init__(self, engines: Mapping[str, Engine], backbones: Mapping[str, BackboneInfo]) -> None:
        self._engines = engines
        self._backbones = backbones
        self._first = next(iter(engines))

    async def backbone(self) -> BackboneInfo:
        """See ``engine_api.Engine``: the first one."""
        return self._backbones[self._first]

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """See ``engine_api.Engine``; engines that cannot be asked cost only their own tasks the answer."""
        places: dict[str, list[int]] = {}
        for place, ask in enumerate(asks):
            places.setdefault(ask.backbone or self._first, []).append(place)
        found = await asyncio.gather(
            *(
                self._predict_of(backbone, images, [asks[place] for place in those], patience_s)
                for backbone, those in places.items()
            )
        )
        by_place = {
            place: reply
            for those, replies in zip(places.values(), found, strict=True)
            for place, reply in zip(those, replies, strict=True)
        }
        return [by_place[place] for place in range(len(asks))]

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        """See ``engine_api.Engine``."""
        backbone = ask.backbone or self._first
        reply = await _refused(self._engines[backbone].explain(image, ask, patience_s))
        return self._named(backbone, reply)

    async def tasks(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        """See ``engine_api.Engine``: each task once, as the engine of its backbone has it."""
        pages = await self._ask_all(lambda engine: engine.tasks(page))
        found: dict[str, list[tuple[str, ServingState]]] = {}
        for backbone, states in pages.items():
            for state in states:
                found.setdefault(state.task, []).append((backbone, state))
        names = sorted(found)[: page.limit]
        return [self._state_of(*max(found[task], key=_nearness)) for task in names]

    async def task(self, name: str) -> ServingState | Refusal | None:
        """See ``engine_api.Engine``."""
        state = await self._engines[self._first].task(name)
        home = state.backbone if isinstance(state, ServingState) else ""
        if home not in self._engines:
            return self._state_of(self._first, state) if isinstance(state, ServingState) else state
        state = await self._engines[home].task(name)
        return self._state_of(home, state) if isinstance(state, ServingState) else state

    async def readiness(self) -> Readiness:
        """See ``engine_api.Engine``: ready once the engines of all backbones are."""
        replies = await self._ask_all(lambda engine: _refused(engine.readiness()))
        found = {
            backbone: Readiness(ready=False, detail=one.detail) if isinstance(one, Refusal) else one
            for backbone, one in replies.items()
        }
        waiting = {backbone: one for backbone, one in found.items() if not one.ready}
        ages_s = [one.catalog_age_s for one in found.values()]
        named = waiting or found
        return Readiness(
            ready=not waiting,
            detail="; ".join(f"{self._backbones[key].name}: {one.detail}" for key, one in named.items()),
            num_served=sum(one.num_served for one in found.values()),
            num_problems=sum(one.num_problems for one in found.values()),
            num_loading=sum(one.num_loading for one in found.values()),
            catalog_age_s=None if None in ages_s else max(age_s for age_s in ages_s if age_s is not None),
            num_lost=max(one.num_lost for one in found.values()),
            # Of the one catalog that all follow.
            num_broken=max(one.num_broken for one in found.values()),
            precision=", ".join(sorted({one.precision for one in found.values() if one.ready})),
        )

    async def stats(self) -> list[ResidencyStats]:
        """See ``engine_api.Engine``."""
        found = await asyncio.gather(
            *(engine.stats() for engine in self._engines.values()), return_exceptions=True
        )
        errors = [one for one in found if isinstance(one, BaseException)]
        if len(errors) == len(found):
            raise errors[0]
        return [stats for one in found if not isinstance(one, BaseException) for stats in one]

    async def _predict_of(
        self, backbone: str, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        used = list(dict.fromkeys(ask.image for ask in asks))
        numbered = [replace(ask, image=used.index(ask.image)) for ask in asks]
        own = [images[number] for number in used]
        replies = await _refused(self._engines[backbone].predict(own, numbered, patience_s))
        if isinstance(replies, Refusal):
            return [replies] * len(asks)
        return [self._named(backbone, reply) for reply in replies]

    def _named(self, backbone: str, reply: _Reply) -> _Reply:
        """A reply with its backbone; of a backbone that has no engines, the refusal that says so."""
        if isinstance(reply, Refusal):
            if reply.reason != "other_backbone" or reply.backbone in self._engines:
                return reply
            detail = self._not_served(reply.detail, reply.backbone)
            return replace(reply, reason="not_loaded", detail=detail)
        assert isinstance(reply, Answer | Explanation), "what an engine replies"
        return replace(reply, backbone=backbone)

    def _state_of(self, backbone: str, state: ServingState) -> ServingState:
        """A state with its backbone, and with the problem of one that has no engines."""
        if not state.backbone:
            return replace(state, backbone=backbone)
        if state.backbone in self._engines:
            return state
        detail = f"version {state.wanted_version} of task {state.task!r} is of another backbone"
        return replace(state, problem=self._not_served(detail, state.backbone))

    def _not_served(self, detail: str, backbone: str | None) -> str:
        served = ", ".join(f"{info.name!r} ({key[:12]})" for key, info in self._backbones.items())
        return f"{detail} ({str(backbone)[:12]}); this endpoint serves {served}"

    async def _ask_all(self, ask: Callable[[Engine], Awaitable[_Reply]]) -> dict[str, _Reply]:
        replies = await asyncio.gather(*map(ask, self._engines.values()))
        return dict(zip(self._engines, replies, strict=True))


async def _refused(reply: Awaitable[_Reply]) -> _Reply | Refusal:
    """The reply; a refusal if no engine of a backbone can be asked."""
    try:
        return await reply
    except EngineBusyError as error:
        return Refusal(reason="busy", detail=str(error))
    except EngineUnavailableError as error:
        return Refusal(reason="unavailable", detail=str(error))


def _nearness(said: tuple[str, ServingState]) -> tuple[bool, bool, bool]:
    """Of the states of a task, that of the engine which has it counts most."""
    _, state = said
    return not state.backbone, state.version is not None, state.problem is None
