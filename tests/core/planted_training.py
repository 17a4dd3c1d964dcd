"""What the training's tests plant: mini-tomograms with known particles, and a source of them that costs nothing."""

from collections.abc import Iterator

import numpy as np

from tomotwin_core.model import NetworkSettings
from tomotwin_core.training.sources import Pair
from tomotwin_core.training.stream import MiniTomogram

SHAPE = (40, 60, 70)
TINY = NetworkSettings(widths=(3, 4, 5, 6, 8), head=8)


def planted(n: int = 12, seed: int = 0, gold: int = 0) -> MiniTomogram:
    """A volume whose value names its voxel, so that a window tells where it was cut; particles at random places."""
    rng = np.random.default_rng(seed)
    volume = 1 + np.arange(np.prod(SHAPE)).reshape(SHAPE)
    # A window fits about all places but the outermost 10 voxels to the sides, and 2 above and below.
    xyz = rng.uniform((12, 12, 4), np.array(SHAPE[::-1]) - (13, 13, 5), (n + gold, 3))
    label = np.concatenate([rng.integers(0, 4, n), np.full(gold, -1)])
    return MiniTomogram(volume.astype(np.float64), xyz, label, np.full(n + gold, 120.0))


class PlantedSource:
    """Pairs of small noisy mini-tomograms in which each of four species is a bar, long or short, bright or dark; the same
    step gives the same pair."""

    def __init__(self, shape: tuple[int, int, int] = (30, 44, 44)) -> None:
        self.species = ["a", "b", "c", "d"]
        self.shape = shape

    def pairs(self, step: int, rank: int) -> Iterator[Pair]:
        while True:
            rng = np.random.default_rng((step, rank))
            yield self._mini(rng), self._mini(rng)
            step += 1

    def _mini(self, rng: np.random.Generator) -> MiniTomogram:
        volume = rng.normal(0, 0.5, self.shape).astype(np.float32)
        # One in each quarter; windows fit about all of these places, in the margins put around a mini-tomogram.
        quarters = np.array([(13, 13, 15), (13, 31, 15), (31, 13, 15), (31, 31, 15)])
        xyz = quarters + rng.integers(-2, 3, (4, 3))
        label = rng.permutation(4)
        for (x, y, z), species in zip(xyz, label, strict=True):
            long = 2 + 3 * (species % 2)
            volume[z - 2 : z + 3, y - 2 : y + 3, x - long : x + long + 1] += 3 if species < 2 else -3
        return MiniTomogram(volume, xyz.astype(float), label, np.full(4, 120.0))
