"""Which prompts are in device memory, and how they get in and out of it."""
