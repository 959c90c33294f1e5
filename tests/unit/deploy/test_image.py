"""deploy/Dockerfile, .dockerignore and the health check, without an engine that builds or runs containers."""

import importlib.util
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest
import yaml

from orchestrator.cli.main import cli
from orchestrator.settings import Settings
from tests.unit.deploy.dockerfile import DOCKERFILE, ROOT, Stage, is_sent, read_stages
from tests.unit.deploy.manifests import DEPLOY

HEALTH = DEPLOY / "image" / "health.py"
STAGES = read_stages(DOCKERFILE.read_text())
IMAGE = STAGES[-1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def environment() -> dict[str, str]:
    return IMAGE.pairs("ENV")


def test_every_stage_is_of_the_base_that_is_named_or_of_another_stage() -> None:
    assert "ARG BASE=" in DOCKERFILE.read_text().split("FROM")[0]
    names = {stage.name for stage in STAGES}
    assert all(stage.base == "${BASE}" or stage.base in names for stage in STAGES)
    assert IMAGE.base == "${BASE}"


def test_the_image_has_no_compiler_and_no_pip_of_the_stages_before() -> None:
    (environment_of_python, sbom) = [value for value in IMAGE.all("COPY") if value.startswith("--from=")]
    assert environment_of_python == "--from=dependencies /opt/ship /opt/ship"
    assert sbom.startswith("--from=wheel /sbom.json ")
    assert not any("install" in value and "build-essential" in value for value in IMAGE.all("RUN"))


def test_a_build_of_another_variant_than_asked_for_is_refused() -> None:
    (dependencies,) = [stage for stage in STAGES if stage.name == "dependencies"]
    assert {"VARIANT=cpu", "TORCH_INDEX="} <= set(dependencies.all("ARG"))
    (check,) = [value for value in dependencies.all("RUN") if "version.py" in value]
    assert '"$found" != "$VARIANT"' in check
    assert "exit 1" in check


def test_versions_are_the_pinned_ones_wherever_pip_asks_an_index() -> None:
    commands = [part for stage in STAGES for run in stage.all("RUN") for part in run.split("&&")]
    installs = [part for part in commands if "pip" in part and " install " in part and "apt-get" not in part]
    assert len(installs) == 5
    (tools,) = [part for part in installs if "cyclonedx-bom" in part]
    assert "-c constraints.txt" in tools
    (of_torch,) = [part for part in installs if '"$@"' in part]
    assert "--no-deps" in of_torch
    (locked,) = [part for part in installs if "-r requirements.lock" in part]
    assert "--no-deps --require-hashes" in locked
    ours = [part for part in installs if part not in (tools, of_torch, locked)]
    assert all("--no-deps" in part and "--no-index" in part for part in ours)


def test_torch_is_locked_where_its_index_is_the_usual_one_and_pinned_elsewhere() -> None:
    (run,) = [run for stage in STAGES for run in stage.all("RUN") if "requirements-cuda.lock" in run]
    choice = run[run.index("if [") : run.index(" fi ")].replace("\\\n", " ") + " fi; echo $*"
    for variant, index, words in (
        ("cuda", "", "--require-hashes -r requirements-cuda.lock"),
        ("cuda", "https://mirror", "-c constraints.txt --index-url https://mirror torch torchvision"),
        ("cpu", "", "-c constraints.txt torch torchvision"),
    ):
        environment = {**os.environ, "VARIANT": variant, "TORCH_INDEX": index}
        assert subprocess.check_output(["sh", "-c", choice], env=environment, text=True).strip() == words


def test_no_address_of_a_registry_and_no_secret_is_written_down() -> None:
    for path in (DOCKERFILE, DEPLOY / "image" / "build"):
        assert "://" not in path.read_text().replace("file://", "")
    secret = [run for stage in STAGES for run in stage.all("RUN") if "pip.conf" in run]
    assert all("--mount=type=secret,id=pip,target=/etc/pip.conf" in run for run in secret)


def test_the_user_is_the_one_that_the_manifests_name() -> None:
    (service,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "base" / "rayservice.yaml").read_text())
    pod = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["securityContext"]
    assert IMAGE.last("USER") == f"{pod['runAsUser']}:{pod['fsGroup']}" == "10001:10001"
    # Nothing after it runs as another user.
    keywords = [keyword for keyword, _ in IMAGE.instructions]
    assert not {"RUN", "COPY", "ADD"} & set(keywords[keywords.index("USER") :])


