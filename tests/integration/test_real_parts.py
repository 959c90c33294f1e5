"""The store on a real S3 (Ceph's gateway) and tracking on a real MLflow with PostgreSQL, then both together.

Both come from deploy/local, as a user starts them. Where Debian's packages are missing the tests skip and say
so.
"""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.errors import ObjectConflict, ObjectMissing, RegistryError, StoreError
from orchestrator.registry.recorder import Recorder
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.garbage.collector import Collector
from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.store.prompt_store import PromptStore
from tests.factories import write_backbone, write_stripes
from tests.integration.local_services import LocalService
from tests.integration.place import champions
from tests.integration.plant import SHIP, Plant
from tests.unit.orchestrator.store.factory import digest_of, make_artifact, make_key, tune

KEY = make_key("bolts")
NUM_RIVALS = 8
DAY_S = 86400.0
# Half a minute is enough, unless others use the machine too.
TUNE_LIMIT_S = 540


@pytest.fixture(scope="module")
def services() -> Iterator[Mapping[str, LocalService]]:
    """Both scripts, started at once, for all tests of this module. No process survives them."""
    started = {name: LocalService(name) for name in ("s3", "mlflow")}
    try:
        yield started
    finally:
        for service in started.values():
            service.tell_to_end()
        alive = {name: service.end() for name, service in started.items()}
    assert alive == {"s3": [], "mlflow": []}


@pytest.fixture(scope="module")
def s3_variables(services: Mapping[str, LocalService]) -> Mapping[str, str]:
    return services["s3"].wait()


@pytest.fixture(scope="module")
def tracking_uri(services: Mapping[str, LocalService]) -> str:
    return services["mlflow"].wait()["MLFLOW_TRACKING_URI"]


