"""Tunes many tasks at once: a ledger leases them to a pool of workers, which tune and publish them.

``job`` goes from a manifest to a report; ``executor`` starts Ray, the ledger and the pool and follows a run;
``run.folder`` shows the run to other terminals, which see it and send requests through ``run.view``.
"""
