"""Batch normalisation with the statistics of the tomogram at hand.

While it is trained the network sees the channels of its first blocks (the trunk) normalised by the mean and the spread that they have
in each mini-tomogram by itself; what is kept for later is an average over all sorts of tomograms, which fits none of them, and least
one that was filtered, binned or reconstructed in an unusual way. So a tomogram is embedded with a mixture of both
(Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation"). They are those of a whole
tomogram, never of a window: all of its windows are still seen through one and the same network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tomotwin_core.model.network import EmbeddingNetwork


def with_share(network: EmbeddingNetwork, share: float) -> EmbeddingNetwork:
    """A network of the same weights for which a tomogram's own statistics count that share."""
    other = EmbeddingNetwork(replace(network.settings, own_statistics=share))
    other.load_state_dict(network.state_dict())
    return other.eval()


@torch.no_grad()
def suited(
    network: EmbeddingNetwork, pieces: Iterable[np.ndarray], device: torch.device | str = "cpu", half: bool = False
) -> EmbeddingNetwork:
    """A copy of the network for the tomogram that the pieces are of, in evaluation mode, on the device.

    pieces : normalised volumes [z, y, x] as the network sees them, or windows (n, z, y, x); each counts alike. The share that their
    statistics get is the network's `own_statistics`; where it is 0 they are not looked at, and without a piece the copy is as the
    network was.  half : with convolutions in bfloat16.
    """
    clone = copy.deepcopy(network).to(device).eval()
    share = network.settings.own_statistics
    if not share:
        return clone
    norms = [module for module in clone.trunk.modules() if isinstance(module, nn.BatchNorm3d)]
    kept = [(_statistic(norm.running_mean).clone(), _statistic(norm.running_var).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean over the pieces
        norm.reset_running_stats()
        norm.train()
    seen = False
    for piece in pieces:
        windows = torch.from_numpy(np.ascontiguousarray(piece, np.float32)).to(device)
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=half):
            clone.trunk(windows[:, None] if windows.dim() == 4 else windows[None, None])
        seen = True
    for norm, statistics in zip(norms, kept, strict=True):
        for own, trained in zip((norm.running_mean, norm.running_var), statistics, strict=True):
            _statistic(own).copy_(torch.lerp(trained, _statistic(own), share) if seen else trained)
        norm.eval()
    return clone


def _statistic(buffer: torch.Tensor | None) -> torch.Tensor:
    assert buffer is not None
    return buffer
