"""Middleware of every request: access control, admission, drain, request log, metrics."""
