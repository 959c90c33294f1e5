from tests.unit.orchestrator.client.fixtures import client, engine, guarded, no_token_of_ours, url

__all__ = ["client", "engine", "guarded", "no_token_of_ours", "url"]
