"""Proxies and certificates of the environment: followed where they help, never at the token's expense."""

import httpx
import pytest

from orchestrator.client.client import Client, EndpointError
from orchestrator.client.proxies import find_proxy, make_context
from tests.unit.orchestrator.client.endpoint import PNG

PROXY = {"HTTP_PROXY": "http://proxy.plant:3128", "HTTPS_PROXY": "http://proxy.plant:3128"}


def find(url: str, environ: dict[str, str], *, has_token: bool = False) -> str | None:
    return find_proxy(httpx.URL(url), has_token=has_token, environ=environ)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://localhost",
        "http://[::1]:8000",
        "https://ship.localhost",
        "http://127.9.9.9",
    ],
)
def test_this_machine_is_asked_directly(url: str) -> None:
    assert find(url, {**PROXY, "ALL_PROXY": "socks5://127.0.0.1:9"}, has_token=True) is None


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("http://ship.plant:8000", "ship.plant", True),
        ("http://ship.plant:8000", ".plant", True),
        ("http://ship.plant:8000", "*.plant", True),
        ("http://ship.plant:8000", "plant", True),
        ("http://ship.plant:8000", "lant", False),
        ("http://ship.plant:8000", "ship.plant:8000", True),
        ("http://ship.plant:8000", "ship.plant:9000", False),
        ("http://ship.plant", "other, SHIP.plant", True),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://10.1.2.3:8000", "10.1.2.3", True),
        ("http://11.1.2.3:8000", "10.0.0.0/8", False),
        ("http://[fd00::7]:8000", "127.0.0.1,fd00::/8", True),
        ("http://[fd00::7]:8000", "[fd00::7]", True),
        ("http://[fd00::7]:8000", "[fd00::7]:9000", False),
        ("http://ship.plant", "*", True),
        ("http://ship.plant", "[::1],/,:,::,fd00::/999", False),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(
    url: str, no_proxy: str, is_direct: bool
) -> None:
    found = find(url, {**PROXY, "NO_PROXY": no_proxy})
    assert found == (None if is_direct else "http://proxy.plant:3128")


def test_small_letters_count_first_and_all_proxy_last() -> None:
    environ = {"HTTP_PROXY": "http://a:1", "http_proxy": "b:2", "ALL_PROXY": "http://c:3"}
    assert find("http://ship.plant", environ) == "http://b:2"
    assert find("https://ship.plant", environ) == "http://c:3"
    assert find("http://ship.plant", {}) is None


def test_a_token_goes_through_a_proxy_in_a_tunnel_alone() -> None:
    assert find("https://ship.plant", PROXY, has_token=True) == "http://proxy.plant:3128"
    with pytest.raises(ValueError, match=r"the proxy proxy\.plant would read .*NO_PROXY=ship"):
        find("http://ship.plant", PROXY, has_token=True)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks4://x", "ftp://x", "http://", "http://x:y"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"^ALL_PROXY: expected"):
        find("http://ship.plant", {"ALL_PROXY": proxy})


def test_certificates_that_cannot_be_read_are_named() -> None:
    with pytest.raises(ValueError, match=r"SSL_CERT_FILE=/gone\.pem: certificates cannot be read"):
        make_context({"SSL_CERT_FILE": "/gone.pem"})
    assert make_context({}).verify_mode.name == "CERT_REQUIRED"


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_PROXY": "http://127.0.0.1:9"},
        {"NO_PROXY": "127.0.0.1,fd00::/8,[::1]"},
        {"ALL_PROXY": "socks5://127.0.0.1:9"},
        {"SSL_CERT_FILE": "/gone.pem"},
    ],
)
def test_a_client_of_this_machine_is_not_bothered(
    url: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Client(url, "ship_token") as client:
        assert client.predict("bolts", PNG).label == "bad"


def test_what_the_environment_has_wrong_is_an_error_of_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(EndpointError, match="ALL_PROXY"):
        Client("http://ship.plant")
    monkeypatch.setenv("SSL_CERT_FILE", "/gone.pem")
    monkeypatch.setenv("NO_PROXY", "ship.plant")
    with pytest.raises(EndpointError, match="SSL_CERT_FILE"):
        Client("https://ship.plant")
