"""Prompts as immutable bytes (the store) and their names, versions and aliases (the registry, MLflow).

MLflow, boto3 and fsspec live here only. Knows nothing of Ray, tuning or HTTP.
"""
