"""Accuracy, calibration and attention of a tuned prompt on held-out images."""
