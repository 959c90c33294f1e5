"""Start, memory and end of ``ship serve``: seconds of both, and what each of its processes keeps.

The command runs in a process of its own, with nothing registered, so that what is measured is the endpoint's.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from orchestrator.serve.launch.address import choose_port
from tests.benchmarks.harness import Case, Report

__all__ = ["measure_start"]

_SHIP = "from orchestrator.cli.main import main; main()"
_PATIENCE_S = 300.0
_MB = 1 << 20


def measure_start(report: Report, trees: list[Path], rounds: int, backbone: str) -> None:
    """Start and end the endpoint of each checkout in turn.

    Args:
        report: Gets a case for each start.
        trees: Checkouts whose `ship serve` is measured.
        rounds: Starts of each.
        backbone: Backbone that serves.
    """
    with tempfile.TemporaryDirectory(prefix="ship-start-") as folder:
        for number in range(rounds):
            for tree in trees:
                home = Path(folder) / f"{tree.name}-{number}"
                cache = Path(folder) / f"{tree.name}-cache"
                settings = {"tree": str(tree), "backbone": backbone, "round": number}
                said = Path(folder) / f"{tree.name}-{number}.txt"
                seconds: dict[str, float] = {}
                with _served(tree, home, cache, backbone, said, seconds) as process:
                    facts = _memory(process)
                report.add(Case(settings=settings, rounds=1, seconds=seconds, ratios=[], facts=facts))


@contextmanager
def _served(
    tree: Path, home: Path, cache: Path, backbone: str, log: Path, seconds: dict[str, float]
) -> Iterator[psutil.Process]:
    """The process of `ship serve`, once it says that it serves; its log goes to a file.

    Seconds until then are noted as ``start``, those from SIGTERM until it has ended as ``end``.
    """
    command = [sys.executable, "-u", "-c", _SHIP, "--home", str(home), "serve", "--no-auth"]
    # Ports and files of an HAProxy are this process's own: the command chooses others.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}
    environment = {**inherited, "PYTHONPATH": str(tree), "SHIP_CACHE": str(cache)}
    start_s = time.monotonic()
    with (
        log.open("w") as log_file,
        subprocess.Popen(
            [*command, "--port", str(choose_port("127.0.0.1")), "--backbone", backbone],
            env=environment,
            cwd=tree,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if "Serving at" not in said:
                process.terminate()
                process.wait(_PATIENCE_S)
                raise RuntimeError(f"{tree}: ship serve said {said!r}\n{log.read_text()[-4000:]}")
            seconds["start"] = time.monotonic() - start_s
            yield psutil.Process(process.pid)
        finally:
            end_s = time.monotonic()
            process.terminate()
            process.wait(_PATIENCE_S)
            seconds["end"] = time.monotonic() - end_s


def _memory(root: psutil.Process) -> dict[str, Any]:
    """Megabytes of each process: of its own (USS), with its part of what is shared (PSS), and resident."""
    rows = []
    for process in [root, *root.children(recursive=True)]:
        try:
            found = process.memory_full_info()
            name = _name(process)
        except psutil.Error:
            continue
        sizes = {"uss_mb": found.uss / _MB, "pss_mb": found.pss / _MB, "rss_mb": found.rss / _MB}
        rows.append({"process": name, **{key: round(size, 1) for key, size in sizes.items()}})
    rows.sort(key=lambda row: -row["pss_mb"])
    totals = {key: round(sum(row[key] for row in rows), 1) for key in ("uss_mb", "pss_mb", "rss_mb")}
    return {"num_processes": len(rows), **totals, "processes": rows}


def _name(process: psutil.Process) -> str:
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return words[0]
    if _SHIP in words:
        return "ship serve"
    if any("decode_process" in word for word in words):
        return "decode process"
    scripts = [Path(word).name for word in words[1:] if word.endswith(".py")]
    return scripts[0] if scripts else Path(words[0]).name
