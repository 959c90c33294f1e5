import subprocess
import sys
import uuid
from collections.abc import Iterator

import psutil
import pytest

from orchestrator.cluster.processes import end_processes, find_processes, start_in_two_tries

GRANDCHILD = "import time; print('up', flush=True); time.sleep(60)"
# Starts a process of its own, tells when that is up, and then waits.
PARENT = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {GRANDCHILD!r}]); time.sleep(60)"
)


@pytest.fixture
def marked() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    mark = uuid.uuid4().hex
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, f"--folder=/tmp/{mark}/x"], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    yield mark, parent
    end_processes(find_processes(mark), patience_s=0)
    parent.stdout.close()
    parent.wait()


def test_a_marked_child_is_found_with_what_it_started(marked) -> None:
    mark, parent = marked
    found = find_processes(mark)
    assert found[0].pid == parent.pid
    assert len(found) == 2
    assert find_processes(uuid.uuid4().hex) == []


def test_what_does_not_end_by_itself_is_killed(marked) -> None:
    mark, _ = marked
    found = find_processes(mark)
    end_processes(found, patience_s=0.1)
    # A grandchild's corpse is init's to bury, which takes a moment.
    _, alive = psutil.wait_procs(found, timeout=10)
    assert alive == []


def test_a_start_that_fails_is_tried_once_more_without_what_it_left(marked) -> None:
    mark, _ = marked
    found = []

    def start() -> None:
        found.append(len(find_processes(mark)))
        if len(found) == 1:
            for process in find_processes(mark):
                process.terminate()
            raise TimeoutError("the node timed out")

    start_in_two_tries(start, mark)
    assert found == [2, 0]


def test_a_start_that_fails_twice_has_failed() -> None:
    tries = []

    def start() -> None:
        tries.append(len(tries))
        raise RuntimeError(f"try {len(tries)}")

    with pytest.raises(RuntimeError, match="try 2"):
        start_in_two_tries(start, uuid.uuid4().hex)
    assert tries == [0, 1]
