"""Settings from the environment. Read once, here, and passed on as a value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from orchestrator.errors import ManifestError
from ship.errors import ConfigError
from ship.redaction import Url
from ship.settings.view import MAX_PIXELS, read_max_pixels

__all__ = ["EXECUTORS", "Executor", "Settings"]

Executor = Literal["train", "actors"]
EXECUTORS: tuple[Executor, ...] = ("train", "actors")
DEFAULT_CACHE, DEFAULT_CACHE_GB = "~/.cache/ship", 4
BYTES_A_GB = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Places of files and addresses of services.

    Attributes:
        home: Folder for everything local (``SHIP_HOME``, default ``.ship`` in the working folder).
        store: URL or path of the store of prompts (``SHIP_STORE``, default ``<home>/store``); made a ``Url``.
        tracking_uri: MLflow's (``MLFLOW_TRACKING_URI``, default sqlite in ``<home>/mlflow.db``); made a
            ``Url``.
        ray_address: Cluster to join (``RAY_ADDRESS``); None starts a local Ray.
        cache: Folder on each node of decoded data and, below it, of prompts and the last catalog that an
            endpoint served (``SHIP_CACHE``, default ``~/.cache/ship``); a leading ``~`` is for each node to
            expand.
        cache_bytes: The most that decoded data may take there, and the most that prompts may take besides
            (``SHIP_CACHE_GB``, default 4 for each); 0 keeps nothing.
        max_pixels: Pixels of a picture, in tuning and in serving (``SHIP_MAX_PIXELS``, default 50 million);
            one with more is refused before it is decoded.
    """

    home: Path
    store: str
    tracking_uri: str
    ray_address: str | None
    cache: str = DEFAULT_CACHE
    cache_bytes: int = DEFAULT_CACHE_GB * BYTES_A_GB
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Let no text of the settings show a password."""
        for name in ("store", "tracking_uri"):
            object.__setattr__(self, name, Url(getattr(self, name)))

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, home: str | None = None, store: str | None = None) -> Self:
        """Settings from environment variables; arguments that are not None win over them.

        Raises:
            ManifestError: ``SHIP_CACHE_GB`` is no size, ``SHIP_MAX_PIXELS`` no number, or the home no folder.
        """
        folder = _read_home(home or env.get("SHIP_HOME") or ".ship")
        tracking_uri = env.get("MLFLOW_TRACKING_URI")
        if not tracking_uri:
            if "?" in str(folder):
                raise ManifestError(
                    f"{folder}: MLflow's database cannot lie in a folder with `?` in its name; name another "
                    "home, or set MLFLOW_TRACKING_URI"
                )
            tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
        return cls(
            home=folder,
            store=store or env.get("SHIP_STORE") or str(folder / "store"),
            tracking_uri=tracking_uri,
            ray_address=env.get("RAY_ADDRESS") or None,
            cache=env.get("SHIP_CACHE") or DEFAULT_CACHE,
            cache_bytes=_read_gigabytes("SHIP_CACHE_GB", env.get("SHIP_CACHE_GB") or str(DEFAULT_CACHE_GB)),
            max_pixels=_read_pixels(env),
        )

    @property
    def spool(self) -> Path:
        """Folder of records that MLflow has not taken yet."""
        return self.home / "spool"

    @property
    def serve_log(self) -> Path:
        """Log of problems in the processes of an endpoint."""
        return self.home / "serve.log"

    @property
    def artifact_location(self) -> str | None:
        """Place of files of MLflow's runs: at home with an embedded MLflow; None leaves it to a server."""
        is_server = self.tracking_uri.startswith(("http://", "https://"))
        return None if is_server else (self.home / "mlflow-artifacts").as_uri()


def _read_home(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, OSError, ValueError) as error:
        # An unknown user, a circle of links, a name that no file has.
        raise ManifestError(f"home {text[:200]!r}: {error}") from error


def _read_gigabytes(name: str, text: str) -> int:
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0.0 <= size < math.inf:
        raise ManifestError(f"{name}: expected a number of gigabytes from 0, got {text!r}")
    return round(size * BYTES_A_GB)


def _read_pixels(env: Mapping[str, str]) -> int:
    try:
        return read_max_pixels(env)
    except ConfigError as error:
        raise ManifestError(str(error)) from None
