"""Attention of tiles, laid back over the region that they show."""

import numpy as np

from orchestrator.serve.ingress.tiled_map import lay_back
from ship.settings.view import View

INPUT = (4, 4)


def test_a_whole_picture_keeps_its_map() -> None:
    map_YX = np.arange(4.0).reshape(2, 2) / 6
    np.testing.assert_array_equal(lay_back(map_YX[None], View(), (30, 20), INPUT), map_YX)


def test_tiles_without_overlap_lie_side_by_side() -> None:
    maps_TYX = np.arange(16.0).reshape(4, 2, 2) / 120
    found = lay_back(maps_TYX, View(tiles="2x2", tile_overlap=0.0), (40, 40), INPUT)
    first, second, third, fourth = maps_TYX
    np.testing.assert_allclose(found, np.block([[first, second], [third, fourth]]))


def test_where_tiles_overlap_their_mean_counts() -> None:
    # Tiles of 40 pixels, each patch 20 wide; they share 20 of 60: the middle patch of three.
    maps_TYX = np.array([[[0.1, 0.2]], [[0.4, 0.3]]])
    found = lay_back(maps_TYX, View(tiles="1x2", tile_overlap=0.5), (60, 10), INPUT)
    # Four cells, whose centres are at 7.5, 22.5, 37.5 and 52.5.
    np.testing.assert_allclose(found, np.array([[0.1, 0.3, 0.3, 0.3]]) / 1.0)


def test_padding_has_no_place_in_the_picture() -> None:
    # A picture twice as wide as high takes the two middle rows of four.
    map_YX = np.arange(16.0).reshape(4, 4) / 120
    found = lay_back(map_YX[None], View(fit="pad"), (40, 20), INPUT)
    rows = map_YX[[1, 1, 2, 2]]
    np.testing.assert_allclose(found, rows / rows.sum())


def test_what_was_cut_off_was_not_looked_at() -> None:
    map_YX = np.full((4, 4), 1 / 16)
    found = lay_back(map_YX[None], View(fit="crop"), (40, 20), INPUT)
    np.testing.assert_allclose(found, np.tile([0.0, 1 / 8, 1 / 8, 0.0], (4, 1)))
