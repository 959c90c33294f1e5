"""Decision rules in a store of objects, ``rules/<digest>.json``: written once, read back, never changed."""

from orchestrator.errors import StoreError
from orchestrator.store.artifact_files import check_digest
from orchestrator.store.documents.rule import MAX_RULE_BYTES, StoredRule
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["RuleStore", "rule_key"]


class RuleStore:
    """The decision rules of one store.

    Args:
        objects: Object store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def write(self, rule: StoredRule) -> str:
        """Write a rule; returns its digest.

        Raises:
            StoreError: It cannot be written, or does not read back.
        """
        content = rule.to_json()
        digest = StoredRule.digest_of(content)
        self._objects.put_new(rule_key(digest), content)
        self.read(digest)
        return digest

    def read(self, digest: str) -> StoredRule:
        """The rule of a digest.

        Raises:
            ObjectMissing: There is none.
            StoreError: It is damaged.
        """
        return StoredRule.from_json(self.fetch(digest), f"{self._objects.url}/{rule_key(digest)}")

    def fetch(self, digest: str) -> bytes:
        """The content of a rule's object, checked against the digest.

        Raises:
            ObjectMissing: There is none.
            StoreError: It is damaged, or too large.
        """
        key = rule_key(digest)
        content = self._objects.get(key, max_bytes=MAX_RULE_BYTES).data
        if (found := StoredRule.digest_of(content)) != digest:
            raise StoreError(
                f"{self._objects.url}/{key}: expected sha256 {digest}, found {found}; it was damaged or "
                "changed: restore it from a copy, or set the rule again with `ship threshold`"
            )
        return content


def rule_key(digest: str) -> str:
    """Key of a rule's object."""
    return f"rules/{check_digest(digest)}.json"
