"""Accuracy of SHIP beside other ways of tuning, on small tasks."""
