"""Likely cause of a tuning that ended below the linear probe, read off its history and settings."""

from collections.abc import Sequence

from ship.settings.config import TuneConfig
from ship.tuning.state import EpochReport

__all__ = ["find_cause"]

_DEFAULTS = TuneConfig()
# Shares of the images: less is noise, or no gap between training and held-out images to speak of.
_CLEARLY, _GAP = 0.02, 0.1
_LEARNT_BY_HEART = 0.98
_STILL_FALLING = 0.02


def find_cause(
    history: Sequence[EpochReport], config: TuneConfig, *, accuracy: float, probe_accuracy: float
) -> str:
    """The likely cause and what to do about it, as one sentence without a full stop.

    Args:
        history: One report an epoch.
        config: Settings of the tuning.
        accuracy: Held-out accuracy of the tuned prompt.
        probe_accuracy: Held-out accuracy of the linear probe.
    """
    if not history:
        return "its epochs are not on record, so the cause is not known"
    last, peak = history[-1].train_accuracy, max(report.train_accuracy for report in history)
    if last < probe_accuracy - _CLEARLY:
        # A gated tuning starts from the linear probe, which answers its training images at least as well.
        if config.start == "gated" or peak >= probe_accuracy:
            return _explain_collapse(history, config)
        return _explain_slowness(history, config)
    if last >= _LEARNT_BY_HEART or last - accuracy > _GAP:
        return (
            f"training images were learnt by heart (training accuracy {last:.3f}, held out {accuracy:.3f}); "
            f"add training images, set `augment: flips`, or lower num_independent ({config.num_independent})"
        )
    return (
        f"the {config.kind} prompt gains nothing over frozen features on this data (training accuracy "
        f"{last:.3f}); try `kind: auto`, a larger image_size or another backbone"
    )


def _explain_collapse(history: Sequence[EpochReport], config: TuneConfig) -> str:
    lowest = min(history, key=lambda report: report.train_accuracy)
    what = (
        f"training collapsed: training accuracy fell to {lowest.train_accuracy:.3f} in epoch {lowest.epoch} "
        f"and ended at {history[-1].train_accuracy:.3f}"
    )
    rate = f"lower learning_rate ({config.learning_rate:g})"
    if config.warmup_epochs < _DEFAULTS.warmup_epochs:
        return (
            f"{what}, after a warm-up of warmup_epochs: {config.warmup_epochs}; set warmup_epochs to "
            f"{_DEFAULTS.warmup_epochs} (the default), or {rate}"
        )
    return f"{what}; {rate}"


def _explain_slowness(history: Sequence[EpochReport], config: TuneConfig) -> str:
    first, last, number = history[0].loss, history[-1].loss, len(history)
    if number > 1 and last >= first:
        return (
            f"the loss did not fall (from {first:.3g} to {last:.3g} in {number} epochs); lower "
            f"learning_rate ({config.learning_rate:g})"
        )
    before = history[max(0, number - 1 - max(1, number // 4))].loss
    if number == 1 or before - last > _STILL_FALLING * before:
        return (
            f"it ended while the loss still fell ({last:.3g}, training accuracy "
            f"{history[-1].train_accuracy:.3f} after {number} epochs); raise epochs"
        )
    return (
        f"the loss hardly fell (from {first:.3g} to {last:.3g} in {number} epochs); raise "
        f"learning_rate ({config.learning_rate:g})"
    )
