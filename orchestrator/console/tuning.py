"""A tuning that is started on a page: `ship tune` in a process of its own, which outlives the console."""

import subprocess
import sys
import threading
from pathlib import Path

from orchestrator.errors import ExecutionError
from orchestrator.settings import Settings
from orchestrator.train.run.view import RunView

__all__ = ["check_no_run", "last_words", "start_tuning"]

_LOG = "tune.log"
_MAX_SAID = 2_000
_SHIP = (sys.executable, "-P", "-c", "from orchestrator.cli.main import main; main()")


def check_no_run(settings: Settings) -> None:
    """Check that no run is at work in the home.

    Raises:
        ExecutionError: One is.
    """
    if (view := RunView(settings.home)).is_at_work:
        raise ExecutionError(
            f"run {view.about().run} is at work in this home; wait for its end, or stop it on its page"
        )


def start_tuning(settings: Settings, manifest: Path) -> None:
    """Start `ship tune` of a manifest; what it prints lies beside that.

    The store is the manifest's; registry and Ray are those of this process's environment.

    Raises:
        OSError: It cannot be started.
    """
    place = manifest.parent / _LOG
    # As the manifest: no other user's to read.
    place.touch(mode=0o600)
    with place.open("wb") as log:
        process = subprocess.Popen(
            [*_SHIP, "--home", str(settings.home), "tune", str(manifest)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # Whoever starts a process waits for it, or it is never gone.
    threading.Thread(target=process.wait, name="tuning", daemon=True).start()


def last_words(folder: Path) -> str:
    """The end of what the last tuning that was started so printed; empty if there was none."""
    try:
        with (folder / _LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _MAX_SAID))
            return log.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
