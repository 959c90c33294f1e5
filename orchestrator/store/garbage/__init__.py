"""Garbage collection of a store: what is garbage, since when it is marked, and its removal."""
