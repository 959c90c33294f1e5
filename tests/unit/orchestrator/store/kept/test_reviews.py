"""Labels of kept pictures: who said what, when two persons are needed, and as files for other programs."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ManifestError, StoreError
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.review import Opinion, Review
from orchestrator.store.kept.review_files import export_label_studio, read_label_studio
from orchestrator.store.kept.reviewed_table import merge_rows, write_table
from orchestrator.store.kept.reviews import as_values
from ship.data import DataSource
from ship.data.listing import list_items
from tests.unit.orchestrator.store.kept.factory import ANNA, BEN, LABELS, PNG, keep, make_reviews


@pytest.mark.parametrize(
    ("answered", "said", "state", "label"),
    [
        (None, {}, "open", None),
        (None, {"anna": "good"}, "settled", "good"),
        ("good", {"anna": "good"}, "settled", "good"),
        # Against what was answered a second person has to say the same.
        ("good", {"anna": "scratched"}, "second", None),
        ("good", {"anna": "scratched", "ben": "scratched"}, "settled", "scratched"),
        ("good", {"anna": "scratched", "ben": "good"}, "second", None),
        ("good", {"anna": "scratched", "ben": "good", "cleo": "scratched"}, "settled", "scratched"),
        (None, {"anna": "good", "ben": "scratched"}, "second", None),
        (None, {"anna": "good", "ben": "scratched", "cleo": "good"}, "settled", "good"),
        (None, {"anna": "good", "ben": "scratched", "cleo": "dented"}, "second", None),
        (None, {"anna": None}, "left out", None),
        ("good", {"anna": None}, "left out", None),
        ("good", {"anna": None, "ben": "good"}, "second", None),
        ("good", {"anna": None, "ben": "good", "cleo": None}, "left out", None),
    ],
)
def test_what_persons_say_settles_a_label_or_needs_another_one(
    answered: str | None, said: dict[str, str | None], state: str, label: str | None
):
    review = Review(task="bolts", picture="a" * 64, answered=answered)
    for by, given in said.items():
        review = review.with_opinion(Opinion(label=given, by=by, host="press", time_s=1.0))
    assert (review.state, review.label) == (state, label)
    assert Review.from_json(review.to_json(), "here") == review


def test_no_person_is_a_second_one_to_themselves():
    reviews = make_reviews()
    picture = keep(reviews, b"one", "good")
    for author in (ANNA, Author(by="Anna", host="another"), ANNA):
        review = reviews.label("bolts", {picture: "scratched"}, author)[picture]
        assert (review.state, len(review.opinions)) == ("second", 1)
    assert reviews.label("bolts", {picture: "scratched"}, BEN)[picture].label == "scratched"
    assert reviews.undo("bolts", picture, BEN).state == "second"
    assert reviews.undo("bolts", picture, ANNA).state == "open"


def test_labels_are_in_the_audit_log_those_of_one_go_in_one_entry():
    reviews = make_reviews()
    first, second = keep(reviews, b"one"), keep(reviews, b"two")
    reviews.label("bolts", {first: "good", second: None}, ANNA)
    entry = next(AuditLog(reviews.store).newest())
    assert (entry.record.action, entry.record.task, entry.record.by) == ("review", "bolts", "anna")
    assert entry.record.after == {"num_pictures": 2, "labels": {first: "good", second: None}}


def test_unknown_labels_and_pictures_change_nothing():
    reviews = make_reviews()
    picture = keep(reviews, b"one")
    with pytest.raises(ManifestError, match="expected a class of task 'bolts': good, scratched"):
        reviews.label("bolts", {picture: "Good"}, ANNA)
    with pytest.raises(ManifestError, match="keeps no picture"):
        reviews.label("bolts", {picture: "good", "f" * 64: "good"}, ANNA)
    with pytest.raises(ManifestError, match="task 'nuts' is not served"):
        reviews.label("nuts", {picture: "good"}, ANNA)
    [found] = reviews.pictures("bolts")
    assert found.review.state == "open"


def test_of_two_writers_at_a_time_none_is_lost():
    """The second one reads, then the first one writes: the second one's write is refused, and repeated."""
    reviews = make_reviews()
    picture = keep(reviews, b"one")
    read, raced = reviews.read, []

    def race(task: str, of: str, answered: str | None = None) -> tuple[Review, str | None]:
        found = read(task, of, answered)
        if not raced:
            raced.append(of)
            reviews.label(task, {of: "good"}, ANNA)
        return found

    vars(reviews)["read"] = race
    review = reviews.label("bolts", {picture: "scratched"}, BEN)[picture]
    assert [one.by for one in review.opinions] == ["anna", "ben"]


def test_a_damaged_review_is_as_if_nobody_had_looked():
    reviews = make_reviews()
    picture = keep(reviews, b"one")
    reviews.label("bolts", {picture: "good"}, ANNA)
    reviews.store.objects.put(f"reviews/bolts/{picture}.json", b"{}")
    [found] = reviews.pictures("bolts")
    assert found.review.state == "open"
    with pytest.raises(StoreError, match="label the picture again"):
        reviews.label("bolts", {picture: "good"}, ANNA)


