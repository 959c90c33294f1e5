"""Questions to engines about pictures that are decoded as the version that answers has to see them.

A question goes out to the engine, and with a picture decoded by the view, that the task had last. If the
version that is to answer belongs to another backbone or has another view (the first question about a task, a
new champion, a canary), the engine says so, and the question goes out once more: no reply is about a picture
that was seen in another way than in tuning.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from orchestrator.serve.canary import key_of_content
from orchestrator.serve.engine_api import Answer, Ask, Engine, Explanation, Image, Refusal
from orchestrator.serve.ingress.problems import Problem
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Asker", "Picture"]

# The known way, a key, another backbone, its view, back to the first one, and what was promoted meanwhile.
_NUM_ROUNDS = 6
# Refuses no picture for its depth: asks for the view of a task whose picture the known view refuses.
_ANY_DEPTH = View(bits=16)
# Hashed in a thread from this size on.
_LARGE_BYTES = 1 << 20
# Without an answer of these kinds, the backbone that answered until now is asked.
_STAY = ("other_backbone", "other_version", "not_loaded", "not_ready", "unavailable")


_Reply = TypeVar("_Reply", bound=Answer | Explanation | Refusal | Problem)


class Picture:
    """A picture that a client sent, decoded at most once for each backbone and view.

    Args:
        decode: Decodes it by a view for a backbone (see ``Ask``); raises ``Problem`` if it is refused.
        content: The picture as it was sent: a file, or pixels.
    """

    def __init__(self, decode: Callable[[View, str], Awaitable[Image]], content: bytes | Image = b"") -> None:
        self._decode = decode
        self._content = content
        self._key: str | None = None
        self._seen: dict[tuple[View, str], Image | Problem] = {}

    @property
    def file(self) -> bytes:
        """The file that was sent; empty for pixels."""
        return self._content if isinstance(self._content, bytes) else b""

    async def seen(self, view: View, backbone: str = "") -> Image | Problem:
        """The picture as the engine's input, or the problem that it is refused for."""
        way = view, backbone
        if way not in self._seen:
            try:
                self._seen[way] = await self._decode(*way)
            except Problem as problem:
                self._seen[way] = problem
        return self._seen[way]

    async def key(self) -> str:
        """Key of questions without one: the same at every ingress, whatever is known of the task there."""
        if self._key is None:
            content = self._content
            is_large = len(content) >= _LARGE_BYTES if isinstance(content, bytes) else True
            found = asyncio.to_thread(key_of_content, content) if is_large else None
            self._key = key_of_content(content) if found is None else await found
        return self._key


@dataclass(frozen=True, kw_only=True)
class _Way:
    """Backbone and view by which a task was answered last."""

    backbone: str = ""
    view: View = DEFAULT_VIEW


