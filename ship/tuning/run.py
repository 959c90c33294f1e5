"""Tuning of one task, or of many at once, on the frozen backbone (paper: 3.4; docs/method.md, section 5).

The order of images depends on seed and epoch alone, and nothing else is drawn after the start: a run that is
resumed from a snapshot ends bit for bit where an uninterrupted one does (alone, on a CPU).
"""

from collections.abc import Callable, Sequence

from ship.backbone import Backbone
from ship.data import TaskData
from ship.errors import ConfigError
from ship.settings.config import TuneConfig
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.pack import Pack
from ship.tuning.state import EpochReport

__all__ = ["EpochReport", "PackTask", "TuneResult", "tune", "tune_pack"]


def tune(
    backbone: Backbone,
    data: TaskData,
    config: TuneConfig,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    resume: bytes | None = None,
    on_snapshot: Callable[[bytes], None] | None = None,
    snapshot_every: int = 10,
) -> TuneResult:
    """Tune one task.

    Args:
        backbone: The frozen network, in float32; it is not changed.
        data: Images and labels.
        config: Settings.
        on_epoch: Called after each epoch; an exception in it ends the tuning.
        resume: A snapshot of the same data, settings and backbone to go on from.
        on_snapshot: Called with a snapshot every ``snapshot_every`` epochs.
        snapshot_every: Epochs from one snapshot to the next.

    Raises:
        ConfigError: The settings do not fit the backbone or the data.
        TuningError: The loss is not finite.
        ArtifactError: The snapshot is damaged or of another tuning.
    """
    task = PackTask(
        data=data,
        config=config,
        on_epoch=on_epoch,
        resume=resume,
        on_snapshot=on_snapshot,
        snapshot_every=snapshot_every,
    )
    [outcome] = tune_pack(backbone, [task])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def tune_pack(
    backbone: Backbone,
    tasks: Sequence[PackTask],
    *,
    max_fused: int | None = None,
    memory_bytes: int | None = None,
) -> list[TuneResult | Exception]:
    """Tune many tasks, or many settings of one task, as many at a time as fit into memory.

    Where one ends, the next joins. Each comes out as it would alone, up to the rounding of batched
    arithmetic; an error of one is its own outcome.

    Args:
        backbone: The frozen network, in float32; it is not changed.
        tasks: Tasks to tune. Settings to be compared share one ``data`` and stand side by side.
        max_fused: Most tasks that may share a step; None for as many as fit and pay.
        memory_bytes: Memory that a step may take; None for all that is free on the device.

    Returns:
        For each task its result, or the exception that ended it.

    Raises:
        ConfigError: ``max_fused`` is less than 1.
    """
    if max_fused is not None and max_fused < 1:
        raise ConfigError(f"max_fused: expected a whole number from 1, got {max_fused}")
    pack = Pack(backbone, memory_bytes=memory_bytes)
    waiting = list(reversed(tasks))
    while waiting or len(pack):
        while waiting and len(pack) < (max_fused or len(tasks)) and pack.has_room_for(waiting[-1]):
            pack.add([waiting.pop()])
        pack.step()
    return [pack.outcomes[key] for key in range(len(tasks))]
