"""What several of the engine's tests plant: a network too small to be good but not trivial."""

from collections.abc import Callable

import torch
from torch import nn

from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.model import EMBEDDING_SIZE, EmbeddingNetwork, NetworkSettings

FieldMaker = Callable[..., EmbeddingField]


@torch.no_grad()
def tiny_network(
    seed: int = 0,
    widths: tuple[int, int, int, int, int] = (4, 5, 6, 8, 10),
    head: int = 12,
    own_statistics: float = 0.0,
    usual_within: float = 0.0,
) -> EmbeddingNetwork:
    """A network as training would leave one: batch norm statistics that are not 0 and 1, windows that come out apart."""
    torch.manual_seed(seed)
    network = EmbeddingNetwork(NetworkSettings(widths, head, EMBEDDING_SIZE, own_statistics, usual_within))
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
