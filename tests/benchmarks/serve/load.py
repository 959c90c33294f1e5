"""Load generators: an open loop with random arrivals, and a closed loop of clients.

In an open loop the latency of a request counts from when it was due, not from when it could be sent: an
endpoint that stalls does not slow down its measurement (no coordinated omission).
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvloop

from orchestrator.client.questions import Question, batch_form
from tests.benchmarks.serve.connections import BrokenConnectionError, Connections, Reply

__all__ = ["Load", "Request", "batches", "closed_loop", "open_loop", "zipf"]

_LONGEST_S = 60.0
# Transient statuses, which ``orchestrator.client.client`` retries as well.
_TRANSIENT = frozenset({429, 502, 503, 504})
_PAUSE_S = 0.1


Check = Callable[[Mapping[str, Any], Mapping[str, str]], bool]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request of a load.

    Attributes:
        task: Task in the header; None for a form that names tasks.
        content: An image file, or a form.
        path: Path below the URL.
        content_type: Media type of the content.
        task_header: Header that names the task.
        check: Tells a right reply from a wrong one, in place of the load's own check.
    """

    task: str | None
    content: bytes
    path: str = "/v1/predict"
    content_type: str = "image/jpeg"
    task_header: str = "Ship-Task"
    check: Check | None = None


@dataclass
class Load:
    """Outcome of a load.

    Attributes:
        seconds: Latency of each request that was answered with 200, in order of completion.
        ends_s: Completion time of each of them, from the first request on.
        statuses: Number of requests by status; 0 for a broken connection.
        refusals: The first body with each status but 200.
        mixed: Replies that are inconsistent.
        start_s: Time of the first request, by ``time.perf_counter``.
        took_s: Seconds from the first request to the last reply.
        num_retries: Requests that were sent again.
        late_s: Largest delay of the generator itself.
    """

    seconds: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: dict[int, str] = field(default_factory=dict)
    mixed: list[Mapping[str, Any]] = field(default_factory=list)
    start_s: float = 0.0
    took_s: float = 0.0
    num_retries: int = 0
    late_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.took_s

    def num_answered_within(self, duration_s: float) -> int:
        """Answers within so many seconds of the first request."""
        return sum(end_s <= duration_s for end_s in self.ends_s)

    @property
    def num_failed(self) -> int:
        """Requests with another outcome than status 200."""
        return sum(self.statuses.values()) - self.statuses[200]

    def percentile_s(self, share: float) -> float:
        """Latency quantile."""
        ranked = sorted(self.seconds)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    def facts(self) -> dict[str, Any]:
        """Figures for a report."""
        found: dict[str, Any] = {
            "answers a second": round(self.rate, 1),
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "mixed": len(self.mixed),
        }
        if self.seconds:
            for name, share in (("p50 s", 0.5), ("p90 s", 0.9), ("p99 s", 0.99)):
                found[name] = round(self.percentile_s(share), 4)
        if self.num_retries:
            found["retries"] = self.num_retries
        return found


def zipf(tasks: Sequence[str], contents: Sequence[bytes], seed: int = 0) -> Iterator[Request]:
    """Endless requests, the task of rank r with a weight of 1/r."""
    chance = random.Random(seed)
    weights = list(itertools.accumulate(1.0 / rank for rank in range(1, len(tasks) + 1)))
    while True:
        for task in chance.choices(tasks, cum_weights=weights, k=1000):
            yield Request(task=task, content=contents[chance.randrange(len(contents))])


def batches(tasks: Sequence[str], contents: Sequence[bytes]) -> Iterator[Request]:
    """Endless batch requests, each about all images, one task after the other."""
    questions = [
        Question(task=tasks[number % len(tasks)], image=content) for number, content in enumerate(contents)
    ]
    form = httpx.Request("POST", "http://unused", files=batch_form(questions))
    yield from itertools.repeat(
        Request(
            task=None,
            content=form.read(),
            path="/v1/predict:batch",
            content_type=form.headers["Content-Type"],
        )
    )


def open_loop(
    url: str,
    requests: Iterator[Request],
    *,
    rate: float,
    duration_s: float,
    check: Check | None = None,
    patience_s: float = 0.0,
    seed: int = 0,
) -> Load:
    """Send requests at random moments, ``rate`` a second on average (Poisson arrivals).

    Args:
        url: URL of the endpoint.
        requests: Requests, as many as needed are taken.
        rate: Requests a second.
        duration_s: Seconds of sending; outstanding replies are awaited.
        check: Tells a consistent reply from a mixed one.
        patience_s: Seconds during which a transient error is retried; the latency includes them.
        seed: Seed of the arrival times.
    """

    async def run() -> Load:
        chance, load = random.Random(seed), Load()
        with closing(Connections(url, _LONGEST_S)) as connections:
            under_way: set[asyncio.Task[None]] = set()
            load.start_s = start_s = due_s = time.perf_counter()
            while due_s < start_s + duration_s:
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                load.late_s = max(load.late_s, time.perf_counter() - due_s)
                asking = _ask(connections, next(requests), load, due_s, check, patience_s)
                task = asyncio.create_task(asking)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                due_s += chance.expovariate(rate)
            await asyncio.gather(*under_way)
            load.took_s = time.perf_counter() - start_s
        return load

    return uvloop.run(run())


def closed_loop(
    url: str,
    requests: Iterator[Request],
    *,
    num_clients: int,
    duration_s: float,
    check: Check | None = None,
    patience_s: float = 0.0,
) -> Load:
    """Clients that each send a request once the previous one is answered; see ``open_loop``.

    The loop ends with its time, or with the requests.
    """

    async def run() -> Load:
        load = Load()
        load.start_s = start_s = time.perf_counter()

        async def client(connections: Connections) -> None:
            for request in requests:
                if (now_s := time.perf_counter()) >= start_s + duration_s:
                    break
                await _ask(connections, request, load, now_s, check, patience_s)

        with closing(Connections(url, _LONGEST_S)) as connections:
            await asyncio.gather(*(client(connections) for _ in range(num_clients)))
            load.took_s = time.perf_counter() - start_s
        return load

    return uvloop.run(run())


async def _ask(
    connections: Connections,
    request: Request,
    load: Load,
    due_s: float,
    check: Check | None,
    patience_s: float,
) -> None:
    headers = {"Content-Type": request.content_type}
    if request.task is not None:
        headers[request.task_header] = request.task
    while True:
        try:
            reply = await connections.post(request.path, request.content, headers)
        except (BrokenConnectionError, TimeoutError):
            reply = Reply()
        status, found, body = reply.status, reply.headers, bytes(reply.body)
        # The endpoint's own 500 is a problem document; a bare one is the proxy's, whose replica has died.
        is_proxy_error = status == 500 and "problem" not in found.get("Content-Type", "")
        is_transient = status == 0 or status in _TRANSIENT or is_proxy_error
        if not is_transient or time.perf_counter() - due_s >= patience_s:
            break
        load.num_retries += 1
        await asyncio.sleep(_PAUSE_S)
    load.statuses[status] += 1
    if status != 200:
        load.refusals.setdefault(status, body[:400].decode(errors="replace"))
    else:
        now_s = time.perf_counter()
        load.seconds.append(now_s - due_s)
        load.ends_s.append(now_s - load.start_s)
        check = request.check or check
        if check is not None and not _is_whole(check, answer := json.loads(body), found):
            load.mixed.append(answer)


def _is_whole(check: Check, answer: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """An incomplete reply is inconsistent as well."""
    try:
        return check(answer, headers)
    except (KeyError, TypeError):
        return False
