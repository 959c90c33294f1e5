"""The image, started by podman: as its user, without capabilities, on a read-only root.

It is not built here, which takes minutes: SHIP_IMAGE_FOLDER is the folder that deploy/image/build was given.
"""

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from orchestrator.registry.registry import Registry
from orchestrator.serve.launch.address import choose_port
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.integration.plant import PATIENCE_S
from tests.unit.orchestrator.serve.factory import draw_png, make_artifact

FOLDER = os.environ.get("SHIP_IMAGE_FOLDER", "")
IMAGE = os.environ.get("SHIP_IMAGE", "localhost/ship:latest")
USER = 10001
PNG = draw_png(3)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER or shutil.which("podman") is None or os.geteuid() != 0,
        reason="needs root, podman and an image: `deploy/image/build --folder F`, then SHIP_IMAGE_FOLDER=F",
    ),
    # SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]
# crun refuses cgroups of both versions side by side: here it sees those of version 1.
WITHOUT_CGROUP_2 = 'mountpoint -q "$0" && umount "$0"; exec "$@"'


def podman(*words: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    places = {"root": "storage", "runroot": "run", "tmpdir": "podman"}
    command = ["unshare", "--mount", "sh", "-c", WITHOUT_CGROUP_2, "/sys/fs/cgroup/unified", "podman"]
    command += [f"--{name}={FOLDER}/{place}" for name, place in places.items()]
    command += ["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=file"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=PATIENCE_S)
    assert may_fail or done.returncode == 0, done.stderr
    return done


@contextmanager
def container(*words: str, options: tuple[str, ...]) -> Iterator[str]:
    """A container of the image with this command; its id."""
    # podman's own default is more than root may have where it lacks CAP_SYS_RESOURCE.
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    here = ("--cgroups=disabled", "--network=host", "--runtime=crun", "--pull=never")
    limits = (f"--ulimit=nofile={most}:{most}", "--ulimit=nproc=4096:4096")
    found = podman("run", "--detach", *hardened, *here, *limits, *options, IMAGE, *words).stdout.strip()
    try:
        yield found
    finally:
        podman("rm", "--force", "--time=60", found)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's folder, which Ray writes to as well, with a home in it that has one task."""
    settings = Settings.from_env({}, home=str(tmp_path / "user" / ".ship"))
    files = make_artifact(load_backbone("bundled"), "bolts", 2, seed=1)
    published = PromptStore(open_objects(settings.store)).publish("bolts", "1" * 64, files)
    registry = Registry(settings.tracking_uri, settings.artifact_location, may_create=True)
    registry.register(
        "bolts", digest=published.digest, source=published.uri, run_id=None, metrics={}, tags={}
    )
    registry.set_alias("bolts", "champion", 1)
    folder = settings.home.parent
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)
    return folder


def answer_outside() -> dict[str, float]:
    backbone = load_backbone("bundled")
    loaded, runtime = load_files(make_artifact(backbone, "bolts", 2, seed=1)), Runtime(backbone)
    image_3HW = decode_image(PNG, size=backbone.image_size, interpolation=backbone.interpolation)
    (logits_C,) = runtime.infer(image_3HW[None], [runtime.insert(loaded.prompt)])
    return dict(zip(loaded.card.labels, logits_C.double().softmax(0).tolist(), strict=True))


def wait_until_healthy(found: str) -> None:
    """Until the image's own health check, of this container, succeeds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (done := podman("healthcheck", "run", found, may_fail=True)).returncode != 0:
        logs = podman("logs", found, may_fail=True)
        assert time.monotonic() < deadline_s, (done.stdout, done.stderr, logs.stdout, logs.stderr)
        time.sleep(1.0)


@pytest.mark.parametrize("shm_size", ["1g", "64m"])
def test_the_endpoint_of_the_image_answers_alike_and_ends_cleanly(home: Path, shm_size: str) -> None:
    port = choose_port("127.0.0.1")
    options = (f"--volume={home}:/home/ship", f"--shm-size={shm_size}")
    # In the precision of the runtime outside, also where bfloat16 is faster.
    serving = ("serve", "--no-auth", "--port", str(port), "--precision", "float32")
    with container(*serving, options=options) as found:
        wait_until_healthy(found)
        reply = httpx.post(
            f"http://127.0.0.1:{port}/v1/predict",
            content=PNG,
            headers={"Ship-Task": "bolts", "Content-Type": "image/png"},
            timeout=PATIENCE_S,
            trust_env=False,
        )
        assert reply.status_code == 200, reply.text
        assert reply.json()["probabilities"] == pytest.approx(answer_outside(), abs=1e-5)
        assert podman("exec", found, "id", "-u").stdout.strip() == str(USER)
        assert podman("exec", found, "touch", "/opt/ship/x", may_fail=True).returncode != 0
        assert podman("exec", found, "bash", "-lc", "command -v ray").stdout.strip() == "/opt/ship/bin/ray"
        podman("stop", "--time=60", found)
        assert podman("inspect", "--format={{.State.ExitCode}}", found).stdout.strip() == "0"


def test_a_container_without_an_endpoint_is_healthy(tmp_path: Path) -> None:
    with container("30", options=("--entrypoint=sleep",)) as found:
        assert "unhealthy" not in podman("healthcheck", "run", found).stdout


def test_the_image_lists_what_it_has() -> None:
    labels = json.loads(podman("inspect", "--type=image", "--format={{json .Labels}}", IMAGE).stdout)
    with container(labels["ship.sbom"], options=("--entrypoint=cat",)) as found:
        podman("wait", found)
        listed = json.loads(podman("logs", found).stdout)
    assert listed["bomFormat"] == "CycloneDX"
    versions = {component["name"]: component["version"] for component in listed["components"]}
    assert {"torch", "ray", "mlflow"} <= set(versions)
    assert listed["metadata"]["component"]["name"] == "ship-prompts"
    assert not {"pip", "cyclonedx-bom", "pytest"} & set(versions)
