"""The kinds of problem that the HTTP interface answers with: status, title, meaning and an example of each.

``Problem`` takes status and title from here, the OpenAPI document and the guide all of it. A kind never
changes its name or status: programs tell problems apart by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """What all problems of one kind share.

    Attributes:
        status: HTTP status.
        title: Short summary for people.
        when: Sentence that says when the endpoint answers with this problem.
        example: Detail of one such problem.
    """

    status: int
    title: str
    when: str
    example: str


KINDS: Mapping[str, Kind] = {
    "task-missing": Kind(
        400,
        "No task named",
        "The request does not name exactly one task in the header Ship-Task.",
        "expected one header Ship-Task that names the task, found none; GET /v1/tasks lists all tasks",
    ),
    "task-invalid": Kind(
        400,
        "Invalid task name",
        "The name of the task breaks the rule for task names.",
        "task name '../bolts': expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', starting with a "
        "letter or digit; GET /v1/tasks lists all tasks",
    ),
    "version-invalid": Kind(
        400,
        "Invalid version",
        "The version is not a whole number.",
        "header Ship-Version: expected a whole number such as 3, found 'new'",
    ),
    "version-in-path": Kind(
        400,
        "Version belongs in the path",
        "A request of the Open Inference Protocol names a version in the header Ship-Version.",
        "header Ship-Version: expected none; send the request to /v2/models/TASK/versions/VERSION/infer",
    ),
    "key-invalid": Kind(
        400,
        "Invalid key",
        "The key is not 1 to 128 printable ASCII characters.",
        "header Ship-Key: expected 1 to 128 printable ASCII characters, found 0 characters ''",
    ),
    "timeout-invalid": Kind(
        400,
        "Invalid timeout",
        "The header Ship-Timeout is not a number of seconds above 0.",
        "header Ship-Timeout: expected seconds above 0 such as 0.5, found 'soon'",
    ),
    "header-ambiguous": Kind(
        400,
        "Ambiguous header",
        "A header that may occur once occurs with different values.",
        "header Ship-Version: expected one value, found 2 different ones",
    ),
    "length-invalid": Kind(
        400,
        "Invalid content length",
        "The header Content-Length is not a number.",
        "header Content-Length: expected a number of bytes",
    ),
    "body-empty": Kind(
        400,
        "Empty body",
        "The request has no body.",
        "the body is empty; expected an image or JSON",
    ),
    "hung-up": Kind(
        400,
        "Client disconnected",
        "The client disconnected before the body was complete; only the metrics and the request log show it.",
        "the body ended early",
    ),
    "form-invalid": Kind(
        400,
        "Invalid form",
        "The multipart form is malformed, or does not have the expected parts.",
        "expected multipart/form-data with exactly one file named 'image'; the content type names no "
        "boundary, or one of more than 200 bytes",
    ),
    "json-invalid": Kind(
        400,
        "Invalid JSON",
        "The JSON is malformed, exceeds a bound, or does not have the expected fields.",
        "request.items[0]: unknown 'threshold'; known are image, task, version, key",
    ),
    "binary-tensors": Kind(
        400,
        "Binary tensors not supported",
        "A request of the Open Inference Protocol uses its extension for binary tensors.",
        "header Inference-Header-Content-Length: send tensors as JSON",
    ),
    "token-missing": Kind(
        401,
        "Token required",
        "The endpoint requires a token and the request has none.",
        "expected a header `Authorization: Bearer ship_...`; the operator of this endpoint makes a token "
        "with `ship token create`",
    ),
    "token-invalid": Kind(
        401,
        "Invalid token",
        "The token is malformed, unknown, expired or revoked.",
        "the token is unknown, expired or revoked; the operator of this endpoint makes a token with "
        "`ship token create` or `ship token rotate`",
    ),
    "not-allowed": Kind(
        403,
        "Not allowed",
        "The token's scope does not include this task or this page.",
        "token 'line-1' has no access to task 'bolts'; its tasks: line-1-*; use another token",
    ),
    "task-unknown": Kind(
        404,
        "Unknown task",
        "The catalog has no such task.",
        "task 'nuts' is not in the catalog; GET /v1/tasks lists all tasks",
    ),
    "version-not-served": Kind(
        404,
        "Version not served",
        "The task is served, but not in the version that the request names.",
        "version 7 of task 'bolts' is not served; version 2 is",
    ),
    "not-acceptable": Kind(
        406,
        "Not acceptable",
        "The header Accept excludes every media type that the route offers.",
        "expected Accept: image/png or application/json",
    ),
    "body-too-large": Kind(
        413,
        "Body too large",
        "The body has more bytes than the endpoint accepts.",
        "expected at most 20971520 bytes; send smaller or more compressed images, or fewer at a time",
    ),
    "image-too-large": Kind(
        413,
        "Too many pixels",
        "An image has more pixels than the endpoint decodes.",
        "9000 x 9000 = 81000000 pixels, more than the 50000000 that are allowed",
    ),
    "image-file-too-large": Kind(
        413,
        "Image file too large",
        "One image file of a batch has more bytes than the endpoint accepts for one image.",
        "expected at most 20971520 bytes an image; send a smaller or more compressed one",
    ),
    "batch-too-large": Kind(
        413,
        "Batch too large",
        "The request has more images or items than the endpoint accepts at once.",
        "300 items: expected at most 256; send more requests",
    ),
    "content-type-unsupported": Kind(
        415,
        "Unsupported content type",
        "The route does not read bodies of this Content-Type.",
        "Content-Type 'text/plain': expected image/*, application/octet-stream or multipart/form-data with "
        "exactly one file named 'image'",
    ),
    "image-unsupported": Kind(
        415,
        "Unsupported image format",
        "The content is not an image of a supported format.",
        "expected JPEG, PNG, WEBP, BMP, TIFF, found content that starts with b'<svg/>'",
    ),
    "image-corrupt": Kind(
        422,
        "Corrupt image",
        "The image cannot be decoded.",
        "broken PNG file: image file is truncated",
    ),
    "busy": Kind(
        429,
        "Too many requests",
        "The endpoint, the task or the token already uses its share of concurrent requests; Retry-After says "
        "when to try again.",
        "too many requests are waiting for an engine; try again shortly",
    ),
    "failed": Kind(
        500,
        "Prediction failed",
        "The forward pass failed for this task.",
        "the forward pass failed (RuntimeError)",
    ),
    "not-ready": Kind(
        503,
        "Not ready yet",
        "The endpoint has not loaded its catalog or its tokens yet.",
        "the catalog is being loaded",
    ),
    "task-not-loaded": Kind(
        503,
        "Task not loaded",
        "The task is in the catalog, but its prompt is still loading or could not be loaded.",
        "version 3 of task 'bolts' is not served: it is being loaded",
    ),
    "version-changed": Kind(
        503,
        "Version changed",
        "A new version of the task replaced the old one while the images of the request were being answered.",
        "the version of the task changed during the request; send the request again",
    ),
    "unavailable": Kind(
        503,
        "No engine available",
        "No engine replica answered.",
        "the engine died 2 times; try again shortly",
    ),
    "closing": Kind(
        503,
        "Shutting down",
        "The endpoint is shutting down and takes no new requests.",
        "this endpoint is shutting down",
    ),
    "late": Kind(
        504,
        "Timeout",
        "The request was not answered within its time limit.",
        "no answer within 0.5 s (done by then: read 0.001 s, decode 0.012 s); allow more time in header "
        "Ship-Timeout, or try again",
    ),
}
