"""HTTP client of an endpoint of ``ship serve``; loads neither torch nor Ray nor MLflow.

    from orchestrator.client import Client

    with Client("http://127.0.0.1:8000") as client:  # and the token in SHIP_TOKEN
        print(client.predict("bottle-caps", "cap.png").label)

Requests change nothing, so they are repeated for a while after transient errors: a replica that died, a full
queue, a task that is still loading.
"""

import json
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_before_delay
from tenacity.wait import wait_random_exponential

from orchestrator.client.answers import (
    Prediction,
    ServedTask,
    mapping,
    read_page,
    read_prediction,
    read_task,
)
from orchestrator.client.proxies import find_proxy, make_context
from orchestrator.client.questions import (
    Attention,
    ImageSource,
    Question,
    batch_form,
    check_key,
    check_url,
    content_of,
    read_parts,
)
from orchestrator.client.token import advice_for, make_basic, make_bearer, without_token
from orchestrator.errors import ServeError
from orchestrator.names import is_task_name
from ship.redaction import Url

__all__ = ["Attention", "Client", "EndpointError", "Prediction", "Question", "ServedTask"]

DEFAULT_URL = "http://127.0.0.1:8000"
_TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_Value = TypeVar("_Value")
_NO_ANSWER = (httpx.RequestError, httpx.InvalidURL, OSError)
_TYPE_PREFIX = "urn:ship:problem:"
# Errors of reading a reply that is no JSON, too deep, of other types, or incomplete.
_MALFORMED = (ValueError, RecursionError, OverflowError, TypeError, KeyError)


