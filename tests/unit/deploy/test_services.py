"""Start and end of programs in deploy/local, with shells in place of Ceph and PostgreSQL."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

LOCAL = Path(__file__).resolve().parents[3] / "deploy" / "local"
pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not here")

PRELUDE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(LOCAL)!r})
from services import Services, find_programs, main, only_one, print_environment
folder = Path(sys.argv[1])
"""
TWO_PROGRAMS = """
def run():
    with only_one(folder), Services(folder) as services:
        note = f"trap 'echo $0 >> {folder}/ended; exit' TERM; touch {folder}/$0; while :; do sleep 0.05; done"
        for name in ("first", "second"):
            services.start(name, ["sh", "-c", note, name])
            services.wait_until(f"{name} is not up", (folder / name).exists)
        print_environment(folder, {"SECRET": "it's one"})
        services.hold()

main(run)
"""


class Script:
    """A script that uses the module, running in a folder."""

    def __init__(self, folder: Path, body: str) -> None:
        self.folder = folder
        path = folder.parent / "script.py"
        path.write_text(PRELUDE + textwrap.dedent(body))
        self.process = subprocess.Popen(
            [sys.executable, str(path), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> list[psutil.Process]:
        """Processes that it has started."""
        assert self.process.stdout is not None
        while "# ready" not in (line := self.process.stdout.readline()):
            assert line, self.process.communicate()[1]
        return psutil.Process(self.process.pid).children(recursive=True)

    def finish(self) -> str:
        """Errors that it printed."""
        return self.process.communicate(timeout=60)[1]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_the_last_first(tmp_path: Path, how: signal.Signals) -> None:
    script = Script(tmp_path / "data", TWO_PROGRAMS)
    started = script.wait_until_ready()
    assert (tmp_path / "data" / "env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data" / "env").read_text() == "export SECRET='it'\"'\"'s one'\n"

    script.process.send_signal(how)

    assert script.finish() == ""
    assert script.process.returncode == 0
    assert psutil.wait_procs(started, timeout=10)[1] == []
    assert (tmp_path / "data" / "ended").read_text().split() == ["second", "first"]
    assert not (tmp_path / "data" / "env").exists()


def test_nothing_survives_a_script_that_was_killed(tmp_path: Path) -> None:
    script = Script(tmp_path / "data", TWO_PROGRAMS)
    started = script.wait_until_ready()

    script.process.kill()
    script.finish()

    assert psutil.wait_procs(started, timeout=10)[1] == []


def test_a_program_that_ends_ends_the_others_and_shows_its_log(tmp_path: Path) -> None:
    script = Script(
        tmp_path / "data",
        """
        def run():
            with only_one(folder), Services(folder) as services:
                services.start("good", ["sleep", "600"])
                services.start("bad", ["sh", "-c", "echo no room left; exit 3"])
                print_environment(folder, {})
                services.hold()

        main(run)
        """,
    )
    said = script.finish()

    assert script.process.returncode == 1
    assert "bad ended with status 3" in said
    assert "no room left" in said


def test_a_second_one_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = Script(tmp_path / "data", TWO_PROGRAMS)
    first.wait_until_ready()

    second = Script(tmp_path / "data", TWO_PROGRAMS)

    assert f"another one runs in {tmp_path / 'data'}" in second.finish()
    assert second.process.returncode == 1
    assert (tmp_path / "data" / "env").exists()
    first.process.terminate()
    first.finish()


def test_missing_programs_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    body = """
    def run():
        find_programs(["sh", "no-such-osd"], {"sh": "dash", "no-such-osd": "ceph-osd"})

    main(run)
    """
    said = Script(tmp_path / "data", body).finish()

    assert "not installed: no-such-osd;" in said
    assert "apt-get install --no-install-recommends ceph-osd" in said


@pytest.mark.parametrize("script", ["s3", "mlflow"])
@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("0.0.0.0", "no address to be told to clients"),
        ("localhost", "not an IPv4 address"),
        ("192.0.2.77", "not an address of this machine"),
    ],
)
def test_an_address_that_others_cannot_use_is_refused(
    tmp_path: Path, script: str, host: str, problem: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(LOCAL / script), str(tmp_path / "data"), "--host", host],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert problem in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL to another user")
def test_a_closed_folder_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Short, for it would hold a socket.
    closed = tmp_path_factory.mktemp("c") / "closed"
    closed.mkdir(mode=0o700)

    done = subprocess.run(
        [sys.executable, str(LOCAL / "mlflow"), str(closed / "data")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    if "deploy/local/install" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert "may not enter it (mode 7" in done.stderr
    assert "chmod o+x" in done.stderr
