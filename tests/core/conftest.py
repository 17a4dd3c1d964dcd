"""Shared by the engine's tests: a network too small to be good but not trivial, and embedding fields with planted targets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from tomotwin_core.embedding import EmbeddingField, open_field
from tomotwin_core.embedding.field import _FORMAT
from tomotwin_core.model import EmbeddingNetwork, NetworkSettings

FieldMaker = Callable[..., EmbeddingField]


@torch.no_grad()
def tiny_network(
    seed: int = 0, widths: tuple[int, int, int, int, int] = (4, 5, 6, 8, 10), head: int = 12
) -> EmbeddingNetwork:
    """A network as training would leave one: batch norm statistics that are not 0 and 1, windows that come out apart."""
    torch.manual_seed(seed)
    network = EmbeddingNetwork(NetworkSettings(widths=widths, head=head))
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.momentum = None  # the plain mean over what it sees
    noise = torch.randn(1, 1, 53, 53, 53)
    network.train().dense(noise)
    output = network.eval().dense(noise).flatten(1).mean(1)
    last = network.head[-1]
    assert isinstance(last, nn.Conv3d) and last.bias is not None
    last.bias -= output  # else all embeddings point one way and agree with anything
    return network


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
            array = group.create_array(key, shape=values.shape, chunks=values.shape, dtype="float16", compressors=None)
            array[:] = values.astype(np.float16)
        return open_field(path)

    return make