class EndpointError(ServeError):
    """The endpoint refused a request, or could not be reached.

    Attributes:
        status: HTTP status; None if there was no answer.
        kind: Short name of the problem, such as ``task-unknown``; None if there is none.
        retry_after_s: Seconds after which to ask again, if the endpoint gives them.
    """

    def __init__(
        self,
        problem: str,
        status: int | None = None,
        kind: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(problem)
        self.status, self.kind, self.retry_after_s = status, kind, retry_after_s

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Keep everything when pickled."""
        return type(self), (str(self), self.status, self.kind, self.retry_after_s)


class Client:
    """A connection to an endpoint; threads may share it.

    Args:
        url: URL of the endpoint; a user and password in it are for a proxy in front, if there is no token.
        token: Token that authenticates the client; None for that in SHIP_TOKEN, if set, and "" for none.
        timeout_s: Timeout of one try.
        patience_s: Seconds after the first try within which further ones start.

    Raises:
        EndpointError: The URL is not a valid one of HTTP, or the token is not valid.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 30.0,
    ) -> None:
        self._patience_s = patience_s
        try:
            self.url = Url(check_url(url, DEFAULT_URL).rstrip("/"))
            auth = make_bearer(token, self.url.reveal()) or make_basic(self.url.reveal())
            # httpx logs the URL of each request, and raises errors that hold it.
            place = httpx.URL(self.url.reveal()).copy_with(userinfo=b"")
            self._http = httpx.Client(
                base_url=place,
                timeout=timeout_s,
                auth=auth,
                follow_redirects=False,
                # httpx itself would send a token to any proxy, and fails on odd variables.
                trust_env=False,
                proxy=find_proxy(place, has_token=auth is not None),
                verify=make_context() if place.scheme == "https" else True,
            )
        except ValueError as error:
            raise EndpointError(str(error)) from None

    def __enter__(self) -> Self:
        """The client itself; no request is sent yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self, task: str, image: ImageSource, *, version: int | None = None, key: str | None = None
    ) -> Prediction:
        """Ask a task about an image.

        Args:
            task: Its name.
            image: The content of an image file (JPEG, PNG, WebP, BMP or TIFF), or its path.
            version: Version that must answer; None for the served one.
            key: Requests with one key are answered by one of two versions while a canary runs.

        Raises:
            EndpointError: It was refused, or there was no answer in time.
            OSError: The file cannot be read.
        """
        reply = self._ask("POST", "/v1/predict", **_question(task, image, version, key))
        return _read(reply, lambda body: read_prediction(body, reply))

    def predict_batch(self, questions: Sequence[Question]) -> list[Prediction | EndpointError]:
        """Ask any tasks about any images in one request. A refused question stops no other one.

        Args:
            questions: At least one, and no more than the endpoint takes at a time (256, about 64 images).

        Returns:
            For each question its answer, or the error.

        Raises:
            EndpointError: The whole request was refused, or there was no answer in time.
            OSError: A file cannot be read.
        """
        for question in questions:
            _check_task(question.task)
        reply = self._ask("POST", "/v1/predict:batch", files=batch_form(questions))
        answers = _read(reply, lambda body: [_read_item(item, reply) for item in body["items"]])
        if len(answers) != len(questions):
            raise EndpointError(f"{reply.url} gave {len(answers)} answers to {len(questions)} questions")
        return answers

    def explain(
        self, task: str, image: ImageSource, *, version: int | None = None, key: str | None = None
    ) -> bytes:
        """Attention maps with the task's prompt and without, side by side: a PNG. See ``predict``."""
        reply = self._ask("POST", "/v1/explain", **_question(task, image, version, key, "image/png"))
        if reply.headers.get("Content-Type") != "image/png":
            raise _foreign(reply)
        return reply.content

    def attention(
        self, task: str, image: ImageSource, *, version: int | None = None, key: str | None = None
    ) -> Attention:
        """Attention maps in numbers; see ``explain``."""
        question = _question(task, image, version, key, "application/json")
        return _read(self._ask("POST", "/v1/explain", **question), Attention.from_body)

    def explain_whole(
        self, task: str, image: ImageSource, *, version: int | None = None, key: str | None = None
    ) -> tuple[Attention, bytes]:
        """Attention maps in numbers and drawn, by one request and of one version; see ``explain``."""
        content = content_of(image)
        wanted = "multipart/mixed, application/json"
        reply = self._ask("POST", "/v1/explain", **_question(task, content, version, key, wanted))
        if not reply.headers.get("Content-Type", "").startswith("multipart/mixed"):
            # An older endpoint gives one form. The picture is to be of the version that the numbers are of.
            found = _read(reply, Attention.from_body)
            return found, self.explain(task, content, version=found.version, key=key)
        try:
            numbers, drawing = read_parts(reply.content, ("application/json", "image/png"))
            return Attention.from_body(mapping(json.loads(numbers))), drawing
        except _MALFORMED as error:
            raise _foreign(reply) from error

    def tasks(self) -> list[ServedTask]:
        """All tasks, by name, as many pages as that takes.

        Raises:
            EndpointError: There was no answer in time.
        """
        found: list[ServedTask] = []
        page: dict[str, str] = {}
        while True:
            reply = self._ask("GET", "/v1/tasks", params=page)
            tasks, cursor = _read(reply, read_page)
            found += tasks
            if cursor is None:
                return found
            if cursor <= page.get("cursor", ""):
                raise _foreign(reply)
            page["cursor"] = cursor

    def task(self, name: str) -> ServedTask:
        """One task, with its labels.

        Raises:
            EndpointError: There is no task of that name, or no answer in time.
        """
        reply = self._ask("GET", f"/v1/tasks/{_check_task(name)}")
        return _read(reply, read_task)

    def is_ready(self) -> bool:
        """Whether the endpoint is ready to answer; asked once."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except _NO_ANSWER:
            return False

    def readiness(self) -> dict[str, Any]:
        """What ``/readyz`` says, also of an endpoint that is not ready.

        Raises:
            EndpointError: There was no answer.
        """
        try:
            reply = self._http.get("/readyz")
        except _NO_ANSWER as error:
            raise self._unreachable(error) from error
        return _read(reply, lambda body: {**body, "ready": reply.is_success})

    def metrics(self) -> str:
        """Metrics in Prometheus' text format.

        Raises:
            EndpointError: They were refused, or there was no answer in time.
        """
        return self._ask("GET", "/metrics").text

    def server_version(self) -> str:
        """Version of the program that answers.

        Raises:
            EndpointError: The token is not valid, or there was no answer in time.
        """
        return _read(self._ask("GET", "/v2"), lambda body: str(body["version"]))

    def _unreachable(self, error: Exception) -> EndpointError:
        said = str(error) or type(error).__name__
        return EndpointError(f"{self.url} does not answer: {said}; is `ship serve` running?")

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        started_s = time.monotonic()

        def ask_once() -> httpx.Response:
            try:
                reply = self._http.request(method, path, **request)
            except _NO_ANSWER as error:
                raise self._unreachable(error) from error
            if reply.is_error:
                raise _refusal(reply)
            return reply

        tries = Retrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_before_delay(self._patience_s),
            wait=_pause,
        )
        try:
            return tries(ask_once)
        except RetryError as error:
            last = error.last_attempt
            problem = last.exception()
            assert isinstance(problem, EndpointError), "nothing else is tried again"
            if last.attempt_number > 1:
                taken_s = time.monotonic() - started_s
                said = f"{problem} (asked {last.attempt_number} times in {taken_s:.1f} s)"
                problem = EndpointError(said, problem.status, problem.kind, problem.retry_after_s)
            raise problem from error


def _check_task(task: str) -> str:
    if not is_task_name(task):
        raise EndpointError(
            f"{task[:80]!r} is no task name: expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return task


def _question(
    task: str, image: ImageSource, version: int | None, key: str | None, accept: str | None = None
) -> dict[str, Any]:
    """Headers and body of a request about one image."""
    headers = {"Ship-Task": _check_task(task), "Content-Type": "application/octet-stream"}
    if version is not None:
        headers["Ship-Version"] = str(version)
    if key is not None:
        try:
            headers["Ship-Key"] = check_key(key)
        except ValueError as error:
            raise EndpointError(str(error)) from None
    if accept is not None:
        headers["Accept"] = accept
    return {"content": content_of(image), "headers": headers}


def _read_item(item: Any, reply: httpx.Response) -> Prediction | EndpointError:
    item = mapping(item)
    if "error" not in item:
        return read_prediction(item, reply)
    problem = item["error"]
    said = without_token(f"{problem['title']}: {problem['detail']}", reply)
    return EndpointError(said, int(problem["status"]), _kind(str(problem["type"])))


def _read(reply: httpx.Response, read: Callable[[Any], _Value]) -> _Value:
    """The body's content, read by ``read``."""
    try:
        return read(mapping(reply.json()))
    except _MALFORMED as error:
        raise _foreign(reply) from error


