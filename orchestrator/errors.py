"""The exceptions of ``orchestrator``, one tree on top of ``ship``'s::

ShipError
└── OrchestratorError
    ├── ManifestError        the manifest, or a name or flag given beside it
    ├── StoreError           the store of prompts
    │   ├── StoreFull        no room, or a quota is reached
    │   ├── ObjectMissing    no object of that key
    │   └── ObjectConflict   a conditional write lost against another writer
    ├── RegistryError        MLflow: names, versions, aliases
    ├── ClusterError         the Ray session
    ├── ExecutionError       the worker pool
    └── ServeError           the endpoint; what it answers a client, see ``orchestrator.client.client``
"""

from ship.errors import ShipError

__all__ = [
    "ClusterError",
    "ExecutionError",
    "ManifestError",
    "ObjectConflict",
    "ObjectMissing",
    "OrchestratorError",
    "RegistryError",
    "ServeError",
    "StoreError",
    "StoreFull",
]


class OrchestratorError(ShipError):
    """Base of all errors of the orchestrator."""


class ManifestError(OrchestratorError):
    """The manifest, a task name or a flag is wrong; lists every problem with its place."""


class StoreError(OrchestratorError):
    """The store cannot be reached, or what it holds is not what it should be."""


class StoreFull(StoreError):  # noqa: N818 - reads as a fact
    """The store takes nothing more until room is made or a quota is raised."""


class ObjectMissing(StoreError):  # noqa: N818 - reads as a fact, as FileNotFound does
    """The store has no object of that key."""


class ObjectConflict(StoreError):  # noqa: N818 - reads as a fact
    """A conditional write found another writer's object in its place."""


class RegistryError(OrchestratorError):
    """MLflow cannot be reached, or knows no such task, version or alias."""


class ClusterError(OrchestratorError):
    """Ray could not be joined or started."""


class ExecutionError(OrchestratorError):
    """The worker pool could not be started, or died for good."""


class ServeError(OrchestratorError):
    """The endpoint could not be started, or refuses a request."""
