"""Random concurrent changes to a memory that is too small: every answer is whole and within bounds."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Ask
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry
from ship.decision.rule import DecisionRule
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S, Loader, Pool, apply, entry, find

NUM_TASKS, NUM_VERSIONS, CAPACITY, NUM_STEPS = 8, 4, 24, 250


def rule_of(digest: str | None) -> DecisionRule:
    """A rule that tells by its temperature which one it is."""
    return DecisionRule() if digest is None else DecisionRule(temperature=1.0 + int(digest[-1]))


class Walk:
    """Asks, promotes, drops and fails at random, and checks what must always hold."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.load = Loader(Pool(CAPACITY), num_bytes=lambda ref: 1 + ref.version)
        self.residency = Residency(
            self._checked_load,
            3,
            pinned=("t-0",),
            load_wait_s=PATIENCE_S,
            retry_s=0.01,
            read_rule=self._read_rule,
        )
        self.wanted: dict[str, CatalogEntry] = {}
        self.under_way: Counter[tuple[str, str]] = Counter()
        self.doubled: list[PromptRef] = []
        self.was_down = False
        self.answered = self.num_rules = 0

    def _checked_load(self, ref: PromptRef, make_room: Callable[[int], bool]) -> ServedVersion:
        with self.load.lock:
            self.under_way[ref.key] += 1
            is_down = sum(self.load.loads.values()) % 11 == 10 and not self.was_down
            self.was_down = is_down
            if self.under_way[ref.key] > 1 or ref.key in self.residency._memory:
                self.doubled.append(ref)
        try:
            if is_down:
                raise StoreError("down")
            return self.load(ref, make_room)
        finally:
            with self.load.lock:
                self.under_way[ref.key] -= 1

    def _read_rule(self, ref: PromptRef) -> DecisionRule:
        assert ref.rule is not None
        with self.load.lock:
            self.num_rules += 1
            if self.num_rules % 5 == 4:
                raise StoreError("down")
        return rule_of(ref.rule)

    def promote(self) -> None:
        """Change one task of the catalog, or take it out."""
        task = f"t-{self.random.randrange(NUM_TASKS)}"
        if self.random.random() < 0.1:
            self.wanted.pop(task, None)
        else:
            versions = list(range(1, NUM_VERSIONS + 1))
            self.random.shuffle(versions)
            champion, *others = versions
            canary = Canary(version=others[0], share=0.3) if self.random.random() < 0.3 else None
            shadow = others[1] if self.random.random() < 0.3 else None
            digests = {version: f"{task}-{version}" for version in others}
            ruled = [f"{task}-{version}" for version in versions if self.random.random() < 0.5]
            rules = {digest: f"{digest}/{self.random.randint(1, 3)}" for digest in ruled}
            more = {"others": digests, "canary": canary, "shadow": shadow, "rules": rules}
            self.wanted[task] = entry(task, champion, **more)
        catalog = Catalog(entries=dict(self.wanted))
        (apply if self.random.random() < 0.2 else Residency.apply)(self.residency, catalog)

    async def ask(self, seed: int) -> None:
        """Ask one task again and again."""
        draws = random.Random(seed)
        for _ in range(NUM_STEPS):
            version = draws.choice([None, None, 1, 2, 3, 4])
            task = f"t-{draws.randrange(NUM_TASKS)}"
            found = await self.residency.find(Ask(task=task, version=version, key=str(draws.random())))
            if isinstance(found, ServedVersion):
                expected = f"{task}-{found.version}"
                assert (found.task, found.digest, found.labels) == (task, expected, (expected,))
                assert version in (None, found.version)
                name = found.rule_digest or f"{found.digest}/0"
                assert (name[:-2], found.rule) == (found.digest, rule_of(found.rule_digest))
                self.answered += 1
            assert self.load.pool.used_bytes <= CAPACITY
            # No request keeps a prompt while waiting for another one.
            del found
            if draws.random() < 0.2:
                await asyncio.sleep(0)

    def is_answered_by(self, task: str, version: int) -> bool:
        found = find(self.residency, task)
        rule = self.wanted[task].rules.get(f"{task}-{version}")
        if isinstance(found, ServedVersion) and (found.version, found.rule_digest) == (version, rule):
            return True
        time.sleep(0.01)
        self.residency.refresh()
        return False

    def check_at_rest(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        # A thread that has just loaded something lets go of it a moment later.
        while self.load.pool.used_bytes != self.residency.stats().resident_bytes:
            assert time.monotonic() < deadline_s, "a reference to an evicted prompt is left"
        for task, wanted in self.wanted.items():
            # The store may be down once more, and the version before answers while it is.
            assert any(self.is_answered_by(task, wanted.version) for _ in range(100))
        states = self.residency.states()
        assert self.residency.num_served == sum(state.version is not None for state in states)
        stats = self.residency.stats()
        assert stats.num_loads == sum(self.load.loads.values())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_at_once_no_answer_is_mixed_and_nothing_is_loaded_twice(seed: int):
    walk = Walk(seed)
    for _ in range(4 * NUM_TASKS):
        walk.promote()

    async def ask() -> None:
        done = threading.Event()

        def promote() -> None:
            while not done.is_set():
                walk.promote()
                walk.residency.refresh()
                done.wait(0.002)

        promoting = asyncio.create_task(asyncio.to_thread(promote))
        try:
            await asyncio.gather(*(walk.ask(1000 * seed + number) for number in range(8)))
        finally:
            done.set()
            await promoting

    asyncio.run(ask())
    apply(walk.residency, Catalog(entries=dict(walk.wanted)))
    assert not walk.doubled
    assert walk.answered > NUM_STEPS
    assert walk.residency.stats().num_evictions > 0
    walk.check_at_rest()
