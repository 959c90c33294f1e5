"""Stores with garbage, and collectors that look at them as if some time had passed."""

import time

from orchestrator.store.garbage.collector import Collector
from orchestrator.store.objects.open import ObjectStore
from tests.unit.orchestrator.store.factory import digest_of, make_key

DAY_S = 86400.0
KEY = make_key("bolts")


class Versions:
    """A registry that names some digests."""

    def __init__(self, *digests: str) -> None:
        self.digests = set(digests)

    def referenced_digests(self) -> set[str]:
        return self.digests


def write_artifact(objects: ObjectStore, files: dict[str, bytes]) -> str:
    """An artifact without a publication."""
    digest = digest_of(files)
    for name, content in files.items():
        objects.put_new(f"artifacts/{digest}/{name}", content)
    return digest


def collector(objects: ObjectStore, *digests: str, age_s: float = 2 * DAY_S) -> Collector:
    """Looks at the store as if some time had passed."""
    return Collector(objects, Versions(*digests), now=lambda: time.time() + age_s)


def mark(objects: ObjectStore, *digests: str) -> None:
    """The first run, in two days."""
    sweeper = collector(objects, *digests)
    assert sweeper.remove(sweeper.find(DAY_S)) == []


def later(objects: ObjectStore, *digests: str) -> Collector:
    """Looks at the store two days after the first run."""
    return collector(objects, *digests, age_s=4 * DAY_S)
