"""Adapt a model to a target from a few tens of its positions, in minutes on a CPU, without forgetting.

What is fitted is the end of the network, which sees each window as a few thousand numbers that the first layers made
of it; these are computed once. Three things are asked of the new embeddings: the target's windows lie together and away
from the windows of the same tomograms that are not the target (supervised contrastive loss); windows of simulated
tomograms with many other molecules keep the embeddings that they had (distillation, "Learning without forgetting": Li &
Hoiem 2016); and the particleness of these stays. The result is a model like any other.

Where not all particles are listed, the tomogram's own windows hold more of them: the background windows most similar to
the target are then left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model import EmbeddingNetwork, Model
from tomotwin_core.model.network import channels_last, split_output
from tomotwin_core.model.statistics import suited
from tomotwin_core.progress import progress
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.training.batches import BACKGROUND, window_batch
from tomotwin_core.training.losses import MetricLoss
from tomotwin_core.training.settings import BatchSettings, LossSettings, TrainingPlan, TrainingSettings
from tomotwin_core.training.sources import FolderSource, ListedTomogram, LiveSource, Pair
from tomotwin_core.training.stream import StreamSettings

FEWEST_POSITIONS = 5
_PIECE = (48, 96, 96)


@dataclass(frozen=True)
class AdaptSettings:
    """How far the model may go.

    steps : of the fit.  learning_rate : of the fit.
    layers : what is fitted: last (the last layer), head (the last two) or late (all after the pooling).
    keep : weight of what the model knew against the target.
    pieces : cut out of the tomograms, each with some of the particles, turned and shifted anew.
    replay : pairs of simulated mini-tomograms that stand for what the model knew.
    left_out : share of the background windows, the most similar to a target, that may be unlisted particles.
    temperature : of the contrastive loss.
    seed : of all random numbers.
    """

    steps: int = 60
    learning_rate: float = 5e-4
    layers: str = "late"
    keep: float = 3.0
    pieces: int = 24
    replay: int = 3
    left_out: float = 0.01
    temperature: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layers not in ("last", "head", "late"):
            raise UserError(f"layers {self.layers!r}: choose last, head or late")
        if self.steps < 1 or self.pieces < 2 or self.replay < 1 or self.seed < 0:
            raise UserError("steps, pieces, replay, seed: give at least 1, 2, 1 and 0")
        if not 0 <= self.left_out < 1 or self.keep < 0:
            raise UserError("left_out, keep: give a share below 1 and 0 or more")


@dataclass(frozen=True)
class _Windows:
    """inputs of the fitted layers (n, ...), embeddings (n, d) and particleness logits (n,) before the fit, label (n,)."""

    inputs: torch.Tensor
    embedding: torch.Tensor
    particleness: torch.Tensor
    label: torch.Tensor


def adapt(
    model: Model,
    tomograms: Sequence[ListedTomogram],
    library: DensityLibrary,
    cache: Path,
    settings: AdaptSettings | None = None,
    contrast: str = "dark",
    device: str = "cpu",
) -> tuple[EmbeddingNetwork, dict[str, Any]]:
    """The adapted network and its card. Positions of all targets to adapt to, of at least five particles each;
    `complete` tomograms are those with all particles listed."""
    settings = settings or AdaptSettings()
    everything = [replace(t, complete=True) for t in tomograms]  # what may be unlisted is sorted out below
    listed = FolderSource(everything, cache, settings.seed, _PIECE, contrast)
    for name, places in zip(listed.species, listed.places, strict=True):
        if len(places) < FEWEST_POSITIONS:
            raise UserError(
                f"{name}: {len(places)} positions, at least {FEWEST_POSITIONS} are needed; list more of them"
            )
    network = channels_last(copy.deepcopy(model.network).to(device)).eval()
    fitted = _fitted_layers(network, settings.layers)
    own = _windows(network, settings, islice(listed.pairs(0, 0), settings.pieces // 2), settings.pieces // 2, "cutting")
    if not all(t.complete for t in tomograms):
        own = _without_likely_particles(own, settings.left_out)
    plan = TrainingPlan(TrainingSettings(workers=0, reuse=1, buffer=2, seed=settings.seed), stream=StreamSettings())
    simulated = islice(LiveSource(library, plan, device).pairs(0, 0), settings.replay)
    known = _windows(network, settings, simulated, settings.replay, "simulating what the model knows")
    _fit(fitted, own, known, settings)
    card = {
        **{k: v for k, v in model.card.items() if k not in ("format", "network", "hash", "figures")},
        "adapted": {
            **provenance(adapt=asdict(settings)),
            "from": model.hash,
            "targets": {n: len(p) for n, p in zip(listed.species, listed.places, strict=True)},
            "tomograms": [t.source.name for t in tomograms],
        },
    }
    return network, card


def _fitted_layers(network: EmbeddingNetwork, layers: str) -> nn.Sequential:
    """The layers to fit, as one module; all others are frozen. Batch norms keep their statistics."""
    chosen: dict[str, list[nn.Module]] = {
        "last": list(network.head)[-1:],
        "head": [network.head],
        "late": [network.late, network.head],
    }
    network.requires_grad_(False)
    fitted = nn.Sequential(*chosen[layers])
    return fitted.requires_grad_(True)


def _frozen(network: EmbeddingNetwork, pooled: torch.Tensor, layers: str) -> torch.Tensor:
    """What comes into the fitted layers, from pooled windows (n, c, 6, 6, 6)."""
    if layers == "late":
        return pooled
    late = network.late(pooled)
    return late if layers == "head" else network.head[:-1](late)


@torch.no_grad()
def _windows(network: EmbeddingNetwork, settings: AdaptSettings, pairs: Any, count: int, what: str) -> _Windows:
    rng = np.random.default_rng((settings.seed, 5))
    batch_settings = BatchSettings(instances=12, anywhere=40, beside=25, furniture=20)
    device = next(network.parameters()).device
    parts: list[list[torch.Tensor]] = [[], [], [], []]
    pair: Pair
    for pair in progress(pairs, total=count, desc=what, unit="pairs"):
        for piece in pair:
            batch = window_batch(piece, rng, batch_settings)
            volume = torch.from_numpy(np.ascontiguousarray(batch.volume, np.float32))[None, None].to(device)
            pooled = suited(network, [batch.volume], device).network.dense_pooled(volume)
            pooled = network.windows_of(pooled, torch.from_numpy(batch.corners).to(device))
            embedding, particleness = network.embed_pooled(pooled)
            found = (
                _frozen(network, pooled, settings.layers),
                embedding,
                particleness,
                torch.from_numpy(batch.label).to(device),
            )
            for part, tensor in zip(parts, found, strict=True):
                part.append(tensor)
    inputs, embedding, particleness, label = (torch.cat(part) for part in parts)
    return _Windows(inputs, embedding, particleness, label)


def _without_likely_particles(windows: _Windows, share: float) -> _Windows:
    """Without the background windows that are most similar to a target's mean."""
    background = windows.label == BACKGROUND
    means = [windows.embedding[windows.label == s].mean(0) for s in windows.label[~background].unique()]
    targets = functional.normalize(torch.stack(means), dim=1)
    likeness = (windows.embedding @ targets.T).amax(1)
    limit = torch.quantile(likeness[background], 1 - share)
    kept = ~background | (likeness <= limit)
    return _Windows(windows.inputs[kept], windows.embedding[kept], windows.particleness[kept], windows.label[kept])


