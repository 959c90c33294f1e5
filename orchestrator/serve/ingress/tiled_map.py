"""Attention maps of a picture's tiles, laid back over the region of the picture that they show.

Shapes: T tiles, Y,X patches of a tile, G,K rows and columns of cells: a cell is a patch's share of a region
that is cut into tiles without an overlap.
"""

import numpy as np
from numpy.typing import NDArray

from ship.settings.view import View

__all__ = ["Map", "lay_back"]

Map = NDArray[np.floating]


def lay_back(maps_TYX: Map, view: View, size: tuple[int, int], input_size: tuple[int, int]) -> Map:
    """One map ``G,K`` of the region, which sums to 1.

    A cell has the mean of the patches that show its centre, in all tiles that do; 0 where none does.

    Args:
        maps_TYX: Share of attention of each patch.
        view: View by which the picture was seen.
        size: Width and height of the picture.
        input_size: Height and width of the backbone's input.
    """
    if len(maps_TYX) == 1 and view.fit == "squash":
        whole_YX: Map = maps_TYX[0]
        return whole_YX
    left, top, right, bottom = view.region(size)
    (rows, columns), (num_y, num_x) = view.grid, maps_TYX.shape[1:]
    x_K, y_G = _centres(left, right, columns * num_x), _centres(top, bottom, rows * num_y)
    sum_GK, count_GK = np.zeros((len(y_G), len(x_K))), np.zeros((len(y_G), len(x_K)))
    for map_YX, tile in zip(maps_TYX, view.tiles_of(size, input_size), strict=True):
        in_x, patch_x = _find_patches(x_K, tile.source[::2], tile.target[::2], input_size[1], num_x)
        in_y, patch_y = _find_patches(y_G, tile.source[1::2], tile.target[1::2], input_size[0], num_y)
        sum_GK[np.ix_(in_y, in_x)] += map_YX[np.ix_(patch_y, patch_x)]
        count_GK[np.ix_(in_y, in_x)] += 1.0
    mean_GK = sum_GK / np.maximum(count_GK, 1.0)
    return mean_GK / (mean_GK.sum() or 1.0)


def _centres(start: int, stop: int, number: int) -> Map:
    centres: Map = start + (np.arange(number) + 0.5) * (stop - start) / number
    return centres


def _find_patches(
    centres: Map, source: tuple[int, ...], target: tuple[int, ...], input_side: int, num_patches: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cells along one side that a tile shows, and the patch that shows each."""
    cells = np.flatnonzero((centres >= source[0]) & (centres < source[1]))
    scale = (target[1] - target[0]) / (source[1] - source[0])
    in_input = target[0] + (centres[cells] - source[0]) * scale
    patches = np.minimum(in_input * num_patches / input_side, num_patches - 1)
    return cells, patches.astype(np.intp)
