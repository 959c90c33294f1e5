"""Reviews of kept pictures in a store of objects: labels that persons give, one object for each picture."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ManifestError, ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.kept import KeptPicture
from orchestrator.store.documents.review import MAX_OPINIONS, MAX_REVIEW_BYTES, Opinion, Review
from orchestrator.store.kept.pictures import REVIEWS, KeptPictures, read_all
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import PromptCard

__all__ = ["Given", "Reviewed", "Reviews", "as_values"]

_NUM_TRIES = 20
_NUM_READERS = 16
# Pictures that an entry of the audit log names.
_MAX_NAMED = 100


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A kept picture and what persons say of it."""

    kept: KeptPicture
    review: Review


@dataclass(frozen=True, kw_only=True)
class Given:
    """A label that came from another program.

    Attributes:
        picture: sha256 of the picture.
        label: The label; None to leave the picture out.
        by: Who gave it there.
    """

    picture: str
    label: str | None
    by: str


class Reviews:
    """The reviews of one store. Methods raise ``StoreError`` when the store fails.

    Attributes:
        store: The store.
        kept: Its kept pictures.

    Args:
        store: The store.
        clock: Current time, seconds since the epoch.
    """

    def __init__(self, store: PromptStore, clock: Callable[[], float] = time.time) -> None:
        self.store, self._objects, self._clock = store, store.objects, clock
        self.kept = KeptPictures(store.objects)

    def labels(self, task: str) -> tuple[str, ...]:
        """Class names of a task's champion.

        Raises:
            ManifestError: The task has no champion.
        """
        found = self.store.read_catalog()
        entry = None if found is None else found[0].entries.get(task)
        if entry is None:
            raise ManifestError(
                f"task {task!r} is not served, so its classes are not known; `ship ls` lists the tasks"
            )
        return PromptCard.from_json(self.store.fetch_card(entry.digest)).labels

    def pictures(self, task: str) -> list[Reviewed]:
        """The kept pictures of a task, the newest first; what is damaged is left out."""
        kept = read_all(self.kept, task)
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            reviews = list(readers.map(self._read_whole, kept))
        return [Reviewed(kept=one, review=review) for one, review in zip(kept, reviews, strict=True)]

    def existing(self, task: str, pictures: Collection[str]) -> dict[str, Review]:
        """The reviews that are there of pictures, by picture: also those of which all was taken back.

        Raises:
            StoreError: One cannot be read.
        """
        wanted = sorted(self.kept.labelled(task) & set(pictures))
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            found = list(readers.map(lambda picture: self.read(task, picture), wanted))
        # A review without an etag was removed meanwhile.
        return {
            picture: review for picture, (review, etag) in zip(wanted, found, strict=True) if etag is not None
        }

    def label(self, task: str, labels: Mapping[str, str | None], author: Author) -> dict[str, Review]:
        """Give pictures labels, in place of those that the author gave before; all in one entry of the log.

        Args:
            task: Name of the task.
            labels: Label by picture; None to leave it out.
            author: The person.

        Returns:
            The reviews as they are now.

        Raises:
            ManifestError: A label is none of the task's, or a picture is not kept; nothing was changed.
            ObjectConflict: Others changed one again and again.
        """
        self._check_labels(task, list(labels.values()))
        answered = {picture: self._answered(task, picture) for picture in labels}
        now_s = self._clock()

        changed = {}
        for picture, label in labels.items():
            opinion = Opinion(label=label, by=author.by, host=author.host, time_s=now_s)
            changed[picture] = self._change(task, picture, answered[picture], _giving(opinion))
        self._log("review", task, {one: labels[one] for one in labels}, author)
        return changed

    def take_over(self, task: str, given: Sequence[Given], author: Author) -> None:
        """Take over labels that persons gave elsewhere, each as that person's; in one entry of the log.

        Args:
            task: Name of the task.
            given: The labels.
            author: Who takes them over.

        Raises:
            ManifestError: See ``label``; nothing was changed.
        """
        self._check_labels(task, [one.label for one in given])
        answered = {one.picture: self._answered(task, one.picture) for one in given}
        now_s = self._clock()
        for one in given:
            opinion = Opinion(label=one.label, by=one.by, host=author.host, time_s=now_s)
            self._change(task, one.picture, answered[one.picture], _giving(opinion))
        self._log("review-import", task, {one.picture: one.label for one in given}, author)

    def undo(self, task: str, picture: str, author: Author) -> Review:
        """Take back what the author said of a picture.

        Raises:
            ManifestError: The picture is not kept.
        """
        answered = self._answered(task, picture)
        review = self._change(task, picture, answered, lambda review: review.without(author.by))
        self._log("review-undo", task, {picture: None}, author)
        return review

    def read(self, task: str, picture: str, answered: str | None = None) -> tuple[Review, str | None]:
        """The review of a picture with its etag; an empty one, and None, where there is none yet."""
        key = f"{REVIEWS}{task}/{picture}.json"
        try:
            stored = self._objects.get(key, max_bytes=MAX_REVIEW_BYTES)
        except ObjectMissing:
            return Review(task=task, picture=picture, answered=answered), None
        return Review.from_json(stored.data, f"{self._objects.url}/{key}"), stored.etag

    def _read_whole(self, kept: KeptPicture) -> Review:
        answered = _label_of(kept)
        try:
            return self.read(kept.task, kept.picture, answered)[0]
        except StoreError:
            # As if nobody had looked at it; to label it again says what is wrong.
            return Review(task=kept.task, picture=kept.picture, answered=answered)

    def _check_labels(self, task: str, labels: Sequence[str | None]) -> None:
        known = self.labels(task)
        if unknown := [label for label in labels if label is not None and label not in known]:
            raise ManifestError(
                f"label {unknown[0][:80]!r}: expected a class of task {task!r}: {', '.join(known)[:300]}"
            )

    def _answered(self, task: str, picture: str) -> str | None:
        try:
            return _label_of(self.kept.read(task, picture))
        except ObjectMissing:
            raise ManifestError(
                f"task {task!r} keeps no picture {picture[:12]}; `ship review ls {task}` lists them"
            ) from None

    def _change(
        self, task: str, picture: str, answered: str | None, change: Callable[[Review], Review]
    ) -> Review:
        key = f"{REVIEWS}{task}/{picture}.json"
        for _ in range(_NUM_TRIES):
            before, etag = self.read(task, picture, answered)
            after = change(before)
            if len(after.opinions) > MAX_OPINIONS:
                raise ManifestError(f"picture {picture[:12]}: {MAX_OPINIONS} persons have labelled it")
            try:
                if etag is not None:
                    self._objects.put(key, after.to_json(), if_match=etag)
                elif not self._objects.put_new(key, after.to_json()):
                    continue
            except ObjectConflict:
                continue
            return after
        raise ObjectConflict(f"{self._objects.url}/{key}: others changed it {_NUM_TRIES} times; try again")

    def _log(self, action: str, task: str, labels: Mapping[str, str | None], author: Author) -> None:
        told = {"num_pictures": len(labels), "labels": dict(list(labels.items())[:_MAX_NAMED])}
        AuditLog(self.store, self._clock).append(action, task, {}, told, author.reason, author)


def _label_of(kept: KeptPicture) -> str | None:
    return kept.decision if kept.because is None else None


def _giving(opinion: Opinion) -> Callable[[Review], Review]:
    return lambda review: review.with_opinion(opinion)


def as_values(one: Reviewed) -> dict[str, Any]:
    """A picture with its review as plain values."""
    kept = one.kept
    return {
        "picture": kept.picture,
        "time_s": kept.time_s,
        "num_bytes": kept.num_bytes,
        "version": kept.version,
        "digest": kept.digest,
        "rule": kept.rule,
        "decision": kept.decision,
        "because": kept.because,
        "probabilities": [list(pair) for pair in kept.probabilities],
        "distance": kept.distance,
        "reason": kept.reason,
        **one.review.describe(),
    }
