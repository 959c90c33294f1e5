"""Checks of what serves: the backbone's weights and fingerprint, and a running endpoint."""

from collections.abc import Callable, Iterator

from orchestrator.client.client import Client, EndpointError
from orchestrator.doctor.row import Place, Row, fail, named, ok, skipped, warn
from orchestrator.durations import describe_seconds
from orchestrator.errors import StoreError
from orchestrator.store.backbones import list_backbones
from orchestrator.store.prompt_store import PromptStore
from ship.backbone_spec import files_of
from ship.version import __version__

__all__ = ["check_backbones", "check_endpoint"]

_STORE = "store:"
# An engine looks each second, and a poller at the registry every two.
_OLD_S = 60.0


def _fingerprint(spec: str) -> str:
    from ship.backbone import load_backbone

    return load_backbone(spec).fingerprint


def check_backbones(place: Place, fingerprint: Callable[[str], str] = _fingerprint) -> Iterator[Row]:
    """Weights of each backbone, its fingerprint, and whether it is that of the tasks that serve.

    Weights of a timm name are not looked for: that could download them.

    Args:
        fingerprint: Loads a backbone of this machine and gives its fingerprint.
    """
    known: set[str] = set()
    is_complete = True
    for spec in place.backbones:
        files = files_of(spec)
        if spec.startswith(_STORE):
            digits = spec.removeprefix(_STORE)
            held = [one for one in list_backbones(place.objects()) if one.startswith(digits)]
            known.update(held)
            if len(held) != 1:
                found = f"{spec}: {len(held)} in the store"
                yield fail("backbone", found, "one", "ship backbone push SPEC")
            else:
                yield ok("backbone", f"{spec} is in the store; its weights are checked when it is loaded")
        elif not files:
            is_complete = False
            yield skipped("backbone", f"{spec}: a timm name, whose weights are loaded at the first use")
        elif missing := [str(path) for path in files if not path.is_file()]:
            yield fail("backbone", f"{spec}: {missing[0]} is not there", "timm's two files", "see --backbone")
        else:
            known.add(found := fingerprint(spec))
            yield ok("backbone", f"{spec}: {found[:16]}")
    if is_complete:
        yield from _compare(place, known)


def _compare(place: Place, known: set[str]) -> Iterator[Row]:
    try:
        stored = PromptStore(place.objects()).read_catalog()
    except StoreError:
        # The store's own check says so.
        return
    if stored is None:
        return
    catalog = stored[0]
    backbones = (catalog.backbone_of(digest) for digest in catalog.digests)
    served = {one for one in backbones if one is not None}
    if served - known:
        others = named(one[:16] for one in served - known)
        advice = "name each with --backbone, of `ship serve` too; `ship backbone ls` lists those of the store"
        yield warn("backbone", f"tasks serve that were tuned on others: {others}", "one of these", advice)


def check_endpoint(place: Place) -> Iterator[Row]:
    """Whether the endpoint is ready, how old its catalog is, and its version."""
    if place.endpoint is None:
        yield skipped("endpoint", "none is named", "--endpoint URL, SHIP_ENDPOINT or SHIP_URL")
        return
    with Client(place.endpoint, timeout_s=5.0, patience_s=0.0) as client:
        told = client.readiness()
        found = f"{client.url}: {told.get('detail', '')}"
        if told["ready"]:
            yield ok("endpoint", f"{found} (ready)")
        else:
            yield fail("endpoint", found, "ready", "its log is <home>/serve.log")
        looks = told.get("last_look_s") or {}
        for name, age_s in {"catalog": told.get("catalog_age_s"), **looks}.items():
            if isinstance(age_s, int | float) and age_s > _OLD_S:
                found = f"its {name} was last seen {describe_seconds(age_s)} ago"
                advice = "see whether it reaches the store and MLflow: its log is <home>/serve.log"
                yield warn("endpoint", found, f"less than {describe_seconds(_OLD_S)}", advice)
        if told.get("num_problems"):
            found = f"{told['num_problems']} tasks serve another version than the catalog names"
            yield warn("endpoint", found, "none", "GET /v1/tasks/TASK says why")
        yield from _compare_versions(client)


def _compare_versions(client: Client) -> Iterator[Row]:
    try:
        version = client.server_version()
    except EndpointError as error:
        yield skipped("endpoint's version", str(error), "set SHIP_TOKEN to one of its tokens")
        return
    if version == __version__:
        yield ok("endpoint's version", version)
    else:
        yield warn("endpoint's version", version, __version__, "restart it once both are the same")
