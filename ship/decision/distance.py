"""The distance of a picture from a task's training images, by which one is found that is like none of them.

Mahalanobis distance of the picture's feature to the nearest class mean, under a covariance that the classes
share (K. Lee et al., NeurIPS 2018), in the directions in which the training images vary least: there any
other picture stands out, and a few of them tell nearly as much as all (docs/method.md, section 9). The
feature is the final-normed class token of the pass that also gives the scores, so that it costs no second
one; of tiles it is the mean.

Shapes: B images, C classes that have training images, D width, R directions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.errors import ArtifactError

__all__ = ["DistanceModel"]

_MEANS, _DIRECTIONS = "distance.means", "distance.directions"
_NUM_DIRECTIONS = 32
# Share of the mean variance in every direction's: of few images, many directions seem to vary not at all.
_SHRINKAGE = 0.01
# Where there is nothing to learn a variance from, such as of one image a class.
_LEAST_VARIANCE = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class DistanceModel:
    """Directions of least variance, and where the classes lie along them.

    Attributes:
        directions_RD: float16, each divided by the standard deviation along it within a class.
        means_CR: float32, one row for each class that has training images.
    """

    directions_RD: Tensor
    means_CR: Tensor

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
        within_BD = features_BD - means_CD[class_B]
        covariance_DD = within_BD.T @ within_BD / max(1, len(features_BD) - len(classes_C))
        variance = max(float(covariance_DD.diagonal().mean()), _LEAST_VARIANCE)
        variances_D, axes_DD = torch.linalg.eigh(covariance_DD)
        variances_D = (1.0 - _SHRINKAGE) * variances_D.clamp_min(0.0) + _SHRINKAGE * variance
        directions_RD = (axes_DD / variances_D.sqrt()).T[:_NUM_DIRECTIONS].half()
        means_CR = means_CD @ directions_RD.double().T
        return cls(directions_RD=directions_RD.contiguous(), means_CR=means_CR.float())

    def distances(self, features_BD: Tensor) -> Tensor:
        """Distance of each picture to the nearest class mean, float32 ``B``; in training about 1."""
        places_BR = features_BD.float() @ self.directions_RD.float().T
        # By a matrix product, small distances of large numbers would be rounded away.
        distances_BC: Tensor = torch.cdist(
            places_BR, self.means_CR, compute_mode="donot_use_mm_for_euclid_dist"
        )
        nearest_B: Tensor = distances_BC.amin(dim=1)
        return nearest_B / math.sqrt(len(self.directions_RD))

    def distance(self, feature_D: Tensor) -> float:
        """Distance of one picture; see ``distances``. Takes a third of the time of a batch of one."""
        places_R = torch.mv(self.directions_RD.float(), feature_D.float())
        square = float((self.means_CR - places_R).square().sum(dim=1).amin())
        return math.sqrt(square / len(self.directions_RD))

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in an artifact."""
        return {_DIRECTIONS: self.directions_RD, _MEANS: self.means_CR}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, num_classes: int, width: int) -> "DistanceModel":
        """The model of ``to_tensors``.

        Args:
            tensors: By name.
            num_classes: Classes of the task, of which at most each has a mean.
            width: Width of the backbone.

        Raises:
            ArtifactError: Lists all that is not as expected.
        """
        names = {_DIRECTIONS, _MEANS}
        problems = [f"unknown tensor {key!r}" for key in sorted(set(tensors) - names)]
        problems += [f"missing tensor {key!r}" for key in sorted(names - set(tensors))]
        if not problems:
            directions_RD, means_CR = tensors[_DIRECTIONS], tensors[_MEANS]
            num = len(directions_RD) if directions_RD.ndim else 0
            problems = [
                *_find_problems(_DIRECTIONS, directions_RD, torch.float16, (width, width)),
                *_find_problems(_MEANS, means_CR, torch.float32, (num_classes, num)),
            ]
        if problems:
            raise ArtifactError([f"prompt.safetensors: {problem}" for problem in problems])
        # Copies: what was read shares the file's memory.
        return cls(directions_RD=tensors[_DIRECTIONS].clone(), means_CR=tensors[_MEANS].clone())


def _find_problems(name: str, tensor: Tensor, dtype: torch.dtype, most: tuple[int, int]) -> list[str]:
    """A matrix of at most so many rows, and of exactly so many columns, all finite."""
    fits = tensor.ndim == 2 and 1 <= tensor.shape[0] <= most[0] and tensor.shape[1] == most[1]
    if not fits or tensor.dtype != dtype:
        expected = f"{dtype} (1 to {most[0]}, {most[1]})"
        return [f"{name}: expected {expected}, found {tensor.dtype} {tuple(tensor.shape)}"]
    return [] if bool(tensor.isfinite().all()) else [f"{name}: holds NaN or infinity"]
