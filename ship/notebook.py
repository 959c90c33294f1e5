"""The face of the library for notebooks: tune a task, save it, load it, ask it.

Shapes: B images, C classes.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ship import artifact, tuning
from ship.artifact.files import insert_verified
from ship.artifact.measuring import answer_rows
from ship.backbone import BUNDLED, Backbone, load_backbone
from ship.data import DataSource, TaskData, load_task_data
from ship.decision.distance import DistanceModel
from ship.decision.fitting import FittedDecision, fit_decision
from ship.decision.rule import DecisionRule
from ship.errors import BackboneError, DataError, ImageError, ShipError
from ship.images import ImageLike, read_image
from ship.method.prompts import Prompt
from ship.runtime import Runtime
from ship.runtime.runtime import RowOutput
from ship.runtime.slots import Slot
from ship.settings.config import TuneConfig, count_epochs
from ship.settings.presets import Preset, choose_settings
from ship.settings.search_config import AUTO, SearchConfig
from ship.settings.view import DEFAULT_VIEW, View, read_max_pixels
from ship.tuning.probe_instead import InsteadOf, take_the_better
from ship.tuning.search import SearchResult, SearchStep
from ship.tuning.search import search as find_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Model", "Prediction", "TunedTask", "load", "tune"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer about one image.

    Attributes:
        label: The likeliest class.
        probability: Calibrated probability of that class.
        probabilities: Calibrated probability of every class by label, the likeliest first; they sum to 1.
        decision: The label to act on by the task's decision rule, or ``unsure``.
        because: Reason of an ``unsure``, see ``ship.decision.rule.Decision``.
        distance: Distance from the training images; None where the artifact cannot tell it.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    decision: str
    because: str | None = None
    distance: float | None = None

    def __repr__(self) -> str:
        """Decision, label and probability."""
        because = f" ({self.because})" if self.because else ""
        return f"Prediction({self.label!r}, {self.probability:.4f}, decision {self.decision!r}{because})"


class Model:
    """A tuned prompt on its backbone, ready to answer.

    Args:
        runtime: Runtime that holds the prompt.
        slot: The prompt.
        labels: Class names, in the order of the scores.
        view: Part of each image that is looked at, and its tiles.
        rule: Rule that makes a decision of the scores; may be replaced.
        distance: Distance from the training images, if it is known.
    """

    def __init__(
        self,
        runtime: Runtime,
        slot: Slot,
        labels: tuple[str, ...],
        view: View = DEFAULT_VIEW,
        *,
        rule: DecisionRule | None = None,
        distance: DistanceModel | None = None,
    ) -> None:
        self.labels, self.view, self.rule = labels, view, rule or DecisionRule()
        self._runtime, self._slot, self._distance = runtime, slot, distance

    def __repr__(self) -> str:
        """Classes and backbone."""
        return f"Model({len(self.labels)} classes, on {self.backbone!r})"

    @property
    def backbone(self) -> Backbone:
        """The frozen network; further models may share it."""
        return self._runtime.backbone

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[Prediction]:
        """Classify images: one, or several of any kind in one call.

        Args:
            images: Paths, bytes of image files, PIL images, or arrays as ``ship.images.read_image`` takes
                them. They are prepared as in tuning and in serving.

        Raises:
            ImageError: There is no image, or some cannot be read; lists all of these.
        """
        return [self._answer(row) for row in answer_rows(self._runtime, self._slot, self._read(images))]

    def _read(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        size, interpolation = self.backbone.image_size, self.backbone.interpolation
        limit = read_max_pixels(os.environ)
        read = partial(read_image, size=size, interpolation=interpolation, max_pixels=limit, view=self.view)
        tensors, problems = [], []
        for number, image in enumerate(_listed(images)):
            try:
                tensors.append(read(image))
            except ImageError as error:
                problems.append(f"image {number}: {error}")
        if problems or not tensors:
            raise ImageError(problems or "no image was given: expected at least one", "unsupported")
        return torch.stack(tensors)

    def _answer(self, row: RowOutput) -> Prediction:
        distance = None if self._distance is None else self._distance.distance(row.feature_D)
        decision = self.rule.decide(self.labels, row.logits_C.tolist(), distance)
        pairs = zip(self.labels, decision.probabilities, strict=True)
        ranked = dict(sorted(pairs, key=lambda pair: -pair[1]))
        label, probability = next(iter(ranked.items()))
        return Prediction(
            label=label,
            probability=probability,
            probabilities=ranked,
            decision=decision.label,
            because=decision.because,
            distance=distance,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedTask:
    """A task that was tuned.

    Attributes:
        backbone: The frozen network.
        data: Images and labels.
        result: Prompt, history, and the evaluation on the held-out images.
        search: Comparisons that its settings were chosen by.
    """

    backbone: Backbone
    data: TaskData
    result: tuning.TuneResult
    search: SearchResult

    def __repr__(self) -> str:
        """Data and result."""
        return f"TunedTask({self.data!r}, {self.result!r})"

    @property
    def instead_of(self) -> InsteadOf | None:
        """The tuned prompt that gave way to the linear probe; None if none did."""
        return self.result.instead_of

    @cached_property
    def fitted(self) -> FittedDecision:
        """Decision rule and distance, by a pass over the training images that is made once."""
        result = self.result
        return fit_decision(
            self.backbone, result.prompt, self.data, result.outputs, balanced_scores=result.balanced_scores
        )

    def model(self) -> Model:
        """The tuned prompt, ready to answer."""
        prompt, data = self.result.prompt, self.data
        runtime = _small_runtime(self.backbone, prompt)
        return Model(
            runtime,
            runtime.insert(prompt),
            data.labels,
            data.view,
            rule=self.fitted.rule,
            distance=self.fitted.distance,
        )

    def save(self, folder: str | os.PathLike[str], *, thumbnails: bool = True) -> str:
        """Write the artifact into a folder, whose name is the task's; returns the artifact's digest.

        Args:
            folder: The folder.
            thumbnails: Whether small pictures of mistakes are kept among the held-out answers.

        Raises:
            ArtifactError: The folder's name cannot be a task's.
        """
        name = Path(folder).resolve().name
        files = artifact.make_artifact(
            name,
            self.backbone,
            self.data,
            self.result,
            self.search,
            fitted=self.fitted,
            thumbnails=thumbnails,
        )
        artifact.load_files(files)
        return artifact.save(folder, files)

    def plot(self) -> "Figure":
        """A figure of affinity and levels, learning curve and confusion matrix.

        Raises:
            ShipError: matplotlib is not installed.
        """
        try:
            from ship.plot import plot_tuning
        except ModuleNotFoundError as error:
            raise ShipError("plot() needs matplotlib: pip install 'ship-prompts[plot]'") from error
        return plot_tuning(self.result, self.data.labels)


def tune(
    data: str | os.PathLike[str] | DataSource | TaskData,
    backbone: str | Backbone = BUNDLED,
    *,
    image_size: int | None = None,
    view: View | Mapping[str, Any] = DEFAULT_VIEW,
    device: str | torch.device | None = None,
    progress: bool = True,
    preset: Preset | None = None,
    search: SearchConfig | None = None,
    **settings: Any,
) -> TunedTask:
    """Tune one task. A prompt that is significantly worse than its own linear probe gives way to the probe.

    Args:
        data: A folder or file, a source with settings of format and splits, or loaded images.
        backbone: A name or path for ``ship.backbone.load_backbone``, or a loaded backbone.
        image_size: Height and width of the input of a backbone that is loaded here; None for its own.
        view: Region of interest, tiles and fit of the pictures, such as ``{"tiles": "2x2"}``; of loaded
            images, their own.
        device: Device for the backbone; None for a GPU if there is one.
        progress: Whether to show progress bars.
        preset: ``quick``, ``balanced`` or ``best``: settings by the size of the data.
        search: Values to choose among by validation, instead of the preset's.
        **settings: Of ``ship.settings.config.TuneConfig``, such as ``epochs``; ``kind``, ``head`` and
            ``augment`` may be ``auto``.

    Raises:
        ConfigError: A setting is unknown, out of range, or does not fit the backbone or the data.
        BackboneError: The backbone is unknown, cannot be read, or is not supported.
        DataError: The data cannot be used; lists every problem.
        TuningError: The loss is not finite.
    """
    auto = {name for name in AUTO if settings.get(name) == "auto"}
    config = TuneConfig.from_dict({name: value for name, value in settings.items() if name not in auto})
    wanted = view if isinstance(view, View) else View.from_dict(view)
    network = _find_backbone(backbone, device, image_size)
    loaded = _load_data(data, network, wanted, progress)
    config, search = choose_settings(
        config,
        preset=preset,
        search=search,
        pinned=set(settings) - auto,
        auto=auto,
        num_train=len(loaded.train),
        num_classes=len(loaded.labels),
    )
    found = _find_settings(network, loaded, config, search, progress)
    # `patience` needs validation images to the end; else they are trained on once they have chosen.
    loaded = loaded if config.patience else loaded.merged()
    result = take_the_better(
        _tune(network, loaded, found.config, progress),
        loaded,
        lambda config: _tune(network, loaded, config, progress=False),
    )
    return TunedTask(backbone=network, data=loaded, result=result, search=found)


def _find_settings(
    backbone: Backbone, data: TaskData, config: TuneConfig, search: SearchConfig | None, progress: bool
) -> SearchResult:
    with tqdm(desc="comparing", unit="epoch", disable=not progress) as bar:

        def show(step: SearchStep) -> None:
            bar.total = step.num_epochs
            if step.is_new_round:
                bar.set_postfix(round=f"{step.round}/{step.num_rounds}", candidates=step.num_candidates)
            bar.update(step.epoch - bar.n)

        return find_settings(backbone, data, config, search, on_epoch=show)


def _tune(backbone: Backbone, data: TaskData, config: TuneConfig, progress: bool) -> tuning.TuneResult:
    num_epochs = 1 if config.kind == "probe" else count_epochs(config, len(data.train))
    with tqdm(total=num_epochs, desc="tuning", unit="epoch", disable=not progress) as bar:

        def show(report: tuning.EpochReport) -> None:
            bar.set_postfix(loss=f"{report.loss:.3f}", train_accuracy=f"{report.train_accuracy:.3f}")
            bar.update()

        return tuning.tune(backbone, data, config, on_epoch=show)


def load(
    folder: str | os.PathLike[str],
    backbone: str | Backbone | None = None,
    *,
    device: str | torch.device | None = None,
) -> Model:
    """Load an artifact, and check that it answers as when it was tuned.

    Args:
        folder: Folder that it was saved in.
        backbone: The one it was tuned on; None for the one that the artifact names.
        device: Device for the backbone; None for a GPU if there is one.

    Raises:
        ArtifactError: It is damaged, or belongs to another backbone.
        BackboneError: The backbone is unknown or cannot be read.
    """
    loaded = artifact.load(folder)
    named = loaded.card.backbone["name"]
    height, width = loaded.card.backbone["image_size"]
    try:
        network = _find_backbone(
            named if backbone is None else backbone, device, height if height == width else None
        )
    except BackboneError as error:
        if backbone is not None:
            raise
        raise BackboneError(
            f"{error}\nthe artifact names its backbone {named!r}; pass it as `backbone`"
        ) from error
    runtime = _small_runtime(network, loaded.prompt)
    card = loaded.card
    slot = insert_verified(runtime, loaded)
    return Model(runtime, slot, card.labels, card.view, rule=card.decision, distance=loaded.distance)


def _listed(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    if isinstance(images, np.ndarray):
        return images if images.ndim == 4 else [images]
    return [images] if isinstance(images, (str, bytes, os.PathLike, Image.Image)) else images


def _find_backbone(
    backbone: str | Backbone, device: str | torch.device | None, image_size: int | None
) -> Backbone:
    if isinstance(backbone, Backbone):
        return backbone
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return load_backbone(backbone, chosen, image_size=image_size)


def _load_data(
    data: str | os.PathLike[str] | DataSource | TaskData, backbone: Backbone, view: View, progress: bool
) -> TaskData:
    if isinstance(data, TaskData):
        if (found := data.train.images_B3HW.shape[-2:]) != backbone.image_size:
            raise DataError(
                f"images of {tuple(found)} pixels: backbone {backbone.name!r} expects {backbone.image_size}"
            )
        return data
    source = data if isinstance(data, DataSource) else DataSource(path=os.fspath(data))
    with tqdm(desc="loading", unit="image", disable=not progress) as bar:

        def show(num_done: int, num_all: int) -> None:
            bar.total = num_all
            bar.update(num_done - bar.n)

        return load_task_data(
            source,
            image_size=backbone.image_size,
            interpolation=backbone.interpolation,
            view=view,
            max_pixels=read_max_pixels(os.environ),
            on_progress=show,
        )


def _small_runtime(backbone: Backbone, prompt: Prompt) -> Runtime:
    """A runtime with room for one prompt, and for the padding's row."""
    num_static = prompt.independent.shape[1] + prompt.shared.shape[0]
    width = prompt.prototypes.shape[1]
    num_values = sum(value.numel() for value in prompt.state_dict().values())
    num_values += (2 * prompt.depth * num_static + 1) * width
    return Runtime(backbone, capacity_bytes=4 * num_values)
