"""The best of a task's earlier champions on the same images, which a new version is compared with as well."""

from collections.abc import Iterable, Mapping

from orchestrator.registry.versions import CHAMPION, GATE_TAG, VersionInfo

__all__ = ["find_best_before"]


def find_best_before(
    versions: Iterable[VersionInfo], champion: VersionInfo, data: str | None, held_out: str | None = None
) -> VersionInfo | None:
    """The best version that the gate promoted on these images, if it was better than today's champion.

    What they were tuned with plays no part: were it only versions of the same data, a training image more
    would begin anew, and versions could get worse step by step.

    The best by balanced accuracy, which the gate tests: by accuracy, versions that find fewer and fewer
    defects would take the place of the one to compare with.

    Args:
        versions: Versions of the task.
        champion: Today's champion.
        data: Fingerprint of the data, by which versions that tell nothing else are found.
        held_out: Fingerprint of the held-out images, where it is known.
    """
    least = _share(champion.metrics)
    before = [
        info
        for info in versions
        if info.tags.get(GATE_TAG) == CHAMPION
        and (info.data_fingerprint == data or (held_out and info.held_out_fingerprint == held_out))
        and _share(info.metrics) > least
    ]
    return max(before, key=lambda info: _share(info.metrics), default=None)


def _share(metrics: Mapping[str, float]) -> float:
    """Balanced accuracy; accuracy of versions of before it was measured."""
    return metrics.get("balanced_accuracy", metrics.get("accuracy", 0.0))
