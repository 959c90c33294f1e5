"""Reviews of a task that is served, pictures that its endpoint kept, and the manifest that they go into."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.manifest.load import load_manifest
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.kept.picture_files import Exported
from orchestrator.store.kept.retuning import export_new, prepare_retuning
from orchestrator.store.kept.reviews import Reviews
from orchestrator.store.prompt_store import PromptStore
from ship.data.listing import list_items
from tests.unit.orchestrator.registry.factory import MemoryObjects, make_decided
from tests.unit.orchestrator.store.factory import make_kept

ANNA, BEN = (Author(by=name, host="press") for name in ("anna", "ben"))
LABELS = ("good", "scratched")
NUM_OWN = 2
PNG = b"\x89PNG\r\n\x1a\n"


def make_reviews(clock: Callable[[], float] = lambda: 50.0) -> Reviews:
    """Reviews of a task that is served."""
    store = PromptStore(MemoryObjects())
    digest = store.publish("bolts", "1" * 64, make_decided(1, LABELS)).digest
    store.write_catalog(Catalog(entries={"bolts": CatalogEntry(version=1, digest=digest)}), None)
    return Reviews(store, clock=clock)


def keep(reviews: Reviews, content: bytes, decision: str = "unsure") -> str:
    """Keep a picture; returns its digest."""
    because = "several" if decision == "unsure" else None
    kept = make_kept(content, decision=decision, because=because)
    reviews.kept.put(kept, content)
    return kept.picture


@dataclass
class Plant:
    """A task with a manifest, data of two training and two test images, and the pictures kept of it."""

    folder: Path
    now_s: float = 50.0
    reviews: Reviews = field(init=False)

    def __post_init__(self) -> None:
        self.reviews = make_reviews(lambda: self.now_s)
        for split in ("train", "test"):
            for label in ("good", "scratched"):
                path = self.folder / "data" / split / label / "a.png"
                path.parent.mkdir(parents=True)
                path.write_bytes(PNG + f"{split} {label}".encode())
        self.write_manifest()

    @property
    def manifest(self) -> str:
        return str(self.folder / "lines.yaml")

    def write_manifest(self, more: str | None = None, settings: str = "path: data") -> None:
        told = settings if more is None else f"{settings}, more: {more}"
        Path(self.manifest).write_text(
            f"backbone: bundled\ntasks:\n  - {{name: bolts, data: {{{told}}}}}\n", encoding="utf-8"
        )

    def review(self, *contents: str, label: str | None = "good", by: Author = ANNA) -> list[str]:
        """Keep pictures and label them, each a day after the last."""
        self.now_s += 86400.0
        pictures = [keep(self.reviews, PNG + content.encode()) for content in contents]
        self.reviews.label("bolts", dict.fromkeys(pictures, label), by)
        return pictures

    def expire(self) -> None:
        """As at the age of 30 days."""
        for one in self.reviews.kept.files("bolts"):
            self.reviews.kept.drop("bolts", one.picture)

    def export(self, folder: str = "more", *, alone: bool = False) -> Exported:
        return export_new(self.reviews, "bolts", None if alone else self.manifest, self.folder / folder)

    def retune(self, folder: str = "more") -> Exported:
        return prepare_retuning(self.reviews, "bolts", self.manifest, self.folder / folder).exported

    def trained(self, manifest: str = "lines.yaml") -> dict[str, str]:
        """Label by content of the reviewed images that a manifest trains on; all of its own are there."""
        [task] = load_manifest(str(self.folder / manifest)).tasks
        items = list_items(task.source).of_split("train")
        further = [item for item in items if item.path.startswith("more/")]
        assert len(items) - len(further) == NUM_OWN
        assert task.source.more is not None
        folder = Path(task.source.more).parent
        return {
            (folder / item.path.removeprefix("more/")).read_bytes().removeprefix(PNG).decode(): item.label
            for item in further
        }


def write_table(folder: Path, pictures: dict[str, str], rows: list[str]) -> None:
    """A table that persons made: content by path, and lines."""
    for path, content in pictures.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(PNG + content.encode())
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
