"""The map for the eye: candidates in two dimensions, alike ones near each other (UMAP; McInnes, Healy and Melville 2018).

Only for looking: clusters are decided in the space itself, where distances mean something. umap-learn compiles itself
when it is first used in a process, which takes some seconds (a minute, if it also has to find the neighbours); `fast` takes
the two first principal components instead, and so does an installation in which it cannot be used at all. Of very many
candidates some are mapped so, and the others put among those they are most alike.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import warnings
from types import ModuleType

import numpy as np
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors

_NEIGHBOURS, _MIN_DIST = 15, 0.1
_MOST, _AMONG = 20_000, 5


def manifold(vectors: np.ndarray, seed: int = 1, fast: bool = False) -> np.ndarray:
    """Vectors (n, d) of the frame -> places on the map (n, 2) float32; the same seed gives the same map."""
    if fast or len(vectors) < 2 * _NEIGHBOURS:
        return _principal(vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap tells that a seed costs it its threads
        umap = _umap()
        if umap is None:
            return _principal(vectors)
        mapped = np.linspace(0, len(vectors) - 1, min(len(vectors), _MOST)).round().astype(int)
        # Found by force: faster than umap-learn is with its search trees compiled, and nothing is missed.
        search = NearestNeighbors(n_neighbors=_NEIGHBOURS, algorithm="brute").fit(vectors[mapped])
        distance, nearest = search.kneighbors(vectors[mapped])
        known = (nearest, distance)
        reducer = umap.UMAP(n_neighbors=_NEIGHBOURS, min_dist=_MIN_DIST, random_state=seed, precomputed_knn=known)
        places = np.asarray(reducer.fit_transform(vectors[mapped]), np.float32)
    if len(mapped) == len(vectors):
        return places
    among = KNeighborsRegressor(_AMONG, weights="distance", algorithm="brute").fit(vectors[mapped], places)
    return np.asarray(among.predict(vectors), np.float32)


def _umap() -> ModuleType | None:
    """The module; None, with a remark, where it cannot be used.

    It keeps what it has compiled beside itself or under the user's home folder. Where neither can be written to (an
    installation of a facility, a job without a home) importing it fails, and a temporary folder does.
    """
    try:
        try:
            import umap
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            import numba

            numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="tomotwin_")  # type: ignore[attr-defined]
            atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)  # type: ignore[attr-defined]
            import umap
    except (RuntimeError, ImportError, OSError) as error:
        print(f"tomotwin: the map shows principal components, as umap-learn cannot be used: {error}", file=sys.stderr)
        return None
    return umap


def _principal(vectors: np.ndarray) -> np.ndarray:
    out = np.zeros((len(vectors), 2), np.float32)
    if len(vectors) < 3:
        out[:, 0] = np.arange(len(vectors))
        return out
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is free: its largest component is positive, so that the same candidates give the same map.
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    return np.asarray(centred @ axes.T, np.float32)
