"""Measurements beside what people would use instead: ``python -m tests.benchmarks NAME``."""
