"""Pictures that endpoints kept, in a store of objects, bounded for each task::

kept/<task>/<sha256>.image    the file as it was received
kept/<task>/<sha256>.json     what was answered, see ``documents.kept``; written last
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.names import check_task_name, is_digest, is_task_name
from orchestrator.store.documents.kept import MAX_KEPT_BYTES, KeptPicture
from orchestrator.store.objects.protocol import ListedObject, ObjectStore

__all__ = ["FOLDER", "REVIEWS", "KeepLimits", "KeptFile", "KeptPictures", "find_excess", "read_all"]

FOLDER, REVIEWS = "kept/", "reviews/"
MAX_PICTURE_BYTES = 64 << 20
# A picture may take so long from its first object to its second.
_HALF_S = 3600.0
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True)
class KeepLimits:
    """The most that is kept of a task.

    Attributes:
        pictures: Number of pictures.
        num_bytes: Size of all of them.
        age_s: Age in seconds.
    """

    pictures: int = 1000
    num_bytes: int = 1 << 30
    age_s: float = 30 * 86400.0


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """A kept picture as a listing shows it.

    Attributes:
        task: Task.
        picture: sha256 of the file.
        num_bytes: Size of its objects.
        modified_s: When the newest was written, seconds since the epoch by the store's clock.
        is_whole: Whether both objects are there.
    """

    task: str
    picture: str
    num_bytes: int
    modified_s: float
    is_whole: bool


class KeptPictures:
    """The kept pictures of one store. Methods raise ``StoreError`` when the store fails.

    Args:
        objects: Object store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, kept: KeptPicture, content: bytes) -> bool:
        """Keep a picture; False if it is there already."""
        image, document = _keys(kept.task, kept.picture)
        if self._objects.exists(document):
            return False
        self._objects.put_new(image, content)
        return self._objects.put_new(document, kept.to_json())

    def files(self, task: str = "") -> list[KeptFile]:
        """Pictures of a task, or of all, the oldest first."""
        prefix = f"{FOLDER}{check_task_name(task)}/" if task else FOLDER
        return sorted(_pair(self._objects.scan(prefix)), key=lambda one: (one.modified_s, one.picture))

    def read(self, task: str, picture: str) -> KeptPicture:
        """What was answered for a picture.

        Raises:
            ObjectMissing: It is not kept.
            StoreError: It is damaged.
        """
        _, key = _keys(task, picture)
        where = f"{self._objects.url}/{key}"
        found = KeptPicture.from_json(self._objects.get(key, max_bytes=MAX_KEPT_BYTES).data, where)
        if (found.task, found.picture) != (task, picture):
            raise StoreError(f"{where}: it is of picture {found.picture[:12]} of task {found.task!r}")
        return found

    def fetch(self, task: str, picture: str) -> bytes:
        """The file of a picture, as it was received.

        Raises:
            ObjectMissing: It is not kept.
        """
        return self._objects.get(_keys(task, picture)[0], max_bytes=MAX_PICTURE_BYTES).data

    def labelled(self, task: str) -> frozenset[str]:
        """Pictures of a task that persons have looked at, see ``store.reviews``."""
        keys = self._objects.list(f"{REVIEWS}{check_task_name(task)}/")
        return frozenset(key.rpartition("/")[2].removesuffix(".json") for key in keys)

    def drop(self, task: str, picture: str) -> None:
        """Remove a picture, if it is there, and what persons said of it."""
        for key in (f"{REVIEWS}{task}/{picture}.json", *reversed(_keys(task, picture))):
            self._objects.delete(key)

    def excess(self, limits: KeepLimits, now_s: float) -> list[KeptFile]:
        """Pictures of all tasks over the limits, and files that a killed writer left without an answer."""
        by_task: dict[str, list[KeptFile]] = defaultdict(list)
        for one in self.files():
            by_task[one.task].append(one)
        found = []
        for task, files in by_task.items():
            whole = [one for one in files if one.is_whole]
            found += [one for one in files if not one.is_whole and now_s - one.modified_s > _HALF_S]
            found += find_excess(whole, limits, now_s, self.labelled(task))
        return found

    def trim(
        self, task: str, limits: KeepLimits, now_s: float, labelled: Collection[str] = ()
    ) -> list[KeptFile]:
        """Remove what is over the limits of a task; see ``find_excess``. Returns what is left."""
        files = self.files(task)
        excess = find_excess(files, limits, now_s, labelled)
        for one in excess:
            self.drop(one.task, one.picture)
        gone = {one.picture for one in excess}
        return [one for one in files if one.picture not in gone]


def find_excess(
    files: list[KeptFile], limits: KeepLimits, now_s: float, labelled: Collection[str] = ()
) -> list[KeptFile]:
    """Pictures of one task that are too old, or the oldest of too many: first those without a label.

    Args:
        files: Its pictures, the oldest first.
        limits: The limits.
        now_s: Current time by the store's clock.
        labelled: Pictures that a person has given a label.
    """
    excess = [one for one in files if now_s - one.modified_s > limits.age_s]
    left = [one for one in files if now_s - one.modified_s <= limits.age_s]
    num, num_bytes = len(left), sum(one.num_bytes for one in left)
    for one in sorted(left, key=lambda one: one.picture in labelled):
        if num <= limits.pictures and num_bytes <= limits.num_bytes:
            break
        num, num_bytes = num - 1, num_bytes - one.num_bytes
        excess.append(one)
    return excess


def _keys(task: str, picture: str) -> tuple[str, str]:
    if not is_digest(picture):
        raise StoreError(f"picture {picture[:80]!r}: expected the sha256 of a file, 64 hex digits")
    place = f"{FOLDER}{check_task_name(task)}/{picture}"
    return f"{place}.image", f"{place}.json"


def _pair(objects: Iterator[ListedObject]) -> Iterator[KeptFile]:
    found: dict[tuple[str, str], list[ListedObject]] = defaultdict(list)
    for one in objects:
        _, task, *name = one.key.split("/")
        picture, _, kind = name[0].partition(".") if len(name) == 1 else ("", "", "")
        # What is not laid out as a kept picture is not ours to judge.
        if is_task_name(task) and is_digest(picture) and kind in ("image", "json"):
            found[task, picture].append(one)
    for (task, picture), parts in found.items():
        yield KeptFile(
            task=task,
            picture=picture,
            num_bytes=sum(one.num_bytes for one in parts),
            modified_s=max(one.modified_s for one in parts),
            is_whole=len(parts) == 2,
        )


def read_all(kept: KeptPictures, task: str) -> list[KeptPicture]:
    """What was answered for the pictures of a task, the newest first; what is damaged or gone is left out."""

    def read(one: KeptFile) -> KeptPicture | None:
        try:
            return kept.read(task, one.picture)
        except (ObjectMissing, StoreError):
            return None

    with ThreadPoolExecutor(_NUM_READERS) as readers:
        found = readers.map(read, reversed([one for one in kept.files(task) if one.is_whole]))
    return [one for one in found if one is not None]
