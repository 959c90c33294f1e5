from tests.unit.orchestrator.client.fixtures import engine, guarded, no_token_of_ours, url

__all__ = ["engine", "guarded", "no_token_of_ours", "url"]
