"""Tunes prompts on the frozen backbone: one task, or many in one fused pass."""
