"""An application that listens, for clients to ask."""

import threading
import time
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from orchestrator.store.documents.tokens import Tokens
from tests.unit.orchestrator.serve.factory import draw_png
from tests.unit.ship.factory import make_backbone

PNG = draw_png()
BACKBONE = make_backbone().info


class Endpoint:
    """An application that listens on loopback until it is closed."""

    def __init__(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


@dataclass
class Known:
    """Tokens of an endpoint."""

    tokens: Tokens
    is_stale: bool = False
