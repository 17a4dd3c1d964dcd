"""The losses to choose from, all of pytorch-metric-learning; background windows are negatives to everything and
positives to nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import MultiSimilarityLoss, SupConLoss, TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner

from tomotwin_core.errors import UserError
from tomotwin_core.training.batches import BACKGROUND

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# The published configuration of TomoTwin (Rice et al. 2023): margins in cosine similarity.
_PAPER_MARGIN, _PAPER_MINER_MARGIN = 0.539, 0.734


def make_loss(name: str, temperature: float = 0.1) -> Loss:
    """`supcon` (Khosla et al. 2020), `triplet` (the paper's: cosine, online semi-hard mining) or `multisimilarity`
    (Wang et al. 2019)."""
    if name == "supcon":
        return _with_background(SupConLoss(temperature=temperature))
    if name == "multisimilarity":
        return _with_background(MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5))
    if name == "triplet":
        loss = TripletMarginLoss(margin=_PAPER_MARGIN, distance=CosineSimilarity())
        miner = TripletMarginMiner(margin=_PAPER_MINER_MARGIN, distance=CosineSimilarity(), type_of_triplets="semihard")
        return _with_background(lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels)))
    raise UserError(f"loss {name!r}: not known; choose supcon, triplet or multisimilarity")


def _with_background(loss: Loss) -> Loss:
    def computed(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # A label of its own for each background window: never anyone's positive, everyone's negative.
        own = -torch.arange(1, len(labels) + 1, device=labels.device)
        return loss(embeddings, torch.where(labels == BACKGROUND, own, labels))

    return computed
