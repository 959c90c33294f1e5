"""Request headers and their rules: task, version, key, timeout, content type, accepted types; and pages.

It knows no Ray and no engine.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams

from orchestrator.errors import ManifestError
from orchestrator.names import check_task_name, is_task_name
from orchestrator.serve.ingress.problems import Problem

__all__ = [
    "KEY_HEADER",
    "KEY_PATTERN",
    "MAX_PAGE",
    "MAX_VERSION",
    "RAW_TYPES",
    "SECONDS_PATTERN",
    "TASK_HEADER",
    "TIMEOUT_HEADER",
    "VERSION_HEADER",
    "VERSION_PATTERN",
    "Wanted",
    "check_key",
    "check_task",
    "check_version",
    "may_keep",
    "media_type",
    "read_accepted",
    "read_page",
    "read_timeout",
    "read_wanted",
]

TASK_HEADER, VERSION_HEADER = "Ship-Task", "Ship-Version"
KEY_HEADER, TIMEOUT_HEADER = "Ship-Key", "Ship-Timeout"
# Anything but `yes` keeps a picture out of the store.
KEEP_HEADER = "Ship-Keep"
# The second is what `curl --data-binary` sends with any body. The content decides in the end, not its type.
RAW_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
VERSION_PATTERN, MAX_VERSION = "[0-9]{1,9}", 999_999_999
KEY_PATTERN = "[ -~]{1,128}"
# Tasks of one page of their list: a hundredth of a second in the ingress.
MAX_PAGE = 500
SECONDS_PATTERN = "[0-9]{1,6}([.][0-9]{1,6})?"
_VERSION, _KEY, _SECONDS = map(re.compile, (VERSION_PATTERN, KEY_PATTERN, SECONDS_PATTERN))
_PAGE = re.compile("[0-9]{1,4}")
_NEVER = re.compile(r";\s*q\s*=\s*0(\.0*)?\s*(;|$)")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Task, version and key that the headers of a request name.

    Attributes:
        task: Valid task name; the task need not exist.
        version: Version to ask; None for the one that is served.
        key: Routing key: while a canary runs, the same version answers all requests with the same key, and
            all requests without a key about the same image.
    """

    task: str
    version: int | None
    key: str | None = None


def read_wanted(headers: Headers) -> Wanted:
    """Read task, version and key from the headers.

    Raises:
        Problem: 400, the task is missing, ambiguous or invalid, or the version or the key is invalid. No task
            can have an invalid name, but 404 would tell the client to look for it.
    """
    tasks = set(headers.getlist(TASK_HEADER))
    if len(tasks) != 1:
        found = f"found {len(tasks)} different ones" if tasks else "found none"
        raise Problem(
            "task-missing",
            f"expected one header {TASK_HEADER} that names the task, {found}; GET /v1/tasks lists all tasks",
        )
    version, key = _single(headers, VERSION_HEADER), _single(headers, KEY_HEADER)
    return Wanted(
        task=check_task(tasks.pop()),
        version=None if version is None else check_version(version, f"header {VERSION_HEADER}"),
        key=None if key is None else check_key(key, f"header {KEY_HEADER}"),
    )


def read_timeout(headers: Headers, longest_s: float) -> float:
    """Time limit of a request in seconds: the header Ship-Timeout, but at most ``longest_s``.

    Raises:
        Problem: 400, the header is not a number of seconds above 0.
    """
    text = _single(headers, TIMEOUT_HEADER)
    if text is None:
        return longest_s
    if not _SECONDS.fullmatch(text) or float(text) <= 0:
        raise Problem(
            "timeout-invalid",
            f"header {TIMEOUT_HEADER}: expected seconds above 0 such as 0.5, found {text[:40]!r}",
        )
    return min(float(text), longest_s)


def may_keep(headers: Headers) -> bool:
    """Whether the client lets its picture be kept: one header that is not ``yes`` is enough to say no."""
    return all(text.strip().lower() == "yes" for text in headers.getlist(KEEP_HEADER))


def check_version(text: str, place: str) -> int:
    """Parse a version.

    Raises:
        Problem: 400, it is not a whole number.
    """
    if not _VERSION.fullmatch(text):
        raise Problem(
            "version-invalid",
            f"{place}: expected a whole number such as 3, found {text[:40]!r}",
        )
    return int(text)


def check_key(key: str, place: str) -> str:
    """Return ``key`` unchanged.

    Raises:
        Problem: 400, it is not 1 to 128 printable ASCII characters.
    """
    if not _KEY.fullmatch(key):
        raise Problem(
            "key-invalid",
            f"{place}: expected 1 to 128 printable ASCII characters, found {len(key)} characters "
            f"{key[:40]!r}",
        )
    return key


def check_task(task: str) -> str:
    """Return ``task`` unchanged.

    Raises:
        Problem: 400, it is not a task name.
    """
    try:
        return check_task_name(task)
    except ManifestError as error:
        raise Problem("task-invalid", f"{error}; GET /v1/tasks lists all tasks") from error


def media_type(headers: Headers) -> str:
    """Content-Type in lower case, without parameters; raw bytes without the header."""
    return headers.get("content-type", RAW_TYPES[0]).partition(";")[0].strip().lower()


def read_accepted(headers: Headers, offered: Sequence[str]) -> str:
    """Media type that the client prefers; without a preference the first that is offered.

    Raises:
        Problem: 406, the client accepts none of them.
    """
    said = [one.strip().lower() for text in headers.getlist("accept") for one in text.split(",")]
    # A weight of zero excludes a type; of other weights only the order counts.
    wanted = {one.partition(";")[0].strip(): not _NEVER.search(one) for one in said if one}
    accepted = [form for form in offered if _is_accepted(form, wanted)]
    for form in (*wanted, *accepted):
        if form in accepted:
            return form
    raise Problem("not-acceptable", f"expected Accept: {' or '.join(offered)}")


def read_page(query: QueryParams) -> tuple[str, int]:
    """Cursor and limit of a page; the first page, of as many as are allowed, without them.

    Raises:
        Problem: 400, one of them is not valid, or there more than once.
    """
    limits, cursors = query.getlist("limit"), query.getlist("cursor")
    if len(limits) > 1 or len(cursors) > 1:
        raise Problem("page-invalid", "query: expected at most one limit and one cursor")
    limit, cursor = limits[0] if limits else str(MAX_PAGE), cursors[0] if cursors else ""
    if not _PAGE.fullmatch(limit) or not 1 <= int(limit) <= MAX_PAGE:
        raise Problem("page-invalid", f"limit: expected 1 to {MAX_PAGE}, found {limit[:40]!r}")
    if cursor and not is_task_name(cursor):
        raise Problem("page-invalid", f"cursor: expected `next_cursor` of a page, found {cursor[:80]!r}")
    return cursor, int(limit)


def _single(headers: Headers, name: str) -> str | None:
    """Value of a header that may occur once, or several times with the same value."""
    values = set(headers.getlist(name))
    if len(values) > 1:
        raise Problem(
            "header-ambiguous", f"header {name}: expected one value, found {len(values)} different ones"
        )
    return values.pop() if values else None


def _is_accepted(form: str, wanted: Mapping[str, bool]) -> bool:
    """Whether a media type is accepted: the most specific range decides, so that one type can be excluded."""
    for named in (form, f"{form.partition('/')[0]}/*", "*/*"):
        if named in wanted:
            return wanted[named]
    return not wanted
