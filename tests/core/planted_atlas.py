"""An atlas of what was planted."""

import numpy as np
from numpy.typing import NDArray
from planted_species import SIZE

from tomotwin_core.clustering.atlas import JUNK, Atlas


def atlas_with(middles: NDArray, copies: int = 12, seed: int = 0) -> Atlas:
    """Junk first, then molecules of the library, each about one of the middles (k, d)."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(middles)), copies)
    features = (middles[label] + rng.normal(scale=0.3, size=(len(label), middles.shape[1]))).astype(np.float32)
    names = (*JUNK, *["1qvr", "1eab", "1dzl", "4v6x", "1a7j", "2iy5"][: len(middles) - len(JUNK)])
    return Atlas("hash", 10.0, np.eye(SIZE, dtype=np.float32), np.eye(middles.shape[1], dtype=np.float32), 1.0, names, features, label)
