"""The rules of one store on which promotions wait for a second person."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from orchestrator.errors import ManifestError, ObjectConflict, ObjectMissing
from orchestrator.store.audit.log import AuditLog, HasObjects
from orchestrator.store.documents.approvals import MAX_APPROVALS_BYTES, ApprovalRules
from orchestrator.store.documents.audit import Author
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["KEY", "Approvals", "read_rules"]

KEY = "approvals.json"
_NUM_TRIES = 20
# Names of tasks that an entry of the log repeats.
_MAX_NAMED = 100


class Approvals:
    """Reads and changes the rules.

    Methods raise ``StoreError`` when the store fails.

    Args:
        store: The store.
        log: Its audit log.
    """

    def __init__(self, store: HasObjects, log: AuditLog) -> None:
        self._objects, self._log = store.objects, log

    def read(self) -> ApprovalRules:
        """The rules as they are now."""
        return read_rules(self._objects)

    def requires(self, task: str) -> bool:
        """Whether a promotion of the task waits for an approval."""
        return self.read().requires(task)

    def change_patterns(self, add: Iterable[str], drop: Iterable[str], author: Author) -> ApprovalRules:
        """Let tasks of some patterns need an approval, and of others not any more.

        Raises:
            ManifestError: A pattern is none, or is to be dropped and not there.
        """
        from orchestrator.store.documents.tokens import is_pattern

        added, dropped = tuple(add), set(drop)
        if bad := [pattern for pattern in added if not is_pattern(pattern)]:
            raise ManifestError(
                f"--require {bad[0][:80]!r}: expected a task name or a pattern of them, such as 'line-1-*'"
            )

        def change(rules: ApprovalRules) -> ApprovalRules:
            if missing := sorted(dropped - set(rules.patterns)):
                known = ", ".join(rules.patterns) or "none"
                raise ManifestError(
                    f"--lift {missing[0][:80]!r}: expected one of the store's patterns: {known}"
                )
            patterns = [pattern for pattern in rules.patterns if pattern not in dropped]
            return replace(rules, patterns=tuple(dict.fromkeys([*patterns, *added])))

        return self._change(change, author)

    def follow_manifest(self, wanted: Mapping[str, bool], author: Author) -> ApprovalRules:
        """Let the tasks of a manifest need an approval, or not any more; other tasks stay as they are."""
        return self._change(lambda rules: rules.with_tasks(wanted), author)

    def settle(self) -> None:
        """Log a change whose command was ended before it did."""
        if (found := _read(self._objects)) is not None:
            self._log.follow(*found, self._write)

    def _change(self, change: Callable[[ApprovalRules], ApprovalRules], author: Author) -> ApprovalRules:
        for _ in range(_NUM_TRIES):
            rules, etag = _read(self._objects) or (ApprovalRules(), None)
            changed = change(rules)
            if changed == rules:
                return rules
            record = self._log.record("approvals", None, _told(rules, changed), _told(changed, rules), author)
            changed = replace(changed, trail=rules.trail.add(record))
            try:
                etag = self._write(changed, etag)
            except ObjectConflict:
                continue
            self._log.follow(changed, etag, self._write)
            return changed
        raise ObjectConflict(f"{self._objects.url}/{KEY}: others changed it {_NUM_TRIES} times; try again")

    def _write(self, rules: ApprovalRules, if_match: str | None) -> str:
        content = rules.to_json()
        if if_match is not None:
            return self._objects.put(KEY, content, if_match=if_match)
        if self._objects.put_new(KEY, content):
            stored = self._objects.get(KEY, max_bytes=MAX_APPROVALS_BYTES)
            if stored.data == content:
                return stored.etag
        raise ObjectConflict(f"{self._objects.url}/{KEY}: another writer was faster; read it again")


def read_rules(objects: ObjectStore) -> ApprovalRules:
    """The rules of a store as they are now.

    Raises:
        StoreError: They are damaged, or cannot be read.
    """
    found = _read(objects)
    return ApprovalRules() if found is None else found[0]


def _read(objects: ObjectStore) -> tuple[ApprovalRules, str] | None:
    try:
        stored = objects.get(KEY, max_bytes=MAX_APPROVALS_BYTES)
    except ObjectMissing:
        return None
    return ApprovalRules.from_json(stored.data), stored.etag


def _told(rules: ApprovalRules, other: ApprovalRules) -> dict[str, object]:
    """What the rules say and the other ones do not, for the log."""
    own = sorted(rules.tasks - other.tasks)
    told: dict[str, object] = {"patterns": list(rules.patterns)} if rules.patterns != other.patterns else {}
    return {**told, "tasks": own[:_MAX_NAMED], "num_tasks": len(rules.tasks)}
