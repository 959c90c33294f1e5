"""The servers that are compared: commands, packages, settings to try, and the form of a request of each."""

import base64
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.benchmarks.serve.load import Request, zipf
from tests.benchmarks.serve.peers.knobs import LAUNCH, Knobs, Launch
from tests.benchmarks.serve.peers.scene import References, Scene, is_right

__all__ = ["NAMES", "OURS", "System", "answers", "find_systems", "mix"]

OURS = "ours"
_START = Knobs()
_CORES = _START.num_threads
_ONE_A_CORE: dict[str, Any] = {"num_workers": _CORES, "num_threads": 1}
_ONE_FOR_ALL: dict[str, Any] = {"num_workers": 1, "num_threads": _CORES}
_SMALL_BATCH, _LONG_WAIT, _FAST = {"max_batch": 8}, {"wait_s": 0.05}, {"fast": True}
_SHIP = "from orchestrator.cli.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class System:
    """A server of the comparison.

    Attributes:
        name: Its name in the report.
        needs: Packages beside SHIP's own.
        start: Its first settings.
        steps: Changes of them that are tried.
        command: Command line that starts it.
        environment: Its own environment.
        requests: Requests by task and image file, each with a check of the answer.
    """

    name: str
    needs: tuple[str, ...]
    start: Knobs
    steps: tuple[dict[str, Any], ...]
    command: Callable[[Launch], list[str]]
    environment: Callable[[Launch], Mapping[str, str]]
    requests: Mapping[tuple[str, bytes], Request]


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def find_systems(
    scene: Scene,
    names: Sequence[str],
    options: Sequence[str] = (),
    is_installed: Callable[[str], bool] = _is_installed,
) -> tuple[list[System], list[str]]:
    """The systems of these names, and what is missing for the others.

    Args:
        scene: What they answer from.
        names: Names out of ``NAMES``.
        options: Options of ``ship serve`` besides.
        is_installed: Whether a package can be imported.
    """
    found = [_MAKERS[name](scene, options) for name in names]
    lacking = {system.name: [each for each in system.needs if not is_installed(each)] for system in found}
    missing = [
        f"{name}: not installed: {', '.join(packages)}; pip install -c constraints.txt -e '.[bench]'"
        for name, packages in lacking.items()
        if packages
    ]
    return [system for system in found if not lacking[system.name]], missing


def mix(system: System, scene: Scene, seed: int = 0) -> Iterator[Request]:
    """Endless requests of all tasks by Zipf's law."""
    for plain in zipf(scene.tasks, scene.contents, seed):
        assert plain.task is not None
        yield system.requests[plain.task, plain.content]


def answers(url: str, request: Request) -> bool:
    """Whether a server answers a request with 200."""
    headers = {"Content-Type": request.content_type}
    if request.task is not None:
        headers[request.task_header] = request.task
    try:
        reply = httpx.post(
            f"{url}{request.path}", content=request.content, headers=headers, timeout=60.0, trust_env=False
        )
    except httpx.HTTPError:
        return False
    return reply.status_code == 200


def _ours(scene: Scene, options: Sequence[str]) -> System:
    def command(launch: Launch) -> list[str]:
        fast = ["--haproxy" if launch.knobs.fast else "--no-haproxy"]
        engines = ["--engines", str(launch.knobs.num_workers)]
        inside = ["--ingress", "inside"] if launch.knobs.inside else []
        place = ["--port", str(launch.port), "--backbone", str(scene.folder / "backbone")]
        # As all of them compute, also where ours would take bfloat16 by itself.
        given = [*place, *fast, *engines, *inside, "--precision", "float32", *options]
        return [sys.executable, "-c", _SHIP, "serve", "--no-auth", *given]

    home = {"SHIP_HOME": str(scene.folder / "home"), "SHIP_CACHE": str(scene.folder / "cache")}
    return System(
        name=OURS,
        needs=(),
        start=Knobs(fast=True),
        steps=({"inside": True}, _ONE_A_CORE),
        command=command,
        environment=lambda _: home,
        requests=_plain_requests(scene.ours, path="/v1/predict"),
    )


def _fastapi(scene: Scene, _: Sequence[str]) -> System:
    return _peer(
        "fastapi",
        needs=("fastapi", "uvicorn", "peft"),
        steps=(_ONE_A_CORE, _SMALL_BATCH),
        requests=_plain_requests(scene.theirs, path="/predict"),
    )


def _litserve(scene: Scene, _: Sequence[str]) -> System:
    def request(task: str, content: bytes, expected: Mapping[str, float]) -> Request:
        body = {"task": task, "image_data": base64.b64encode(content).decode()}
        return Request(
            task=None,
            content=json.dumps(body).encode(),
            path="/predict",
            content_type="application/json",
            check=is_right(task, expected),
        )

    return _peer(
        "litserve",
        needs=("litserve", "peft"),
        # As its description has it for a CPU and for more than 100 requests a second.
        start=Knobs(fast=True, **_ONE_A_CORE),
        steps=(_ONE_FOR_ALL, _LONG_WAIT, _SMALL_BATCH, {"fast": False}),
        requests={key: request(*key, expected) for key, expected in scene.theirs.items()},
    )


def _ray(scene: Scene, _: Sequence[str]) -> System:
    return _peer(
        "ray",
        needs=("ray", "peft"),
        steps=(_ONE_A_CORE, _SMALL_BATCH, _FAST),
        requests=_plain_requests(scene.theirs, path="/", task_header="serve_multiplexed_model_id"),
    )


def _peer(
    name: str,
    needs: tuple[str, ...],
    steps: tuple[dict[str, Any], ...],
    requests: Mapping[tuple[str, bytes], Request],
    start: Knobs = _START,
) -> System:
    return System(
        name=name,
        needs=needs,
        start=start,
        steps=steps,
        command=lambda _: [sys.executable, "-m", f"tests.benchmarks.serve.peers.{name}_app"],
        environment=lambda launch: {LAUNCH: launch.to_json()},
        requests=requests,
    )


def _plain_requests(references: References, **form: str) -> dict[tuple[str, bytes], Request]:
    """Requests whose body is the image file and whose header names the task."""
    return {
        (task, content): Request(task=task, content=content, check=is_right(task, expected), **form)
        for (task, content), expected in references.items()
    }


_MAKERS: dict[str, Callable[[Scene, Sequence[str]], System]] = {
    OURS: _ours,
    "fastapi": _fastapi,
    "litserve": _litserve,
    "ray": _ray,
}
NAMES = tuple(_MAKERS)
