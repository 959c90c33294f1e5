"""Baselines that prompts are compared with."""
