"""The distance of a picture from a task's training images, by which one is found that is like none of them.

Mahalanobis distance of the picture's feature to the nearest class mean, under a covariance that the classes
share (K. Lee et al., NeurIPS 2018), here its diagonal. The feature is the final-normed class token of the
pass that also gives the scores, so that it costs no second one; of tiles it is the mean.

Shapes: B images, C classes that have training images, D width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.errors import ArtifactError

__all__ = ["DistanceModel"]

_MEANS, _SCALE = "distance.means", "distance.scale"
# Of the mean scale: a feature that never varied in training must not make any picture infinitely far.
_LEAST_SCALE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class DistanceModel:
    """Class means and the scale of the features within a class.

    Attributes:
        means_CD: float16, one row for each class that has training images.
        scale_D: float16, standard deviation within a class.
    """

    means_CD: Tensor
    scale_D: Tensor

    @classmethod
    def fit(cls, features_BD: Tensor, labels_B: Tensor) -> "DistanceModel":
        """The model of some training images.

        Args:
            features_BD: Their features, finite.
            labels_B: Their classes, of any numbers.
        """
        features_BD = features_BD.double()
        classes_C, class_B = labels_B.unique(return_inverse=True)
        sums_CD = torch.zeros(len(classes_C), features_BD.shape[1], dtype=torch.float64)
        means_CD = sums_CD.index_add_(0, class_B, features_BD) / class_B.bincount().unsqueeze(1)
        freedom = max(1, len(features_BD) - len(classes_C))
        scale_D = ((features_BD - means_CD[class_B]).square().sum(dim=0) / freedom).sqrt()
        scale_D = scale_D.clamp_min(max(_LEAST_SCALE * float(scale_D.mean()), 1e-3))
        return cls(means_CD=means_CD.half(), scale_D=scale_D.half())

    def distances(self, features_BD: Tensor) -> Tensor:
        """Distance of each picture to the nearest class mean, float32 ``B``; 1 is usual within a class."""
        scale_D = self.scale_D.float()
        gaps_BC: Tensor = torch.cdist(
            features_BD.float() / scale_D,
            self.means_CD.float() / scale_D,
            # By a matrix product, small distances of large features are rounded away.
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        nearest_B: Tensor = gaps_BC.amin(dim=1)
        return nearest_B / math.sqrt(scale_D.numel())

    def distance(self, feature_D: Tensor) -> float:
        """Distance of one picture; see ``distances``."""
        return float(self.distances(feature_D.unsqueeze(0))[0])

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in an artifact."""
        return {_MEANS: self.means_CD, _SCALE: self.scale_D}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, num_classes: int, width: int) -> "DistanceModel":
        """The model of ``to_tensors``.

        Args:
            tensors: By name.
            num_classes: Classes of the task, at most as many have a mean.
            width: Width of the backbone.

        Raises:
            ArtifactError: Lists all that is not as expected.
        """
        problems = [f"unknown tensor {key!r}" for key in sorted(set(tensors) - {_MEANS, _SCALE})]
        problems += [f"missing tensor {key!r}" for key in (_MEANS, _SCALE) if key not in tensors]
        if not problems:
            problems = _find_problems(tensors[_MEANS], tensors[_SCALE], num_classes, width)
        if problems:
            raise ArtifactError([f"prompt.safetensors: {problem}" for problem in problems])
        return cls(means_CD=tensors[_MEANS].clone(), scale_D=tensors[_SCALE].clone())


def _find_problems(means_CD: Tensor, scale_D: Tensor, num_classes: int, width: int) -> list[str]:
    problems = []
    for name, tensor, fits, expected in (
        (
            _MEANS,
            means_CD,
            means_CD.ndim == 2 and means_CD.shape[1] == width and 1 <= means_CD.shape[0] <= num_classes,
            f"(1 to {num_classes}, {width})",
        ),
        (_SCALE, scale_D, tuple(scale_D.shape) == (width,), f"({width},)"),
    ):
        if not fits or tensor.dtype != torch.float16:
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            problems.append(f"{name}: expected torch.float16 {expected}, found {found}")
        elif not bool(tensor.isfinite().all()):
            problems.append(f"{name}: holds NaN or infinity")
    if not problems and not bool((scale_D > 0).all()):
        problems.append(f"{_SCALE}: expected numbers above 0")
    return problems
