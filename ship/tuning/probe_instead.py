"""Choice between a tuned prompt and its own linear probe: where the probe is better, it is the result.

Both answered the same held-out images, so the test is a paired one. The probe is an adapter like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ship.evaluation.paired import Difference, compare_paired
from ship.settings.config import TuneConfig
from ship.tuning.diagnosis import find_cause

if TYPE_CHECKING:
    from ship.data import TaskData
    from ship.tuning.member import TuneResult
    from ship.tuning.state import EpochReport

__all__ = ["InsteadOf", "take_the_better"]


@dataclass(frozen=True, kw_only=True)
class InsteadOf:
    """A tuned prompt whose place its linear probe took.

    Attributes:
        settings: Its settings.
        accuracy: Its held-out accuracy.
        balanced_accuracy: Its mean recall of the classes.
        p_worse: Chance of a balanced accuracy that far below the probe's, if it were no worse (paired,
            one-sided).
        gained: Held-out images that it alone gets right.
        lost: Held-out images that the probe alone gets right.
        cause: Likely cause, and what to do about it.
        history: Its reports, one an epoch.
    """

    settings: dict[str, Any]
    accuracy: float
    balanced_accuracy: float
    p_worse: float
    gained: int
    lost: int
    cause: str
    history: "list[EpochReport]"

    @property
    def reason(self) -> str:
        """Why the probe serves, in sentences."""
        difference = Difference(p_worse=self.p_worse, gained=self.gained, lost=self.lost)
        return (
            f"The linear probe takes the place of the tuned {self.settings['kind']} prompt, whose balanced "
            f"accuracy {self.balanced_accuracy:.4f} (accuracy {self.accuracy:.4f}) is significantly lower on "
            f"the same held-out images ({difference}): {self.cause}. Chosen on the images that it was "
            "measured on, the probe's accuracy is a little too high: by 0.011 to 0.019 at most."
        )


def take_the_better(
    result: "TuneResult", data: "TaskData", tune_again: Callable[[TuneConfig], "TuneResult"]
) -> "TuneResult":
    """The tuned prompt; or its linear probe, where the prompt is significantly worse on the held-out images.

    Args:
        result: Result of the tuning.
        data: Images and labels that it was tuned with.
        tune_again: Tunes the same data with other settings: those of the probe, which takes no step.

    Raises:
        ShipError: The probe could not be made.
    """
    config, preparation = result.prompt.config, result.preparation
    labels, right = data.held_out.labels_B.tolist(), result.evaluation.right
    # Snapshots of earlier versions do not tell which images the probe got right.
    if config.kind == "probe" or len(preparation.probe_right) != len(right) or not labels:
        return result
    difference = compare_paired(labels, right, preparation.probe_right)
    if not difference.is_worse:
        return result
    assert difference.gained is not None, "the images are known"
    assert difference.lost is not None, "the images are known"
    probe = tune_again(replace(config, kind="probe", start="gated"))
    return replace(
        probe,
        tuning_s=probe.tuning_s + result.tuning_s,
        instead_of=InsteadOf(
            settings=config.to_dict(),
            accuracy=result.evaluation.accuracy,
            balanced_accuracy=result.evaluation.balanced_accuracy,
            p_worse=difference.p_worse,
            gained=difference.gained,
            lost=difference.lost,
            cause=find_cause(
                result.history,
                config,
                accuracy=result.evaluation.accuracy,
                probe_accuracy=preparation.probe_accuracy,
            ),
            history=result.history,
        ),
    )
