"""Tunes many tasks at once: a ledger hands them out, a pool of Ray Train workers tunes and publishes them.

A task's way through these files: ``executor`` starts Ray and the pool, ``pool`` is what Ray Train runs on
each worker, ``worker`` is the loop over leases, ``task_runner`` tunes one task, ``ledger`` decides who gets
what (``ray_ledger`` makes it reachable), ``progress`` shows it.
"""
