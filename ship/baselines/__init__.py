"""What a prompt is compared with."""
