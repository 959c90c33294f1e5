"""Checks of the registry, and of the store against it: schema, ownership, catalog, records that wait."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from orchestrator.cluster.reachable import check_reachable
from orchestrator.doctor.row import Place, Row, fail, named, ok, skipped, warn
from orchestrator.errors import RegistryError, StoreError
from orchestrator.registry.database_file import SCHEMA_REVISIONS, read_revisions
from orchestrator.registry.dry_sync import DrySync, dry_sync
from orchestrator.registry.ownership import find_owner
from orchestrator.registry.registry import Registry
from orchestrator.registry.session import MlflowSession, RegistryMissing
from orchestrator.registry.spool import REJECTED
from orchestrator.store.objects.open import find_folder
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.run.files import is_locked
from ship.artifact.card import CARD

__all__ = ["check_catalog", "check_ownership", "check_records", "check_registry", "check_spool"]

_OUTDATED = "out-of-date database schema"
_TUNE = "`ship tune MANIFEST` records what is published"


def check_registry(
    place: Place,
    reach: Callable[[str, str], None] = check_reachable,
    revisions_of: Callable[[str], frozenset[str] | None] = read_revisions,
) -> Iterator[Row]:
    """Kind of MLflow, whether it answers, its identity, and the schema of its database.

    Args:
        reach: Tries an address.
        revisions_of: Gives the revisions of the schema of a file; None where there is none.
    """
    session = place.registry().session
    where = f"{_kind_of(session)} at {session.where}"
    if session.is_server:
        reach("MLFLOW_TRACKING_URI", session.tracking_uri)
    try:
        identity = session.find_identity()
    except RegistryMissing:
        if _has_published(place):
            found = f"{where} is not there, and the store has tasks that are published"
            yield fail("registry", found, "the MLflow that they are in", f"see MLFLOW_TRACKING_URI; {_TUNE}")
        else:
            yield skipped("registry", f"{where} is not there yet: the first `ship tune` makes it")
        return
    except RegistryError as error:
        if _OUTDATED not in str(error):
            raise
        upgrade = f"`ship backup`, then `mlflow db upgrade {session.where}`"
        yield fail("schema", f"{where} has one of an older MLflow", "that of the MLflow installed", upgrade)
        return
    if identity is None:
        yield skipped("registry", f"{where} answers, and nothing was recorded there yet")
        return
    yield ok("registry", f"{where} answers: registry {identity[:8]}")
    folder = find_folder(place.settings.store)
    if folder is not None and not folder.exists() and (digests := place.registry().referenced_digests()):
        found = f"{len(digests)} artifacts are named, and {folder} is not there"
        yield fail("registry", found, "the store that they are in", "see SHIP_STORE, or restore a backup")
    revisions = revisions_of(session.tracking_uri)
    if revisions is None or revisions <= SCHEMA_REVISIONS:
        yield ok("schema", ", ".join(sorted(revisions or ())) or "MLflow's own to look after")
    else:
        known = ", ".join(sorted(SCHEMA_REVISIONS))
        advice = "nothing is wrong: listings ask MLflow itself, which takes seconds more"
        yield warn("schema", ", ".join(sorted(revisions)), known, advice)


def _has_published(place: Place) -> bool:
    try:
        return bool(PromptStore(place.objects()).published_keys())
    except StoreError:
        return False


def _kind_of(session: MlflowSession) -> str:
    if session.is_server:
        return "a tracking server"
    scheme = session.tracking_uri.partition(":")[0].partition("+")[0]
    return "an embedded file of SQLite" if scheme == "sqlite" else f"a database ({scheme})"


def check_ownership(place: Place) -> Iterator[Row]:
    """Whether the store belongs to this registry."""
    owner = find_owner(PromptStore(place.objects()), place.registry())
    if owner is None:
        yield ok("ownership", "no registry has claimed the store yet: the first endpoint or `ship sync` does")
    else:
        yield ok("ownership", f"the store belongs to this registry, {owner.registry[:8]}")


def check_catalog(place: Place, look: Callable[[PromptStore, Registry], DrySync] = dry_sync) -> Iterator[Row]:
    """The catalog and MLflow's aliases against the rollouts, as `ship sync` would mend them.

    Args:
        look: Finds what `ship sync` would do.
    """
    store = PromptStore(place.objects())
    stored = store.read_catalog()
    found = look(store, place.registry())
    for task, problem in found.change.problems.items():
        yield fail("catalog", f"{task}: {problem}", "a task that can be read", f"ship show {task}")
    for task, broken in ({} if stored is None else stored[0].broken).items():
        if task not in found.change.problems:
            yield fail("catalog", f"{task}: {broken.problem}", "an entry that can be read", "ship sync")
    in_line = "in line with the rollouts; an endpoint does so every two seconds"
    if found.change.missing:
        yield warn(
            "catalog",
            f"served, and missing from MLflow: {named(found.change.missing)}",
            "tasks that MLflow has",
            "check MLFLOW_TRACKING_URI; `ship sync --drop` takes them out of service",
        )
    if found.change.lost:
        yield warn("catalog", f"gone from MLflow: {named(found.change.lost)}", in_line, "ship sync")
    elif found.change.is_written and stored is not None:
        yield warn("catalog", "it is not as the rollouts say", in_line, "ship sync")
    elif found.change.is_written:
        yield warn("catalog", "there is none yet", in_line, "`ship serve` writes it, or `ship sync`")
    if found.moves:
        yield warn("aliases", f"behind the rollouts: {named(found.moves)}", in_line, "ship sync")
    served = 0 if stored is None else len(stored[0].entries)
    yield ok("catalog", f"{served} tasks serve")


def check_records(place: Place) -> Iterator[Row]:
    """Publications that MLflow has no version of, and versions whose artifacts are gone from the store."""
    store, registry = PromptStore(place.objects()), place.registry()
    # In this order: of what a tuning adds meanwhile no version or artifact seems to be missing.
    published = {one.digest: one.task for one in store.all_published().values()}
    versions = registry.referenced_digests()
    gated = {digest for _, digest in registry.gated_versions()}
    catalog = store.read_catalog()
    served = frozenset[str]() if catalog is None else catalog[0].digests
    held = {key.split("/")[1] for key in store.objects.list("artifacts/") if key.endswith(f"/{CARD}")}
    lost = (gated | served | published.keys()) - held
    back = "restore them from a backup (`ship restore`), or tune the tasks again"
    if away := lost & served:
        yield fail("artifacts", f"served, and not in the store: {_short(away)}", "every one served", back)
    if away := lost - served:
        yield warn("artifacts", f"named, and not in the store: {_short(away)}", "every one named", back)
    if unrecorded := {published[digest] for digest in published.keys() - versions}:
        said = f"published, and not in MLflow: {named(unrecorded)}"
        yield warn("records", said, "a version of each", _TUNE)
    yield ok("records", f"{len(published)} artifacts published, {len(versions)} named by versions")


def _short(digests: set[str]) -> str:
    return named(digest[:12] for digest in digests)


def check_spool(place: Place) -> Iterator[Row]:
    """Records of drivers that were ended before MLflow took them."""
    folder, num_waiting, num_at_work = place.settings.spool, 0, 0
    for path in sorted(folder.glob("*.jsonl")):
        if is_locked(path.with_suffix(".lock")):
            num_at_work += 1
            continue
        # Its driver may have ended in good order, or another one taken it over.
        with suppress(FileNotFoundError), path.open("rb") as lines:
            num_waiting += sum(1 for _ in lines)
    if num_waiting:
        said = f"{num_waiting} records of a driver that was ended wait in {folder}"
        yield warn("spool", said, "none", "the next `ship tune` that reaches MLflow writes them")
    if (rejected := folder / REJECTED).exists():
        yield warn("spool", f"{rejected} has records that MLflow refused", "none", "read and remove it")
    if not num_waiting:
        yield ok("spool", f"{num_at_work} drivers at work" if num_at_work else "nothing waits")
