"""Starts the endpoint on Ray Serve, waits until it answers, and stops it."""
