"""A pack: tasks that are tuned side by side, each step in one pass over the one backbone.

The tasks share the forward pass and nothing else. Each has its own optimizer, schedule, seed and end; a loss
that is not finite, or an exception in a callback, ends the task that it belongs to. Optimizers step only
after their group's gradients are there, one after another, and each takes its whole step or none. So where
memory runs out, the tasks that have not stepped are as they were, and they alone are tried again, in smaller
groups. Whether a task is tuned in a pack or alone, it takes the same steps, up to the rounding of batched
arithmetic.
"""

import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ship.backbone import Backbone, as_rows
from ship.method.model import ForwardOutput, forward_pack
from ship.precision import compute_dtype
from ship.tuning.member import DeviceImages, Member, PackTask, TuneResult
from ship.tuning.memory import is_out_of_memory, step_bytes, usable_bytes
from ship.tuning.preparation import Features, extract_features

if TYPE_CHECKING:
    from ship.data import TaskData

__all__ = ["Pack"]

# A CPU is busy with fewer already; with more it was slower, for such large tensors it asks the system for
# fresh memory each time (docs/log.md).
_ENOUGH_CPU_IMAGES = 256


class Pack:
    """Tasks under way on one backbone.

    Args:
        backbone: The frozen network, in float32; it is not changed.
        tasks: To start with.
        memory_bytes: Memory that a step may take; None for all that is free on the device now.
        forward: Forward pass, see ``ship.method.model.forward_pack``.
    """

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[PackTask] = (),
        *,
        memory_bytes: int | None = None,
        forward: Callable[..., list[ForwardOutput]] = forward_pack,
    ) -> None:
        self._backbone = backbone
        self._forward = forward
        self._networks = {backbone.dtype: backbone}
        self._memory_bytes = usable_bytes(backbone.device) if memory_bytes is None else memory_bytes
        self._members: dict[int, Member] = {}
        self._images: weakref.WeakValueDictionary[TaskData, DeviceImages] = weakref.WeakValueDictionary()
        # Of the last data that joined since the last step.
        self._features: dict[TaskData, Features] = {}
        self._num_added = 0
        self.outcomes: dict[int, TuneResult | Exception] = {}
        self.add(tasks)

    def __len__(self) -> int:
        """Tasks under way."""
        return len(self._members)

    @property
    def memory_bytes(self) -> int:
        """Memory that one group's step may take, by estimate; halved when that was too much."""
        return self._memory_bytes

    def has_room_for(self, task: PackTask) -> bool:
        """Whether this task should join: memory is expected to suffice, and a CPU has too little to do."""
        if not self._members:
            return True
        num_images = sum(member.batch_size * member.task.data.num_tiles for member in self._members.values())
        if self._backbone.device.type == "cpu" and num_images >= _ENOUGH_CPU_IMAGES:
            return False
        taken = sum(member.step_bytes for member in self._members.values())
        dtype = compute_dtype(task.config.precision, self._backbone.device)
        needed = step_bytes(
            self._backbone.info, task.config, len(task.data.train), dtype, task.data.num_tiles
        )
        if task.data not in self._images:
            needed += self._device_bytes(task.data.train.images_B3HW)
        return taken + needed <= self._room_bytes()

    def add(self, tasks: Sequence[PackTask]) -> list[int]:
        """Prepare tasks and let them join; an error of one is its outcome.

        Candidates of one task, which share their ``data``, share one pass of the bare backbone if they join
        one after another.

        Returns:
            For each task the key of its outcome.
        """
        keys = []
        for task in tasks:
            key = self._num_added
            self._num_added += 1
            keys.append(key)
            with self._failing_alone(key):
                self._join(key, task)
        return keys

    def step(self) -> None:
        """One optimizer step of every task under way; those that end have an outcome afterwards."""
        self._features = {}
        clock_s, members, waiting = time.monotonic(), dict(self._members), dict(self._members)
        while waiting:
            group = self._next_group(waiting)
            error = self._try(group, waiting)
            if error is not None:
                self._give_way(group, error)
                waiting = {key: member for key, member in waiting.items() if key in self._members}
        for member in members.values():
            member.spend((time.monotonic() - clock_s) / len(members))
        for key, member in members.items():
            if key in self._members:
                with self._failing_alone(key):
                    self._end_epoch(key, member)

    def _join(self, key: int, task: PackTask) -> None:
        clock_s = time.monotonic()
        images = self._images.get(task.data)
        if images is None:
            train, device = task.data.train, self._backbone.device
            images = DeviceImages(
                images_B3HW=train.images_B3HW.to(device), labels_B=train.labels_B.to(device)
            )
            self._images[task.data] = images
        if task.resume is None and task.data not in self._features:
            self._features = {task.data: extract_features(self._backbone, task.data)}
        member = Member(self._backbone, task, images, self._features.get(task.data))
        member.spend(time.monotonic() - clock_s)
        if member.is_done:
            self.outcomes[key] = member.result()
        else:
            self._members[key] = member

    def _end_epoch(self, key: int, member: Member) -> None:
        clock_s = time.monotonic()
        member.end_epoch_if_due()
        member.spend(time.monotonic() - clock_s)
        if member.is_done:
            self.outcomes[key] = member.result()
            del self._members[key]

    def _next_group(self, waiting: dict[int, Member]) -> dict[int, Member]:
        """The first task that waits, and others of its dtype for as long as memory allows."""
        group: dict[int, Member] = {}
        room = self._room_bytes()
        dtype = next(iter(waiting.values())).dtype
        for key, member in waiting.items():
            if member.dtype == dtype and (not group or member.step_bytes <= room):
                group[key] = member
                room -= member.step_bytes
        return group

    def _try(self, group: dict[int, Member], waiting: dict[int, Member]) -> Exception | None:
        """Step a group, each of which leaves ``waiting`` once it has stepped; the error if memory ran out."""
        try:
            for key in self._step_group(group):
                del waiting[key]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # They hold the activations that there is no room for.
            traceback.clear_frames(error.__traceback__)
            return error
        return None

    def _step_group(self, tasks: dict[int, Member]) -> Iterator[int]:
        """Keys of the tasks, each as soon as it has stepped."""
        group = list(tasks.values())
        network = self._network(group[0].dtype)
        batches = [member.batch() for member in group]
        rows = [as_rows(batch.images_B3HW) for batch in batches]
        sizes = [len(images_B3HW) for images_B3HW in rows]
        images_BCHW = network.normalise(torch.cat(rows))
        prompts = [member.prompt for member in group]
        outputs = self._forward(network, prompts, images_BCHW, sizes, with_matching=True)
        losses = [member.loss(output) for member, output in zip(group, outputs, strict=True)]
        # No parameter is in two losses, so the gradient of the sum is each one's own.
        torch.stack(losses).sum().backward()
        for key, member, output, loss in zip(tasks, group, outputs, losses, strict=True):
            member.apply(output, loss)
            yield key

    def _give_way(self, group: dict[int, Member], error: Exception) -> None:
        """Halve what a group may take; a task that does not fit alone fails."""
        if len(group) == 1:
            [key] = group
            self._end_with(key, error)
        else:
            taken = sum(member.step_bytes for member in group.values())
            self._memory_bytes -= self._room_bytes() - taken // 2
        if self._backbone.device.type == "cuda":
            torch.cuda.empty_cache()

    def _network(self, dtype: torch.dtype) -> Backbone:
        if dtype not in self._networks:
            self._networks[dtype] = self._backbone.cast(dtype)
        return self._networks[dtype]

    def _room_bytes(self) -> int:
        """Memory for steps: all but that of the images."""
        held = sum(self._device_bytes(images.images_B3HW) for images in self._images.values())
        return self._memory_bytes - held

    def _device_bytes(self, images_B3HW: Tensor) -> int:
        """Memory of images on the device; on a CPU they are in memory already."""
        return 0 if self._backbone.device.type == "cpu" else images_B3HW.nbytes

    @contextmanager
    def _failing_alone(self, key: int) -> Iterator[None]:
        """An exception is this task's outcome."""
        try:
            yield
        except Exception as error:  # callbacks raise what they like
            self._end_with(key, error)

    def _end_with(self, key: int, error: Exception) -> None:
        self.outcomes[key] = error
        self._members.pop(key, None)
