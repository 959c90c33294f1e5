"""Starts programs of a local service, watches them in the foreground, and ends all of them.

Knows no particular program. Needs the standard library alone, and util-linux (``setpriv``).
"""

import argparse
import contextlib
import fcntl
import importlib.util
import ipaddress
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

__all__ = [
    "Problem",
    "Services",
    "add_host_option",
    "find_programs",
    "free_port",
    "main",
    "need_module",
    "only_one",
    "print_environment",
]

LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0
END_PATIENCE_S = 20.0
LOG_LINES = 15
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Where Debian keeps programs that are not for every user.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


class Problem(Exception):  # noqa: N818 - reads as a fact
    """An error that the user of the script can put right."""


class _Ended(Exception):  # noqa: N818 - reads as a fact
    """A signal asked the script to end."""


class Services:
    """Programs that were started; ``with`` ends them, the last one first.

    Args:
        folder: Folder for their logs.

    Attributes:
        ended_well: Whether all of them ended by themselves when they were told to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ended_well = False
        self._running: list[tuple[str, subprocess.Popen[bytes], signal.Signals]] = []

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        _ignore_signals()
        ends = [_end(process, end_signal) for _, process, end_signal in reversed(self._running)]
        self.ended_well = all(ends)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start a program that stays in the foreground.

        Args:
            name: Name of its log.
            command: It and its arguments.
            user: User that it runs as; None for the user of this script.
            env: Variables of its environment, besides those of this script.
            end_signal: Signal that ends it cleanly.
            orphan_signal: Signal that the kernel sends it if this script is killed.
        """
        guard = ["setpriv", f"--pdeathsig={orphan_signal.name.removeprefix('SIG')}", *_identity(user)]
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [*guard, "--", *command],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C is for this script alone, which ends the programs in order.
                start_new_session=True,
            )
        self._running.append((name, process, end_signal))

    def run(self, command: Sequence[str], *, user: str | None = None, timeout_s: float = PATIENCE_S) -> str:
        """Run a program to its end; returns what it printed.

        Raises:
            Problem: It failed, or did not end in time.
        """
        line = shlex.join(command[:3])
        # A session of its own here too: a Ctrl-C must not break it off half-way without our knowing.
        guard = ["setpriv", "--pdeathsig=KILL", *_identity(user), "--"]
        try:
            done = subprocess.run(
                [*guard, *command], capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            self.check()
            raise Problem(f"{line} ... did not end within {timeout_s:.0f} s") from None
        if done.returncode != 0:
            self.check()
            raise Problem(f"{line} ... ended with status {done.returncode}:\n{done.stderr.strip()[-2000:]}")
        return done.stdout

    def wait_until(self, what: str, is_true: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait for a service to answer.

        Raises:
            Problem: It does not in time, or a program ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_true():
            self.check()
            if time.monotonic() > deadline_s:
                ends = [line for name, _, _ in self._running for line in self._end_of_log(name)]
                raise Problem("\n".join([f"{what} after {timeout_s:.0f} s", *ends]))
            time.sleep(0.1)

    def hold(self) -> None:
        """Watch the programs until this script is ended.

        Raises:
            Problem: One of them ended.
        """
        while True:
            self.check()
            time.sleep(0.5)

    def check(self) -> None:
        """See that all programs run.

        Raises:
            Problem: One of them ended; with the end of its log.
        """
        for name, process, _ in self._running:
            if (status := process.poll()) is not None:
                raise Problem("\n".join([f"{name} ended with status {status}", *self._end_of_log(name)]))

    def _end_of_log(self, name: str) -> list[str]:
        path = self._log(name)
        return [f"{path} ends:", *path.read_text(errors="replace").splitlines()[-LOG_LINES:]]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def find_programs(names: Sequence[str], package_of: Mapping[str, str], more_path: str = "") -> dict[str, str]:
    """Paths of programs.

    Raises:
        Problem: Some are missing; names the packages that have them.
    """
    path = os.pathsep.join(filter(None, [more_path, os.environ.get("PATH", ""), _SYSTEM_PATH]))
    found = {name: shutil.which(name, path=path) for name in names}
    if missing := [name for name, place in found.items() if place is None]:
        packages = " ".join(sorted({package_of[name] for name in missing}))
        raise Problem(
            f"not installed: {', '.join(missing)}; on Debian or Ubuntu, as root: "
            f"apt-get install --no-install-recommends {packages} (or deploy/local/install)"
        )
    return {name: place for name, place in found.items() if place is not None}


def need_module(name: str) -> None:
    """See that this Python has a package.

    Raises:
        Problem: It has not.
    """
    if importlib.util.find_spec(name) is None:
        raise Problem(
            f"{sys.executable} has no {name}; run this with the Python of ship's environment, as "
            "`make s3` and `make mlflow` do"
        )


def add_host_option(parser: argparse.ArgumentParser, risk: str) -> None:
    """Add ``--host``: an address besides loopback, at the risk that the help names."""
    parser.add_argument(
        "--host",
        type=_own_address,
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"IPv4 address of this machine to listen on [{LOOPBACK}]; on any other, {risk}",
    )


def _own_address(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address") from None
    if address.is_unspecified:
        raise argparse.ArgumentTypeError(f"{text} is no address to be told to clients: name one of them")
    try:
        free_port(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} is not an address of this machine ({error})") from None
    return text


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port of an address of this machine that no program listens on."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Make the folder, and keep a second script out of it. Its file ``env`` is there while the service is.

    Raises:
        Problem: There is one already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                f"another one runs in {folder} already; its environment is in {folder}/env"
            ) from None
        (folder / "env").unlink(missing_ok=True)
        try:
            yield
        finally:
            (folder / "env").unlink(missing_ok=True)


def print_environment(folder: Path, variables: Mapping[str, str]) -> None:
    """Print what to export, and keep it in the file ``env`` of the folder, for its owner alone."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    path = folder / "env"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    print(text + f"# ready (Ctrl-C ends it); elsewhere: . {shlex.quote(str(path))}", flush=True)


def main(run: Callable[[], None]) -> None:
    """Run a script: SIGINT, SIGTERM and SIGHUP end it cleanly, problems are printed."""

    def end(number: int, _: object) -> None:
        _ignore_signals()
        raise _Ended

    # Set here even if they were ignored: a program started in the background of a script inherits that.
    for number in _END_SIGNALS:
        signal.signal(number, end)
    try:
        run()
    except _Ended:
        return
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)


def _ignore_signals() -> None:
    """From here on it ends: a second Ctrl-C must not leave anything behind."""
    for number in _END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _identity(user: str | None) -> list[str]:
    return [] if user is None else [f"--reuid={user}", f"--regid={user}", "--init-groups"]


def _end(process: "subprocess.Popen[bytes]", end_signal: signal.Signals) -> bool:
    """End a program and all that is left of its session; whether it ended by itself when it was told to."""
    was_running = process.poll() is None
    if was_running:
        process.send_signal(end_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_PATIENCE_S)
    ended = process.poll() is not None
    # Whatever is left of its session: children of a program that could not end them itself.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return was_running and ended
