"""Warnings that follow from the metrics of a prompt."""

from collections.abc import Mapping

__all__ = ["find_warnings"]

# A tenth of the class token's attention went elsewhere.
_DISTURBED = 0.1
_MISCALIBRATED = 0.15
_MISSED_CLASS = 0.5
_FEW_HELD_OUT = 30


def find_warnings(metrics: Mapping[str, float]) -> list[str]:
    """Sentences, worst first; none for metrics that an older version did not measure.

    Args:
        metrics: Metrics of an artifact's card.
    """
    found = []
    accuracy, probe = metrics.get("accuracy"), metrics.get("probe_accuracy")
    distance, recall = metrics.get("attention_distance"), metrics.get("min_recall")
    error, num_test = metrics.get("calibration_error"), metrics.get("num_test")
    gains_nothing = accuracy is not None and probe is not None and accuracy <= probe
    if distance is not None and distance > _DISTURBED and gains_nothing:
        found.append(
            f"the adapter moves {distance:.0%} of the class token's attention and answers no better than the "
            f"linear probe ({accuracy:.3f}, probe {probe:.3f}): lower learning_rate, or of prompts raise "
            "gate_penalty"
        )
    if recall is not None and accuracy is not None and recall < _MISSED_CLASS <= accuracy:
        found.append(
            f"one class is found in only {recall:.0%} of its held-out images: see the confusion matrix"
        )
    if error is not None and error > _MISCALIBRATED:
        found.append(
            f"probabilities are off by {error:.2f} on average (expected calibration error): do not set "
            "thresholds on them"
        )
    if num_test is not None and num_test < _FEW_HELD_OUT:
        found.append(f"measured on {num_test:.0f} held-out images: too few for a claim")
    return found