@pytest.fixture
def objects(s3_variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ObjectStore:
    """An empty place in the bucket; the environment leads there."""
    for name, value in s3_variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return open_objects(f"{s3_variables['SHIP_STORE']}/{tmp_path.name}")


def test_what_is_published_is_read_back_and_stays_the_first(objects: ObjectStore) -> None:
    store = PromptStore(objects)

    publication = store.publish("bolts", KEY, make_artifact())
    late = store.publish("bolts", KEY, make_artifact(accuracy=0.7))

    assert publication.created
    assert (late.created, late.digest) == (False, publication.digest)
    assert store.fetch(publication.digest) == make_artifact()
    assert store.published_keys() == {("bolts", KEY)}
    assert [found.num_bytes for found in objects.scan("artifacts/")] == [
        len(content) for _, content in sorted(make_artifact().items())
    ]
    with pytest.raises(ObjectMissing):
        store.fetch(make_key("nothing"))


def test_the_catalog_changes_hands_by_etag(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    first, second = (Catalog(entries={"bolts": CatalogEntry(version=n, digest=KEY)}) for n in (1, 2))

    etag = store.write_catalog(first, None)
    newer = store.write_catalog(second, etag)

    assert store.read_catalog() == (second, newer)
    for stale in (etag, None):
        with pytest.raises(ObjectConflict):
            store.write_catalog(first, stale)
    assert store.read_catalog() == (second, newer)
    # What is still there is not sent again.
    assert objects.get_unless("catalog.json", newer) is None
    assert objects.get_unless("catalog.json", etag) is not None


def test_of_many_writers_at_once_one_wins(objects: ObjectStore) -> None:
    etag = PromptStore(objects).write_catalog(Catalog(entries={}), None)
    gate = threading.Barrier(NUM_RIVALS)

    def replace(number: int) -> int | None:
        gate.wait()
        try:
            PromptStore(objects).write_catalog(
                Catalog(entries={"bolts": CatalogEntry(version=number, digest=KEY)}), etag
            )
        except ObjectConflict:
            return None
        return number

    def create(number: int) -> int | None:
        gate.wait()
        return number if objects.put_new("new", str(number).encode()) else None

    with ThreadPoolExecutor(NUM_RIVALS) as rivals:
        [replaced] = [number for number in rivals.map(replace, range(1, NUM_RIVALS + 1)) if number]
        [created] = [number for number in rivals.map(create, range(1, NUM_RIVALS + 1)) if number]

    catalog = PromptStore(objects).read_catalog()
    assert catalog is not None
    assert catalog[0].entries["bolts"].version == replaced
    assert objects.get("new").data == str(created).encode()


def test_snapshots_are_replaced_by_their_own_writer_only(objects: ObjectStore) -> None:
    late, successor = PromptStore(objects), PromptStore(objects)
    assert late.snapshots.load("bolts", KEY) is None
    late.snapshots.save("bolts", KEY, b"epoch 1")
    assert successor.snapshots.load("bolts", KEY) == b"epoch 1"
    successor.snapshots.save("bolts", KEY, b"epoch 2")

    with pytest.raises(ObjectConflict):
        late.snapshots.save("bolts", KEY, b"epoch 1 again")

    assert successor.snapshots.load("bolts", KEY) == b"epoch 2"
    successor.snapshots.drop("bolts", KEY)
    assert successor.snapshots.load("bolts", KEY) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret"),
        ("AWS_ACCESS_KEY_ID", "WRONGKEY"),
        ("SHIP_STORE", "s3://none"),
    ],
)
def test_what_is_set_wrong_is_named(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    wrong = open_objects("s3://none" if variable == "SHIP_STORE" else objects.url)

    for call in (lambda: wrong.get("k"), lambda: wrong.put("k", b"x"), lambda: list(wrong.list(""))):
        with pytest.raises(StoreError, match=variable) as caught:
            call()
        assert not isinstance(caught.value, ObjectMissing)
        assert "wrong-secret" not in str(caught.value)


def test_versions_and_aliases_on_postgres(tracking_uri: str, objects: ObjectStore, tmp_path: Path) -> None:
    store, registry = PromptStore(objects), Registry(tracking_uri)
    events = [
        *tune(store, "valves", make_key("1"), accuracy=0.95, accuracy_low=0.93),
        *tune(store, "valves", make_key("2"), accuracy=0.85),
    ]

    with Recorder(registry, store, tmp_path / "spool") as recorder:
        recorder.handle(events)
        assert recorder.drain().num_records == 0

    newest, champion = registry.versions("valves")
    assert (newest.version, newest.aliases, champion.aliases) == (2, ("challenger",), ("champion",))
    assert champion.source == store.uri(champion.digest or "")
    rollouts = Rollouts(registry, store)
    assert rollouts.promote("valves", force=True).to_version == 2
    assert rollouts.rollback("valves").to_version == 1
    assert champions(registry)["valves"].version == 1
    with pytest.raises(RegistryError, match="no version 7; it has: 2, 1"):
        rollouts.promote("valves", 7)
    client = MlflowClient(tracking_uri, tracking_uri)
    assert [point.step for point in client.get_metric_history(champion.run_id, "loss")] == [1, 2, 3]
    assert "prompt/prompt.json" in {
        file.path for file in client.list_artifacts(champion.run_id or "", "prompt")
    }


def test_what_was_recorded_while_tracking_was_down_is_replayed(
    tracking_uri: str, objects: ObjectStore, down: Registry, tmp_path: Path
) -> None:
    store, registry = PromptStore(objects), Registry(tracking_uri)
    with Recorder(down, store, tmp_path / "spool") as recorder:
        recorder.handle(tune(store, "pipes", make_key("pipes")))
        waiting = recorder.summary()
    assert waiting.num_records > 0
    assert "pipes" not in champions(registry)

    with Recorder(registry, store, tmp_path / "spool") as successor:
        taken_over = successor.replay()
        replayed = successor.drain()

    assert taken_over.num_records == waiting.num_records
    assert replayed.num_records == 0
    digest = store.published("pipes", make_key("pipes")).digest
    assert champions(registry)["pipes"].digest == digest


@pytest.mark.timeout(TUNE_LIMIT_S + 60)
def test_tuning_with_both_publishes_records_and_leaves_no_garbage(
    objects: ObjectStore, tracking_uri: str, tmp_path: Path
) -> None:
    plant = Plant(tmp_path)
    plant.environment |= {"SHIP_STORE": objects.url, "MLFLOW_TRACKING_URI": tracking_uri}
    write_backbone(tmp_path / "backbone")
    for name in ("line-a", "line-b"):
        write_stripes(tmp_path / name)

    manifest = str(plant.write_manifest(["line-a", "line-b"], epochs=5))
    done = subprocess.run(
        [SHIP, "tune", manifest, "--workers", "1"],
        env=plant.environment,
        capture_output=True,
        text=True,
        timeout=TUNE_LIMIT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tuned" in done.stdout
    store, registry = PromptStore(objects), Registry(tracking_uri)
    published = store.all_published()
    assert {task for task, _ in published} == {"line-a", "line-b"}
    crowned = champions(registry)
    for (task, _), publication in published.items():
        assert crowned[task].digest == publication.digest
        assert registry.version(task, 1).source == publication.uri
    assert list(objects.list("snapshots/")) == []
    assert list((plant.home / "spool").glob("*.jsonl")) == []

    orphan = make_artifact("orphan")
    for name, content in orphan.items():
        objects.put_new(f"artifacts/{digest_of(orphan)}/{name}", content)
    assert Collector(objects, registry).find(DAY_S) == []
    sweeper = Collector(objects, registry, now=lambda: time.time() + 2 * DAY_S)
    assert sweeper.remove(sweeper.find(DAY_S)) == []
    sweeper = Collector(objects, registry, now=lambda: time.time() + 4 * DAY_S)
    [gone] = sweeper.remove(sweeper.find(DAY_S))
    assert (gone.name, len(gone.keys)) == (digest_of(orphan), len(orphan))
    assert {key.split("/")[1] for key in objects.list("artifacts/")} == {
        publication.digest for publication in published.values()
    }
