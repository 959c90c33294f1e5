"""The scripts of deploy/local as a test runs them: started, waited for, ended, and nothing of them left."""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "local"
# What every message about a missing package ends with.
INSTALL_HINT = "deploy/local/install"
PATIENCE_S = 300.0


class LocalService:
    """One of the scripts, running in a folder of its own.

    Args:
        name: Name of the script.
        folder: Folder for its files; made anew if None, and removed at the end.
        options: Options of the script, besides its folder.
        prefix: Runs it, such as on another host.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None = None,
        *,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._is_temporary = folder is None
        self._is_told = False
        self._started: list[psutil.Process] = []
        # Not below pytest's own folder, which is closed to the user that PostgreSQL runs as.
        self.folder = Path(tempfile.mkdtemp(prefix=f"ship-{name}-")) if folder is None else folder
        self.folder.chmod(0o711)
        self.errors = self.folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(SCRIPTS / name), str(self.folder / "data"), *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait(self) -> Mapping[str, str]:
        """Variables that the script prints once it is ready. Skips the test if packages are missing."""
        assert self.process.stdout is not None
        printed = ""
        while "# ready" not in printed:
            line = self.process.stdout.readline()
            if not line:
                self.process.wait()
                said = self.errors.read_text().strip()
                if INSTALL_HINT in said:
                    pytest.skip(f"{self.name}: {said.removeprefix('error: ')}")
                pytest.fail(f"deploy/local/{self.name} ended with {self.process.returncode}: {said}")
            printed += line
        found = re.findall(r"^export (\w+)=(.*)$", printed, flags=re.MULTILINE)
        return {variable: shlex.split(value)[0] for variable, value in found}

    def tell_to_end(self) -> None:
        """Send it SIGTERM once, and note what it has started."""
        if not self._is_told and self.process.poll() is None:
            self._is_told = True
            self._started = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()

    def end(self) -> list[psutil.Process]:
        """End the script; returns processes that it started and that outlive it by a while."""
        self.tell_to_end()
        self.process.communicate(timeout=PATIENCE_S)
        _, alive = psutil.wait_procs(self._started, timeout=PATIENCE_S)
        for process in alive:
            process.kill()
        if self._is_temporary:
            shutil.rmtree(self.folder)
        return alive
