"""The worker pool: Ray Train or plain actors, its size and its crashes."""