def _foreign(reply: httpx.Response) -> EndpointError:
    return EndpointError(f"{reply.url} gave a reply that is not a SHIP endpoint's: {_excerpt(reply)!r}")


def _refusal(reply: httpx.Response) -> EndpointError:
    """The problem document as an error; or the reply's text, where there is none."""
    try:
        document = mapping(reply.json())
    except _MALFORMED:
        document = {}
    type_ = str(document.get("type", ""))
    title = document.get("title") or reply.reason_phrase
    detail = document.get("detail") or _excerpt(reply)
    text = f"{title}: {detail}" if detail else str(title)
    return EndpointError(
        without_token(text, reply) + advice_for(reply),
        reply.status_code,
        _kind(type_),
        _seconds(reply.headers.get("Retry-After")),
    )


def _kind(type_: str) -> str | None:
    return type_.removeprefix(_TYPE_PREFIX) if type_.startswith(_TYPE_PREFIX) else None


def _excerpt(reply: httpx.Response) -> str:
    return without_token(reply.text, reply)[:200]


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _is_transient(error: BaseException) -> bool:
    if not isinstance(error, EndpointError):
        return False
    # The endpoint's own errors are problem documents. A bare 500 is the proxy's, whose replica has died.
    is_proxy_error = error.status == 500 and error.kind is None
    return error.status is None or error.status in _TRANSIENT_STATUSES or is_proxy_error


def _pause(state: RetryCallState) -> float:
    """Pause before the next try: as told by the endpoint, plus a random one that grows with each try."""
    drawn = wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S)(state)
    error = state.outcome.exception() if state.outcome is not None else None
    told_s = error.retry_after_s if isinstance(error, EndpointError) else None
    return drawn + (told_s or 0.0)
