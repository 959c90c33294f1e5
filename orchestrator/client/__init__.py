"""The HTTP client of the endpoint. Loads without torch, Ray or MLflow."""
