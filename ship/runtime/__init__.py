"""Serves baked prompts: one forward pass for rows of any tasks."""
