"""The console as a server: where it may listen, that it ends, and what it loads."""

import subprocess
import sys

import httpx
import pytest

from orchestrator.console.server import can_sign_in, check_console, running_console
from orchestrator.errors import ManifestError, ServeError
from orchestrator.serve.launch.address import choose_port
from tests.unit.orchestrator.console.factory import make_console


def test_it_answers_from_the_start_of_the_block_to_its_end() -> None:
    port = choose_port("127.0.0.1")
    with running_console(make_console().services, "127.0.0.1", port) as url:
        assert url == f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
        reply = httpx.get(f"{url}/fleet", trust_env=False)
        assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in?next=%2Ffleet")
        assert "server" not in reply.headers
        with pytest.raises(ServeError, match="choose another --port"):
            check_console("127.0.0.1", port, auth=True)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", trust_env=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "plant.example"])
def test_without_access_control_it_listens_on_loopback_alone(host: str) -> None:
    with pytest.raises(ManifestError, match="--no-auth"):
        check_console(host, 1, auth=False)


def test_whether_a_live_token_has_access_to_the_console() -> None:
    console = make_console()
    assert not can_sign_in(console.services)
    console.token("line-1", console=None)
    console.clock.now_s += 3.0
    assert not can_sign_in(console.services)
    console.token("maria", lifetime_s=10.0)
    console.clock.now_s += 3.0
    assert can_sign_in(console.services)
    console.clock.now_s += 10.0
    assert not can_sign_in(console.services)


def test_the_start_loads_neither_torch_nor_mlflow_nor_ray() -> None:
    program = (
        "import sys; from orchestrator.console.app import make_app;"
        "from orchestrator.console.services import Services; from orchestrator.settings import Settings;"
        "import orchestrator.console.server;"
        "make_app(Services.open(Settings.from_env({}, home='/nowhere')));"
        "print(sorted({'torch', 'mlflow', 'ray'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
