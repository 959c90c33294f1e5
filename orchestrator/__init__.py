"""Fans tuning out with Ray Train, keeps prompts in a store and a registry, serves them with Ray Serve."""
