"""The endpoint as Ray Serve imports it: ``serve run orchestrator.serve.launch.app:build backbone=...``.

``build`` is an application builder with typed arguments, for ``serve run``, ``serve deploy`` and RayService.
``app`` is what it builds from the environment alone, for ``serve build``, which takes no arguments.
"""

import os
from typing import Any

from ray.serve import Application

from orchestrator.serve.launch.arguments import Arguments
from orchestrator.serve.launch.deployments import make_application

__all__ = ["build"]


def build(arguments: Arguments) -> Application:
    """The endpoint as one application, which loads its backbone by itself.

    What the arguments leave out is as the environment says, where this is called: ``SHIP_STORE``,
    ``MLFLOW_TRACKING_URI``, ``SHIP_CACHE``, ``SHIP_MAX_PIXELS``. A store's or registry's secrets are there
    alone.

    Args:
        arguments: Arguments of the application.
    """
    settings = arguments.settings(os.environ)
    return make_application(settings, arguments.options(settings), arguments.placement())


def __getattr__(name: str) -> Any:
    if name == "app":
        return build(Arguments())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
