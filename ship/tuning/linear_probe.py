"""The linear probe: logistic regression on the frozen class token. The baseline that a prompt has to beat.

Shapes: N images, D width, C classes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["LinearProbe", "fit_linear_probe"]

_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
_NUM_FOLDS = 4


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A linear classifier on the final norm of the class token.

    Attributes:
        weight_CD: Weight for raw features; standardisation is folded in.
        bias_C: Bias for raw features.
        inverse_penalty: scikit-learn's ``C``, chosen by cross-validation on the training images.
    """

    weight_CD: Tensor
    bias_C: Tensor
    inverse_penalty: float

    def logits(self, features_ND: Tensor) -> Tensor:
        """Class scores ``N,C``."""
        return features_ND @ self.weight_CD.T + self.bias_C


def fit_linear_probe(features_ND: Tensor, labels_N: Tensor, seed: int = 0) -> LinearProbe:
    """Fit multinomial logistic regression on standardised features.

    The penalty is the one of least cross-validated log-loss; where a class has a single image there is
    nothing to validate on, and 0.1 is taken.

    Args:
        features_ND: Final norm of the bare backbone's class token.
        labels_N: 0..C-1, each present.
        seed: Seed of the folds.
    """
    # Takes seconds to import, and only a process that tunes needs it; below too.
    from sklearn.preprocessing import StandardScaler

    x_ND, y_N = features_ND.double().numpy(), labels_N.numpy()
    scaler = StandardScaler().fit(x_ND)
    x_ND = scaler.transform(x_ND)
    # One thread: sums in a fixed order, so that a seed repeats bit for bit.
    with threadpool_limits(limits=1):
        strength = _choose_strength(x_ND, y_N, seed)
        model = _fit(x_ND, y_N, strength)
    weight_CD, bias_C = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row: a sigmoid, which is this softmax
        weight_CD, bias_C = np.vstack([-weight_CD, weight_CD]) / 2, np.hstack([-bias_C, bias_C]) / 2
    weight_CD = weight_CD / scaler.scale_
    bias_C = bias_C - weight_CD @ scaler.mean_
    return LinearProbe(
        weight_CD=torch.from_numpy(weight_CD).float(),
        bias_C=torch.from_numpy(bias_C).float(),
        inverse_penalty=strength,
    )


def _fit(x_ND: np.ndarray, y_N: np.ndarray, strength: float) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000, tol=1e-5).fit(x_ND, y_N)


def _choose_strength(x_ND: np.ndarray, y_N: np.ndarray, seed: int) -> float:
    num_folds = min(_NUM_FOLDS, int(np.bincount(y_N).min()))
    if num_folds < 2:
        return 0.1
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    losses = dict.fromkeys(_STRENGTHS, 0.0)
    for train, held_out in folds.split(x_ND, y_N):
        for strength in _STRENGTHS:
            log_probs = _fit(x_ND[train], y_N[train], strength).predict_log_proba(x_ND[held_out])
            losses[strength] -= float(log_probs[np.arange(len(held_out)), y_N[held_out]].sum())
    return min(losses, key=lambda strength: losses[strength])
