"""Is the frozen backbone worth anything? Linear probe and nearest neighbours, against the same ViT untrained.

Owns how features are taken and scored. Nothing is chosen by test accuracy.

Shapes: B images, H and W pixels, D width, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from ship.pretrain.probe_tasks import TASKS, Images, ProbeTask
from ship.vit import VisionTransformer

__all__ = ["ProbeResult", "extract_features", "format_table", "probe_backbone", "score"]


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Accuracies of one task, averaged over seeds of the split."""

    task: str
    num_train: int
    num_test: int
    linear: float
    linear_untrained: float
    knn: float
    knn_untrained: float


def extract_features(vit: VisionTransformer, images_BHW: Images) -> npt.NDArray[np.float32]:
    """CLS after the final norm ``(B,D)``, images resized bicubic to what the network takes."""
    x_B1HW = torch.from_numpy(images_BHW)[:, None]
    size = vit.patch_embed.img_size
    x_B1HW = functional.interpolate(x_B1HW, size, mode="bicubic", antialias=True).clamp(0, 1)
    with torch.inference_mode():
        parts = [
            vit.forward_features(((x - 0.5) / 0.5).expand(-1, 3, -1, -1))[:, 0] for x in x_B1HW.split(128)
        ]
    features_BD: npt.NDArray[np.float32] = torch.cat(parts).float().numpy()
    return features_BD


def score(vit: VisionTransformer, task: ProbeTask) -> tuple[float, float]:
    """Test accuracy of a linear probe and of 5 nearest neighbours on standardised, frozen features.

    The probe's C is chosen by cross-validation inside the training images.
    """
    scaler = StandardScaler()
    train_BD = scaler.fit_transform(extract_features(vit, task.train_BHW))
    test_BD = scaler.transform(extract_features(vit, task.test_BHW))
    linear = GridSearchCV(LogisticRegression(max_iter=2000, tol=1e-3), {"C": [1e-3, 1e-2, 1e-1, 1.0]}, cv=3)
    linear.fit(train_BD, task.train_labels_B)
    neighbours = KNeighborsClassifier(5).fit(train_BD, task.train_labels_B)
    return (
        float(linear.score(test_BD, task.test_labels_B)),
        float(neighbours.score(test_BD, task.test_labels_B)),
    )


def probe_backbone(
    trained: VisionTransformer, untrained: VisionTransformer, seeds: Sequence[int], tasks: Sequence[str]
) -> list[ProbeResult]:
    """Probe both networks on the same splits, one for each seed."""
    results = []
    for name in tasks:
        problems = [TASKS[name](seed) for seed in seeds]
        trained_S2, untrained_S2 = ([score(vit, task) for task in problems] for vit in (trained, untrained))
        results.append(
            ProbeResult(
                task=name,
                num_train=len(problems[0].train_BHW),
                num_test=len(problems[0].test_BHW),
                linear=_mean(trained_S2, 0),
                linear_untrained=_mean(untrained_S2, 0),
                knn=_mean(trained_S2, 1),
                knn_untrained=_mean(untrained_S2, 1),
            )
        )
    return results


def format_table(results: Sequence[ProbeResult]) -> str:
    """A table for terminals, one task a line."""
    lines = [f"{'task':24}{'train':>6}{'test':>6}{'linear':>9}{'untrained':>11}{'5-NN':>8}{'untrained':>11}"]
    lines += [
        f"{row.task:24}{row.num_train:6}{row.num_test:6}{row.linear:9.3f}{row.linear_untrained:11.3f}"
        f"{row.knn:8.3f}{row.knn_untrained:11.3f}"
        for row in results
    ]
    return "\n".join(lines)


def _mean(scores: Sequence[tuple[float, float]], column: int) -> float:
    return round(sum(pair[column] for pair in scores) / len(scores), 4)
