"""The trainer: pairs of mini-tomograms in, a model with its card out, resumable at any step.

A step takes one pair, runs the trunk once over each mini-tomogram, gathers the windows of all particles and
backgrounds from it, and puts one metric loss over both together, plus a small cross-entropy on the particleness.
Weights are averaged exponentially; the average is the model that is saved.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model.checkpoint import read_safetensors, save_model, write_safetensors
from tomotwin_core.model.network import EmbeddingNetwork, NetworkSettings, channels_last
from tomotwin_core.progress import duration
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.training.batches import BACKGROUND, window_batch
from tomotwin_core.training.losses import make_loss
from tomotwin_core.training.stream import MiniTomogram, MiniTomogramStream, StreamSettings

Pair = tuple[MiniTomogram, MiniTomogram]


@dataclass(frozen=True)
class TrainingSettings:
    """steps: length of the learning-rate schedule (warm-up, then cosine to a hundredth). reuse: how often a pair is
    seen, each time turned and cut anew; buffer: pairs kept for that. workers: simulating processes. A step holds 2
    mini-tomograms, about 500 particles."""

    steps: int = 2000
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    warmup: int = 60
    loss: str = "supcon"
    temperature: float = 0.1
    particleness_weight: float = 0.2
    ema_decay: float = 0.99
    reuse: int = 3
    buffer: int = 12
    workers: int = 1
    seed: int = 0
    checkpoint_every: int = 50
    device: str = "cpu"


class Trainer:
    """Holds network, average, optimiser and log; `run` goes on from the last checkpoint in the folder, if there is one."""

    def __init__(
        self,
        out: Path,
        library: DensityLibrary,
        settings: TrainingSettings,
        stream: StreamSettings,
        network: NetworkSettings,
        split: str = "train",
        start: EmbeddingNetwork | None = None,
    ) -> None:
        self.out, self.settings, self.stream_settings = out, settings, stream
        self.species = library.ids(split)
        if len(self.species) < 4:
            raise UserError(f"the library has {len(self.species)} molecules to train on; at least 4 are needed")
        self.library = library
        torch.manual_seed(settings.seed)
        self.device = torch.device(settings.device)
        self.network = EmbeddingNetwork(network)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.network = channels_last(self.network.to(self.device))
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.loss = make_loss(settings.loss, settings.temperature)
        self.step, self.particles, self.seconds = 0, 0, 0.0
        self.out.mkdir(parents=True, exist_ok=True)
        if self._state_file.is_file():
            self._resume()

    @property
    def _state_file(self) -> Path:
        return self.out / "last.safetensors"

    def run(self) -> None:
        """Train to `settings.steps`; writes model.safetensors, last.safetensors (to go on from) and log.csv."""
        pairs = self._pairs()
        start, started_at = time.monotonic(), self.step
        recent: dict[str, list[float]] = {"loss": [], "accuracy": [], "particles": []}
        self.network.train()
        while self.step < self.settings.steps:
            figures = self._train_on(next(pairs))
            self.step += 1
            self.particles += int(figures["particles"])
            for key, values in recent.items():
                values.append(figures[key])
            if self.step % 10 == 0 or self.step == self.settings.steps:
                per_step = (time.monotonic() - start) / (self.step - started_at)
                means = {k: float(np.mean(v)) for k, v in recent.items()}
                self._log(means, per_step)
                recent = {k: [] for k in recent}
            if self.step % self.settings.checkpoint_every == 0 or self.step == self.settings.steps:
                before, start, started_at = time.monotonic() - start, time.monotonic(), self.step
                self.seconds += before
                self.save()

    def learning_rate(self, step: int) -> float:
        s = self.settings
        if step < s.warmup:
            return s.learning_rate * (step + 1) / s.warmup
        turn = (step - s.warmup) / max(s.steps - s.warmup, 1)
        return s.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(turn, 1.0))))

    def _pairs(self) -> Iterator[Pair]:
        """Fresh pairs from the workers, each handed out `reuse` times in random order. The seed moves with the step,
        so a resumed run sees new tomograms."""
        s = self.settings
        stream = MiniTomogramStream(
            self.library,
            self.species,
            StreamSettings(**{**asdict(self.stream_settings), "seed": s.seed * 100003 + self.step}),
        )
        loader = DataLoader(
            stream, batch_size=None, num_workers=s.workers, prefetch_factor=4 if s.workers else None, collate_fn=None
        )
        rng = np.random.default_rng((s.seed, self.step, 1))
        waiting: list[tuple[Pair, int]] = []
        for fresh in loader:
            waiting.append((fresh, s.reuse))
            if len(waiting) < min(s.buffer, 2):
                continue
            for _ in range(s.reuse if len(waiting) >= s.buffer else s.reuse - 1):
                pick = int(rng.integers(len(waiting)))
                pair, left = waiting[pick]
                yield pair
                waiting[pick] = (pair, left - 1)
                if left == 1:
                    waiting.pop(pick)
                if not waiting:
                    break

    def _train_on(self, pair: Pair) -> dict[str, float]:
        rng = np.random.default_rng((self.settings.seed, self.step, 2))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        outputs, labels = [], []
        for tomogram in pair:
            batch = window_batch(tomogram, rng)
            volume = torch.from_numpy(batch.volume)[None, None].to(self.device)
            pooled = self.network.dense_pooled(volume)
            outputs.append(self.network.windows_of(pooled, torch.from_numpy(batch.corners).to(self.device)))
            labels.append(torch.from_numpy(batch.label).to(self.device))
        embeddings, particleness = self.network.embed_pooled(torch.cat(outputs))
        label = torch.cat(labels)
        is_particle = label != BACKGROUND
        metric = self.loss(embeddings, label)
        presence = functional.binary_cross_entropy_with_logits(particleness, is_particle.float())
        self.optimizer.zero_grad(set_to_none=True)
        (metric + self.settings.particleness_weight * presence).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return {
            "loss": metric.item(),
            "accuracy": _nearest_neighbour_accuracy(embeddings.detach(), label),
            "particles": float(is_particle.sum()),
        }

    def _log(self, means: dict[str, float], seconds_per_step: float) -> None:
        left = duration(seconds_per_step * (self.settings.steps - self.step))
        print(
            f"step {self.step} of {self.settings.steps}: loss {means['loss']:.3f}, nearest neighbour {means['accuracy']:.3f}, "
            f"{means['particles'] / seconds_per_step:.0f} particles/s, {left} left",
            flush=True,
        )
        file = self.out / "log.csv"
        new = not file.exists()
        with open(file, "a", newline="") as lines:
            writer = csv.writer(lines)
            if new:
                writer.writerow(
                    ["step", "loss", "nearest_neighbour_accuracy", "particles", "learning_rate", "seconds_per_step"]
                )
            writer.writerow(
                [
                    self.step,
                    means["loss"],
                    means["accuracy"],
                    self.particles,
                    self.learning_rate(self.step),
                    seconds_per_step,
                ]
            )

    def save(self) -> None:
        """Write the averaged model with its card, and the state to go on from."""
        averaged = self.average.module
        assert isinstance(averaged, EmbeddingNetwork)
        save_model(self.out / "model.safetensors", averaged, {"training": self.card()})
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        names = [n for n, _ in self.network.named_parameters()]
        state = self.optimizer.state_dict()["state"]
        for i, name in enumerate(names):
            for key in ("exp_avg", "exp_avg_sq"):
                if i in state:
                    tensors[f"optimizer.{name}.{key}"] = state[i][key]
        counters = {
            "step": self.step,
            "particles": self.particles,
            "seconds": self.seconds,
            "n_averaged": int(self.average.n_averaged),
        }
        write_safetensors(self._state_file, tensors, {"counters": json.dumps(counters)})

    def card(self) -> dict[str, Any]:
        """What made the weights: settings, molecules, how much was seen, on what."""
        return {
            **provenance(training=asdict(self.settings), stream=asdict(self.stream_settings)),
            "species_trained": self.species,
            "species_held_out": self.library.ids("heldout"),
            "steps": self.step,
            "particles_seen": self.particles,
            "hours": round(self.seconds / 3600, 2),
        }

    def _resume(self) -> None:
        tensors, metadata = read_safetensors(self._state_file, "a training state")
        try:
            counters = json.loads(metadata["counters"])
            self.network.load_state_dict(
                {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
            )
            self.average.module.load_state_dict(
                {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
            )
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self._state_file}: does not fit these settings; give another --out folder or the settings it was made with"
            ) from error
        self.step, self.particles, self.seconds = counters["step"], counters["particles"], counters["seconds"]
        self.average.n_averaged.fill_(counters["n_averaged"])
        for name, parameter in self.network.named_parameters():
            if f"optimizer.{name}.exp_avg" in tensors:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"optimizer.{name}.exp_avg"]
                    .to(self.device)
                    .clone(memory_format=torch.preserve_format),
                    "exp_avg_sq": tensors[f"optimizer.{name}.exp_avg_sq"]
                    .to(self.device)
                    .clone(memory_format=torch.preserve_format),
                }


def _nearest_neighbour_accuracy(embeddings: torch.Tensor, label: torch.Tensor) -> float:
    """Share of particles whose most similar other window is of their species."""
    particle = torch.nonzero(label != BACKGROUND).flatten()
    if len(particle) < 2:
        return 0.0
    similarity = embeddings[particle] @ embeddings.T
    similarity[torch.arange(len(particle)), particle] = -2.0
    return float((label[similarity.argmax(1)] == label[particle]).float().mean())
