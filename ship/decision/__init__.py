"""Decisions from class scores: calibration, thresholds, and when an answer is ``unsure``."""
