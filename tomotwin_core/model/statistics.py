"""Batch normalisation with the statistics of the tomogram at hand.

While it is trained the network sees the channels of its first blocks (the trunk) normalised by the mean and the spread that they have
in each mini-tomogram by itself. What is kept for later are those of mini-tomograms taken as most are. They fit most tomograms, whatever
lies in them, but none that was filtered, binned or reconstructed in an unusual way: such a one is embedded with a mixture of these and
its own (Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation"). They are those of a
whole tomogram, never of a window: all of its windows are still seen through one and the same network.

How far a tomogram's statistics lie from the kept ones tells the two apart: with the released model by 0.001 to 0.013 for single
mini-tomograms taken as most are and up to 0.03 for whole ones with gold and membranes, by 0.04 to 0.4 for mini-tomograms with everything
drawn from wide distributions, by 0.4 for a real lamella in voxels of 31 A.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tomotwin_core.model.network import EmbeddingNetwork

# The means and variances of the channels of a batch norm.
Statistics = tuple[torch.Tensor, torch.Tensor]
# From so many times the distance within which tomograms are usual ones, their own statistics count with the whole share.
_FAR = 4.0
# So that channels that are always 0 divide nothing; what batch norms add.
_TINY = 1e-5


def with_share(network: EmbeddingNetwork, share: float | None, usual_within: float | None = None) -> EmbeddingNetwork:
    """A network of the same weights for which a tomogram's own statistics count that share, where they lie farther than
    `usual_within` from the kept ones. None: as before."""
    given: dict[str, Any] = {"own_statistics": share, "usual_within": usual_within}
    other = EmbeddingNetwork(replace(network.settings, **{k: v for k, v in given.items() if v is not None}))
    other.load_state_dict(network.state_dict())
    return other.eval()


@dataclass(frozen=True)
class Suited:
    """A network for one tomogram; how far that one's statistics lie from the kept ones, and the share that they have in it."""

    network: EmbeddingNetwork
    distance: float = 0.0
    share: float = 0.0


@torch.no_grad()
def suited(
    network: EmbeddingNetwork, pieces: Iterable[np.ndarray], device: torch.device | str = "cpu", half: bool = False
) -> Suited:
    """A copy of the network for the tomogram that the pieces are of, in evaluation mode, on the device.

    pieces : normalised volumes [z, y, x] as the network sees them, or windows (n, z, y, x); each counts alike. Their statistics
    get the network's `own_statistics`, or less of it where they are usual ones; where it is 0 they are not looked at, and without a
    piece the copy is as the network was.  half : with convolutions in bfloat16.
    """
    clone = copy.deepcopy(network).to(device).eval()
    if not network.settings.own_statistics:
        return Suited(clone)
    norms = _norms(clone)
    kept = [(mean.clone(), variance.clone()) for mean, variance in map(_statistics, norms)]
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
    own = [_statistics(norm) for norm in norms]
    far = distance(own, kept) if seen else 0.0
    share = share_of(network, far) if seen else 0.0
    for norm, theirs, ours in zip(norms, own, kept, strict=True):
        for mine, trained in zip(theirs, ours, strict=True):
            mine.copy_(torch.lerp(trained, mine, share))
        norm.eval()
    return Suited(clone, far, share)


def share_of(network: EmbeddingNetwork, far: float) -> float:
    """The share that statistics get which lie `far` from the kept ones."""
    share, within = network.settings.own_statistics, network.settings.usual_within
    return share * float(np.clip((far - within) / ((_FAR - 1) * within), 0.0, 1.0)) if within else share


def distance(own: Sequence[Statistics], kept: Sequence[Statistics]) -> float:
    """How far statistics lie from others: the Kullback-Leibler divergence of the normal distribution of a channel that the first
    describe from the second, the mean over the channels of a batch norm and over the norms (nats)."""
    total = 0.0
    for (mean, variance), (old_mean, old_variance) in zip(own, kept, strict=True):
        ratio = (variance + _TINY) / (old_variance + _TINY)
        shift = (mean - old_mean) ** 2 / (old_variance + _TINY)
        total += float((ratio + shift - 1 - ratio.log()).mean()) / 2
    return total / len(kept)


@contextmanager
def counting(network: EmbeddingNetwork, usual: bool) -> Iterator[None]:
    """What the trunk sees in training counts in the statistics that are kept only where it is usual."""
    norms = [] if usual else _norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _norms(network: EmbeddingNetwork) -> list[nn.BatchNorm3d]:
    return [module for module in network.trunk.modules() if isinstance(module, nn.BatchNorm3d)]


def _statistics(norm: nn.BatchNorm3d) -> Statistics:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
