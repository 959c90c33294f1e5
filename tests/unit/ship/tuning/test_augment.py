"""Random changes of training images: which they are, and that a seed repeats them."""

import pytest
import torch
from torch import Tensor

from ship.tuning.augment import augment

MODES = ("flips", "rotations", "light")


def make_images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(60, 200, shape, generator=generator, dtype=torch.uint8)


def symmetries(image: Tensor) -> list[Tensor]:
    flips = [image, image.flip(-1), image.flip(-2), image.flip(-1).flip(-2)]
    return flips + [flip.transpose(-1, -2) for flip in flips]


@pytest.mark.parametrize("shape", [(64, 3, 8, 8), (64, 4, 3, 8, 8)], ids=str)
@pytest.mark.parametrize(("mode", "number"), [("flips", 4), ("rotations", 8)])
def test_every_symmetry_comes_up_and_nothing_else(mode: str, number: int, shape: tuple[int, ...]) -> None:
    images = make_images(*shape)
    seen = set()
    for image, changed in zip(images, augment(images, mode, 0, 1, 0), strict=True):
        # Tiles of one picture change alike.
        [found] = [i for i, candidate in enumerate(symmetries(image)) if torch.equal(candidate, changed)]
        seen.add(found)
    assert seen == set(range(number))


@pytest.mark.parametrize("mode", MODES)
def test_seed_epoch_and_step_alone_decide(mode: str) -> None:
    images = make_images(16, 3, 8, 8)
    first = augment(images, mode, 1, 2, 3)
    assert torch.equal(first, augment(images, mode, 1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(first, augment(images, mode, *other))
    assert torch.equal(augment(images, "none", 1, 2, 3), images)


def test_pictures_that_are_not_square_are_not_turned() -> None:
    assert augment(make_images(8, 3, 6, 10), "rotations", 0, 1, 0).shape == (8, 3, 6, 10)


def test_tone_stays_within_bounds() -> None:
    images = torch.full((32, 3, 8, 8), 128, dtype=torch.uint8)
    changed = augment(images, "light", 0, 1, 0)
    assert changed.dtype == torch.uint8
    # Grey in the middle moves by brightness alone: at most 15% of the range.
    assert 128 - 39 <= int(changed.min()) < int(changed.max()) <= 128 + 39
    assert len({int(image[0, 0, 0]) for image in changed}) > 10


@pytest.mark.parametrize("seed", [184_500_000, 1_234_567_890, 2**31 - 1])
def test_every_seed_that_is_allowed_can_be_drawn_by(seed: int) -> None:
    images = make_images(8, 3, 8, 8)
    once, again = (augment(images, "flips", seed, 100, 7) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, images)
