"""What a worker does with a lease: load, tune, snapshot, publish."""
