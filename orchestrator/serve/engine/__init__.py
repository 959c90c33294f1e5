"""The engine deployment: batches rows of any tasks and runs them in one forward pass."""
