"""Pictures that endpoints kept: as they were received, bounded, and read back strictly."""

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import ManifestError, ObjectMissing, StoreError
from orchestrator.store.kept.pictures import KeepLimits, KeptFile, KeptPictures, find_excess, read_all
from orchestrator.store.objects.open import ObjectStore
from tests.unit.orchestrator.store.factory import make_kept


def test_a_picture_comes_back_as_it_was_kept_and_only_once(objects: ObjectStore):
    pictures, content = KeptPictures(objects), b"\x89PNG as received"
    kept = make_kept(content)
    assert pictures.put(kept, content)
    assert not pictures.put(replace(kept, reason="sample"), content)
    assert pictures.read("bolts", kept.picture) == kept
    assert pictures.fetch("bolts", kept.picture) == content
    [listed] = pictures.files("bolts")
    assert (listed.picture, listed.is_whole) == (kept.picture, True)
    assert pictures.files("nuts") == []
    assert read_all(pictures, "bolts") == [kept]
    pictures.drop("bolts", kept.picture)
    assert pictures.files() == []
    with pytest.raises(ObjectMissing):
        pictures.read("bolts", kept.picture)


def test_what_is_over_the_limits_goes_the_oldest_and_those_without_a_label_first():
    def file(number: int, age_s: float, num_bytes: int = 10) -> KeptFile:
        name = f"{number:064x}"
        return KeptFile(
            task="bolts", picture=name, num_bytes=num_bytes, modified_s=1_000.0 - age_s, is_whole=True
        )

    files = [file(number, age_s) for number, age_s in enumerate([900.0, 300.0, 200.0, 100.0, 50.0])]

    def gone(labelled: tuple[int, ...] = (), **limits: Any) -> list[int]:
        found = find_excess(files, KeepLimits(**limits), 1_000.0, [f"{number:064x}" for number in labelled])
        return sorted(int(one.picture, 16) for one in found)

    assert gone() == []
    assert gone(age_s=250.0) == [0, 1]
    assert gone(pictures=3) == [0, 1]
    assert gone(num_bytes=29) == [0, 1, 2]
    assert gone(pictures=3, labelled=(0, 1)) == [2, 3]
    assert gone(pictures=1, labelled=(0, 1)) == [0, 2, 3, 4]
    # A label keeps no picture beyond the age that was promised.
    assert gone(age_s=250.0, labelled=(0, 1)) == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"task": "../bolts"},
        {"picture": "x"},
        {"probabilities": []},
        {"probabilities": [["good", 2.0]]},
        {"distance": -1.0},
        {"reason": "because"},
        {"secret": "s3cret"},
    ],
)
def test_a_damaged_document_is_refused_left_out_of_lists_and_its_content_not_repeated(
    objects: ObjectStore, change: dict[str, Any]
):
    pictures, kept = KeptPictures(objects), make_kept(b"picture")
    pictures.put(kept, b"picture")
    values = {**json.loads(kept.to_json()), **change}
    objects.put(f"kept/bolts/{kept.picture}.json", json.dumps(values).encode())
    with pytest.raises(StoreError) as caught:
        pictures.read("bolts", kept.picture)
    assert "s3cret" not in str(caught.value)
    assert read_all(pictures, "bolts") == []


@pytest.mark.parametrize("picture", ["", "../catalog", "A" * 64, "a" * 63])
def test_no_name_leads_out_of_the_folder(objects: ObjectStore, picture: str):
    with pytest.raises(StoreError, match="64 hex digits"):
        KeptPictures(objects).fetch("bolts", picture)
    with pytest.raises(ManifestError):
        KeptPictures(objects).fetch("../bolts", "a" * 64)
