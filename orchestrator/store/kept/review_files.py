"""Reviewed pictures as tasks of Label Studio, in and out.

The JSON is Label Studio's own of tasks with annotations and predictions (labelstud.io/guide/task_format), of
choices for one image; pictures are beside it in ``pictures/``, named by their sha256.
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import ManifestError
from orchestrator.names import is_digest
from orchestrator.store.kept.picture_files import Exported, fetch_picture, name_picture, write_whole
from orchestrator.store.kept.pictures import KeptPictures
from orchestrator.store.kept.reviews import Given, Reviewed

__all__ = ["export_label_studio", "read_label_studio"]

LABEL_STUDIO = "label-studio.json"
MAX_IMPORT_BYTES = 64 << 20
_MAX_TASKS = 100_000
_MAX_NAME = 200
_NAME, _IMAGE = "label", "image"


def export_label_studio(
    kept: KeptPictures, reviewed: Iterable[Reviewed], labels: Sequence[str], folder: Path
) -> Exported:
    """Write all pictures as tasks of Label Studio, with what the endpoint answered and persons said.

    ``data.image`` is a path below the folder; Label Studio reads it where the folder is its local storage.
    """
    tasks = []
    for one in sorted(reviewed, key=lambda one: one.kept.picture):
        content = fetch_picture(kept, one.kept.task, one.kept.picture)
        if content is not None:
            path = name_picture(one.kept.picture, content)
            write_whole(folder / path, content)
            tasks.append(_task(one, path, set(labels)))
    write_whole(folder / LABEL_STUDIO, json.dumps(tasks, indent=1).encode())
    return Exported(path=folder / LABEL_STUDIO, num_pictures=len(tasks))


def read_label_studio(content: bytes, task: str) -> list[Given]:
    """Labels of a JSON file that Label Studio exported; of each annotator the last one.

    Raises:
        ManifestError: Names the first task that is not as expected.
    """
    if len(content) > MAX_IMPORT_BYTES:
        raise ManifestError(f"{len(content)} bytes, expected at most {MAX_IMPORT_BYTES}")
    try:
        tasks = json.loads(content)
    except (ValueError, RecursionError):
        raise ManifestError("expected JSON as Label Studio exports it, not JSON-MIN or CSV") from None
    if not isinstance(tasks, list) or len(tasks) > _MAX_TASKS:
        raise ManifestError(f"expected a list of at most {_MAX_TASKS} tasks")
    found: dict[tuple[str, str], Given] = {}
    for number, one in enumerate(tasks):
        try:
            for given in _read_task(one, task):
                found[given.picture, given.by.casefold()] = given
        except (KeyError, TypeError, ValueError) as error:
            said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ManifestError(f"task {number + 1} of the file: {said}"[:400]) from None
    return list(found.values())


def _read_task(values: Any, task: str) -> Iterator[Given]:
    data = _expect(_expect(values, dict, "a task")["data"], dict, "data")
    picture = data["ship_picture"]
    if not is_digest(picture):
        raise ValueError("data.ship_picture: expected the sha256 that `ship review export` wrote")
    if data["ship_task"] != task:
        raise ValueError(f"data.ship_task: expected {task!r}, found {str(data['ship_task'])[:80]!r}")
    for annotation in _expect(values.get("annotations", []), list, "annotations"):
        result = _expect(_expect(annotation, dict, "an annotation")["result"], list, "result")
        by = _annotator(annotation.get("completed_by"))
        if annotation.get("was_cancelled") is True:
            yield Given(picture=picture, label=None, by=by)
        elif result:
            yield Given(picture=picture, label=_choice(result), by=by)


def _choice(result: list[Any]) -> str:
    """The one choice of a result."""
    chosen = [one for one in result if _expect(one, dict, "a result")["type"] == "choices"]
    if len(chosen) != 1:
        raise ValueError(f"result: expected one of type choices, found {len(chosen)}")
    choices = _expect(_expect(chosen[0]["value"], dict, "value")["choices"], list, "choices")
    if len(choices) != 1 or not isinstance(choices[0], str) or not choices[0]:
        raise ValueError("choices: expected one label")
    return choices[0]


def _annotator(value: Any) -> str:
    """Name of an annotator: the e-mail address if it is told, else the number."""
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    if isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= _MAX_NAME:
        return value.strip()
    if type(value) is int and 0 <= value < 10**12:
        return f"label-studio:{value}"
    raise ValueError("completed_by: expected a number or a mapping with email")


def _expect(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {'list' if kind is list else 'mapping'}")
    return value


def _task(one: Reviewed, path: str, labels: Collection[str]) -> dict[str, Any]:
    kept = one.kept
    label, score = kept.probabilities[0]
    return {
        "data": {
            _IMAGE: f"/data/local-files/?d={path}",
            "ship_task": kept.task,
            "ship_picture": kept.picture,
            "ship_decision": kept.decision,
            "ship_reason": kept.reason,
        },
        "predictions": [
            {"model_version": f"{kept.task} v{kept.version}", "score": score, "result": _result(label)}
        ],
        "annotations": [
            {
                "result": [] if opinion.label is None else _result(opinion.label),
                "was_cancelled": opinion.label is None,
                "completed_by": {"email": opinion.by},
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(opinion.time_s)),
            }
            for opinion in one.review.opinions
            if opinion.label is None or opinion.label in labels
        ],
    }


def _result(label: str) -> list[dict[str, Any]]:
    return [{"from_name": _NAME, "to_name": _IMAGE, "type": "choices", "value": {"choices": [label]}}]
