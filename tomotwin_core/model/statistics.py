"""Batch normalisation with the statistics of the tomogram at hand.

While it is trained the network sees the channels of its first blocks (the trunk) normalised by the mean and the spread that they have
in each mini-tomogram by itself; what is kept for later is an average over all sorts of tomograms, which fits none of them, and least
one that was filtered, binned or reconstructed in an unusual way. So a tomogram is embedded with a mixture of both, most of it its own
(Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation"). They are those of a whole
tomogram, never of a window: all of its windows are still seen through one and the same network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from tomotwin_core.model.network import EmbeddingNetwork


@torch.no_grad()
def suited(network: EmbeddingNetwork, pieces: Iterable[np.ndarray], half: bool = False) -> EmbeddingNetwork:
    """A copy of the network for the tomogram that the pieces are of, in evaluation mode and on the same device.

    pieces : normalised volumes [z, y, x] as the network sees them, or windows (n, z, y, x); each counts alike. The share that their
    statistics get is the network's `own_statistics`.  half : with convolutions in bfloat16. Without a piece the copy is as the network was.
    """
    share = network.settings.own_statistics
    clone = copy.deepcopy(network).eval()
    norms = [module for module in clone.trunk.modules() if isinstance(module, nn.BatchNorm3d)]
    kept = [(_statistic(norm.running_mean).clone(), _statistic(norm.running_var).clone()) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean over the pieces
        norm.reset_running_stats()
        norm.train()
    weight = next(clone.parameters())
    count = 0
    for piece in pieces:
        windows = torch.from_numpy(np.ascontiguousarray(piece, np.float32)).to(weight.device)
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=half):
            clone.trunk(windows[:, None] if windows.dim() == 4 else windows[None, None])
        count += 1
    for norm, (mean, variance), momentum in zip(norms, kept, momenta, strict=True):
        if count:
            mean = torch.lerp(mean, _statistic(norm.running_mean), share)
            variance = torch.lerp(variance, _statistic(norm.running_var), share)
        _statistic(norm.running_mean).copy_(mean)
        _statistic(norm.running_var).copy_(variance)
        norm.momentum = momentum
        norm.eval()
    return clone


def _statistic(buffer: torch.Tensor | None) -> torch.Tensor:
    assert buffer is not None
    return buffer
