"""Cost and scaling of tuning many tasks with the orchestrator."""
