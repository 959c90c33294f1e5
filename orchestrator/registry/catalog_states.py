"""What the catalog says of a task, made of its rollout or of MLflow's listing: pure functions, no store."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestrator.registry.moves import retired_version
from orchestrator.registry.versions import CHAMPION, ModelView, read_trials
from orchestrator.store.documents.catalog import Catalog, CatalogEntry, IdleTask
from orchestrator.store.documents.rollout import Aliases, Rollout

__all__ = ["State", "catalog_of", "make_entry", "state_of", "state_of_view", "with_states"]

State = CatalogEntry | IdleTask


def make_entry(
    aliases: Aliases, digests: Mapping[int, str | None], rules: Mapping[str, str] | None = None
) -> CatalogEntry | None:
    """A task's entry in the catalog; None if it has no champion with an artifact of ours.

    Args:
        aliases: Aliases of its versions.
        digests: Digests of the versions that have an alias; None for versions registered by other programs.
        rules: Digests of decision rules by digest of the artifact, also of artifacts that are not served.
    """
    known = {version: digest for version, digest in digests.items() if digest is not None}
    champion = aliases.versions.get(CHAMPION)
    if champion is None or champion not in known:
        return None
    trials = read_trials(aliases)
    ruled = _rules_of(known.values(), rules)
    digest = known.pop(champion)
    return CatalogEntry(
        version=champion,
        digest=digest,
        others=known,
        canary=trials.canary if trials.canary and trials.canary.version in known else None,
        shadow=trials.shadow if trials.shadow in known else None,
        rules=ruled,
    )


def state_of(rollout: Rollout) -> State:
    """A task's state as its rollout has it."""
    digests = {version: ref.digest for version, ref in rollout.versions.items()}
    return _find_state(rollout.aliases, digests, rollout.rules)


def state_of_view(view: ModelView, known: State | None) -> State:
    """A task's state as MLflow has it, which knows no rules: the known one where nothing else differs."""
    state = _find_state(view.standing, view.digests)
    return known if known is not None and state == replace(known, rules={}) else state


def with_states(catalog: Catalog, states: Mapping[str, State]) -> Catalog:
    """A catalog with other states of some tasks; what cannot be read of others stays for a look at MLflow."""
    broken = {task: entry for task, entry in catalog.broken.items() if task not in states}
    followed = catalog_of({**catalog.entries, **catalog.idle, **states}, catalog.registry, catalog)
    return replace(followed, broken=broken)


def catalog_of(
    states: Mapping[str, State],
    registry: str | None,
    before: Catalog,
    backbones: Mapping[str, str] | None = None,
) -> Catalog:
    """The catalog of these states.

    Args:
        states: Entries and idle tasks by name.
        registry: Identity of the registry.
        before: The catalog until now, which knows backbones; an artifact's never changes.
        backbones: Fingerprints by digest of the artifact, as the registry has them.
    """
    catalog = Catalog(
        entries={task: state for task, state in states.items() if isinstance(state, CatalogEntry)},
        idle={task: state for task, state in states.items() if isinstance(state, IdleTask)},
        registry=registry,
    )
    named, known = before.digests, backbones or {}
    return catalog.with_backbones(
        lambda digest: known.get(digest) or (before.backbone_of(digest) if digest in named else None)
    )


def _find_state(
    aliases: Aliases, digests: Mapping[int, str | None], rules: Mapping[str, str] | None = None
) -> State:
    """A task's entry, or what it is without one."""
    if (entry := make_entry(aliases, digests, rules)) is not None:
        return entry
    if retired_version(aliases) is not None:
        return IdleTask(is_retired=True)
    versions = {version: digest for version, digest in digests.items() if digest is not None}
    return IdleTask(versions=versions, rules=_rules_of(versions.values(), rules))


def _rules_of(artifacts: Iterable[str], rules: Mapping[str, str] | None) -> dict[str, str]:
    named = set(artifacts)
    return {artifact: rule for artifact, rule in sorted((rules or {}).items()) if artifact in named}
