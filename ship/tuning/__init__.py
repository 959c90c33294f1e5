"""Tuning of prompts on the frozen backbone: one task, or many in one fused pass."""

from typing import TYPE_CHECKING

from ship.lazy import lazy_names

if TYPE_CHECKING:
    from ship.tuning.run import EpochReport, PackTask, TuneResult, tune, tune_pack

__all__ = ["EpochReport", "PackTask", "TuneResult", "tune", "tune_pack"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "run"))
