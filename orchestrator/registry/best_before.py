"""The best of a task's earlier champions on the same data, which a new version is compared with as well."""

from collections.abc import Iterable, Mapping

from orchestrator.registry.versions import CHAMPION, GATE_TAG, VersionInfo

__all__ = ["find_best_before"]


def find_best_before(
    versions: Iterable[VersionInfo], champion: VersionInfo, data: str | None
) -> VersionInfo | None:
    """The best version that the gate promoted on these data, if it was better than today's champion.

    The best by balanced accuracy, which the gate tests: by accuracy, versions that find fewer and fewer
    defects would take the place of the one to compare with.

    Args:
        versions: Versions of the task.
        champion: Today's champion.
        data: Fingerprint of the data.
    """
    least = _share(champion.metrics)
    before = [
        info
        for info in versions
        if info.tags.get(GATE_TAG) == CHAMPION
        and info.data_fingerprint == data
        and _share(info.metrics) > least
    ]
    return max(before, key=lambda info: _share(info.metrics), default=None)


def _share(metrics: Mapping[str, float]) -> float:
    """Balanced accuracy; accuracy of versions of before it was measured."""
    return metrics.get("balanced_accuracy", metrics.get("accuracy", 0.0))
