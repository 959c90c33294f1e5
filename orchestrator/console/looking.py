"""What the console shows of single pictures: thumbnails, attention maps, and the nearest training pictures.

Held-out answers are kept in memory for the few versions that were looked at last. The last two need the
version's prompt to be run: the endpoint does so for attention maps; where it cannot, and for the nearest
pictures, this process does if it was told to (``ship console --compute``), one picture at a time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.console.kept import Bounded
from orchestrator.errors import RegistryError
from orchestrator.registry.evidence import Evidence, load_own_backbone, read_held_out
from orchestrator.registry.pictures import HeldOutPictures, Picture, find_source
from orchestrator.registry.registry import Registry
from orchestrator.registry.sweeps import Knob, sweep
from orchestrator.registry.thresholds import Standing, Thresholds
from orchestrator.registry.versions import VersionInfo
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.report import report_answers
from ship.errors import ShipError
from ship.images.decoding import decode_pixels, read_size
from ship.settings.view import MAX_PIXELS, View

if TYPE_CHECKING:
    from orchestrator.client import Client
    from ship.artifact.neighbours import Neighbour, TrainingFeatures
    from ship.runtime.runtime import Runtime
    from ship.runtime.slots import Slot

__all__ = ["Look", "Nearest"]

# Seconds for all training pictures of a version, of which others are then left out; and for a turn.
PATIENCE_S = 60.0
NUM_EVIDENCE, NUM_RUNTIMES, NUM_FEATURES, NUM_MAPS, NUM_NEAREST = 6, 2, 4, 64, 8


@dataclass(frozen=True, kw_only=True, eq=False)
class _Running:
    """A version's prompt that can be run here."""

    runtime: "Runtime"
    slot: "Slot"


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The training pictures that are most like a held-out one.

    Attributes:
        neighbours: These, the most alike first.
        num_looked_at: Training pictures that were looked at.
        num_training: Training pictures in all.
    """

    neighbours: "list[Neighbour]"
    num_looked_at: int
    num_training: int


class Look:
    """Held-out answers and pictures of versions.

    Args:
        registry: Tells where the data of a version lies.
        store: Store of artifacts.
        endpoint: Makes attention maps, if there is one.
        computes: Whether this process may run prompts itself.
        backbone: Place of the backbone, if it is not where the artifacts say.
        max_pixels: Pixels of the largest picture that is decoded.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        registry: Registry,
        store: PromptStore,
        *,
        endpoint: "Client | None" = None,
        computes: bool = False,
        backbone: str | None = None,
        max_pixels: int = MAX_PIXELS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._store = registry, store
        self._endpoint, self.computes = endpoint, computes
        self._pictures, self._max_pixels = HeldOutPictures(registry, max_pixels=max_pixels), max_pixels
        self._evidence: Bounded[Evidence] = Bounded(NUM_EVIDENCE)
        self._running: Bounded[_Running] = Bounded(NUM_RUNTIMES)
        self._features: Bounded[TrainingFeatures] = Bounded(NUM_FEATURES)
        self._reports: Bounded[dict[str, Any]] = Bounded(NUM_EVIDENCE)
        self._sweeps: Bounded[dict[str, Any]] = Bounded(NUM_EVIDENCE)
        self._maps: Bounded[bytes] = Bounded(NUM_MAPS)
        self._nearest: Bounded[Nearest] = Bounded(NUM_MAPS)
        self._turn, self._clock, self._backbone = threading.Lock(), clock, backbone

    @property
    def can_explain(self) -> bool:
        """Whether attention maps can be had at all."""
        return self.computes or self._endpoint is not None

    def evidence(self, task: str, info: VersionInfo) -> Evidence:
        """Held-out answers of a version, with the rule that decides now.

        Raises:
            RegistryError: It has none.
            StoreError: They cannot be read.
        """
        stored = self._store.read_rollout(task)
        rule = None if stored is None else stored[0].rules.get(info.digest or "")
        key = (task, info.version, info.digest, rule)
        return self._evidence.get(key, lambda: read_held_out(self._store, task, info))

    def report(self, task: str, evidence: Evidence) -> dict[str, Any]:
        """What ``ship mistakes --json`` gives of a version; it is not to be changed."""
        key = (task, evidence.version, evidence.digest, repr(evidence.rule))
        return self._reports.get(key, lambda: report_answers(evidence.answers, evidence.rule))

    def sweep(self, thresholds: Thresholds, standing: Standing, knob: Knob) -> dict[str, Any]:
        """The steps of a setting of a version's rule, see ``sweeps.sweep``; it is not to be changed."""
        key = (standing.task, standing.version, standing.artifact, standing.digest, knob)
        return self._sweeps.get(key, lambda: sweep(thresholds, standing, knob))

    def picture(self, task: str, evidence: Evidence, place: int) -> Picture:
        """A held-out picture; see ``HeldOutPictures.read``."""
        return self._pictures.read(task, evidence, place)

    def attention(self, task: str, evidence: Evidence, place: int) -> bytes:
        """PNG of what CLS attends to, with the prompt and on the bare backbone.

        Raises:
            RegistryError: The picture is not the one that was measured any more, or nothing may compute it.
            ServeError: The endpoint does not answer, and this process may not.
        """
        return self._maps.get(
            (evidence.digest, place), lambda: self._explain(task, evidence, self._same(task, evidence, place))
        )

    def nearest(self, task: str, evidence: Evidence, place: int) -> "Nearest":
        """The nearest training pictures.

        Raises:
            RegistryError: What is missing for it.
            DataError: The data cannot be read, or is another one meanwhile.
        """
        return self._nearest.get((evidence.digest, place), lambda: self._find_nearest(task, evidence, place))

    def _same(self, task: str, evidence: Evidence, place: int) -> Picture:
        found = self.picture(task, evidence, place)
        if found.state != "same":
            raise RegistryError(found.detail)
        return found

    def _explain(self, task: str, evidence: Evidence, picture: Picture) -> bytes:
        assert picture.content is not None, "it is the same"
        if self._endpoint is not None:
            try:
                return self._endpoint.explain(task, picture.content, version=evidence.version)
            except ShipError:
                if not self.computes:
                    raise
        return self._explain_here(task, evidence, picture)

    def _explain_here(self, task: str, evidence: Evidence, picture: Picture) -> bytes:
        from orchestrator.serve.engine_api import Explanation
        from orchestrator.serve.ingress.heat_map import draw_explanation
        from orchestrator.serve.ingress.tiled_map import lay_back
        from ship.runtime.explain import explain

        assert picture.content is not None, "it is the same"
        assert picture.pixels is not None, "it is the same"
        with self._in_turn():
            running = self._run(evidence)
            maps = explain(running.runtime, picture.pixels, running.slot)
        card = evidence.card
        height, width = card.backbone["image_size"]
        size = read_size(picture.content)
        prompted_YX, bare_YX = (
            lay_back(maps_TYX.numpy(), card.view, size, (height, width))
            for maps_TYX in (maps.prompted_TYX, maps.bare_TYX)
        )
        found = Explanation(
            task=task,
            version=evidence.version,
            digest=evidence.digest,
            prompted_TYX=maps.prompted_TYX.numpy(),
            bare_TYX=maps.bare_TYX.numpy(),
            entropy=maps.entropy,
            bare_entropy=maps.bare_entropy,
            distance=maps.distance,
        )
        return draw_explanation(_region(evidence, picture, self._max_pixels), found, prompted_YX, bare_YX)

    def _find_nearest(self, task: str, evidence: Evidence, place: int) -> "Nearest":
        from ship.artifact.neighbours import measure_training
        from ship.backbone import as_rows

        picture = self._same(task, evidence, place)
        assert picture.pixels is not None, "it is the same"
        with self._in_turn():
            running = self._run(evidence)

            def measure() -> "TrainingFeatures":
                source, end_s = find_source(self._registry, evidence, task), self._clock() + PATIENCE_S
                return measure_training(
                    running.runtime,
                    running.slot,
                    evidence.card,
                    source,
                    max_pixels=self._max_pixels,
                    goes_on=lambda: self._clock() < end_s,
                )

            features = self._features.get(evidence.digest, measure)
            [own] = running.runtime.infer_rows(as_rows(picture.pixels.unsqueeze(0)), [running.slot])
        return Nearest(
            neighbours=features.nearest(own.feature_D, NUM_NEAREST),
            num_looked_at=len(features.features_BD),
            num_training=features.num_training,
        )

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """One pass at a time: the console shares its machine with what it shows."""
        if not self._turn.acquire(timeout=PATIENCE_S):
            raise RegistryError("this console computes something else for another person; try again later")
        try:
            yield
        finally:
            self._turn.release()

    def _run(self, evidence: Evidence) -> _Running:
        """The version's prompt in a runtime of its own.

        Raises:
            RegistryError: This process may not run it.
        """
        if not self.computes:
            raise RegistryError(
                "an artifact keeps no training picture and no attention: `ship console --compute` lets the "
                "console run the version's prompt on this machine's CPU"
            )
        return self._running.get(evidence.digest, lambda: self._open(evidence))

    def _open(self, evidence: Evidence) -> _Running:
        from ship.artifact.files import load_files
        from ship.artifact.measuring import open_runtime

        loaded = load_files(self._store.fetch(evidence.digest), evidence.digest)
        runtime, slot = open_runtime(loaded, load_own_backbone(loaded, self._backbone))
        return _Running(runtime=runtime, slot=slot)


def _region(evidence: Evidence, picture: Picture, max_pixels: int) -> NDArray[np.uint8]:
    """The region that the task looks at, ``3,H,W``, as large as its tiles together."""
    assert picture.content is not None, "it is the same"
    card = evidence.card
    height, width = card.backbone["image_size"]
    rows, columns = card.view.grid
    return decode_pixels(
        picture.content,
        size=(rows * height, columns * width),
        interpolation=card.backbone["interpolation"],
        max_pixels=max_pixels,
        view=View(crop=card.view.crop, bits=card.view.bits),
    )
