"""One Ray session for tuning and for serving, its processes, and what signals do to it."""
