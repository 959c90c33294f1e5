from tests.unit.orchestrator.client.fixtures import engine, guarded, no_token_of_ours, url
from tests.unit.orchestrator.store.conftest import closed_port

__all__ = ["closed_port", "engine", "guarded", "no_token_of_ours", "url"]
