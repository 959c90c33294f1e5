"""A version that lost a class of the champion is withheld, however well it does in those that are left."""

from collections.abc import Mapping

import pytest

from orchestrator.manifest.floors import Floors
from orchestrator.registry.advice import Advice
from orchestrator.registry.advising import TuningFacts, advise
from orchestrator.registry.gate import GateDecision, decide
from orchestrator.registry.measurement import Measurement
from orchestrator.registry.record_writer import RecordWriter
from orchestrator.registry.runs import RunLog
from orchestrator.registry.versions import REFUSED_TAG
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_key, tune

CHAMPION = {"good": 200, "scratch": 40, "crack": 40}


def measured(data: str = "new", **num_of: int) -> Measurement:
    """Of each class that many held-out images, one in twenty wrong, as by the linear probe."""
    confusion = {name: [number - number // 20, number // 20] for name, number in num_of.items()}
    right = sum(one for one, _ in confusion.values())
    share = right / sum(num_of.values())
    places = range(len(num_of))
    rows = [
        [
            row[0] if place == column else row[1] if place == (column - 1) % len(num_of) else 0
            for column in places
        ]
        for place, row in enumerate(confusion.values())
    ]
    card = {
        "metrics": {"accuracy": share, "probe_accuracy": share, "num_test": sum(num_of.values())},
        "data_fingerprint": make_key(data),
    }
    return Measurement.read(card, {"confusion": rows, "labels": list(num_of)})


@pytest.fixture
def champion() -> Measurement:
    return measured("old", **CHAMPION)


def advice_on(decision: GateDecision, candidate: Measurement) -> Advice:
    return advise(decision, candidate, TuningFacts())


def test_a_version_without_a_class_of_the_champion_is_withheld(champion: Measurement) -> None:
    candidate = measured(good=200, scratch=40)
    decision = decide(candidate, champion)
    assert (decision.promote, decision.gate, decision.is_refusal) == (False, "classes", True)
    assert decision.reason.endswith(
        "the linear probe's 0.9500, but it does not know class 'crack' of today's champion (it answers such "
        "pictures as something else)."
    )
    advice = advice_on(decision, candidate)
    assert (advice.kind, advice.gate, advice.split, advice.of_class) == (
        "needs-data",
        "classes",
        "training",
        "crack",
    )
    assert advice.text == "put the images of 'crack' back, under that name"
    assert advice.num_images is None
    assert Advice.from_json(advice.to_json()) == advice


def test_a_version_that_does_not_measure_a_class_any_more_is_withheld(champion: Measurement) -> None:
    candidate = measured(good=200, scratch=40, crack=0)
    decision = decide(candidate, champion)
    assert (decision.promote, decision.gate) == (False, "classes")
    assert decision.reason.endswith(
        "but it has no held-out image of class 'crack', which today's champion was measured on."
    )
    advice = advice_on(decision, candidate)
    assert advice.text == "add held-out images of 'crack': there are none"
    assert (advice.split, advice.of_class, advice.num_images) == ("held-out", "crack", 1)


@pytest.mark.parametrize(
    ("num_of", "unknown", "unmeasured"),
    [
        ({"good": 200, "scratch": 40, "Crack": 40}, ("crack",), ()),
        ({"ok": 200, "nok": 80}, ("good", "scratch", "crack"), ()),
        ({"good": 200, "nok": 80}, ("scratch", "crack"), ()),
        ({"good": 200, "dent": 40, "scratch": 0}, ("crack",), ("scratch",)),
    ],
    ids=["renamed", "all renamed", "merged", "both"],
)
def test_all_that_is_lost_is_named(
    champion: Measurement, num_of: Mapping[str, int], unknown: tuple[str, ...], unmeasured: tuple[str, ...]
) -> None:
    candidate = measured(**num_of)
    decision = decide(candidate, champion)
    assert (decision.gate, decision.lost.unknown, decision.lost.unmeasured) == (
        "classes",
        unknown,
        unmeasured,
    )
    said = advice_on(decision, candidate).text
    assert all(repr(name) in decision.reason and repr(name) in said for name in (*unknown, *unmeasured))


def test_a_class_that_the_champion_knows_unmeasured_is_not_dropped_either() -> None:
    champion = measured("old", good=200, scratch=40, crack=0)
    assert decide(measured(good=200, scratch=40), champion).gate == "classes"
    assert decide(measured(good=200, scratch=40, crack=0), champion).promote, "it is no worse measured"
    assert decide(measured(good=200, scratch=40, crack=40), champion).promote


def test_new_classes_beside_the_old_ones_pass(champion: Measurement) -> None:
    decision = decide(measured(**CHAMPION, dent=40, burr=0), champion)
    assert decision.promote
    assert not decision.lost


def test_a_floor_on_the_class_speaks_first(champion: Measurement) -> None:
    decision = decide(measured(good=200, scratch=40), champion, floors=Floors(recall={"crack": 0.5}))
    assert decision.gate == "floors"


def test_records_that_do_not_name_classes_are_judged_as_before(champion: Measurement) -> None:
    card = {"metrics": {"accuracy": 0.95, "probe_accuracy": 0.95, "num_test": 280}}
    unnamed = Measurement.read(card, {})
    assert decide(unnamed, champion).promote
    assert decide(measured(good=200, scratch=40), unnamed).promote


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose runs have neither curves nor files, which are another matter."""
    for name in ("log", "log_files", "log_data", "set_status"):
        monkeypatch.setattr(RunLog, name, lambda self, *args: None)
    return World()


def test_it_waits_refused_and_is_told_how_it_serves_all_the_same(world: World) -> None:
    for number, labels in enumerate((["good", "bad"], ["good", "worse"]), start=1):
        key = make_key(f"k{number}")
        events = tune(world.store, key=key, data=f"data {number}", record={"labels": labels})
        RecordWriter(world.fresh_registry(), PromptStore(world.objects.client())).write("bolts", key, events)
    assert world.aliases() == {"champion": 1, "challenger": 2}
    waiting = world.registry.version("bolts", 2)
    assert waiting.tags[REFUSED_TAG] == "true", "only force promotes it"
    assert waiting.gate_reason is not None
    assert waiting.gate_reason.endswith(
        "Put the images back; if it is to do without, `ship promote bolts 2 --force --reason TEXT` serves it."
    )
    assert waiting.advice is not None
    assert (waiting.advice.gate, waiting.advice.of_class) == ("classes", "bad")
    assert world.rollouts().promote("bolts", 2, force=True).to_version == 2