class Asker:
    """Asks the engines of one endpoint, and remembers backbones and views of their tasks. Of one event loop.

    Args:
        engine: Engine that answers.
        backbones: Fingerprints of its backbones, if there are several; the first one is asked about tasks
            that are not known yet.
    """

    def __init__(self, engine: Engine, backbones: Sequence[str] = ()) -> None:
        self._engine = engine
        self._backbones = tuple(backbones) or ("",)
        self._usual = _Way(backbone=self._backbones[0])
        # By task and by the version that was named; tasks that are asked in the usual way are left out.
        self._ways: dict[tuple[str, int | None], _Way] = {}
        # Tasks that have had a canary.
        self._keyed: set[str] = set()

    def with_way(self, ask: Ask) -> Ask:
        """The question with the backbone and the view that its task is known to have."""
        way = self._ways.get((ask.task, ask.version), self._usual)
        return replace(ask, view=way.view, backbone=way.backbone)

    async def decode(self, picture: Picture, ask: Ask) -> Image | Problem:
        """A picture as the question about it sends it first; its problem if there is no sending it."""
        found, _ = await _sendable(picture, self.with_way(ask))
        return found

    async def prepare(self, pictures: Sequence[Picture], asks: Sequence[Ask]) -> None:
        """Decode pictures in the ways that their tasks are known to be asked."""
        await _see(pictures, [self.with_way(ask) for ask in asks])

    async def predict(
        self, pictures: Sequence[Picture], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal | Problem]:
        """Ask about pictures; a problem in place of an answer is that of the picture.

        Args:
            pictures: Pictures; ``Ask.image`` is an index of these.
            asks: Questions, with views or without.
            patience_s: See ``engine_api.Engine``.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + patience_s
        open_asks = {place: self.with_way(ask) for place, ask in enumerate(asks)}
        replies: dict[int, Answer | Refusal | Problem] = {}
        for _ in range(_NUM_ROUNDS):
            found = await self._ask_once(pictures, open_asks, patience_s)
            open_asks = {
                place: corrected
                for place, ask in open_asks.items()
                if (corrected := self._correct(ask, found[place])) is not None
            }
            for place, reply in found.items():
                replies[place] = _better(replies.get(place), reply)
            if not open_asks:
                break
            patience_s = max(0.0, deadline_s - loop.time())
        return [replies[place] for place in range(len(asks))]

    async def explain(
        self, picture: Picture, ask: Ask, patience_s: float
    ) -> tuple[Explanation | Refusal | Problem, View]:
        """Ask for an explanation of a picture; also the view by which it was seen."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + patience_s
        ask = self.with_way(ask)
        reply: Explanation | Refusal | None = None
        for _ in range(_NUM_ROUNDS):
            ask = await self._with_key(picture, ask)
            image, sent_ask = await _sendable(picture, ask)
            if isinstance(image, Problem):
                return image, ask.view
            found = await self._engine.explain(image, sent_ask, max(0.0, deadline_s - loop.time()))
            if isinstance(found, Refusal) and found.view == ask.view != sent_ask.view:
                return await _problem(picture, ask), ask.view
            reply, corrected = _better(reply, found), self._correct(ask, found)
            if corrected is None:
                return reply, sent_ask.view
            ask = corrected
        assert reply is not None, "it was asked"
        return reply, ask.view

    async def _ask_once(
        self, pictures: Sequence[Picture], asks: dict[int, Ask], patience_s: float
    ) -> dict[int, Answer | Refusal | Problem]:
        """Replies by place; the engine is asked once, about all pictures that can be decoded."""
        await _see(pictures, asks.values())
        for place, ask in asks.items():
            asks[place] = await self._with_key(pictures[ask.image], ask)
        seen = [await _sendable(pictures[ask.image], ask) for ask in asks.values()]
        images: dict[tuple[int, View, str], Image] = {}
        replies: dict[int, Answer | Refusal | Problem] = {}
        sent: dict[int, Ask] = {}
        for place, (found, ask) in zip(asks, seen, strict=True):
            if isinstance(found, Problem):
                replies[place] = found
            else:
                images[ask.image, ask.view, ask.backbone] = found
                sent[place] = ask
        if not sent:
            return replies
        index = {key: number for number, key in enumerate(images)}
        numbered = [replace(ask, image=index[ask.image, ask.view, ask.backbone]) for ask in sent.values()]
        answers = await self._engine.predict(list(images.values()), numbered, patience_s)
        for place, answer in zip(sent, answers, strict=True):
            ask = asks[place]
            is_refused = isinstance(answer, Refusal) and answer.view == ask.view != sent[place].view
            replies[place] = await _problem(pictures[ask.image], ask) if is_refused else answer
        return replies

    async def _with_key(self, picture: Picture, ask: Ask) -> Ask:
        if ask.key is not None or ask.version is not None or ask.task not in self._keyed:
            return ask
        return replace(ask, key=await picture.key())

    def _correct(self, ask: Ask, found: Answer | Explanation | Refusal | Problem) -> Ask | None:
        """The question as it is to be asked next; None if the reply stands."""
        if not isinstance(found, Refusal):
            return None
        if found.reason == "no_key" and ask.task not in self._keyed:
            self._keyed.add(ask.task)
            return ask
        if found.reason == "other_view":
            assert found.view is not None, "a refusal for another view names it"
            if found.is_lasting:
                self._note(ask, _Way(backbone=ask.backbone, view=found.view))
            return replace(ask, view=found.view)
        if ask.sent_from is not None and found.reason in _STAY:
            self._note(ask, _Way(backbone=ask.sent_from))
            return replace(ask, backbone=ask.sent_from, view=DEFAULT_VIEW, sent_from=None, stays=True)
        home = self._find_home(ask, found)
        if home is None or ask.stays:
            return None
        if found.is_lasting:
            self._note(ask, _Way(backbone=home))
        return replace(ask, backbone=home, view=DEFAULT_VIEW, sent_from=ask.backbone)

    def _find_home(self, ask: Ask, found: Refusal) -> str | None:
        """Backbone to ask next: the one that is named, or any other while the first one is away."""
        if found.reason == "other_backbone" and found.backbone in self._backbones:
            return found.backbone
        if found.reason != "unavailable" or (ask.task, ask.version) in self._ways:
            return None
        return next((one for one in self._backbones if one != ask.backbone), None)

    def _note(self, ask: Ask, way: _Way) -> None:
        if way == self._usual:
            self._ways.pop((ask.task, ask.version), None)
        else:
            self._ways[ask.task, ask.version] = way


def _better(before: _Reply | None, found: _Reply) -> _Reply:
    """The reply to give: the cause why another backbone has no answer, if the one before has none either."""
    if isinstance(before, Refusal) and isinstance(found, Refusal) and found.reason == "other_backbone":
        return before if before.reason in ("not_loaded", "not_ready", "unavailable") else found
    return found


async def _sendable(picture: Picture, ask: Ask) -> tuple[Image | Problem, Ask]:
    """A picture with the question to send it with; the problem of the picture if there is no sending it.

    What the known view refuses for its form may suit the view that the task has by now.
    """
    image = await picture.seen(ask.view, ask.backbone)
    if not isinstance(image, Problem) or image.kind != "image-unsupported":
        return image, ask
    stand_in = await picture.seen(_ANY_DEPTH, ask.backbone)
    return (image, ask) if isinstance(stand_in, Problem) else (stand_in, replace(ask, view=_ANY_DEPTH))


async def _problem(picture: Picture, ask: Ask) -> Problem:
    problem = await picture.seen(ask.view, ask.backbone)
    assert isinstance(problem, Problem), "only what is refused is asked about by another view"
    return problem


async def _see(pictures: Sequence[Picture], asks: Iterable[Ask]) -> None:
    """Decode each picture in each way that it is asked about."""
    wanted = dict.fromkeys((ask.image, ask.view, ask.backbone) for ask in asks)
    await asyncio.gather(*(pictures[image].seen(view, backbone) for image, view, backbone in wanted))
