"""Backups of a store and its registry, and their restoration."""
