"""The store of prompts: immutable artifacts, their publications, the catalog and the tokens.

Knows nothing of MLflow, Ray, tuning or HTTP.
"""