def test_the_table_has_settled_labels_and_is_one_task_with_the_data_it_was_tuned_on(tmp_path: Path):
    reviews = make_reviews()
    data = tmp_path / "data"
    for split, label, content in (
        ("train", "good", b"a"),
        ("train", "scratched", b"b"),
        ("test", "good", b"c"),
        ("test", "scratched", b"known"),
    ):
        path = data / split / label / f"{content.decode()}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(PNG + content)
    settled = keep(reviews, PNG + b"new")
    known, waiting = keep(reviews, PNG + b"known"), keep(reviews, PNG + b"waits", "good")
    reviews.label("bolts", {settled: "scratched", known: "scratched", waiting: "scratched"}, ANNA)
    table = merge_rows(reviews.pictures("bolts"), known={known})
    found = write_table(reviews.kept, "bolts", table, tmp_path / "more")
    assert (found.num_pictures, found.num_known) == (1, 1)
    assert found.path.read_text() == (
        "path,label,reviewed_by,answered_by_version,reviewed_at,ship_task\n"
        f"pictures/{settled}.png,scratched,anna,1,1970-01-01T00:00:50Z,bolts\n"
    )
    before = list_items(DataSource(path=str(data)))
    both = list_items(DataSource(path=str(data), more=str(found.path)))
    assert both.of_split("test") == before.of_split("test")
    [added] = set(both.items) - set(before.items)
    assert (added.path, added.label, added.split) == (f"more/pictures/{settled}.png", "scratched", "train")


def test_label_studio_gets_pictures_answers_and_labels_and_gives_them_back(tmp_path: Path):
    reviews = make_reviews()
    first, second = keep(reviews, PNG + b"one"), keep(reviews, b"\xff\xd8\xfftwo")
    reviews.label("bolts", {first: "good"}, ANNA)
    found = export_label_studio(reviews.kept, reviews.pictures("bolts"), LABELS, tmp_path)
    tasks = json.loads(found.path.read_text())
    assert {one["data"]["ship_picture"] for one in tasks} == {first, second}
    for one in tasks:
        assert (tmp_path / one["data"]["image"].partition("?d=")[2]).exists()
        assert one["predictions"][0]["result"][0]["value"] == {"choices": ["good"]}
    [given] = read_label_studio(found.path.read_bytes(), "bolts")
    assert (given.picture, given.label, given.by) == (first, "good", "anna")
    other = make_reviews()
    keep(other, PNG + b"one")
    other.take_over("bolts", [given], BEN)
    [taken] = other.pictures("bolts")
    assert as_values(taken)["opinions"] == [{"label": "good", "by": "anna", "time_s": 50.0}]
    assert next(AuditLog(other.store).newest()).record.by == "ben"


def make_task(**changes: Any) -> dict[str, Any]:
    """A task as Label Studio exports it, with more than is read."""
    choice = {"id": "x", "from_name": "c", "to_name": "i", "type": "choices", "value": {"choices": ["good"]}}
    annotation = {"id": 7, "completed_by": 3, "result": [choice], "was_cancelled": False, "lead_time": 2.5}
    data = {"image": "/data/1.png", "ship_task": "bolts", "ship_picture": "a" * 64}
    return {"id": 1, "data": data, "annotations": [{**annotation, **changes}], "predictions": [], "meta": {}}


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({}, ("good", "label-studio:3")),
        ({"completed_by": {"id": 3, "email": "ben@plant.example"}}, ("good", "ben@plant.example")),
        ({"was_cancelled": True}, (None, "label-studio:3")),
        ({"result": []}, None),
    ],
)
def test_what_label_studio_exports_is_read(changes: dict[str, Any], given: tuple[str, str] | None):
    found = read_label_studio(json.dumps([make_task(**changes)]).encode(), "bolts")
    assert [(one.label, one.by) for one in found] == ([] if given is None else [given])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"{}", "expected a list"),
        (b"[1]", "task 1 of the file: a task: expected a mapping"),
        (json.dumps([{"data": {}}]).encode(), "'ship_picture' is missing"),
        (json.dumps([{**make_task(), "data": {"ship_picture": "../x"}}]).encode(), "expected the sha256"),
        (
            json.dumps([make_task(), make_task(completed_by=None)]).encode(),
            "task 2 of the file: compl",
        ),
        (json.dumps([make_task(completed_by="a\nb")]).encode(), "completed_by"),
        (json.dumps([make_task(result=[{"type": "rectanglelabels"}])]).encode(), "one of type choices"),
        (
            json.dumps([make_task(result=[{"type": "choices", "value": {"choices": ["a", "b"]}}])]).encode(),
            "expected one label",
        ),
        (json.dumps([make_task(result=3)]).encode(), "result: expected a list"),
    ],
)
def test_what_label_studio_does_not_export_so_is_refused_with_its_place(content: bytes, said: str):
    with pytest.raises(ManifestError, match=said):
        read_label_studio(content, "bolts")


def test_labels_of_another_task_are_refused():
    with pytest.raises(ManifestError, match="expected 'nuts', found 'bolts'"):
        read_label_studio(json.dumps([make_task()]).encode(), "nuts")
