"""The distance tells pictures that are like no training image, and is small and strict in an artifact."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ship.decision.distance import DistanceModel
from ship.errors import ArtifactError

WIDTH = 48


def draw_features(num: int, seed: int, num_classes: int = 3, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Classes that vary much along half of the axes, and hardly along the others, as real features do."""
    generator = torch.Generator().manual_seed(seed)
    labels_B = torch.arange(num) % num_classes
    means_CD = torch.randn(num_classes, width, generator=torch.Generator().manual_seed(99)) * 2
    scale_D = torch.where(torch.arange(width) < width // 2, 3.0, 0.1)
    return means_CD[labels_B] + torch.randn(num, width, generator=generator) * scale_D, labels_B


def test_training_images_are_near_and_others_are_far() -> None:
    model = DistanceModel.fit(*draw_features(300, seed=0))
    fresh_BD, _ = draw_features(300, seed=1)
    near_B = model.distances(fresh_BD)
    assert 0.5 < float(near_B.mean()) < 1.1
    # Half a unit along the axes of little variance; along the others that would be nothing.
    strange_BD = fresh_BD.clone()
    strange_BD[:, WIDTH // 2 :] += 0.5
    assert float(model.distances(strange_BD).min()) > float(near_B.max())


def test_it_is_the_mahalanobis_distance_where_all_directions_are_kept() -> None:
    features_BD, labels_B = draw_features(2000, seed=0, num_classes=2, width=8)
    model = DistanceModel.fit(features_BD, labels_B)
    centred_BD = features_BD.double().clone()
    means = [features_BD[labels_B == place].double().mean(dim=0) for place in (0, 1)]
    for place in (0, 1):
        centred_BD[labels_B == place] -= means[place]
    covariance_DD = centred_BD.T @ centred_BD / 1998
    shrunk_DD = 0.99 * covariance_DD + 0.01 * covariance_DD.diagonal().mean() * torch.eye(8)
    gaps = [features_BD.double() - mean_D for mean_D in means]
    squares = [((gap_BD @ shrunk_DD.inverse()) * gap_BD).sum(dim=1) for gap_BD in gaps]
    wanted_B = (torch.stack(squares).amin(dim=0) / 8).sqrt()
    # float16 has 11 bits.
    torch.testing.assert_close(model.distances(features_BD).double(), wanted_B, rtol=3e-3, atol=3e-3)


def test_one_picture_has_the_distance_that_it_has_among_others() -> None:
    model = DistanceModel.fit(*draw_features(100, seed=0))
    fresh_BD, _ = draw_features(40, seed=1)
    alone = [model.distance(feature_D) for feature_D in fresh_BD]
    torch.testing.assert_close(torch.tensor(alone), model.distances(fresh_BD), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_hardly_any_images_give_finite_distances(num: int) -> None:
    features_BD, labels_B = draw_features(num, seed=0)
    model = DistanceModel.fit(features_BD, labels_B)
    distances_B = model.distances(torch.cat([features_BD, features_BD + 50.0]))
    assert bool(distances_B.isfinite().all())
    assert float(distances_B[num:].min()) > float(distances_B[:num].max())


def test_features_that_do_not_vary_give_finite_distances() -> None:
    model = DistanceModel.fit(torch.ones(20, WIDTH), torch.zeros(20, dtype=torch.int64))
    assert model.distance(torch.ones(WIDTH)) == pytest.approx(0.0, abs=1e-3)
    assert 1.0 < model.distance(torch.full((WIDTH,), 2.0)) < 1e6


def test_it_comes_back_from_its_tensors_and_is_small() -> None:
    model = DistanceModel.fit(*draw_features(100, seed=0, width=128))
    tensors = model.to_tensors()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) < 9000
    again = DistanceModel.from_tensors(tensors, num_classes=3, width=128)
    fresh_BD, _ = draw_features(10, seed=1, width=128)
    assert torch.equal(model.distances(fresh_BD), again.distances(fresh_BD))


HOSTILE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "another tensor": (lambda t: t.update({"distance.run": torch.zeros(1)}), "unknown tensor 'distance.run'"),
    "no means": (lambda t: t.pop("distance.means"), "missing tensor 'distance.means'"),
    "another type": (
        lambda t: t.update({"distance.directions": t["distance.directions"].float()}),
        "directions: expected torch.float16",
    ),
    "another width": (
        lambda t: t.update({"distance.directions": t["distance.directions"][:, :-1]}),
        "directions: expected",
    ),
    "a number": (lambda t: t.update({"distance.directions": torch.tensor(1.0)}), "directions: expected"),
    "no directions": (
        lambda t: t.update({name: tensor[..., :0] for name, tensor in t.items()}),
        "directions: expected",
    ),
    "more means than classes": (
        lambda t: t.update({"distance.means": t["distance.means"].repeat(2, 1)}),
        "means: expected",
    ),
    "means of other directions": (
        lambda t: t.update({"distance.means": t["distance.means"][:, :-1]}),
        "means: expected",
    ),
    "NaN": (lambda t: t["distance.means"].fill_(torch.nan), "means: holds NaN or infinity"),
    "infinity": (lambda t: t["distance.directions"].fill_(torch.inf), "directions: holds NaN"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_tensors_that_are_no_distance_are_refused(name: str) -> None:
    tensors = DistanceModel.fit(*draw_features(60, seed=0)).to_tensors()
    tamper, what = HOSTILE[name]
    tamper(tensors)
    with pytest.raises(ArtifactError, match=what):
        DistanceModel.from_tensors(tensors, num_classes=3, width=WIDTH)
