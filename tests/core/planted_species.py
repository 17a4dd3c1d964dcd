"""What the tests of clustering plant: fields of embeddings with copies of a few species at known places."""

import numpy as np
from scipy.ndimage import gaussian_filter

SIZE = 32


def species_field(
    shape: tuple[int, int, int], places: np.ndarray, species: np.ndarray, seed: int = 0, scatter: float = 0.1
) -> np.ndarray:
    """Unit embeddings [z, y, x, 32]: a smooth background, and about each place (n, 3) z y x what its species looks like.

    scatter : how far copies differ, as a share of how far species do.
    """
    rng = np.random.default_rng(seed)
    looks = np.random.default_rng(99).normal(size=(int(species.max(initial=0)) + 1, SIZE))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    field = gaussian_filter(rng.normal(size=(*shape, SIZE)), (1, 1, 1, 0)) * 0.6
    field[..., 0] += 2.0
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    for place, kind in zip(places, species, strict=True):
        look = looks[kind] + scatter * rng.normal(size=SIZE) / np.sqrt(SIZE)
        weight = np.exp(-((grid - place) ** 2).sum(-1) / 4.5)[..., None]
        field = (1 - weight) * field + weight * 3 * look
    return np.asarray(field / np.linalg.norm(field, axis=-1, keepdims=True), np.float32)


def apart(shape: tuple[int, int, int], count: int, distance: float, seed: int = 0, margin: int = 4) -> np.ndarray:
    """Random grid places (count, 3), none nearer to another."""
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for _ in range(100_000):
        place = rng.integers(margin, np.array(shape) - margin)
        if all(np.linalg.norm(place - other) >= distance for other in found):
            found.append(place)
            if len(found) == count:
                return np.array(found)
    raise ValueError("no room")
