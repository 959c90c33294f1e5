"""Examination of an installation: what is configured, reachable and consistent, and what to do."""
