"""The ledger: which worker has a lease on which task, and what became of each task."""
