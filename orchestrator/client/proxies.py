"""Proxy and certificates of a connection, from the environment, with limits that protect the token.

The variables are those of curl and httpx: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY`` (in
small letters, too, which count first), ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
"""

import ipaddress
import os
import ssl
from collections.abc import Mapping

import httpx

__all__ = ["find_proxy", "make_context"]

_SCHEMES = ("http", "https")


def find_proxy(url: httpx.URL, *, has_token: bool, environ: Mapping[str, str] = os.environ) -> str | None:
    """The proxy for an endpoint; None to connect directly, as to this machine and what ``NO_PROXY`` names.

    Args:
        url: URL of the endpoint.
        has_token: Whether requests carry a token or password.
        environ: The environment.

    Raises:
        ValueError: The proxy cannot be used, or would read the token.
    """
    if _is_loopback(url.host) or _is_direct(url, _read(environ, "NO_PROXY")[1]):
        return None
    name, proxy = _read(environ, f"{url.scheme.upper()}_PROXY")
    if not proxy:
        name, proxy = _read(environ, "ALL_PROXY")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parsed = httpx.URL(proxy)
    except httpx.InvalidURL as error:
        raise ValueError(f"{name}: expected the URL of a proxy: {error}") from None
    if parsed.scheme not in _SCHEMES or not parsed.host:
        raise ValueError(
            f"{name}: expected a proxy such as http://proxy.plant:3128, found one of {parsed.scheme or 'no'} "
            f"scheme; for a direct connection set NO_PROXY={url.host}"
        )
    if has_token and url.scheme != "https":
        raise ValueError(
            f"{name}: the proxy {parsed.host} would read the token that is sent to {url.host} in the clear; "
            f"ask an https:// URL, or connect directly with NO_PROXY={url.host}"
        )
    return proxy


def make_context(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Certificates to trust: those that the environment names, else the usual ones.

    Raises:
        ValueError: What the environment names cannot be read.
    """
    file, folder = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    named = f"SSL_CERT_FILE={file}" if file else f"SSL_CERT_DIR={folder}"
    try:
        if file or folder:
            return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
        return httpx.create_ssl_context(trust_env=False)
    except OSError as error:
        raise ValueError(f"{named}: certificates cannot be read: {error.strerror or error}") from None


def _read(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Name and value of a variable; the one in small letters counts first."""
    for spelling in (name.lower(), name):
        if value := environ.get(spelling, "").strip():
            return spelling, value
    return name, ""


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or bool(address and address.is_loopback)


def _is_direct(url: httpx.URL, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` names the host: by name, domain, address, network, each with a port or without."""
    for entry in no_proxy.replace(" ", ",").split(","):
        if entry == "*" or (entry and _matches(url, entry.casefold())):
            return True
    return False


def _matches(url: httpx.URL, entry: str) -> bool:
    address = _address(url.host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    name, port = entry, ""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    if port and port != str(url.port or {"http": 80, "https": 443}.get(url.scheme)):
        return False
    named = _address(name)
    if named is not None or address is not None:
        return named == address
    domain = name.removeprefix("*").lstrip(".")
    return bool(domain) and (url.host == domain or url.host.endswith(f".{domain}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
