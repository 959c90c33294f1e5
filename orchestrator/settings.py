"""What the environment says. Read once, here, and passed on as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where things are kept, and which services are used.

    Attributes:
        home: Folder for everything local (``SHIP_HOME``, default ``.ship`` in the working folder).
        store: URL or path of the store of prompts (``SHIP_STORE``, default ``<home>/store``).
        tracking_uri: MLflow's (``MLFLOW_TRACKING_URI``, default sqlite in ``<home>/mlflow.db``).
        ray_address: Cluster to join (``RAY_ADDRESS``); None starts a local Ray.
    """

    home: Path
    store: str
    tracking_uri: str
    ray_address: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, home: str | None = None, store: str | None = None) -> Self:
        """Settings from environment variables; arguments that are not None win over them."""
        folder = Path(home or env.get("SHIP_HOME") or ".ship").expanduser().resolve()
        return cls(
            home=folder,
            store=store or env.get("SHIP_STORE") or str(folder / "store"),
            tracking_uri=env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}",
            ray_address=env.get("RAY_ADDRESS") or None,
        )

    @property
    def spool(self) -> Path:
        """Folder of records that MLflow has not taken yet."""
        return self.home / "spool"

    @property
    def artifact_location(self) -> str | None:
        """Where files of MLflow's runs go: at home with an embedded MLflow; a server (None) knows itself."""
        is_server = self.tracking_uri.startswith(("http://", "https://"))
        return None if is_server else (self.home / "mlflow-artifacts").as_uri()
