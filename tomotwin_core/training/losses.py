"""The losses to choose from, all of pytorch-metric-learning; background windows are negatives to everything and
positives to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import (
    CircleLoss,
    MultiSimilarityLoss,
    ProxyAnchorLoss,
    SupConLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.miners import MultiSimilarityMiner, TripletMarginMiner
from pytorch_metric_learning.reducers import BaseReducer
from torch import nn
from torch.nn import functional

from tomotwin_core.training.batches import BACKGROUND
from tomotwin_core.training.settings import LossSettings

# The published configuration of TomoTwin (Rice et al. 2023) for the triplet loss, and the defaults of the others'
# papers: Kim et al. 2020 (proxy-anchor), Sun et al. 2020 (circle), Wang et al. 2019 (multi-similarity).
_MARGIN = {"triplet": 0.539, "proxy-anchor": 0.1, "circle": 0.4}
_SCALE = {"proxy-anchor": 32.0, "circle": 80.0, "multisimilarity": 50.0}


class MetricLoss(nn.Module):
    """embeddings (n, d) of unit length, labels (n,) species or BACKGROUND -> a number. May have parameters (proxies)."""

    def __init__(self, settings: LossSettings, species: int, embedding_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.loss = _loss(settings, species, embedding_size)
        self.miner = _miner(settings)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.settings.name == "proxy-anchor":
            # Invented molecules, whose labels are above all species, have no proxy: like background, they are negatives.
            background = self.loss.num_classes - 1
            known = (labels != BACKGROUND) & (labels < background)
            return self.loss(embeddings, torch.where(known, labels, background))
        # A label of its own for each background window: never anyone's positive, everyone's negative.
        own = -torch.arange(1, len(labels) + 1, device=labels.device)
        labels = torch.where(labels == BACKGROUND, own, labels)
        return self.loss(embeddings, labels, self.miner(embeddings, labels) if self.miner else None)


def _loss(settings: LossSettings, species: int, embedding_size: int) -> Any:
    margin = _MARGIN.get(settings.name, 0.0) if settings.margin is None else settings.margin
    scale = _SCALE.get(settings.name, 0.0) if settings.scale is None else settings.scale
    if settings.name == "proxy-anchor":
        return _ProxyAnchor(species, embedding_size, margin=margin, alpha=scale)
    options: dict[str, Any] = {"distance": CosineSimilarity()}
    if settings.balance:
        options["reducer"] = BalancedReducer(settings.balance)
    makers: dict[str, Callable[[], Any]] = {
        "supcon": lambda: SupConLoss(temperature=settings.temperature, **options),
        "triplet": lambda: TripletMarginLoss(margin=margin, **options),
        "multisimilarity": lambda: MultiSimilarityLoss(alpha=2.0, beta=scale, base=0.5, **options),
        "circle": lambda: CircleLoss(m=margin, gamma=scale, **options),
    }
    return makers[settings.name]()


def _miner(settings: LossSettings) -> Any:
    kind = settings.miner
    if kind == "auto":
        kind = "semihard" if settings.name == "triplet" else "none"
    if kind == "none":
        return None
    if kind == "multisimilarity":
        return MultiSimilarityMiner(epsilon=settings.miner_margin, distance=CosineSimilarity())
    return TripletMarginMiner(margin=settings.miner_margin, distance=CosineSimilarity(), type_of_triplets=kind)


class _ProxyAnchor(ProxyAnchorLoss):
    """Proxy-anchor with one class more than species, that of background. Its proxy is at right angles to everything and
    takes no part: background is pushed away from all other proxies and drawn to none."""

    def __init__(self, species: int, embedding_size: int, **options: Any) -> None:
        super().__init__(species + 1, embedding_size, **options)

    def get_logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        return functional.pad(super().get_logits(embeddings)[:, :-1], (0, 1))


class BalancedReducer(BaseReducer):
    """Mean over windows, each weighted by the number of its species' windows to the power of -balance; all backgrounds
    together count as one species. Of triplets, only those that have a loss at all count, each as its anchor."""

    def __init__(self, balance: float) -> None:
        super().__init__()
        self.balance = balance

    def element_reduction(self, losses: Any, loss_indices: Any, embeddings: Any, labels: Any) -> torch.Tensor:
        return self._mean(losses, labels[loss_indices])

    def triplet_reduction(self, losses: Any, loss_indices: Any, embeddings: Any, labels: Any) -> torch.Tensor:
        counted = losses > 0
        if not counted.any():
            return self.zero_loss(embeddings)
        return self._mean(losses[counted], labels[loss_indices[0]][counted])

    def _mean(self, losses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        _, index, count = labels.clamp_min(-1).unique(return_inverse=True, return_counts=True)
        weight = count[index].to(losses.dtype) ** -self.balance
        return (weight * losses).sum() / weight.sum()
