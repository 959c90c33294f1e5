"""Questions of the page Try to the endpoint, one task at a time, and the commands that ask the same.

The endpoint is asked with the console's own token (``SHIP_TOKEN``), for the console keeps nobody's: the page
lets a person ask only about tasks that the person's token covers.
"""

import base64
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from orchestrator.client.client import Client, EndpointError

__all__ = ["ask_task", "commands_for"]

_FILE = "picture.png"


def ask_task(
    client: Client,
    task: str,
    picture: bytes,
    *,
    version: int | None = None,
    explains: bool = True,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """An answer of a task with its timing, and where the task makes the network look, as plain values.

    Args:
        client: Client of the endpoint.
        task: Name of the task.
        picture: Content of an image file.
        version: Version that must answer; None for the one that serves.
        explains: Whether attention maps are asked for, of the version that answered.
        monotonic: Clock of the timing.

    Returns:
        ``task``; ``answer`` and ``answer_s``, or ``problem``; ``attention`` (``drawing`` is a URL of a PNG)
        and ``attention_s``, or ``attention_problem``. What there is none of is None.
    """
    found: dict[str, Any] = dict.fromkeys(_PARTS) | {"task": task}
    started_s = monotonic()
    try:
        answer = client.predict(task, picture, version=version)
    except EndpointError as error:
        return found | {"problem": _problem(error)}
    found |= {"answer": asdict(answer), "answer_s": monotonic() - started_s}
    if not explains:
        return found
    started_s = monotonic()
    try:
        numbers, drawing = client.explain_whole(task, picture, version=answer.version)
    except EndpointError as error:
        return found | {"attention_problem": _problem(error)}
    attention = {
        "entropy": numbers.entropy,
        "bare_entropy": numbers.bare_entropy,
        "distance": numbers.distance,
        "drawing": f"data:image/png;base64,{base64.b64encode(drawing).decode()}",
    }
    return found | {"attention": attention, "attention_s": monotonic() - started_s}


def commands_for(url: str, task: str, file: str, version: int | None) -> dict[str, str]:
    """A command line and a program that ask the same; the token is a variable in both.

    Args:
        url: URL of the endpoint.
        task: Name of the task.
        file: Name of the picture's file, as its sender says.
        version: Version that must answer; None for the one that serves.
    """
    # What a shell and a reader would take for something else stays out.
    name = file if file.isprintable() and file and not set(file) & set("\\`$!") else _FILE
    headers = ["-H", f"Ship-Task: {task}"]
    if version is not None:
        headers += ["-H", f"Ship-Version: {version}"]
    line = shlex.join([*headers, "--data-binary", f"@{name}", f"{url}/v1/predict"])
    asked = f"{task!r}, {name!r}" + ("" if version is None else f", version={version}")
    return {
        "curl": f'curl -H "Authorization: Bearer $SHIP_TOKEN" {line}',
        "python": (
            f"from orchestrator.client import Client\n\nwith Client({url!r}) as client:"
            f"  # the token is in SHIP_TOKEN\n    print(client.predict({asked}))"
        ),
    }


_PARTS = ("task", "answer", "answer_s", "problem", "attention", "attention_s", "attention_problem")


def _problem(error: EndpointError) -> dict[str, Any]:
    return {
        "status": error.status,
        "kind": error.kind,
        "message": str(error),
        "retry_after_s": error.retry_after_s,
    }
