"""Quality checks of the tasks' data (``ship check``).

Every image is read once. A finding is a warning, or a failure if it exceeds its limit. Nothing is written.
"""

import difflib
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.manifest.model import DataLimits, Manifest, TaskEntry
from orchestrator.planning.unmeasured import describe_unmeasured
from ship.backbone import load_backbone
from ship.data import ImageFacts, Inspection, find_near_duplicates, inspect_data
from ship.errors import BackboneError, DataError, group_alike
from ship.evaluation.accuracy import wilson_interval
from ship.settings.view import MAX_PIXELS, Fit, View

__all__ = ["Finding", "TaskCheck", "check_task", "check_tasks", "find_label_typos"]

_DARK, _BRIGHT, _FLAT = 0.06, 0.97, 0.01
# Share of the median sharpness of the task's images: a lens out of focus takes nine tenths of the detail.
_BLURRED = 0.1
_ODD_PROPORTION = 1.25
_IMBALANCED = 10.0
_FEW_A_CLASS = 5
_FEW_HELD_OUT = 30
_LIKE = 0.9
_NUM_EXAMPLES = 5
_FITTED: dict[Fit, str] = {"squash": "squashed", "pad": "padded", "crop": "cut"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of fault of a task's data.

    Attributes:
        kind: Name of its limit, ``layout``, ``passed_over``, ``shrunk`` or ``unmeasured``.
        failed: Whether it exceeds its limit.
        message: Description with numbers.
        examples: Up to five images or labels.
    """

    kind: str
    failed: bool
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskCheck:
    """Result of checking one task.

    Attributes:
        task: Task name.
        num_train: Training images.
        num_held_out: Images that the result is measured on.
        num_classes: C.
        findings: Findings, failures first.
    """

    task: str
    num_train: int
    num_held_out: int
    num_classes: int
    findings: tuple[Finding, ...]

    @property
    def has_failed(self) -> bool:
        """Whether a limit was exceeded."""
        return any(finding.failed for finding in self.findings)

    @property
    def failures(self) -> tuple[str, ...]:
        """Kind and message of each failure."""
        return tuple(f"{finding.kind}: {finding.message}" for finding in self.findings if finding.failed)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "failed": self.has_failed}


def check_tasks(
    manifest: Manifest,
    on_progress: Callable[[str, int, int], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[TaskCheck]:
    """Check every task of a manifest, in its order.

    Args:
        manifest: Tasks and limits.
        on_progress: Called in this thread with a task's name, and its images done and in all.
        max_pixels: Pictures with more pixels than this cannot be read.
    """
    input_size = _find_input_size(manifest)
    return [
        check_task(entry, manifest.limits, on_progress, input_size, max_pixels) for entry in manifest.tasks
    ]


def check_task(
    entry: TaskEntry,
    limits: DataLimits,
    on_progress: Callable[[str, int, int], None] | None = None,
    input_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> TaskCheck:
    """Check one task. Data that cannot be listed is a failure, not an error.

    Args:
        entry: The task.
        limits: Limits on its data.
        on_progress: Called in this thread with the task's name, and its images done and in all.
        input_size: Height and width of the backbone's input; None does not check what shrinking costs.
        max_pixels: Pictures with more pixels than this cannot be read.
    """

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(entry.name, done, total)

    try:
        found = inspect_data(entry.source, bits=entry.view.bits, max_pixels=max_pixels, on_progress=report)
    except DataError as error:
        problems = group_alike(error.problems)
        failures = tuple(Finding(kind="layout", failed=True, message=problem) for problem in problems)
        return TaskCheck(task=entry.name, num_train=0, num_held_out=0, num_classes=0, findings=failures)
    return TaskCheck(
        task=entry.name,
        num_train=found.listing.num_of_split["train"],
        num_held_out=_num_held_out(found),
        num_classes=len(found.listing.labels),
        findings=_find_all(found, limits, entry.view, input_size),
    )


def _find_all(
    found: Inspection, limits: DataLimits, view: View, input_size: tuple[int, int] | None
) -> tuple[Finding, ...]:
    """Findings about a data set, failures first."""
    findings = [
        *_find_unreadable(found, limits),
        *_find_copies(found, limits),
        *_find_bad_pictures(found, limits, view.fit),
        *_find_shrinking(found, view, input_size),
        *_find_shortages(found, limits),
        *_find_few_held_out(found, limits),
        *_find_unmeasured(found),
        *_find_typos(found, limits),
        *_find_passed_over(found),
    ]
    return tuple(sorted(findings, key=lambda finding: not finding.failed))


def find_label_typos(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of labels that differ by case, separators, Unicode form or a letter only, and not by a number."""
    names = sorted(labels)
    pairs = []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            one, two = (unicodedata.normalize("NFKC", name).casefold() for name in (first, second))
            if re.findall(r"\d+", one) != re.findall(r"\d+", two):
                continue
            plain, other = (re.sub(r"[\W_]+", "", name) for name in (one, two))
            if plain == other or (
                min(len(plain), len(other)) >= 5
                and difflib.SequenceMatcher(None, plain, other, autojunk=False).ratio() >= _LIKE
            ):
                pairs.append((first, second))
    return pairs


def _find_unreadable(found: Inspection, limits: DataLimits) -> list[Finding]:
    reasons = [f"{path}: {reason}" for path, reason in found.unreadable.items()]
    return _share_finding("corrupt", reasons, len(found.listing.items), limits, "cannot be read")


def _find_copies(found: Inspection, limits: DataLimits) -> list[Finding]:
    """Copies within and across splits, in one class and in two."""
    groups: dict[str, list[ImageFacts]] = defaultdict(list)
    for image in found.images:
        groups[image.digest].append(image)
    leaked, contradictory, repeated = [], [], []
    for group in groups.values():
        trained = [image for image in group if image.item.split == "train"]
        held_out = [image for image in group if image.item.split != "train"]
        if trained:
            leaked += [f"{image.item.path} = {trained[0].item.path}" for image in held_out]
        if len({image.item.label for image in group}) > 1:
            contradictory += [f"{image.item.path} ({image.item.label})" for image in group]
        for split in (trained, held_out):
            repeated += [f"{image.item.path} = {split[0].item.path}" for image in split[1:]]
    near = {}
    for first, second in ((found.images[a], found.images[b]) for a, b in find_near_duplicates(found.images)):
        if (first.item.split == "train") != (second.item.split == "train"):
            tested, trained_on = (second, first) if first.item.split == "train" else (first, second)
            near[tested.item.path] = f"{tested.item.path} ~ {trained_on.item.path}"
    num_all = len(found.images)
    num_held_out = sum(image.item.split != "train" for image in found.images)
    return [
        *_share_finding("leaked", leaked, num_held_out, limits, "held out and trained on, pixel for pixel"),
        *_share_finding("contradictory", contradictory, num_all, limits, "in two classes"),
        *_share_finding("duplicates", repeated, num_all, limits, "copies of another image in the same split"),
        *_share_finding(
            "near_duplicates", list(near.values()), num_held_out, limits, "held out, and nearly trained on"
        ),
    ]


def _find_input_size(manifest: Manifest) -> tuple[int, int] | None:
    """Height and width of the backbone's input; None if it cannot be loaded, as the plan will tell."""
    try:
        return load_backbone(manifest.backbone, image_size=manifest.image_size, pretrained=False).image_size
    except BackboneError:
        return None


def _find_shrinking(found: Inspection, view: View, input_size: tuple[int, int] | None) -> list[Finding]:
    if input_size is None or not found.images:
        return []
    message = view.find_shrinking([image.size for image in found.images], input_size)
    return [] if message is None else [Finding(kind="shrunk", failed=False, message=message)]


def _find_bad_pictures(found: Inspection, limits: DataLimits, fit: Fit) -> list[Finding]:
    images = found.images
    if not images:
        return []
    flat = [image for image in images if image.contrast < _FLAT]
    dark = [image for image in images if image.brightness < _DARK or image.brightness > _BRIGHT]
    typical_sharpness = statistics.median(image.sharpness for image in images)
    blurred = [
        image
        for image in images
        if image.contrast >= _FLAT and image.sharpness < _BLURRED * typical_sharpness
    ]
    typical_proportion = statistics.median(image.size[0] / image.size[1] for image in images)
    odd = [image for image in images if _is_odd(image.size, typical_proportion)]
    return [
        *_share_finding("dark", _paths(dark), len(images), limits, "almost black or almost white"),
        *_share_finding("flat", _paths(flat), len(images), limits, "one even tone"),
        *_share_finding("blurred", _paths(blurred), len(images), limits, "far less sharp than the others"),
        *_share_finding(
            "odd_sized",
            [f"{image.item.path} ({image.size[0]} x {image.size[1]})" for image in odd],
            len(images),
            limits,
            f"with proportions unlike the usual {typical_proportion:.2f}; they will be {_FITTED[fit]}",
        ),
    ]


def _find_shortages(found: Inspection, limits: DataLimits) -> list[Finding]:
    """Classes that are too small or out of balance."""
    counts = Counter(item.label for item in found.listing.items if item.split == "train")
    smallest, largest = min(counts.values()), max(counts.values())
    ratio = largest / smallest
    rarest = sorted(counts.items(), key=lambda pair: pair[1])[:_NUM_EXAMPLES]
    examples = tuple(f"{label} ({count})" for label, count in rarest)
    findings = []
    if smallest < max(_FEW_A_CLASS, limits.images_a_class):
        failed = smallest < limits.images_a_class
        message = f"the smallest class has {smallest} training images"
        findings.append(Finding(kind="images_a_class", failed=failed, message=message, examples=examples))
    if ratio > min(_IMBALANCED, limits.imbalance):
        failed = ratio > limits.imbalance
        message = f"the largest class has {ratio:.1f} times the training images of the smallest"
        findings.append(Finding(kind="imbalance", failed=failed, message=message, examples=examples))
    return findings


def _find_few_held_out(found: Inspection, limits: DataLimits) -> list[Finding]:
    num_held_out = _num_held_out(found)
    if num_held_out >= max(_FEW_HELD_OUT, limits.held_out):
        return []
    low, high = wilson_interval(round(0.9 * num_held_out), num_held_out)
    message = (
        f"{num_held_out} images to measure on: an accuracy of 0.9 could be anything from {low:.2f} to "
        f"{high:.2f}"
    )
    return [Finding(kind="held_out", failed=num_held_out < limits.held_out, message=message)]


def _find_unmeasured(found: Inspection) -> list[Finding]:
    classes, num_classes = found.listing.unmeasured, len(found.listing.labels)
    if not classes:
        return []
    message = describe_unmeasured(classes, num_classes)
    return [Finding(kind="unmeasured", failed=False, message=message, examples=classes[:_NUM_EXAMPLES])]


def _find_typos(found: Inspection, limits: DataLimits) -> list[Finding]:
    typos = find_label_typos(found.listing.labels)
    if not typos:
        return []
    return [
        Finding(
            kind="label_typos",
            failed=len(typos) > limits.label_typos,
            message="classes that may be one, spelt in two ways",
            examples=tuple(f"{first!r} and {second!r}" for first, second in typos[:_NUM_EXAMPLES]),
        )
    ]


def _find_passed_over(found: Inspection) -> list[Finding]:
    return [
        Finding(
            kind="passed_over",
            failed=False,
            message=f"left out beside the pictures: {entry.count} {entry.kind}",
            examples=entry.examples,
        )
        for entry in found.listing.passed_over
    ]


def _num_held_out(found: Inspection) -> int:
    sizes = found.listing.num_of_split
    return sizes["test"] or sizes["val"]


def _is_odd(size: tuple[int, int], typical_proportion: float) -> bool:
    proportion = size[0] / size[1] / typical_proportion
    return not 1 / _ODD_PROPORTION <= proportion <= _ODD_PROPORTION


def _paths(images: Sequence[ImageFacts]) -> list[str]:
    return [image.item.path for image in images]


def _share_finding(
    kind: str, found: Sequence[str], num_all: int, limits: DataLimits, what: str
) -> list[Finding]:
    if not found:
        return []
    limit = getattr(limits, kind)
    message = f"{len(found)} of {num_all} images: {what}"
    return [
        Finding(
            kind=kind,
            failed=len(found) > limit * num_all,
            message=message,
            examples=tuple(found[:_NUM_EXAMPLES]),
        )
    ]
