"""Kinds of problem that the HTTP interface answers with: status, title and meaning of each.

Problems, the OpenAPI document and the guide take them from here. A kind keeps its name and its status:
programs tell problems apart by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """Status, title and meaning that all problems of a kind share.

    Attributes:
        status: HTTP status.
        title: Short summary for people.
        when: Sentence that says when the endpoint answers with this kind.
    """

    status: int
    title: str
    when: str


KINDS: Mapping[str, Kind] = {
    "task-missing": Kind(400, "No task named", "The header Ship-Task does not name exactly one task."),
    "task-invalid": Kind(400, "Invalid task name", "The task's name breaks the rule for task names."),
    "version-invalid": Kind(400, "Invalid version", "The version is not a whole number."),
    "version-in-path": Kind(
        400, "Version belongs in the path", "Below /v2 a version is named in the path, not in Ship-Version."
    ),
    "key-invalid": Kind(400, "Invalid key", "The key is not 1 to 128 printable ASCII characters."),
    "timeout-invalid": Kind(400, "Invalid timeout", "Ship-Timeout is not a number of seconds above 0."),
    "page-invalid": Kind(400, "Invalid page", "The query's limit or cursor names no page of the list."),
    "header-ambiguous": Kind(400, "Ambiguous header", "A header occurs with different values."),
    "length-invalid": Kind(400, "Invalid length", "Content-Length is not a number."),
    "body-empty": Kind(400, "Empty body", "The request has no body."),
    "body-corrupt": Kind(
        400, "Corrupt body", "The body is not what its Content-Encoding says, or ends early."
    ),
    "hung-up": Kind(
        400, "Client disconnected", "The body ended early; only the metrics and the request log show this."
    ),
    "form-invalid": Kind(400, "Invalid form", "The form is malformed or does not have the expected parts."),
    "json-invalid": Kind(
        400, "Invalid JSON", "The JSON is malformed, beyond a limit, or does not have the expected fields."
    ),
    "binary-tensors": Kind(400, "Binary tensors not supported", "Tensors are sent in binary, not as JSON."),
    "token-missing": Kind(401, "Token required", "The endpoint requires a token, and the request has none."),
    "token-invalid": Kind(401, "Invalid token", "The token is malformed, unknown, expired or revoked."),
    "not-allowed": Kind(403, "Not allowed", "The token has no access to this task or to the metrics."),
    "task-unknown": Kind(404, "Unknown task", "The catalog has no task of this name."),
    "task-waiting": Kind(
        404,
        "No version serves",
        "The task is registered, but has no champion yet; a request may name one of its versions.",
    ),
    "task-retired": Kind(410, "Task retired", "The task was taken out of service."),
    "version-not-served": Kind(404, "Version not served", "The task does not answer with this version."),
    "not-acceptable": Kind(406, "Not acceptable", "Accept excludes all media types of the reply."),
    "body-late": Kind(408, "Body too slow", "The body stopped arriving before its end."),
    "body-too-large": Kind(413, "Body too large", "The body has more bytes than the endpoint accepts."),
    "image-too-large": Kind(413, "Too many pixels", "An image has more pixels than the endpoint accepts."),
    "image-file-too-large": Kind(
        413, "Image file too large", "One image of a batch has more bytes than the endpoint accepts for one."
    ),
    "batch-too-large": Kind(
        413, "Batch too large", "The request has more images or items than the endpoint accepts at once."
    ),
    "content-type-unsupported": Kind(
        415, "Unsupported content type", "The route does not read bodies of this Content-Type."
    ),
    "content-encoding-unsupported": Kind(
        415,
        "Unsupported content encoding",
        "The body is compressed in a way that the endpoint does not read; Accept-Encoding names the others.",
    ),
    "image-unsupported": Kind(
        415, "Unsupported image format", "The content is not an image of a known format."
    ),
    "image-too-small": Kind(422, "Image too small", "The image does not hold the region of the task's crop."),
    "image-too-costly": Kind(
        422, "Image too costly", "Decoding the image takes more work, or more time, than its pixels warrant."
    ),
    "image-corrupt": Kind(422, "Corrupt image", "The image cannot be decoded."),
    "busy": Kind(
        429,
        "Too many requests",
        "The endpoint, or this task's or token's share of it, is full; Retry-After says when to try again.",
    ),
    "failed": Kind(500, "Prediction failed", "The forward pass failed for this task."),
    "not-ready": Kind(503, "Not ready yet", "The endpoint has not loaded its catalog or its tokens yet."),
    "tokens-too-old": Kind(
        503,
        "Tokens too old",
        "The endpoint could not read its tokens for longer than `--token-grace`: one may have been revoked.",
    ),
    "task-not-loaded": Kind(503, "Task not loaded", "The task's prompt is loading, or could not be loaded."),
    "version-changed": Kind(
        503, "Version changed", "The task got a new version while the images of the request were answered."
    ),
    "unavailable": Kind(503, "No engine available", "No engine replica answered."),
    "closing": Kind(503, "Shutting down", "The endpoint is shutting down and takes no new requests."),
    "late": Kind(504, "Timeout", "The request was not answered within its time limit."),
}
