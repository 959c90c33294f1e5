"""Names of tasks and digests. Checked at every edge, before a path or URL is made of a name."""

import re

from orchestrator.errors import ManifestError

__all__ = [
    "DIGEST_PATTERN",
    "MODEL_PREFIX",
    "TASK_NAME_PATTERN",
    "check_task_name",
    "is_digest",
    "is_task_name",
    "model_name",
]

MODEL_PREFIX = "ship."
# Patterns without anchors.
TASK_NAME_PATTERN, DIGEST_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}", r"[0-9a-f]{64}"
_TASK_NAME, _DIGEST = re.compile(TASK_NAME_PATTERN), re.compile(DIGEST_PATTERN)


def is_task_name(name: str) -> bool:
    """Whether ``name`` is 1 to 63 of ``a-z 0-9 . _ -`` and starts with a letter or digit."""
    return _TASK_NAME.fullmatch(name) is not None


def check_task_name(name: str) -> str:
    """Return ``name`` unchanged.

    Raises:
        ManifestError: It is not a task name.
    """
    if not is_task_name(name):
        raise ManifestError(
            f"task name {name[:80]!r}: expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return name


def model_name(task: str) -> str:
    """The name of the task's registered model in MLflow."""
    return MODEL_PREFIX + check_task_name(task)


def is_digest(value: object) -> bool:
    """Whether ``value`` is a sha256 in lower-case hex."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
