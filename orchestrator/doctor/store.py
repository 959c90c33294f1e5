"""Checks of the store: it takes and keeps what is written on condition, and what it holds is sound."""

import shutil
import statistics
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from orchestrator.doctor.row import Place, Row, fail, named, ok, skipped, warn
from orchestrator.durations import describe_seconds
from orchestrator.errors import ObjectConflict, StoreError
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.tokens import Token
from orchestrator.store.objects.open import find_folder
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import PromptStore

__all__ = ["SCRATCH", "check_audit", "check_store", "check_tokens"]

# Of a scratch object's folder, which is removed too, where a store has folders.
SCRATCH = "doctor-"
_SLOW_S = 0.5
# Stores count times in seconds. From a quarter of an hour on S3 refuses requests.
_GRAIN_S, _SKEW_S = 2.0, 60.0
_SOON_S = 7 * 86400.0
_MEND = "use a store with conditional writes: a folder, S3 or Ceph; see docs/operating.md"
_ONE_WRITER = "one of two writers is refused"
Answer = TypeVar("Answer")


def check_store(place: Place) -> Iterator[Row]:
    """A scratch object is written on condition, read back, listed and deleted; clock and latency are told."""
    folder = find_folder(place.settings.store)
    if folder is not None and not folder.exists():
        yield skipped("store", f"{folder} is not there yet: `ship tune` makes it, or see SHIP_STORE")
        return
    objects = place.objects()
    own = f"{SCRATCH}{uuid.uuid4().hex}"
    try:
        yield from _try(_Timed(place.monotonic), objects, f"{own}/scratch", place)
    finally:
        with suppress(StoreError):
            objects.delete(f"{own}/scratch")
        if folder is not None:
            shutil.rmtree(folder / own, ignore_errors=True)


class _Timed:
    """Calls of a store, each with the seconds that it took."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.seconds: list[float] = []

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        start_s = self._monotonic()
        answer = call()
        self.seconds.append(self._monotonic() - start_s)
        return answer


def _try(timed: _Timed, objects: ObjectStore, key: str, place: Place) -> Iterator[Row]:
    before_s = place.clock()
    timed(lambda: objects.put_new(key, b"first"))
    after_s = place.clock()
    is_overwritten = timed(lambda: objects.put_new(key, b"second"))
    stored = timed(lambda: objects.get(key, max_bytes=100))
    if is_overwritten or stored.data != b"first":
        found = "an object that was there was written anew by a write that must not"
        yield fail("writes", found, _ONE_WRITER, _MEND)
        return
    listed = next((one for one in objects.scan(key) if one.key == key), None)
    timed(lambda: objects.put(key, b"third", if_match=stored.etag))
    try:
        objects.put(key, b"fourth", if_match=stored.etag)
    except ObjectConflict:
        yield ok("writes", f"{objects.url} takes writes on condition")
    else:
        yield fail("writes", "an object was replaced by the writer of an older one", _ONE_WRITER, _MEND)
    timed(lambda: objects.delete(key))
    if objects.exists(key):
        yield fail("deletion", "an object is there after its deletion", "none", "check rights and versioning")
    yield _compare_clocks(None if listed is None else listed.modified_s, before_s, after_s)
    yield _judge(statistics.median(timed.seconds))


def _compare_clocks(modified_s: float | None, before_s: float, after_s: float) -> Row:
    if modified_s is None:
        return fail("listing", "an object that was written is not listed", "listed at once", _MEND)
    ahead_s = modified_s - after_s if modified_s > after_s else min(0.0, modified_s - before_s)
    if abs(ahead_s) <= _SKEW_S:
        said = "agrees with ours" if abs(ahead_s) <= _GRAIN_S else f"is {abs(ahead_s):.0f} s from ours"
        return ok("clock", f"the store's {said}")
    word = "ahead of" if ahead_s > 0 else "behind"
    return warn(
        "clock",
        f"the store's is {describe_seconds(abs(ahead_s))} {word} ours",
        f"within {_SKEW_S:.0f} s",
        "let both follow a time server: `timedatectl set-ntp true`",
    )


def _judge(median_s: float) -> Row:
    said = f"{1000 * median_s:.1f} ms a request"
    if median_s <= _SLOW_S:
        return ok("latency", said)
    return warn("latency", said, f"below {1000 * _SLOW_S:.0f} ms", "use a store that is nearer, or less busy")


def check_tokens(place: Place) -> Iterator[Row]:
    """Tokens of the endpoint's clients: readable, live, and not about to expire."""
    found = PromptStore(place.objects()).read_tokens()
    tokens, now_s = (None if found is None else found[0]), place.clock()
    for name, broken in sorted({} if tokens is None else tokens.broken.items()):
        yield fail("tokens", f"{name[:63]!r}: {broken.problem}", "a token", "")
    if tokens is None or not tokens.has_live(now_s):
        yield warn(
            "tokens",
            "no client has a valid one",
            "a token for each client, or `ship serve --no-auth`",
            "ship token create NAME --predict 'line-1-*'",
        )
    ends_s = {name: _end_of(token) for name, token in ({} if tokens is None else tokens.by_name).items()}
    if expired := [name for name, end_s in ends_s.items() if end_s <= now_s]:
        yield warn(
            "tokens",
            f"expired: {named(expired)}",
            "only tokens that are in use",
            "`ship token revoke NAME` removes one, `ship token create` makes it anew",
        )
    if soon := [name for name, end_s in ends_s.items() if now_s < end_s <= now_s + _SOON_S]:
        ends = min(ends_s[name] for name in soon) - now_s
        yield warn(
            "tokens",
            f"about to expire, the first in {describe_seconds(ends)}: {named(soon)}",
            f"valid for {describe_seconds(_SOON_S)} at least",
            "`ship token rotate NAME`, and give its client the new one",
        )
    if tokens is not None:
        yield ok("tokens", f"{sum(end_s > now_s for end_s in ends_s.values())} valid of {len(ends_s)}")


def _end_of(token: Token) -> float:
    """When a token's last secret expires, seconds since the epoch."""
    ends_s = [float("inf") if one.expires_s is None else one.expires_s for one in token.secrets]
    return max(ends_s, default=0.0)


def check_audit(place: Place) -> Iterator[Row]:
    """The audit log's chain, and the documents that pin its entries."""
    found = verify(PromptStore(place.objects()))
    intact = "every entry as it was written"
    for one in found.breaks:
        yield fail("audit log", f"{one.place}: {one.kind}: {one.message}", intact, "ship audit --verify")
    if found.num_waiting:
        yield warn("audit log", f"{found.num_waiting} changes wait for it", "none for long", "ship sync")
    if not found.breaks:
        yield ok("audit log", f"{found.head.sequence} entries, nothing is missing or changed")
