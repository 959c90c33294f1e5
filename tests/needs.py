"""What some tests need besides Python's packages, and which of it this machine lacks."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from glob import glob

__all__ = ["BROWSER", "NEEDS", "ONNX", "PROMTOOL", "Need", "find_missing"]

# Where Debian keeps programs of PostgreSQL that are not on the path.
_POSTGRES = "/usr/lib/postgresql/*/bin"
_INSTALL = "`sudo deploy/local/install` installs them"


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a group of tests needs.

    Attributes:
        tests: The tests, in words.
        programs: Programs on the path or among those of PostgreSQL.
        advice: How the programs are installed.
        packages: Packages of the extra ``industrial``, by the names of their modules.
        root: Whether they need to be root.
        device: A device file.
    """

    tests: str
    programs: tuple[str, ...] = ()
    advice: str = _INSTALL
    packages: tuple[str, ...] = ()
    root: bool = False
    device: str | None = None

    def find(self, program: str) -> str | None:
        """Path of a program; None where it is not installed."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *glob(_POSTGRES)])
        return shutil.which(program, path=path)

    def problem(self) -> str | None:
        """What is missing, and what to do about it; None if nothing is."""
        if missing := [name for name in self.programs if self.find(name) is None]:
            return f"{', '.join(missing)} not found; {self.advice}"
        if missing := [name for name in self.packages if importlib.util.find_spec(name) is None]:
            return f"{', '.join(missing)} not installed; `pip install -e '.[industrial]'`"
        if self.root and os.geteuid() != 0:
            return "they need root"
        if self.device is not None and not os.path.exists(self.device):
            return f"no {self.device}"
        return None


ONNX = Need(tests="tests of a backbone's conversion", packages=("onnx",))
BROWSER = Need(tests="tests of the report and the console in a browser", programs=("chromium",))
PROMTOOL = Need(
    tests="a test of alert rules", programs=("promtool",), advice="it is in Debian's package prometheus"
)
NEEDS = (
    ONNX,
    BROWSER,
    PROMTOOL,
    Need(tests="tests against a real S3", programs=("radosgw", "ceph-mon", "ceph-osd", "radosgw-admin")),
    Need(tests="tests against a real PostgreSQL", programs=("initdb", "postgres", "setpriv")),
    Need(
        tests="tests of deploy/kubernetes", programs=("kubectl",), advice="1.27 or newer, for its kustomize"
    ),
    Need(tests="tests on several hosts", programs=("ip", "unshare"), root=True),
    Need(tests="tests of compiled kernels", programs=("g++",)),
    Need(tests="tests on a GPU (python -m pytest tests/gpu)", device="/dev/nvidia0"),
)


def find_missing() -> list[str]:
    """A line for each group of tests that cannot run here, with the reason."""
    return [f"{need.tests}: {problem}" for need in NEEDS if (problem := need.problem()) is not None]