def test_what_is_written_is_below_the_home_or_tmp() -> None:
    found = environment()
    settings = Settings.from_env(found)
    assert str(settings.home) == "/home/ship/.ship"
    for name in ("SHIP_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        assert found[name].startswith((f"{settings.home}/", "/tmp/")), name
    assert IMAGE.last("WORKDIR") == found["HOME"]


def test_it_starts_by_an_init_and_ends_by_the_signal_that_drains() -> None:
    assert IMAGE.words("ENTRYPOINT") == ["tini", "-s", "--", "ship"]
    assert IMAGE.last("STOPSIGNAL") == "SIGTERM"


def test_it_listens_where_the_command_says_and_nowhere_else() -> None:
    assert IMAGE.words("CMD") == ["--help"]
    assert "0.0.0.0" not in DOCKERFILE.read_text()
    defaults = {option.name: option.default for option in cli.commands["serve"].params}
    assert (defaults["host"], str(defaults["port"])) == ("127.0.0.1", IMAGE.last("EXPOSE"))


def test_labels_say_what_it_is() -> None:
    labels, arguments = IMAGE.pairs("LABEL"), dict(value.split("=") for value in IMAGE.all("ARG"))
    prefix = "org.opencontainers.image."
    names = {name.removeprefix(prefix) for name in labels if name.startswith(prefix)}
    assert {"title", "description", "licenses", "version", "revision"} <= names
    assert labels[f"{prefix}licenses"] == PROJECT["license"]
    assert labels[f"{prefix}version"] == "${VERSION}"
    assert arguments["VERSION"] == PROJECT["version"]
    assert any(value.endswith(labels["ship.sbom"]) for value in IMAGE.all("COPY"))


def test_what_a_build_copies_is_sent_to_it() -> None:
    copied = [value.split()[:-1] for stage in STAGES for value in stage.all("COPY") if "--from" not in value]
    paths = [path for words in copied for path in words]
    assert {"ship", "orchestrator", "constraints.txt"} <= set(paths)
    assert all((ROOT / path).exists() and is_sent(path) for path in paths)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        ".ship/store/tokens.json",
        ".venv/bin/python",
        "tests/unit/test_documents.py",
        "docs/log.md",
        "deploy/compose/secrets/database-password",
        "deploy/Dockerfile",
        "ship/pretrain/__init__.py",
        "ship/__pycache__/vit.cpython-311.pyc",
        "orchestrator/serve/options.pyc",
    ],
)
def test_nothing_else_is_sent(path: str) -> None:
    assert not is_sent(path)


@pytest.mark.parametrize("path", ["ship/py.typed", "ship/assets/x/y.json", "orchestrator/report/templates/a"])
def test_what_belongs_to_a_package_is_sent(path: str) -> None:
    assert is_sent(path)


@contextmanager
def endpoint(status: int) -> Iterator[str]:
    """An endpoint that answers ``/readyz`` with this status, and all else with 404; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/readyz"
        finally:
            server.shutdown()
            thread.join()


def check_health(url: str) -> subprocess.CompletedProcess[str]:
    """The image's own command, with this interpreter and this place of the file in place of the image's."""
    command = health_command(IMAGE)
    assert command[0] == "python3"
    (copied,) = [value.split() for value in IMAGE.all("COPY") if "health.py" in value]
    assert command[-1] == copied[1]
    variables = {**os.environ, "SHIP_HEALTH_URL": url, "http_proxy": "http://127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, *command[1:-1], str(ROOT / copied[0])],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def health_command(stage: Stage) -> list[str]:
    return yaml.safe_load(stage.last("HEALTHCHECK").partition(" CMD ")[2])


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (401, 1)])
def test_the_health_check_says_what_the_endpoint_says(status: int, expected: int) -> None:
    with endpoint(status) as url:
        done = check_health(url)
    assert (done.returncode, done.stderr) == (expected, "")
    assert f"{url}: " in done.stdout
    assert str(status) in done.stdout


def test_an_endpoint_that_does_not_listen_is_unhealthy() -> None:
    with endpoint(200) as url:
        pass
    assert check_health(url).returncode == 1


@pytest.fixture(scope="module")
def health() -> ModuleType:
    spec = importlib.util.spec_from_file_location("health", HEALTH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("tini -s -- ship serve --host 0.0.0.0", "http://127.0.0.1:8000/readyz"),
        ("init -- tini -s -- ship --home /x serve --port=9000 --host ::", "http://[::1]:9000/readyz"),
        ("tini -s -- ship serve --host 10.0.0.5 --port 80 --port 81", "http://10.0.0.5:81/readyz"),
        ("ship serve", "http://127.0.0.1:8000/readyz"),
        ("tini -s -- ship tune /manifest/lines.yaml", None),
        ("ray start --head", None),
    ],
)
def test_the_health_check_asks_where_the_command_listens(
    health: ModuleType, command: str, url: str | None
) -> None:
    assert health.find_url(command.split(), {}) == url
    assert health.find_url(command.split(), {"SHIP_HEALTH_URL": "http://a/b"}) == "http://a/b"


def test_the_health_check_loads_the_standard_library_alone(health: ModuleType) -> None:
    assert {"-I", "-S"} <= set(health_command(IMAGE))
    imported = {value.__name__ for value in vars(health).values() if isinstance(value, ModuleType)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
