"""Pictures of clusters, looked at pixel by pixel."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tomotwin_core.clustering.averaging import Averaged
from tomotwin_core.clustering.pictures import _COLUMNS, _GAP, _ROWS, _TILE, gallery
from tomotwin_core.clustering.proposals import Alike, Proposal


def test_a_gallery_shows_the_average_from_three_sides_and_each_member_in_its_place(tmp_path: Path) -> None:
    average = spot(7, 11, 3)  # z, y, x
    spots = [(3 + k, 11 - k) for k in range(9)]  # y, x
    boxes = np.array([spot(7, y, x) for y, x in spots])
    proposal = Proposal(
        "cluster_01", "species", "", 0.9, 9, {"t": 9}, 1.0, 0.9, 120.0, (Alike("1abc", 0.8),), tuple(range(9)), (0,)
    )
    gallery(Averaged(average, boxes, 16.0, 0.5), proposal, tmp_path / "one.png")
    picture = imread(tmp_path / "one.png")[..., 0]
    tiles = [tile(picture, number) for number in range(_COLUMNS * _ROWS)]
    assert brightest(tiles[0]) == (11, 3)
    assert brightest(tiles[1]) == (7, 3) and brightest(tiles[2]) == (7, 11)  # the flank of it, on xz and yz
    for found, (y, x) in zip(tiles[3:12], spots, strict=True):
        assert brightest(found) == (y, x)
    assert all((left == 1).all() for left in tiles[12:])  # white: no more members
    assert (picture[: 2 * _GAP] < 0.5).any()  # the title


def spot(z: int, y: int, x: int) -> NDArray:
    volume = np.zeros((15, 15, 15))
    volume[z, y, x] = 1.0
    return np.asarray(gaussian_filter(volume, 1.5))


def tile(picture: NDArray, number: int) -> NDArray:
    """The pixels of one, the first row at the bottom as y grows upwards."""
    row, column = divmod(number, _COLUMNS)
    bottom, left = _GAP + (_ROWS - 1 - row) * (_TILE + _GAP), _GAP + column * (_TILE + _GAP)
    return picture[::-1][bottom : bottom + _TILE, left : left + _TILE]


def brightest(pixels: NDArray) -> tuple[int, int]:
    """Which voxel of the box it is in."""
    y, x = np.argwhere(pixels == pixels.max()).mean(0) * 14 / (_TILE - 1)  # the brightest are all white
    return round(float(y)), round(float(x))
