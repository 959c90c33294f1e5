"""A console over a small real registry, beside an endpoint of one engine in this process, for a browser.

Two tasks are tuned on a tiny backbone, labels and file names of one are hostile; a run is over and one is at
work; people have tokens of each scope.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from orchestrator.client.client import Client
from orchestrator.console.server import running_console
from orchestrator.console.services import Services
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.exchange import admit
from orchestrator.registry.registry import Registry
from orchestrator.report.document import make_report
from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.options import EngineOptions, Limits
from orchestrator.settings import Settings
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.tokens import ConsoleScope, Scope
from orchestrator.store.kept.pictures import KeptPictures
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.ledger.failures import Failure
from orchestrator.train.run.folder import hold_run
from ship.artifact.making import make_artifact
from ship.backbone import Backbone, load_backbone
from ship.images.decoding import decode_pixels
from ship.notebook import tune
from ship.settings.search_config import SearchConfig
from tests.factories import write_backbone, write_stripes
from tests.integration.place import Place
from tests.integration.served_plant import make_token
from tests.unit.orchestrator.report.factory import make_verdict
from tests.unit.orchestrator.serve.caller import decode_with
from tests.unit.orchestrator.serve.factory import Handle, LoadedBackbone
from tests.unit.orchestrator.store.factory import make_kept
from tests.unit.orchestrator.train.fakes import driven, leased_ledger, make_event

__all__ = ["HOSTILE_FILE", "HOSTILE_LABEL", "LABELS", "ConsolePlant", "console_plant", "wait_until"]

# A page of another origin that posts a promotion by a form, and shows the console in a frame.
FOREIGN = """<!DOCTYPE html><title>foreign</title>
<iframe name="hole"></iframe><iframe id="frame" src="{url}/fleet"></iframe>
<form id="form" method="post" target="hole" action="{url}/tasks/nuts/promote">
<input name="version" value="1"><input name="reason" value="because"><input name="csrf" value="guessed">
</form>"""
HOSTILE_LABEL = "<img src=x onerror=alert(1)>"
HOSTILE_FILE = "'\"><svg onload=alert(2)>.png"
LABELS = ("good", HOSTILE_LABEL, "scratch")
PATIENCE_S = 60.0
WORKER = "worker-0@host:1"


@dataclass(frozen=True, kw_only=True)
class ConsolePlant:
    """A console and what is behind it.

    Attributes:
        url: URL of the console.
        endpoint: URL of the endpoint.
        foreign: URL of a page of another origin; its parameter ``url`` is the console's.
        place: Store and registry.
        tokens: Text of a token by its name: ``anna`` is an admin, ``maria`` decides, ``otto`` looks.
        picture: A picture to ask about.
    """

    url: str
    endpoint: str
    foreign: str
    place: Place
    tokens: dict[str, str]
    picture: Path


@contextmanager
def console_plant(folder: Path, database: Path) -> Iterator[ConsolePlant]:
    """Make it all, and end it."""
    with ExitStack() as stack:
        place = Place(folder, database)
        stack.callback(place.close)
        write_backbone(folder / "backbone")
        backbone = load_backbone(str(folder / "backbone"))
        _write_pictures(folder / "data")
        for number, (task, is_first) in enumerate((("bolts", True), ("bolts", False), ("nuts", True))):
            _tune(place, backbone, folder / "data", task, number, is_first)
        CatalogWriter(place.registry, place.store, place.rollouts).update()
        _leave_run(folder)
        stack.enter_context(_run_at_work(folder))
        picture = next((folder / "data" / "test" / "good").glob("*.png"))
        _keep(place.store, picture.read_bytes())
        endpoint = stack.enter_context(_serving(_make_endpoint(backbone, str(folder / "store"))))
        tokens = {name: _token(place.store, name) for name in ("anna", "maria", "otto")}
        settings = Settings.from_env({}, home=str(folder), store=str(folder / "store"))
        services = Services(
            settings=settings,
            store=place.store,
            registry=Registry(place.uri),
            audit=AuditLog(place.store),
            endpoint=stack.enter_context(Client(endpoint, "", patience_s=0.0)),
            manifest=_write_manifest(folder),
        )
        url = stack.enter_context(running_console(services, "127.0.0.1", _free_port()))
        foreign = stack.enter_context(_serving(_make_foreign()))
        yield ConsolePlant(
            url=url, endpoint=endpoint, foreign=foreign, place=place, tokens=tokens, picture=picture
        )


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Return as soon as something is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"{what}: not so after {PATIENCE_S:g} s"
        time.sleep(0.05)


def _write_pictures(folder: Path) -> None:
    write_stripes(folder, num_train=8, num_test=12, num_classes=len(LABELS))
    for split in ("train", "test"):
        for number, label in enumerate(LABELS):
            (folder / split / f"direction-{number}").rename(folder / split / label)
        for number, path in enumerate(sorted((folder / split).glob("*/*.png"))):
            path.rename(path.with_name(f"{number}{HOSTILE_FILE}"))


def _tune(place: Place, backbone: Backbone, data: Path, task: str, number: int, is_first: bool) -> None:
    """Tune a version and let it be registered; the first one of a task serves."""
    found = tune(
        data,
        backbone,
        progress=False,
        kind="ship",
        head="cls",
        augment="none",
        epochs=2,
        seed=number,
        num_independent=3,
        num_attribute=4,
        top_k=4,
        learning_rate=0.01,
        fallback=False,
        search=SearchConfig(num_candidates=1),
    )
    key = f"{number:064x}"
    files = make_artifact(
        task, backbone, found.data, found.result, found.search, task_key=key, fitted=found.fitted
    )
    admit(
        task,
        key,
        files,
        store=place.store,
        registry=place.registry,
        recorder=place.recorder(),
        promote=is_first,
    )


def _write_manifest(folder: Path) -> str:
    """What ``bolts`` would be tuned anew from."""
    path = folder / "lines.yaml"
    path.write_text(f"backbone: {folder / 'backbone'}\ntasks: [{{name: bolts, data: data}}]\n")
    return str(path)


def _keep(store: PromptStore, content: bytes) -> None:
    """A picture that an endpoint was unsure of."""
    probabilities = ((HOSTILE_LABEL, 0.6), ("good", 0.4))
    kept = make_kept(content, probabilities=probabilities, time_s=time.time())
    KeptPictures(store.objects).put(kept, content)


def _leave_run(home: Path) -> None:
    """A run that is over, with its report: caps failed."""
    ledger = leased_ledger("caps", "welds")
    ledger.fail(WORKER, "caps", 1, Failure(cause=f"{HOSTILE_FILE} is no picture", is_retryable=False))
    with hold_run(home, "tune-1", f"{HOSTILE_LABEL}.yaml") as folder:
        folder.log([make_event("failed", task="caps", cause="no picture", detail=HOSTILE_LABEL * 3)])
        folder.show(ledger.status())
        verdicts = [make_verdict("caps", "failed", reason=HOSTILE_LABEL), make_verdict("welds", accuracy=0.9)]
        make_report({"name": "tune-1"}, verdicts, {}).write(folder.folder)


@contextmanager
def _run_at_work(home: Path) -> Iterator[None]:
    """A run whose driver does what it is asked."""
    ledger = leased_ledger("caps", "gears", "welds")
    with hold_run(home, "tune-2", "lines.yaml") as folder:
        folder.plan(
            {
                "backbone": "bundled",
                "num_workers": 1,
                "estimate_s": None,
                "wall_s": None,
                "to_tune": [
                    {"task": name, "num_images": 8, "estimate_s": None} for name in ("caps", "welds")
                ],
                "to_reuse": ["bolts"],
                "refused": [{"task": "odd", "reasons": [HOSTILE_LABEL]}],
                "warnings": [HOSTILE_LABEL],
            }
        )
        folder.show(ledger.status())
        with driven(folder, ledger):
            yield


def _make_endpoint(backbone: Backbone, store_url: str) -> FastAPI:
    options = EngineOptions(slot_bytes=16 << 20, precision="float32")
    replica = EngineReplica(LoadedBackbone(backbone), store_url, 1, options)
    limits = Limits(max_body_bytes=100_000)
    app = make_app(RayEngine(Handle(replica), 30.0), backbone.info, limits)
    # Processes have tests of their own.
    decode_with(app, Decoder(backbone.info, limits, decode_pixels))
    return app


def _make_foreign() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", lambda url: HTMLResponse(FOREIGN.format(url=url)), response_class=HTMLResponse)
    return app


@contextmanager
def _serving(app: FastAPI) -> Iterator[str]:
    """An application in a thread of this process, at a port of its own."""
    port = _free_port()
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the endpoint listens")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _token(store: PromptStore, name: str) -> str:
    scopes: dict[str, ConsoleScope] = {"anna": "admin", "maria": "decide", "otto": "look"}
    return make_token(store, name, Scope(predict=("*",), console=scopes[name]))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
