"""The artifact of a task: its files, its card, and how a tuning result becomes one."""
