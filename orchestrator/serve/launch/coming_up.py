"""An endpoint that comes up: waits until it answers, with today's champions, and tells what is wrong."""

import logging
import time
from contextlib import suppress

import httpx

from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.launch.application import EndpointApplication
from orchestrator.serve.launch.deployments import first_look, seen_catalog_age_s, served_tasks

__all__ = ["wait_until_up"]

_LISTED_PROBLEMS = 20
# For the engines to come up with a catalog.
_READY_TIMEOUT_S = 180.0
_FIRST_LOADS_S = 10.0
_log = logging.getLogger(__name__)


def wait_until_up(application: EndpointApplication, url: str, *, is_own: bool) -> None:
    """Wait until the endpoint serves what the registry says today; what is wrong with a task is logged.

    Args:
        application: The application, which runs.
        url: URL of its Ray Serve.
        is_own: Whether that Ray Serve was started for it.

    Raises:
        ServeError: It does not answer, or there is nothing that it may serve.
    """
    _wait_until_ready(url, is_own=is_own)
    _wait_for_first_catalog(application)
    _wait_until_loaded(url)
    _report_problems(served_tasks(application), url)


def _wait_until_ready(url: str, *, is_own: bool) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    problem = "no answer yet"
    while time.monotonic() < deadline_s:
        try:
            reply = httpx.get(f"{url}/readyz", timeout=10.0, trust_env=False)
            if reply.status_code == 200:
                return
            problem = reply.json()["detail"] if "json" in reply.headers["content-type"] else reply.text
        except httpx.HTTPError as error:
            problem = str(error)
        time.sleep(0.1)
    hint = "" if is_own else "; the cluster runs Ray Serve already, which listens where it was told to"
    raise ServeError(f"{url}/readyz: not ready after {_READY_TIMEOUT_S:.0f} s: {problem[:500]}{hint}")


def _wait_until_loaded(url: str) -> None:
    """Give the first loads a while, so that what is wrong with prompts is told at the start."""
    deadline_s = time.monotonic() + _FIRST_LOADS_S
    while time.monotonic() < deadline_s:
        # Requests are answered already, so nothing that goes wrong here stops anything.
        with suppress(httpx.HTTPError, ValueError):
            reply = httpx.get(f"{url}/readyz", timeout=_FIRST_LOADS_S, trust_env=False)
            if reply.status_code == 200 and reply.json()["num_loading"] == 0:
                return
        time.sleep(0.1)


def _report_problems(tasks: list[ServingState], url: str) -> None:
    if not tasks:
        _log.warning("no task has a champion yet; what is tuned and promoted from now on will be served")
    refused = [task for task in tasks if task.problem]
    for task in refused[:_LISTED_PROBLEMS]:
        _log.warning("task %s, version %d is not served: %s", task.task, task.wanted_version, task.problem)
    if len(refused) > _LISTED_PROBLEMS:
        _log.warning("%d more tasks are not served; see %s/v1/tasks", len(refused) - _LISTED_PROBLEMS, url)


def _wait_for_first_catalog(application: EndpointApplication) -> None:
    """Have the engines serve what the registry says today.

    Raises:
        ServeError: There is nothing to serve, or nothing that may be served.
    """
    found = first_look(application)
    if found.refusal is not None:
        raise ServeError(found.refusal)
    if found.warning is not None:
        _log.warning("%s", found.warning)
    published_s = time.monotonic()
    while found.is_written and time.monotonic() < published_s + _READY_TIMEOUT_S:
        asked_s = time.monotonic()
        age_s = seen_catalog_age_s(application)
        if age_s is not None and asked_s - age_s > published_s:
            return
        time.sleep(0.1)
