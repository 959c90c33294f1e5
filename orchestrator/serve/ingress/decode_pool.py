"""Parent's side of the decode processes: starts them, hands them pictures, replaces those that ended.

One job at a time for each process, by sockets that the event loop waits for: a thread for each would cost as
much as the ingress does otherwise. It knows no HTTP.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.serve.ingress import decode_process
from ship.errors import ImageError

__all__ = ["DecodeProcess", "ProcessPool"]

# A main module of its own, so that nothing of the parent's is run again; the path is that of the parent.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from orchestrator.serve.ingress.decode_process import main; main(*map(int, sys.argv[2:]))"
)
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")
# glibc would give the memory of each picture back, and take a third of the time to get the next one's.
_TUNED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
_END_S = 5.0
_PIECE_BYTES = 16 << 10


class DecodeProcess:
    """One process, which is started when it is created.

    Args:
        max_pixels: See ``Limits``; bounds the process's memory.
    """

    def __init__(self, max_pixels: int) -> None:
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        root = str(Path(decode_process.__file__).parents[3])
        path = json.dumps([root, *(entry for entry in sys.path if entry)])
        numbers = [str(theirs.fileno()), str(max_pixels)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, path, *numbers],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Not the parent's: a decoder needs no credentials.
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _TUNED,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, facts: Mapping[str, Any], content: bytes) -> tuple[dict[str, Any], memoryview]:
        """Its answer to one request.

        Raises:
            EOFError: It ended meanwhile; see ``end``.
            OSError: Likewise.
        """
        loop = asyncio.get_running_loop()
        head = decode_process.pack(facts, len(content))
        await loop.sock_sendall(self._connection, head + content)
        reply, num_bytes = bytearray(), decode_process.HEADER.size
        while len(reply) < num_bytes:
            piece = await loop.sock_recv(self._connection, max(_PIECE_BYTES, num_bytes - len(reply)))
            if not piece:
                raise EOFError
            reply += piece
            num_bytes = decode_process.message_bytes(reply)
        return decode_process.unpack(reply)

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def end(self, patience_s: float = 0.0) -> int:
        """End it, after ``patience_s`` if it does not end itself; returns what ``Popen.returncode`` is."""
        self._connection.close()
        try:
            return self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class ProcessPool:
    """Decode processes, started as they are needed and kept until the pool is closed or collected.

    Of one event loop at a time. A process ends with the thread that started it, which is the loop's.

    Args:
        max_pixels: See ``DecodeProcess``.
        wall_s: Longest time of a job, whatever CPU time it got.
    """

    def __init__(self, max_pixels: int, wall_s: float) -> None:
        self._max_pixels, self._wall_s = max_pixels, wall_s
        self._idle: list[DecodeProcess] = []
        self._all: set[DecodeProcess] = set()
        self.close = weakref.finalize(self, _end_all, self._all)

    @property
    def pids(self) -> list[int]:
        """Process ids of the processes that run."""
        return [process.pid for process in list(self._all) if process.is_running]

    @property
    def num_idle(self) -> int:
        """Processes that have no job."""
        return len(self._idle)

    def start(self) -> None:
        """Start a process that waits for its first job."""
        self._idle.append(self._start())

    async def ask(self, facts: Mapping[str, Any], content: bytes) -> tuple[dict[str, Any], memoryview]:
        """An answer of ``decode_process``.

        Raises:
            ImageError: Its budget was spent, or the file crashed its decoder. Another process takes the
                place of the one that ended.
        """
        process = self._idle.pop() if self._idle else None
        if process is not None and not process.is_running:
            self._drop(process)
            process = None
        process = process or self._start()
        try:
            async with asyncio.timeout(self._wall_s):
                answer = await process.ask(facts, content)
        except (EOFError, ConnectionError):
            raise _ended(await asyncio.to_thread(self._drop, process, _END_S)) from None
        except TimeoutError:
            self._drop(process)
            raise _too_costly(f"{self._wall_s:g} s") from None
        except BaseException:
            self._drop(process)
            raise
        self._idle.append(process)
        return answer

    def _start(self) -> DecodeProcess:
        process = DecodeProcess(self._max_pixels)
        self._all.add(process)
        return process

    def _drop(self, process: DecodeProcess, patience_s: float = 0.0) -> int:
        self._all.discard(process)
        return process.end(patience_s)


def _end_all(processes: set[DecodeProcess]) -> None:
    while processes:
        processes.pop().end()


def _ended(code: int) -> Exception:
    """The error of a file whose process has ended with this code."""
    if code == -signal.SIGPROF:
        return _too_costly("its budget of CPU time")
    if code < 0:
        return ImageError(f"the file crashed its decoder (signal {-code})", "corrupt")
    return RuntimeError(f"a decode process ended with code {code}")


def _too_costly(budget: str) -> ImageError:
    return ImageError(
        f"decoding took longer than {budget}; save the picture anew, as baseline JPEG or PNG, or smaller",
        "too_costly",
    )
