"""Durations of past tunings, one small object for each backbone::

    stats/<backbone fingerprint>.json    the last runs, by task key

One read tells a plan the speed, however many artifacts the store has. The driver of a run adds to it when the
run ends. It is a hint and never the truth: a damaged or lost object costs an estimate and nothing else.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict

from pydantic import Field

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.names import is_digest
from orchestrator.planning.estimates import TuningRun
from orchestrator.store.documents.document import Digest, Document, NewerSchemaError
from orchestrator.store.objects.protocol import ObjectStore, StoredObject

__all__ = ["RunStats"]

SCHEMA_VERSION = 1
MAX_RUNS = 256
MAX_BYTES = 1 << 20
_MAX_TRIES = 8
_ADVICE = "delete it, and it is written anew, or update this program"


class _Run(Document):
    task_key: Digest
    num_passes: int = Field(gt=0)
    tuning_s: float = Field(gt=0, allow_inf_nan=False)
    time_s: float = Field(allow_inf_nan=False)


class _Record(Document):
    schema_: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    runs: list[_Run]


class RunStats:
    """The record of past tunings in a store.

    Args:
        objects: Object store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def read(self, backbone_fingerprint: str) -> tuple[TuningRun, ...]:
        """The last tunings on a backbone, oldest first; none if nothing is recorded.

        Raises:
            StoreError: The record is damaged, or cannot be read.
        """
        stored = self._get(backbone_fingerprint)
        return () if stored is None else self._parse(backbone_fingerprint, stored)

    def add(self, backbone_fingerprint: str, runs: Iterable[TuningRun]) -> None:
        """Record tunings beside those of other drivers; the latest are kept.

        Raises:
            StoreError: The store failed, or others write without pause.
        """
        added = tuple(runs)
        for _ in range(_MAX_TRIES if added else 0):
            stored = self._get(backbone_fingerprint)
            try:
                earlier = () if stored is None else self._parse(backbone_fingerprint, stored)
            except NewerSchemaError:
                raise
            except StoreError:
                # A damaged record is of no use: the new one replaces it.
                earlier = ()
            if self._replace(backbone_fingerprint, stored, _merge(earlier, added)):
                return
        if added:
            raise StoreError(f"{self._url(backbone_fingerprint)}: others write to it without pause")

    def _get(self, backbone_fingerprint: str) -> StoredObject | None:
        try:
            return self._objects.get(_key(backbone_fingerprint), max_bytes=MAX_BYTES)
        except ObjectMissing:
            return None

    def _replace(
        self, backbone_fingerprint: str, stored: StoredObject | None, runs: tuple[TuningRun, ...]
    ) -> bool:
        """Write by compare-and-swap; False if another writer was faster."""
        content = _to_json(runs)
        if stored is None:
            return self._objects.put_new(_key(backbone_fingerprint), content)
        try:
            self._objects.put(_key(backbone_fingerprint), content, if_match=stored.etag)
        except ObjectConflict:
            return False
        return True

    def _parse(self, backbone_fingerprint: str, stored: StoredObject) -> tuple[TuningRun, ...]:
        record = _Record.read(stored.data, self._url(backbone_fingerprint), _ADVICE)
        return tuple(TuningRun(**dict(run)) for run in record.runs[-MAX_RUNS:])

    def _url(self, backbone_fingerprint: str) -> str:
        return f"{self._objects.url}/{_key(backbone_fingerprint)}"


def _key(backbone_fingerprint: str) -> str:
    if not is_digest(backbone_fingerprint):
        raise StoreError(f"backbone fingerprint {backbone_fingerprint[:80]!r}: expected 64 hex digits")
    return f"stats/{backbone_fingerprint}.json"


def _merge(earlier: Iterable[TuningRun], added: Iterable[TuningRun]) -> tuple[TuningRun, ...]:
    by_key = {run.task_key: run for run in (*earlier, *added)}
    return tuple(sorted(by_key.values(), key=lambda run: (run.time_s, run.task_key))[-MAX_RUNS:])


def _to_json(runs: Iterable[TuningRun]) -> bytes:
    values = {"schema": SCHEMA_VERSION, "runs": [asdict(run) for run in runs]}
    return (json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n").encode()
