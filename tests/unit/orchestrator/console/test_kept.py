"""Values and errors that are kept for a moment, also while a store takes long to say that it is away."""

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter

from orchestrator.console.kept import ERROR_AGE_S, Kept
from orchestrator.errors import StoreError
from tests.unit.orchestrator.console.factory import Clock, make_console

LIMIT_S = 30.0


class Store:
    """A store that is away, and says so after its patience on a clock."""

    def __init__(self, clock: Clock, patience_s: float = 60.0) -> None:
        self.clock, self.patience_s, self.num_reads = clock, patience_s, 0

    def read(self) -> int:
        self.num_reads += 1
        self.clock.now_s += self.patience_s
        raise StoreError("the store is away")


def fails(kept: Kept[int], read: Callable[[], int]) -> bool:
    try:
        kept.get(read)
    except StoreError:
        return True
    return False


def test_an_error_is_kept_from_its_end_on_and_asked_for_again_when_it_is_old() -> None:
    clock = Clock()
    kept, store = Kept[int](2.0, clock), Store(clock)
    assert [fails(kept, store.read) for _ in range(8)] == [True] * 8
    assert (store.num_reads, clock.now_s) == (1, Clock().now_s + 60.0)
    clock.now_s += 2.0
    assert kept.get(lambda: 3) == 3
    assert kept.get(store.read) == 3


@pytest.mark.parametrize("age_s", [10.0, math.inf])
def test_an_error_is_not_kept_for_as_long_as_a_value_that_is_kept_for_long(age_s: float) -> None:
    clock = Clock()
    kept = Kept[int](age_s, clock)
    assert fails(kept, Store(clock).read)
    clock.now_s += ERROR_AGE_S
    assert kept.get(lambda: 3) == 3
    clock.now_s += ERROR_AGE_S
    assert kept.get(lambda: 4) == 3


def test_an_error_is_forgotten_like_a_value() -> None:
    clock = Clock()
    kept = Kept[int](2.0, clock)
    assert fails(kept, Store(clock).read)
    kept.forget()
    assert kept.get(lambda: 3) == 3


def test_while_one_thread_asks_again_the_others_get_the_error_at_once() -> None:
    clock = Clock()
    kept, store = Kept[int](2.0, clock), Store(clock)
    assert fails(kept, store.read)
    clock.now_s += 2.0
    is_asking, may_end = threading.Event(), threading.Event()

    def ask_again() -> int:
        is_asking.set()
        assert may_end.wait(LIMIT_S)
        return 3

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(kept.get, ask_again)
        assert is_asking.wait(LIMIT_S)
        assert [fails(kept, store.read) for _ in range(8)] == [True] * 8
        may_end.set()
        assert asking.result(LIMIT_S) == 3
    assert store.num_reads == 1


def test_requests_with_invented_tokens_ask_a_store_that_is_away_once() -> None:
    console = make_console()
    store = Store(console.clock)
    console.world.objects.hook = lambda when: store.read()
    browser = console.browser()
    for number in range(8):
        invented = {"Authorization": f"Bearer ship_{number:012d}_{'0' * 64}"}
        assert browser.get("/fleet.json", headers=invented).status_code == 503
    assert store.num_reads == 1


def test_the_process_says_that_it_runs_while_its_threads_wait_for_the_store() -> None:
    console = make_console()
    is_asking, may_end = threading.Event(), threading.Event()

    def wait(when: str) -> None:
        is_asking.set()
        assert may_end.wait(LIMIT_S)
        raise StoreError("the store is away")

    console.world.objects.hook = wait
    invented = {"Authorization": f"Bearer ship_{'0' * 12}_{'0' * 64}"}

    async def ask() -> tuple[int, int]:
        current_default_thread_limiter().total_tokens = 1
        transport = httpx.ASGITransport(console.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            waiting = asyncio.create_task(client.get("/fleet.json", headers=invented))
            while not is_asking.is_set():
                await asyncio.sleep(0)
            try:
                async with asyncio.timeout(LIMIT_S / 2):
                    alive = await client.get("/healthz")
            finally:
                may_end.set()
            return alive.status_code, (await waiting).status_code

    assert asyncio.run(ask()) == (200, 503)
