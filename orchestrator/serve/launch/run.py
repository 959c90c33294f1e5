"""``ship serve``: an endpoint in the foreground, until a signal ends it."""

import threading
from collections.abc import Callable

from orchestrator.cluster.signals import interrupting_signals
from orchestrator.serve.launch.endpoint import start
from orchestrator.serve.options import EngineOptions, Limits
from orchestrator.settings import Settings
from ship.backbone import BUNDLED, load_backbone

__all__ = ["serve_forever"]


def serve_forever(
    settings: Settings,
    *,
    backbone_spec: str = BUNDLED,
    host: str = "127.0.0.1",
    port: int = 8000,
    num_replicas: int = 1,
    limits: Limits | None = None,
    options: EngineOptions | None = None,
    auth: bool = True,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; then drain, stop all that was started, and return.

    To be called from the main thread, which is the one that gets signals.

    Args:
        settings: Where store, registry and Ray are.
        backbone_spec: See ``ship.backbone.load_backbone``.
        host: Where to listen.
        port: Where to listen; 0 for any that is free.
        num_replicas: Engines.
        limits: At the door.
        options: Of the engines.
        auth: Whether a token is needed to ask.
        on_ready: Called with the URL once requests are answered.

    Raises:
        ServeError: The endpoint could not be started.
        BackboneError: The backbone cannot be loaded.
        StoreError: The store cannot be reached.
    """
    with interrupting_signals():
        try:
            backbone = load_backbone(backbone_spec)
            with start(
                settings,
                backbone=backbone,
                host=host,
                port=port,
                num_replicas=num_replicas,
                limits=limits,
                options=options,
                auth=auth,
            ) as endpoint:
                if on_ready is not None:
                    on_ready(endpoint.url)
                threading.Event().wait()
        except (KeyboardInterrupt, SystemExit):
            # The latter is how Ray words SIGTERM while it starts.
            return
