"""Reading of artifacts from a store of objects, each file checked against the digest.

``held_out.json`` is read alone: serving, which reads thousands of artifacts, needs none of it.
"""

from orchestrator.errors import StoreError
from orchestrator.store.artifact_files import (
    MAX_FILE_BYTES,
    FileStamp,
    check_content,
    check_digest,
    read_stamps,
)
from orchestrator.store.objects.open import ObjectStore
from ship.artifact.card import CARD
from ship.artifact.held_out import HELD_OUT, MAX_HELD_OUT_BYTES, HeldOut
from ship.errors import ArtifactError

__all__ = ["fetch_card", "fetch_files", "fetch_held_out"]


def fetch_files(objects: ObjectStore, digest: str) -> dict[str, bytes]:
    """See ``PromptStore.fetch``."""
    card = fetch_card(objects, digest)
    stamps = read_stamps(card, _uri(objects, digest))
    others = {
        name: _fetch(objects, digest, name, stamp) for name, stamp in stamps.items() if name != HELD_OUT
    }
    return {CARD: card, **others}


def fetch_held_out(objects: ObjectStore, digest: str) -> HeldOut | None:
    """See ``PromptStore.fetch_held_out``."""
    where = _uri(objects, digest)
    stamp = read_stamps(fetch_card(objects, digest), where).get(HELD_OUT)
    if stamp is None:
        return None
    if stamp.num_bytes > MAX_HELD_OUT_BYTES:
        raise StoreError(
            f"{where}/{HELD_OUT}: {stamp.num_bytes} bytes, expected at most {MAX_HELD_OUT_BYTES}"
        )
    try:
        return HeldOut.from_json(_fetch(objects, digest, HELD_OUT, stamp))
    except ArtifactError as error:
        raise StoreError([f"{where}: {problem}" for problem in error.problems]) from error


def fetch_card(objects: ObjectStore, digest: str) -> bytes:
    """The content of an artifact's ``prompt.json``, checked against the digest."""
    card = objects.get(f"artifacts/{check_digest(digest)}/{CARD}", max_bytes=MAX_FILE_BYTES).data
    check_content(card, FileStamp(sha256=digest, bytes=len(card)), f"{_uri(objects, digest)}/{CARD}")
    return card


def _fetch(objects: ObjectStore, digest: str, name: str, stamp: FileStamp) -> bytes:
    content = objects.get(f"artifacts/{digest}/{name}", max_bytes=stamp.num_bytes).data
    check_content(content, stamp, f"{_uri(objects, digest)}/{name}")
    return content


def _uri(objects: ObjectStore, digest: str) -> str:
    return f"{objects.url}/artifacts/{digest}"
