"""The worker: leases tasks, loads their data, tunes and snapshots them, publishes the artifacts."""
