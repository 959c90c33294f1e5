"""The report of a run: one JSON document with every figure, and one self-contained HTML page made of it."""
