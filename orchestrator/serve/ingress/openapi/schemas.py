"""Shapes of what comes in and goes out, in JSON Schema."""

from typing import Any

from orchestrator.names import TASK_NAME_PATTERN
from orchestrator.serve.ingress.bodies.tensor_request import INPUT, OUTPUTS

__all__ = ["HEADERS", "PARAMETERS", "REQUEST_ID", "schemas"]

_TASK = {"type": "string", "pattern": f"^{TASK_NAME_PATTERN}$", "description": "Name of a task."}
_VERSION = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
_MAYBE_VERSION = {"type": ["integer", "null"]}
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "sha256 of the prompt's artifact."}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_KEY = {"type": "string", "pattern": "^[ -~]{1,128}$", "description": "See header Ship-Key."}
_MAP = {"type": "array", "items": {"type": "array", "items": _SHARE}}


def _header(name: str, schema: dict[str, Any], description: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": description, **more}


PARAMETERS: dict[str, Any] = {
    "task_header": _header("Ship-Task", _TASK, "The task that is asked.", required=True, example="bolts"),
    "task_header_of_images": _header(
        "Ship-Task", _TASK, "The task that is asked about every image of a form without a part `request`."
    ),
    "version": _header(
        "Ship-Version",
        {"type": "string", "pattern": "^[0-9]{1,9}$"},
        "The version that must answer; otherwise whichever is served.",
        example="2",
    ),
    "key": _header(
        "Ship-Key",
        {"type": "string", "pattern": "^[ -~]{1,128}$"},
        "Requests with one key are answered by the same of two versions while a canary runs.",
        example="line 7",
    ),
    "timeout": _header(
        "Ship-Timeout",
        {"type": "string", "pattern": "^[0-9]{1,6}([.][0-9]{1,6})?$"},
        "Seconds that the request may take, above 0, reading and decoding included; the endpoint's own limit "
        "if that is less.",
        example="2.5",
    ),
    "request_id": _header(
        "X-Request-ID",
        {"type": "string"},
        "Comes back in the reply and stands in the request log, if it is 1 to 128 letters, digits and "
        "`._:/+=@-`; else one is made.",
    ),
    "task": {"name": "task", "in": "path", "required": True, "schema": _TASK, "example": "bolts"},
    "version_in_path": {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
        "example": "2",
    },
}
HEADERS: dict[str, Any] = {
    "Ship-Task": {"description": "The task that answered.", "schema": _TASK},
    "Ship-Version": {"description": "The version that answered.", "schema": {"type": "string"}},
    "Ship-Digest": {"description": "The prompt that answered.", "schema": _DIGEST},
    "Ship-Backbone": {"description": "Fingerprint of the backbone.", "schema": {"type": "string"}},
}
REQUEST_ID = {"X-Request-ID": {"description": "Of the request.", "schema": {"type": "string"}}}


def schemas() -> dict[str, Any]:
    """All components, by name."""
    return {**_answers(), **_requests(), **_tasks(), **_protocol()}


def _object(properties: dict[str, Any], *optional: str, description: str = "") -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers() -> dict[str, Any]:
    answer = {
        "task": _TASK,
        "version": _VERSION,
        "digest": _DIGEST,
        "label": {"type": "string", "description": "The likeliest."},
        "probabilities": {
            "type": "object",
            "additionalProperties": _SHARE,
            "description": "By label, the likeliest first; they sum to 1.",
        },
    }
    image = {"type": "string", "description": "Name of the form's part."}
    return {
        "Answer": _object(answer),
        "ItemAnswer": _object({"image": image, **answer}),
        "ItemError": _object({"image": image, "task": {"type": "string"}, "error": _ref("Problem")}),
        "BatchAnswer": _object(
            {"items": {"type": "array", "items": {"oneOf": [_ref("ItemAnswer"), _ref("ItemError")]}}},
            description="One reply an item, in their order.",
        ),
        "Explanation": _object(
            {
                "task": _TASK,
                "version": _VERSION,
                "digest": _DIGEST,
                "layer": {"const": "last"},
                "attention": {
                    **_MAP,
                    "description": "Of each patch, row by row: its share of the attention that CLS pays to "
                    "patches in the last block, mean over heads, with the prompt.",
                },
                "bare_attention": {**_MAP, "description": "The same on the bare backbone."},
                "entropy": {**_SHARE, "description": "Of `attention`: 0 on one patch, 1 on all alike."},
                "bare_entropy": {**_SHARE, "description": "Of `bare_attention`."},
                "distance": {**_SHARE, "description": "Share of attention that goes elsewhere."},
            }
        ),
        "Problem": _object(
            {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
            description="A problem document, RFC 9457.",
        ),
    }


def _requests() -> dict[str, Any]:
    item = _object(
        {"image": {"type": "string"}, "task": _TASK, "version": _VERSION, "key": _KEY}, "version", "key"
    )
    return {
        "Batch": _object({"items": {"type": "array", "minItems": 1, "items": item}}),
        "TensorRequest": _object(
            {
                "id": {"type": "string", "maxLength": 128},
                "parameters": {"type": "object"},
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": _object(
                        {
                            "name": {"const": INPUT},
                            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                            "datatype": {"enum": ["UINT8", "BYTES"]},
                            "parameters": {"type": "object"},
                            "data": {"type": "array"},
                        },
                        "parameters",
                    ),
                },
                "outputs": {
                    "type": "array",
                    "minItems": 1,
                    "items": _object(
                        {"name": {"enum": list(OUTPUTS)}, "parameters": {"type": "object"}}, "parameters"
                    ),
                },
            },
            "id",
            "parameters",
            "outputs",
            description="`UINT8` `[N,3,H,W]` or `[3,H,W]`: RGB pixels of the backbone's input size, flat or "
            "nested. `BYTES` `[N]`: base64 of image files.",
        ),
    }


