"""The HTTP client of the endpoint. Loads without torch, Ray or MLflow."""

from orchestrator.client.client import Client, EndpointError, Prediction, ServedTask
from orchestrator.client.questions import Attention, Question

__all__ = ["Attention", "Client", "EndpointError", "Prediction", "Question", "ServedTask"]
