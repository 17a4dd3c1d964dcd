"""A tomogram that is embedded while it is searched: nothing is stored but what was found.

`LiveField` stands where an `EmbeddingField` would; its embeddings come tile by tile out of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tomotwin_core.embedding.dense import DenseEmbedder, Tile, grid_shape
from tomotwin_core.model import STRIDE, Model
from tomotwin_core.tomogram import ModelTomogram, TomogramSource
from tomotwin_core.tomogram.contrast import tell_contrast
from tomotwin_core.tomogram.padding import tell_padding


@dataclass(frozen=True)
class LiveField:
    """source, model and the contrast of protein in it; tile: embeddings per side of a tile."""

    source: TomogramSource
    model: Model
    contrast: Literal["dark", "bright"] = "dark"
    device: str = "cpu"
    tile: int | None = None

    @property
    def tomogram(self) -> str:
        return self.source.name

    @property
    def voxel_size_A(self) -> float:
        """Of the original tomogram."""
        return self.source.voxel_size_A

    @property
    def tomogram_shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the original tomogram."""
        return self.source.shape

    @cached_property
    def model_hash(self) -> str:
        return self.model.hash

    @property
    def spacing_A(self) -> float:
        """Distance between neighbouring embeddings."""
        return STRIDE * self.volume.voxel_size_A

    @cached_property
    def volume(self) -> ModelTomogram:
        """The tomogram as the network sees it."""
        return ModelTomogram(self.source, contrast=self.contrast)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Embeddings per axis (z, y, x)."""
        z, y, x = grid_shape(self.volume.shape)
        return z, y, x

    @cached_property
    def _embedder(self) -> DenseEmbedder:
        return DenseEmbedder(self.model.network, self.device, self.tile)

    @property
    def n_tiles(self) -> int:
        return self._embedder.n_tiles(self.volume.shape)

    def tiles(self) -> Iterator[Tile]:
        """As `DenseEmbedder.tiles`: layer by layer along z; all tiles of a layer have its planes."""
        self.source.check()
        tell_padding(self.tomogram, self.volume.specimen)
        tell_contrast(self.tomogram, self.volume)
        return self._embedder.tiles(self.volume)
