"""``make test``: the unit tests, then the integration tests, and at the end what came of each.

Both halves always run. Unit tests run side by side, a core each; of the others whole files do, two or
more at a time, for they wait half of their time, and each has a Ray, store and endpoint of its own.
Arguments are handed on to pytest.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.needs import find_missing

__all__ = ["Half", "main"]

_MAX_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Half:
    """One run of pytest.

    Attributes:
        name: Name in the report.
        arguments: Arguments of pytest.
        environment: Variables that it gets besides ours.
    """

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]

    def run(self, more: Sequence[str]) -> tuple[int, str]:
        """Run it; returns its exit status and pytest's last line."""
        command = [sys.executable, "-m", "pytest", "-p", "tests.progress", "-q", "--no-header"]
        with subprocess.Popen(
            [*command, *self.arguments, *more],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            last = ""
            try:
                for line in process.stdout:
                    print(line, end="", flush=True)
                    last = line.strip() or last
            except BaseException:
                # Not SIGINT: a background process of a shell has inherited that it is ignored.
                process.terminate()
                raise
        return process.returncode, last


_NUM_CORES = len(os.sched_getaffinity(0))
# Each file with its services takes up to 4 GB.
_FILES_SIDE_BY_SIDE = (
    *("--numprocesses", str(max(2, min(_NUM_CORES // 2, 4)))),
    *("--dist", "loadfile", "--no-loadscope-reorder"),
)
UNIT = Half(
    name="unit tests",
    arguments=("tests/unit", "--numprocesses", str(min(_NUM_CORES, _MAX_WORKERS))),
    environment={"OMP_NUM_THREADS": "1"},
)
INTEGRATION = Half(
    name="integration tests",
    arguments=("tests/integration", "-m", "not slow", *_FILES_SIDE_BY_SIDE),
    environment={},
)
SLOW = Half(
    name="slow tests", arguments=("tests/integration", "-m", "slow", *_FILES_SIDE_BY_SIDE), environment={}
)


def main(arguments: Sequence[str]) -> int:
    """Run the halves; 0 if all tests of all of them passed."""
    halves = [SLOW] if "--slow" in arguments else [UNIT, INTEGRATION]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    more = [argument for argument in arguments if argument != "--slow"]
    os.chdir(Path(__file__).resolve().parents[1])
    for missing in find_missing():
        print(f"skipped: {missing}", flush=True)
    report, worst = [], 0
    for half in halves:
        print(f"== {half.name}", flush=True)
        started_s = time.monotonic()
        status, last = half.run(more)
        worst = max(worst, abs(status))
        minutes, seconds = divmod(time.monotonic() - started_s, 60)
        counts = re.sub(r" in [\d.]+s.*| *=+ *", "", last)
        report.append(f"{half.name}: {counts} in {minutes:.0f}:{seconds:02.0f}")
    print("==", *report, sep="\n")
    return worst


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
