"""Invented molecules: densities that no library has, made out of those that one has.

What a network can tell apart grows with the logarithm of the number of molecules it was trained on, and a library holds a
few hundred. So a part of each training batch is invented: a piece cut off a molecule, or two molecules grown together, then
stretched and sheared, and mirrored half of the time. Material is that of real molecules (its detail, its density per
volume), the shape is new. A molecule and what was made of it never meet in one batch: a mirror image, or a slight stretch,
can hardly be told from its original at 10 A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.structures.density import Density, crop_to_content

# What the stream can place and the window can hold.
LARGEST_A, LIGHTEST_KDA, HEAVIEST_KDA = 330.0, 25.0, 6000.0
# Working grid: at 10 A a molecule has nothing finer.
_VOXEL_A = 6.0
_BODY = 0.2
_STRETCH = 0.2
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Invented:
    """A molecule under a name of its own, and the ids of those that it was made of."""

    name: str
    density: Density
    parents: tuple[str, ...]


def invent(
    name: str, parents: Sequence[str], density: Callable[[str], Density], rng: np.random.Generator
) -> Invented | None:
    """A molecule made out of one or two of `parents`; None where nothing of a size that fits came out.

    parents : ids to choose from, at least two.  density : gives a molecule by its id.
    """
    for _ in range(_TRIES):
        first, second = (str(i) for i in rng.choice(np.array(parents, dtype=object), 2, replace=False))
        kind = rng.choice(("whole", "piece", "pair", "pair of pieces"))
        made_of = (first, second) if kind.startswith("pair") else (first,)
        if sum(density(i).mass_kDa for i in made_of) > HEAVIEST_KDA * 2:
            continue
        parts = [_on_grid(density(i), rng) for i in made_of]
        if "piece" in kind:
            parts = [_largest_body(_piece(values, rng)) for values in parts]
        values = parts[0] if len(parts) == 1 else _grown_together(parts[0], parts[1], rng)
        made = _as_density(values)
        if made.diameter_A <= LARGEST_A and LIGHTEST_KDA <= made.mass_kDa <= HEAVIEST_KDA:
            return Invented(name, made, made_of)
    return None


def _on_grid(density: Density, rng: np.random.Generator) -> NDArray[np.float32]:
    """A molecule turned at random, stretched, sheared and perhaps mirrored, in a cube of the working grid with the same
    density per volume."""
    stretch = Rotation.random(random_state=rng).as_matrix()
    factors = np.exp(rng.normal(0.0, _STRETCH, 3))
    factors *= np.exp(rng.normal(0.0, _STRETCH / 2))
    if rng.random() < 0.5:
        factors[0] *= -1.0
    matrix = Rotation.random(random_state=rng).as_matrix() @ (stretch.T * factors) @ stretch
    old = np.array(density.values.shape)
    corner = float(np.linalg.norm(_furthest(density.values))) * density.voxel_size_A
    half = int(np.ceil(corner * np.abs(factors).max() / _VOXEL_A)) + 1
    axis = np.arange(-half, half + 1) * _VOXEL_A / density.voxel_size_A
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    values = _smooth(density)
    read = ndimage.map_coordinates(
        values, np.linalg.inv(matrix) @ points + (old[:, None] - 1) / 2, order=1, mode="constant"
    )
    cube = read.reshape((2 * half + 1,) * 3) * (_VOXEL_A / density.voxel_size_A) ** 3
    return cube.astype(np.float32)


def _smooth(density: Density) -> NDArray[np.float32]:
    """Blurred so that the working grid, coarser than the library's, takes no noise over."""
    missing = max((0.45 * _VOXEL_A) ** 2 - density.sigma_A**2, 0.0) ** 0.5 / density.voxel_size_A
    if missing < 0.05:
        return density.values
    return np.asarray(ndimage.gaussian_filter(density.values, missing, mode="constant"))


def _furthest(values: NDArray[np.float32]) -> NDArray[np.float64]:
    content = np.argwhere(values > _BODY / 10 * values.max()) - (np.array(values.shape) - 1) / 2
    return np.asarray(content[np.linalg.norm(content, axis=1).argmax()])


def _piece(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """One side of a plane through the body, a third to two thirds of it, with a soft edge."""
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in values.shape)
    height = normal[0] * z[:, None, None] + normal[1] * y[None, :, None] + normal[2] * x
    level = float(np.quantile(height[values > _BODY * values.max()], rng.uniform(0.33, 0.67)))
    return values * np.clip(height - level + 0.5, 0.0, 1.0).astype(np.float32)


def _largest_body(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what the cut has parted from the rest: every voxel goes with the body that is nearest to it."""
    bodies, count = ndimage.label(values > _BODY / 2 * values.max())
    if count < 2:
        return values
    nearest = ndimage.distance_transform_edt(bodies == 0, return_distances=False, return_indices=True)
    largest = np.bincount(bodies.ravel(), weights=values.ravel())[1:].argmax() + 1
    return np.where(bodies[tuple(nearest)] == largest, values, np.float32(0.0))


def _grown_together(
    first: NDArray[np.float32], second: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Two molecules in contact: the second comes in along a random direction until it overlaps the first by a few
    voxels of its body."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    bodies = [np.argwhere(v > _BODY * v.max()) - (np.array(v.shape) - 1) // 2 for v in (first, second)]
    reach = [int(np.abs(b).max()) for b in bodies]
    half = reach[0] + 2 * reach[1] + 2
    there = np.zeros((2 * half + 1,) * 3, bool)
    there[tuple((bodies[0] + half).T)] = True
    overlap = max(0.03 * min(map(len, bodies)), 1.0)
    shift = np.zeros(3, int)
    for distance in range(reach[0] + reach[1] + 1, -1, -1):
        shift = np.round(distance * direction).astype(int)
        if there[tuple((bodies[1] + shift + half).T)].sum() >= overlap:
            break
    half = max((max(v.shape) - 1) // 2 for v in (first, second)) + int(np.abs(shift).max())
    joined = np.zeros((2 * half + 1,) * 3, np.float32)
    for values, at in ((first, np.zeros(3, int)), (second, shift)):
        low = half + at - (np.array(values.shape) - 1) // 2
        box = tuple(slice(a, a + n) for a, n in zip(low, values.shape, strict=True))
        # Where both are, there is no more matter than the denser of them has.
        joined[box] = np.maximum(joined[box], values)
    return joined


def _as_density(values: NDArray[np.float32]) -> Density:
    """Centred on its centre of mass, in a cube of odd edge."""
    content = np.argwhere(values > 0.004 * values.max())
    centre = np.array(ndimage.center_of_mass(values))
    half = int(np.ceil(np.abs(content - centre).max())) + 1
    size = 2 * half + 1
    low = np.round(centre).astype(int) - half
    padded = np.pad(values, size)
    cut = padded[tuple(slice(a + size, a + 2 * size) for a in low)]
    shifted = ndimage.shift(cut, np.round(centre) - centre, order=1, mode="constant")
    return crop_to_content(Density(shifted, _VOXEL_A, 0.45 * _VOXEL_A))
