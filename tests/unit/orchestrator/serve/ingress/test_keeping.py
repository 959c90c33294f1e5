"""Pictures are kept beside the answers: no answer waits for it, and none fails by it."""

import asyncio
import hashlib
from dataclasses import replace
from itertools import count

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Answer
from orchestrator.serve.ingress.deployment import Ingress
from orchestrator.serve.ingress.keeping import Keeper
from orchestrator.serve.keep_rules import read_rules
from orchestrator.serve.options import Limits
from orchestrator.store.kept.pictures import KeepLimits, KeptPictures
from ship.backbone import Backbone
from tests.unit.orchestrator.registry.factory import MemoryObjects
from tests.unit.orchestrator.serve.caller import PNG, TO_BOLTS, Caller
from tests.unit.orchestrator.serve.factory import FakeEngine, Handle

ANSWER = Answer(
    task="bolts",
    version=3,
    digest="a" * 64,
    probabilities=(("good", 0.55), ("bad", 0.45)),
    decision="unsure",
    because="several",
    batch_rows=1,
    batch_tasks=1,
    distance=1.5,
)


class BrokenObjects(MemoryObjects):
    """A store that takes nothing."""

    def put_new(self, key: str, data: bytes) -> bool:
        raise StoreError("the store is away")


class Offered(Keeper):
    """Notes what it is offered."""

    def __init__(self) -> None:
        super().__init__(KeptPictures(MemoryObjects()), [], KeepLimits())
        self.contents: list[bytes] = []

    def offer(self, answer: Answer, content: bytes) -> None:
        self.contents.append(content)


def make_keeper(kept: KeptPictures, **limits: int) -> Keeper:
    ticks = count(1_000)
    return Keeper(
        kept, read_rules(["unsure"]), KeepLimits(**limits), draw=lambda: 0.0, clock=lambda: float(next(ticks))
    )


def test_a_picture_is_kept_with_its_answer_and_once():
    kept = KeptPictures(MemoryObjects())
    keeper = make_keeper(kept)
    for content in (b"one", b"two", b"one"):
        keeper.offer(ANSWER, content)
    for _ in range(3):
        keeper.step()
    assert keeper.counts == {"kept": 2, "known": 1}
    found = kept.read("bolts", hashlib.sha256(b"one").hexdigest())
    assert (found.version, found.decision, found.because, found.distance) == (3, "unsure", "several", 1.5)
    assert (found.reason, found.num_bytes) == ("unsure", 3)
    assert kept.fetch("bolts", found.picture) == b"one"


def test_offers_never_wait_and_what_there_is_no_room_for_is_counted():
    keeper = make_keeper(KeptPictures(MemoryObjects()))
    for number in range(70):
        keeper.offer(ANSWER, b"%d" % number)
    assert keeper.counts == {"full": 6}
    heavy = make_keeper(KeptPictures(MemoryObjects()))
    for _ in range(5):
        heavy.offer(ANSWER, bytes(15 << 20))
    assert heavy.counts == {"full": 1}
    heavy.step()
    heavy.offer(ANSWER, b"small")
    assert heavy.counts == {"full": 1, "kept": 1}


def test_a_store_that_is_away_costs_its_pictures_alone_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper = make_keeper(KeptPictures(BrokenObjects()))
    for number in range(3):
        keeper.offer(ANSWER, b"%d" % number)
        keeper.step()
    assert keeper.counts == {"failed": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "a picture of task bolts could not be kept: the store is away"
    ]


@pytest.mark.parametrize("limits", [{"pictures": 5}, {"num_bytes": 5_000}])
def test_a_task_keeps_no_more_than_its_limit_and_the_newest(limits: dict[str, int]):
    objects = MemoryObjects()
    kept = KeptPictures(objects)
    keeper = make_keeper(kept, **limits)
    most = 0
    for number in range(30):
        keeper.offer(ANSWER, b"%03d" % number + bytes(500))
        keeper.step()
        files = kept.files("bolts")
        most = max(most, len(files))
        assert len(files) <= limits.get("pictures", 99)
        assert sum(one.num_bytes for one in files) <= limits.get("num_bytes", 1 << 40)
    assert most >= 4
    newest = hashlib.sha256(b"029" + bytes(500)).hexdigest()
    assert kept.files("bolts")[-1].picture == newest
    assert keeper.counts == {"kept": 30}


def test_a_picture_larger_than_all_that_may_be_kept_is_not():
    keeper = make_keeper(KeptPictures(MemoryObjects()), num_bytes=10)
    keeper.offer(ANSWER, bytes(11))
    assert keeper.counts == {"full": 1}


def test_pixels_without_a_file_and_answers_of_no_rule_are_not_kept():
    keeper = make_keeper(KeptPictures(MemoryObjects()))
    keeper.offer(ANSWER, b"")
    keeper.offer(Answer(**{**vars(ANSWER), "because": None, "decision": "good"}), b"sure")
    assert keeper.counts == {}


@pytest.mark.parametrize(
    ("said", "offered"), [([], 1), (["yes"], 1), (["no"], 0), (["yes", "no"], 0), (["no", "yes"], 0)]
)
def test_one_header_that_says_no_keeps_a_picture_out(
    backbone: Backbone, said: list[str], offered: int
) -> None:
    call, keeper = Caller(backbone), Offered()
    call.app.state.front = replace(call.app.state.front, keeper=keeper)
    headers = [*TO_BOLTS.items(), *(("Ship-Keep", text) for text in said)]
    assert call("POST", "/v1/predict", content=PNG, headers=headers).status_code == 200
    assert keeper.contents == [PNG] * offered


def test_what_is_left_to_write_of_the_answers_is_written_before_it_ends(backbone: Backbone) -> None:
    ingress = Ingress([Handle(FakeEngine(info=backbone.info))], Limits(), None)
    keeper = Keeper(KeptPictures(MemoryObjects()), read_rules(["sample=1"]), KeepLimits())
    ingress._keeper = keeper
    keeper.offer(ANSWER, b"a picture")

    async def close() -> bool:
        closing = asyncio.create_task(ingress.close(60.0, 60.0))
        await asyncio.wait({closing}, timeout=0.1)
        assert not closing.done()
        keeper.step()
        return await closing

    assert asyncio.run(close())
    assert keeper.counts == {"kept": 1}


def test_a_store_that_hangs_does_not_hold_up_the_end(backbone: Backbone) -> None:
    ingress = Ingress([Handle(FakeEngine(info=backbone.info))], Limits(), None)
    ingress._keeper = Keeper(KeptPictures(MemoryObjects()), read_rules(["sample=1"]), KeepLimits())
    ingress._keeper.offer(ANSWER, b"a picture")
    assert asyncio.run(ingress.close(60.0, 0.05))
