"""Shared by the engine's tests: a tiny network, and embedding fields with planted targets."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from planted import FieldMaker, tiny_network

from tomotwin_core.embedding import EmbeddingField, open_field
from tomotwin_core.embedding.field import _FORMAT
from tomotwin_core.model import EmbeddingNetwork


@pytest.fixture(scope="session")
def network() -> EmbeddingNetwork:
    return tiny_network()


@pytest.fixture
def make_field(tmp_path: Path) -> FieldMaker:
    """Write embeddings [z, y, x, 32] as `tomotwin embed` would have, and open them."""

    def make(
        embeddings: np.ndarray,
        voxel_size_A: float = 10.0,
        shape: tuple[int, int, int] | None = None,
        name: str = "tomo",
        model_hash: str = "hash",
    ) -> EmbeddingField:
        path = tmp_path / f"{name}.zarr"
        group = zarr.open_group(str(path), mode="w")
        original = shape or tuple(int(20 * (side - 1) / voxel_size_A) + 1 for side in embeddings.shape[:3])
        group.attrs.update(
            format=_FORMAT, tomogram=name, voxel_size_A=voxel_size_A, shape=list(original), contrast="dark", model_hash=model_hash,
            stride=2, model_voxel_size_A=10.0,
        )  # fmt: skip
        for key, values in (("embeddings", embeddings), ("particleness", np.zeros(embeddings.shape[:3]))):
            array = group.create_array(
                key, shape=values.shape, chunks=values.shape, dtype="float16", compressors=None,
                config={"write_empty_chunks": True},
            )  # fmt: skip
            array[:] = values.astype(np.float16)
        return open_field(path)

    return make


@pytest.fixture
def noise() -> NDArray[np.float32]:
    """A small volume of noise on an offset, as tomograms have it."""
    return np.random.default_rng(1).normal(100, 5, (45, 60, 53)).astype(np.float32)
