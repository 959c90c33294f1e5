"""Questions to an engine about pictures that are decoded by the view of the version that answers.

A question goes out with a picture decoded by the view that the task had last. If the version that is to
answer has another one (the first question about a task, a new champion, a canary), the engine names it, and
the question goes out once more: no reply is about a picture that was seen in another way than in tuning.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from orchestrator.serve.engine_api import Answer, Ask, Engine, Explanation, Image, Refusal
from orchestrator.serve.ingress.problems import Problem
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Asker", "Picture"]

# The view that is known, that of the version, and that of the version promoted meanwhile.
_NUM_ROUNDS = 3
# Refuses no picture for its depth: asks for the view of a task whose picture the known view refuses.
_ANY_DEPTH = View(bits=16)


class Picture:
    """A picture that a client sent, decoded at most once for each view.

    Args:
        decode: Decodes it by a view; raises ``Problem`` if it is refused.
    """

    def __init__(self, decode: Callable[[View], Awaitable[Image]]) -> None:
        self._decode = decode
        self._seen: dict[View, Image | Problem] = {}

    async def seen(self, view: View) -> Image | Problem:
        """The picture as the engine's input, or the problem that it is refused for."""
        if view not in self._seen:
            try:
                self._seen[view] = await self._decode(view)
            except Problem as problem:
                self._seen[view] = problem
        return self._seen[view]


class Asker:
    """Asks one engine, and remembers the views of its tasks. Of one event loop.

    Args:
        engine: Engine that answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # By task and by the version that was named; tasks of the default view are left out.
        self._views: dict[tuple[str, int | None], View] = {}

    def with_view(self, ask: Ask) -> Ask:
        """The question with the view that its task is known to have."""
        return replace(ask, view=self._views.get((ask.task, ask.version), DEFAULT_VIEW))

    async def decode(self, picture: Picture, ask: Ask) -> Image | Problem:
        """A picture as the question about it sends it first; its problem if there is no sending it."""
        found, _ = await _sendable(picture, self.with_view(ask))
        return found

    async def prepare(self, pictures: Sequence[Picture], asks: Sequence[Ask]) -> None:
        """Decode pictures by the views that their tasks are known to have."""
        await _see(pictures, [self.with_view(ask) for ask in asks])

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
        open_asks = {place: self.with_view(ask) for place, ask in enumerate(asks)}
        replies: dict[int, Answer | Refusal | Problem] = {}
        for _ in range(_NUM_ROUNDS):
            replies |= await self._ask_once(pictures, open_asks, patience_s)
            open_asks = {
                place: self._corrected(ask, found)
                for place, ask in open_asks.items()
                if isinstance(found := replies[place], Refusal) and found.reason == "other_view"
            }
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
        ask = self.with_view(ask)
        found: Explanation | Refusal | Problem
        for _ in range(_NUM_ROUNDS):
            image, sent_ask = await _sendable(picture, ask)
            if isinstance(image, Problem):
                return image, ask.view
            found = await self._engine.explain(image, sent_ask, max(0.0, deadline_s - loop.time()))
            if not isinstance(found, Refusal) or found.reason != "other_view":
                return found, sent_ask.view
            if found.view == ask.view != sent_ask.view:
                return await _problem(picture, ask), ask.view
            ask = self._corrected(ask, found)
        return found, ask.view

    async def _ask_once(
        self, pictures: Sequence[Picture], asks: dict[int, Ask], patience_s: float
    ) -> dict[int, Answer | Refusal | Problem]:
        """Replies by place; the engine is asked once, about all pictures that can be decoded."""
        await _see(pictures, asks.values())
        seen = [await _sendable(pictures[ask.image], ask) for ask in asks.values()]
        images: dict[tuple[int, View], Image] = {}
        replies: dict[int, Answer | Refusal | Problem] = {}
        sent: dict[int, Ask] = {}
        for place, (found, ask) in zip(asks, seen, strict=True):
            if isinstance(found, Problem):
                replies[place] = found
            else:
                images[ask.image, ask.view] = found
                sent[place] = ask
        if not sent:
            return replies
        index = {key: number for number, key in enumerate(images)}
        numbered = [replace(ask, image=index[ask.image, ask.view]) for ask in sent.values()]
        answers = await self._engine.predict(list(images.values()), numbered, patience_s)
        for place, answer in zip(sent, answers, strict=True):
            ask = asks[place]
            is_refused = isinstance(answer, Refusal) and answer.view == ask.view != sent[place].view
            replies[place] = await _problem(pictures[ask.image], ask) if is_refused else answer
        return replies

    def _corrected(self, ask: Ask, refusal: Refusal) -> Ask:
        """The question for the version that the engine found, with that version's view."""
        assert refusal.view is not None, "a refusal for another view names it"
        if refusal.is_lasting:
            if refusal.view.is_default:
                self._views.pop((ask.task, ask.version), None)
            else:
                self._views[ask.task, ask.version] = refusal.view
        return replace(ask, view=refusal.view, key=refusal.key)


async def _sendable(picture: Picture, ask: Ask) -> tuple[Image | Problem, Ask]:
    """A picture with the question to send it with; the problem of the picture if there is no sending it.

    What the known view refuses for its form may suit the view that the task has by now.
    """
    image = await picture.seen(ask.view)
    if not isinstance(image, Problem) or image.kind != "image-unsupported":
        return image, ask
    stand_in = await picture.seen(_ANY_DEPTH)
    return (image, ask) if isinstance(stand_in, Problem) else (stand_in, replace(ask, view=_ANY_DEPTH))


async def _problem(picture: Picture, ask: Ask) -> Problem:
    problem = await picture.seen(ask.view)
    assert isinstance(problem, Problem), "only what is refused is asked about by another view"
    return problem


async def _see(pictures: Sequence[Picture], asks: Iterable[Ask]) -> None:
    """Decode each picture by each view that it is asked about by."""
    wanted = dict.fromkeys((ask.image, ask.view) for ask in asks)
    await asyncio.gather(*(pictures[image].seen(view) for image, view in wanted))
