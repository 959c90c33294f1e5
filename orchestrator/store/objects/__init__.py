"""Objects under keys: the protocol, and its implementations on disk, S3 and fsspec."""
