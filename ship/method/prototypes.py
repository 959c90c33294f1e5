"""Prototypes: centres of the training images' features (paper: section 3.2).

Attribute prompts mix them, so they belong to the artifact: without them a prompt cannot be served.
"""

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

__all__ = ["find_prototypes"]


def find_prototypes(features_ND: Tensor, num_prototypes: int, seed: int) -> Tensor:
    """k-means centres of the images' last-layer class tokens.

    Args:
        features_ND: Class tokens after the last block, before the final norm.
        num_prototypes: R, at most. Where there are no more distinct features than that, they are the centres.
        seed: Seed of k-means++.

    Returns:
        ``prototypes_RD``, float32.
    """
    if num_prototypes == 0:
        return features_ND.new_zeros(0, features_ND.shape[1])
    points_ND = np.unique(features_ND.double().numpy(), axis=0)
    if len(points_ND) <= num_prototypes:
        return torch.from_numpy(points_ND).float()
    # Takes seconds to import, and only a process that tunes needs it.
    from sklearn.cluster import KMeans

    # One thread: sums in a fixed order, so that a seed repeats bit for bit.
    with threadpool_limits(limits=1):
        means = KMeans(n_clusters=num_prototypes, n_init=1, random_state=seed).fit(points_ND)
    return torch.from_numpy(means.cluster_centers_).float()
