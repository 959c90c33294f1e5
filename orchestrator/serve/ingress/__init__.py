"""The ingress deployment: the HTTP application that checks requests and asks an engine."""
