"""The client's own distribution: the files that it names load and ask with httpx and tenacity alone."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.unit.orchestrator.client.endpoint import PNG

PROJECT = Path(__file__).parents[4] / "deploy" / "client" / "pyproject.toml"

# Run by a Python that finds nothing but the standard library and what the distribution declares.
ASK = """
import sys
from importlib.abc import MetaPathFinder

ALLOWED = {"orchestrator", "ship", "httpx", "httpcore", "h11", "anyio", "idna", "certifi", "tenacity",
           "sniffio", "typing_extensions"}

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not declared", name=name)

sys.meta_path.insert(0, Refuse())
import orchestrator, ship
from orchestrator.client import Client, Question

with Client(sys.argv[1]) as client:
    image = sys.stdin.buffer.read()
    answers = [client.predict("bolts", image), *client.predict_batch([Question(task="bolts", image=image)])]
print(*orchestrator.__path__, *ship.__path__, *(answer.label for answer in answers), sep="\\n")
"""


def test_the_files_of_its_distribution_ask_an_endpoint(url: str, tmp_path: Path) -> None:
    project = tomllib.loads(PROJECT.read_text())
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        found, place = PROJECT.parent / source, tmp_path / target
        place.parent.mkdir(exist_ok=True)
        (shutil.copytree if found.is_dir() else shutil.copyfile)(found, place)

    done = subprocess.run(
        [sys.executable, "-c", ASK, url],
        input=PNG,
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr.decode()
    *places, first, second = done.stdout.decode().split()
    assert places == [str(tmp_path / "orchestrator"), str(tmp_path / "ship")]
    assert first == second
    assert project["project"]["dependencies"] == ["httpx>=0.28", "tenacity>=9.0"]
