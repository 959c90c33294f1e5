"""The method: hierarchy, prompts, decoupled attention, losses (arXiv:2412.16956)."""
