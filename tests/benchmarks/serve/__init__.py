"""Throughput, latency and resilience of the endpoint under load."""