def _state() -> dict[str, Any]:
    """What lists of tasks and tasks have in common."""
    return {
        "task": _TASK,
        "version": {**_MAYBE_VERSION, "description": "That is served."},
        "digest": {"type": ["string", "null"], "description": "That is served."},
        "wanted_version": {**_VERSION, "description": "That the registry names."},
        "wanted_digest": {"type": "string", "description": "That the registry names."},
        "problem": {
            "type": ["string", "null"],
            "description": "Why that one, or its canary or shadow, is not served, if it was tried.",
        },
        "canary": {
            "type": ["object", "null"],
            "description": "A version that takes a share of the requests.",
            "properties": {"version": _VERSION, "share": {"type": "number"}},
            "required": ["version", "share"],
            "additionalProperties": False,
        },
        "others": {
            "type": "array",
            "items": _VERSION,
            "description": "Versions that answer whoever asks for them by number.",
        },
    }


def _shadow() -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "description": "A version that is asked beside it, and how the two compare in this process.",
        "properties": {
            "version": _VERSION,
            "champion": {**_MAYBE_VERSION, "description": "That it was compared with, if it was."},
            "compared": {"type": "integer"},
            "agreed": {"type": "integer"},
            "mean_difference": {
                "type": ["number", "null"],
                "description": "Of the probability of the champion's label, absolute.",
            },
        },
        "required": ["version", "champion", "compared", "agreed", "mean_difference"],
        "additionalProperties": False,
    }


def _tasks() -> dict[str, Any]:
    shadow_version = {**_MAYBE_VERSION, "description": "Is asked beside it, and answers nobody."}
    labels = {"labels": {"type": "array", "items": {"type": "string"}}}
    backbone = _object(
        {
            "name": {"type": "string"},
            "fingerprint": {"type": "string"},
            "image_size": {"type": "array", "items": {"type": "integer"}},
        }
    )
    readiness = {
        "status": {"const": "ready"},
        "ready": {"const": True},
        "detail": {"type": "string"},
        "num_served": {"type": "integer"},
        "num_problems": {"type": "integer"},
        "num_loading": {"type": "integer", "description": "Prompts that are being loaded."},
        "catalog_age_s": {
            "type": ["number", "null"],
            "description": "Seconds since it was last seen to be current: many if the store is down.",
        },
    }
    return {
        "Backbone": backbone,
        "TaskList": _object(
            {
                "backbone": _ref("Backbone"),
                "tasks": {"type": "array", "items": _object({**_state(), "shadow_version": shadow_version})},
            }
        ),
        "Task": _object({"backbone": _ref("Backbone"), **_state(), "shadow": _shadow(), **labels}),
        "Health": _object({"status": {"const": "ok"}}),
        "Readiness": _object(readiness),
    }


def _protocol() -> dict[str, Any]:
    name, datatype = {"type": "string"}, {"type": "string"}
    shape = {"type": "array", "items": {"type": "integer"}}
    parameters = {"type": "object", "additionalProperties": {"type": "string"}}
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    return {
        "Server": _object({"name": name, "version": name, "extensions": {"type": "array"}}),
        "Live": _object({"live": {"const": True}}),
        "Ready": _object({"ready": {"const": True}}),
        "ModelReady": _object({"name": _TASK, "ready": {"const": True}}),
        "Model": _object(
            {
                "name": _TASK,
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": name,
                "inputs": {"type": "array", "items": _object({**tensor, "parameters": parameters})},
                "outputs": {"type": "array", "items": _object(tensor)},
            }
        ),
        "Tensors": _object(
            {
                "id": name,
                "model_name": _TASK,
                "model_version": name,
                "parameters": parameters,
                "outputs": {"type": "array", "items": _object({**tensor, "data": {"type": "array"}})},
            },
            "id",
        ),
        "Error": _object({"error": {"type": "string"}}, description="As the protocol words errors."),
    }
