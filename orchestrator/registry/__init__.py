"""Names, versions, aliases and runs of prompts in MLflow, and the gate before promotion."""
