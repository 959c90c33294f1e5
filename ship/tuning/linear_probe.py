"""The linear probe: logistic regression on frozen features. The baseline that a prompt has to beat.

Shapes: N images, F features, C classes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ship.errors import TuningError
from ship.tuning.balance import Balance

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["LinearProbe", "feature_scales", "fit_linear_probe"]

_STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
_NUM_FOLDS = 4


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A linear classifier on the features of a head.

    Attributes:
        weight_CF: Weight for raw features; standardisation is folded in.
        bias_C: Bias for raw features.
        mean_F: Mean of the training features.
        scale_F: Standard deviation of the training features; 1 where they do not differ.
        inverse_penalty: scikit-learn's ``C``, chosen by cross-validation on the training images.
    """

    weight_CF: Tensor
    bias_C: Tensor
    mean_F: Tensor
    scale_F: Tensor
    inverse_penalty: float

    def logits(self, features_NF: Tensor) -> Tensor:
        """Class scores ``N,C``."""
        return features_NF @ self.weight_CF.T + self.bias_C


def fit_linear_probe(
    features_NF: Tensor,
    labels_N: Tensor,
    *,
    num_classes: int,
    balance: Balance,
    seed: int = 0,
    inverse_penalty: float | None = None,
) -> LinearProbe:
    """Fit multinomial logistic regression on standardised features.

    The penalty is the one of least cross-validated log-loss; where a class has a single image there is
    nothing to validate on, and 0.1 is taken. A class without images gets the score of half an image.

    Args:
        features_NF: Features of the bare backbone.
        labels_N: 0..C-1.
        num_classes: C.
        balance: Remedy for unequal class counts.
        seed: Seed of the folds.
        inverse_penalty: A penalty that is known, instead of the cross-validation.

    Raises:
        TuningError: A feature is not finite.
    """
    mean_F, scale_F = feature_scales(features_NF)
    x_NF, y_N = ((features_NF.double() - mean_F) / scale_F).numpy(), labels_N.numpy()
    if not np.isfinite(x_NF).all():
        raise TuningError("the backbone's features of some training image are not finite; check its weights")
    weights_N = None if balance.weight_C is None else balance.weight_C.double().cpu().numpy()[y_N]
    strength = 0.1 if inverse_penalty is None else inverse_penalty
    weight_CF, bias_C = np.zeros((num_classes, x_NF.shape[1])), np.full(num_classes, math.log(0.5 / len(y_N)))
    present = np.unique(y_N)
    if len(present) > 1:
        # One thread: sums in a fixed order, so that a seed repeats bit for bit.
        with threadpool_limits(limits=1):
            z_NJ, basis_JF = _span(x_NF)
            if inverse_penalty is None:
                strength = _choose_strength(z_NJ, y_N, weights_N, seed)
            model = _make_model(strength).fit(z_NJ, y_N, weights_N)
        rows, biases = model.coef_ @ basis_JF, model.intercept_
        if len(present) == 2:  # scikit-learn keeps one row: a sigmoid, which is this softmax
            rows, biases = np.vstack([-rows, rows]) / 2, np.hstack([-biases, biases]) / 2
        weight_CF[present], bias_C[present] = rows, biases
    else:
        bias_C[present] = 0.0
    weight_CF = weight_CF / scale_F.numpy()
    bias_C = bias_C - weight_CF @ mean_F.numpy()
    return LinearProbe(
        weight_CF=torch.from_numpy(weight_CF).float(),
        bias_C=torch.from_numpy(bias_C).float() - balance.log_prior_C.cpu(),
        mean_F=mean_F.float(),
        scale_F=scale_F.float(),
        inverse_penalty=strength,
    )


def feature_scales(features_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, float64; 1 for one that does not differ."""
    features_NF = features_NF.double()
    mean_F, scale_F = features_NF.mean(dim=0), features_NF.std(dim=0, correction=0)
    return mean_F, torch.where(scale_F > 1e-6 * (1.0 + mean_F.abs()), scale_F, 1.0)


def _span(x_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images in an orthonormal basis ``J,F`` of their span: J is at most N, and the fit is the same.

    A squared penalty leaves nothing of the weight outside of that span.
    """
    if len(x_NF) >= x_NF.shape[1]:
        return x_NF, np.eye(x_NF.shape[1])
    left_NJ, sizes_J, basis_JF = np.linalg.svd(x_NF, full_matrices=False)
    return left_NJ * sizes_J, basis_JF


def _make_model(strength: float) -> "LogisticRegression":
    # Takes seconds to import, and only a process that tunes needs it.
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000, tol=1e-5, warm_start=True)


def _choose_strength(x_NJ: np.ndarray, y_N: np.ndarray, weights_N: np.ndarray | None, seed: int) -> float:
    counts = np.bincount(y_N)
    num_folds = min(_NUM_FOLDS, int(counts[counts > 0].min()))
    if num_folds < 2:
        return 0.1
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    place_C = np.cumsum(counts > 0) - 1
    losses = dict.fromkeys(_STRENGTHS, 0.0)
    for train, held_out in folds.split(x_NJ, y_N):
        part_N = None if weights_N is None else weights_N[train]
        cost_N = 1.0 if weights_N is None else weights_N[held_out]
        # From the strongest penalty on, each fit goes on from the one before.
        model = _make_model(_STRENGTHS[0])
        for strength in _STRENGTHS:
            model.set_params(C=strength).fit(x_NJ[train], y_N[train], part_N)
            logits_NC = model.decision_function(x_NJ[held_out])
            if logits_NC.ndim == 1:
                logits_NC = np.stack([-logits_NC / 2, logits_NC / 2], axis=1)
            log_probs_NC = torch.from_numpy(logits_NC).log_softmax(dim=1).numpy()
            found_N = log_probs_NC[np.arange(len(held_out)), place_C[y_N[held_out]]]
            losses[strength] -= float((cost_N * found_N).sum())
    return min(losses, key=lambda strength: losses[strength])