def _fit(fitted: nn.Sequential, own: _Windows, known: _Windows, settings: AdaptSettings) -> None:
    loss = MetricLoss(LossSettings(temperature=settings.temperature), 1, own.embedding.shape[1])
    optimizer = torch.optim.AdamW(fitted.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    rng = np.random.default_rng((settings.seed, 6))
    particle = np.flatnonzero((own.label != BACKGROUND).cpu().numpy())
    background = np.flatnonzero((own.label == BACKGROUND).cpu().numpy())
    for _ in progress(range(settings.steps), desc="fitting", unit="steps"):
        some = np.concatenate(
            [
                rng.choice(particle, min(64, len(particle)), replace=False),
                rng.choice(background, min(160, len(background)), replace=False),
            ]
        )
        old = rng.choice(len(known.label), min(192, len(known.label)), replace=False)
        here, there = torch.from_numpy(some), torch.from_numpy(old)
        raw = fitted(torch.cat([own.inputs[here], known.inputs[there]])).flatten(1)
        embedding, particleness = split_output(raw)
        target = loss(embedding[: len(some)], own.label[here])
        kept = (1 - (embedding[len(some) :] * known.embedding[there]).sum(1)).mean()
        presence = functional.binary_cross_entropy_with_logits(
            particleness, torch.cat([own.particleness[here], known.particleness[there]]).sigmoid()
        )
        optimizer.zero_grad(set_to_none=True)
        (target + settings.keep * kept + presence).backward()
        optimizer.step()
        schedule.step()
