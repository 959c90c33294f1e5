"""``ship serve`` as a subprocess, and requests to it through the client."""

import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from orchestrator.client.client import Client

__all__ = ["Endpoint", "ask", "free_port"]

QUESTIONS_PER_TASK = 3
READY_S = 120
STOP_S = 60


class Endpoint:
    """A running endpoint for the block."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*command, "--port", str(port)]
        self._environment = environment
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        deadline_s = time.monotonic() + READY_S
        with Client(self.url, "") as client:
            while not client.is_ready():
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self._stop()
                    sys.exit(f"the endpoint did not start:\n{self._log.read_text()[-2000:]}")
                time.sleep(0.25)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def wait(self) -> None:
        """Wait until Ctrl-C, or until the endpoint ends."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            return

    def _stop(self) -> None:
        # Not SIGINT: a process that a script started in the background has inherited that it is ignored.
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, token: str, data: Path, tasks: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Ask for held-out pictures of all tasks in mixed order; pairs of answer and true label by task."""
    chooser = random.Random(0)
    questions = [
        (task, picture)
        for task in tasks
        for picture in chooser.sample(sorted((data / task / "test").glob("*/*.png")), QUESTIONS_PER_TASK)
    ]
    chooser.shuffle(questions)
    answers: dict[str, list[tuple[str, str]]] = {}
    with Client(url, token) as client:
        for task, picture in questions:
            answer = client.predict(task, picture)
            if answer.task != task:
                sys.exit(f"{url} answered for task {answer.task!r}, expected {task!r}")
            answers.setdefault(task, []).append((answer.label, picture.parent.name))
    return answers
