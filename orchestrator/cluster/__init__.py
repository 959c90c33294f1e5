"""The Ray session of a run or an endpoint, its processes, and the handling of signals."""
