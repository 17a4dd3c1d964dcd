"""Embeddings as colours: their first three principal components as red, green and blue.

Places that look alike to the network get like colours, so that one glance tells whether an embedding holds anything:
membranes, molecules of different kinds, gold and empty ice part. The axes are those of the tomograms they are fitted to;
fitted to the same tomograms in every call, colours mean the same throughout a data set.

    axes = fit_colours([open_field("TS_01.zarr"), open_field("TS_02.zarr")])
    write_colours(open_field("TS_01.zarr"), axes, Path("maps"))     maps/TS_01_pca1.mrc, ..._pca2.mrc, ..._pca3.mrc
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from tomotwin_core import __version__
from tomotwin_core.embedding.field import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.locks import alone_at_all
from tomotwin_core.progress import progress

_SAMPLES = 20_000
_SHOWN = (2, 98)  # percentiles of a component that become 0 and 1


@dataclass(frozen=True)
class ColourAxes:
    """mean (32,), axes (3, 32) unit vectors, low and high (3,): values of the components that become 0 and 1."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colours (..., 3) from 0 to 1 of embeddings (..., 32)."""
        components = (embeddings - self.mean) @ self.axes.T
        colours: NDArray[np.float32] = np.clip((components - self.low) / (self.high - self.low), 0, 1)
        return colours


def fit_colours(fields: Sequence[EmbeddingField]) -> ColourAxes:
    """The axes of a sample of all fields together; UserError where they are of different models.

    The sign of a component is chosen so that its farther tail is bright: what is rare stands out.
    """
    hashes = {field.model_hash for field in fields}
    if len(hashes) != 1:
        raise UserError(f"colours are fitted to embeddings of one model, and these are of {len(hashes)}: give fewer")
    sample = np.concatenate([field.sample(-(-_SAMPLES // len(fields))) for field in fields])
    mean = sample.mean(axis=0)
    _, _, axes = np.linalg.svd(sample - mean, full_matrices=False)
    components = (sample - mean) @ axes[:3].T
    signs = np.where((components**3).sum(axis=0) < 0, -1.0, 1.0).astype(np.float32)
    low, high = np.percentile(components * signs, _SHOWN, axis=0).astype(np.float32)
    return ColourAxes(mean, axes[:3] * signs[:, None], low, np.where(high > low, high, low + 1))


def write_colours(field: EmbeddingField, axes: ColourAxes, out: Path) -> list[Path]:
    """Write OUT/TOMOGRAM_pca1.mrc, _pca2 and _pca3, red, green and blue from 0 to 1 on the embedding grid (voxel i lies at
    i * 20 A from the tomogram's first voxel), slab by slab."""
    paths = [out / f"{field.tomogram}_pca{number}.mrc" for number in (1, 2, 3)]
    with ExitStack() as stack:
        stack.enter_context(alone_at_all(paths))
        # Left in the reverse order: a map is closed before it takes its name.
        temporary = [stack.enter_context(atomic_path(path)) for path in paths]
        maps = [stack.enter_context(mrcfile.new_mmap(str(t), field.shape, mrc_mode=2)) for t in temporary]
        for z0, z1, _, _ in progress(list(field.slabs()), desc=f"colouring {field.tomogram}", unit="slabs"):
            colours = axes(field.embeddings(z0, z1))
            for number, written in enumerate(maps):
                written.data[z0:z1] = colours[..., number]
        for written in maps:
            written.voxel_size = field.spacing_A
            written.set_volume()
            written.update_header_stats()
            written.header.label[0] = f"tomotwin {__version__} principal component".encode()
            written.header.nlabl = 1
    return paths
