"""The trainer: pairs of mini-tomograms in, a model with its card out, resumable at any step.

A step takes one pair, gathers the windows of all particles and backgrounds from it, and puts one metric loss over both
together, plus a small cross-entropy on the particleness. Shared windows come out of one pass of the trunk over each
mini-tomogram, single ones are cut and changed each by itself. Weights are averaged exponentially; the average is the
model that is saved. With several processes (distributed.py) each takes pairs of its own and all take the same step.

    model.safetensors, .json   the averaged model, last checkpoint
    best.safetensors, .json    the same where validation was best
    last.safetensors           the state to go on from
    log.csv, validation.csv, curves.png, tensorboard/
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model.checkpoint import save_model
from tomotwin_core.model.network import EmbeddingNetwork, channels_last, split_output
from tomotwin_core.model.statistics import counting
from tomotwin_core.progress import duration
from tomotwin_core.training.augmentation import cut_windows, disturbed
from tomotwin_core.training.batches import BACKGROUND, WindowBatch, window_batch
from tomotwin_core.training.curves import plot_curves
from tomotwin_core.training.distributed import World
from tomotwin_core.training.log import TrainingLog
from tomotwin_core.training.losses import MetricLoss
from tomotwin_core.training.schedule import Schedule
from tomotwin_core.training.settings import TrainingPlan
from tomotwin_core.training.sources import Pair, PairSource, ahead
from tomotwin_core.training.state import MOST_BYTES, read_state, write_state
from tomotwin_core.training.stream import label_in_world
from tomotwin_core.training.validation import summary

FILES = ("last*.safetensors", "model.*", "best.*", "settings.toml", "*.csv", "curves.png", "cache/*.npy")
"""Patterns of what a run writes into its folder."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
Validator = Callable[[EmbeddingNetwork], list[dict[str, Any]]]


@dataclass(frozen=True)
class Batch:
    """What a step sees: the windows of each mini-tomogram, and the random numbers of what is done to them."""

    windows: list[WindowBatch]
    rng: np.random.Generator


class Trainer:
    """Holds network, average, optimiser and log; `run` goes on from the last checkpoint in the folder, if there is one."""

    def __init__(
        self,
        out: Path,
        plan: TrainingPlan,
        source: PairSource,
        start: EmbeddingNetwork | None = None,
        device: str = "cpu",
        world: World | None = None,
        validator: Validator | None = None,
        held_out: list[str] | None = None,
    ) -> None:
        self.out, self.plan, self.settings, self.source = out, plan, plan.training, source
        self.world, self.validator, self.held_out = world or World(), validator, held_out or []
        self.device = torch.device(device)
        torch.manual_seed(self.settings.seed)
        network = EmbeddingNetwork(plan.network)
        if 4 * network.n_parameters > MOST_BYTES:
            raise UserError(
                f"network: {network.n_parameters} weights make a model of {4 * network.n_parameters / 1e6:.0f} MB, 16 MB at most; "
                "choose narrower widths or a narrower head"
            )
        if start is not None:
            network.load_state_dict(start.state_dict())
        self.network = channels_last(network.to(self.device))
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(self.settings.ema_decay), use_buffers=True
        )
        self.loss = MetricLoss(plan.loss, len(source.species), plan.network.embedding_size).to(self.device)
        maker = torch.optim.Adam if self.settings.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = maker(
            [p for _, p in self._parameters()], lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        self.schedule = Schedule(self.settings)
        self.step, self.particles, self.seconds = 0, 0, 0.0
        self.best: dict[str, float] = {}
        self.stopped = self._signalled = False
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self, on_validation: Callable[[int, dict[str, float]], None] | None = None) -> bool:
        """Train to `training.steps`; returns whether that was reached: on SIGINT or SIGTERM the state is saved after
        the step at hand and the run ends. `on_validation` gets the step and the figures of each validation."""
        log = TrainingLog(self.out, self.step) if self.world.writes else None
        recent: list[dict[str, float]] = []
        saved_at = time.monotonic()
        with self._heeding_signals():
            batches = self._batches()
            while self.step < self.settings.steps and not self.stopped:
                began = time.monotonic()
                figures = self._train_on(next(batches))
                self.step += 1
                self.particles += int(figures["particles"])
                self.schedule.look(figures["loss"])
                recent.append({**figures, "seconds_per_step": time.monotonic() - began})
                ends = self.stopped or self.step == self.settings.steps
                if log and (ends or self.step % self.settings.log_every == 0):
                    self._report(log, recent)
                    recent = []
                every = self.plan.validation.every
                validates = self.validator is not None and every and self.step % every == 0
                if ends or validates or self.step % self.settings.checkpoint_every == 0:
                    self.seconds += time.monotonic() - saved_at
                    validated = self._validate(log) if validates and log else {}
                    if log:
                        self.save()
                    if validated and on_validation:
                        on_validation(self.step, validated)
                    saved_at = time.monotonic()
        if log:
            plot_curves(self.out)
            log.close()
        return not self.stopped

    def _batches(self) -> Iterator[Batch]:
        """What the steps from the next one on see. A GPU trains while the processor cuts the next."""
        pairs = zip(count(self.step), self.source.pairs(self.step, self.world.rank))
        batches = (self.batch(pair, step) for step, pair in pairs)
        return batches if self.device.type == "cpu" else ahead(batches)

    def batch(self, pair: Pair, step: int) -> Batch:
        """The windows that a step takes from a pair."""
        rng = np.random.default_rng((self.settings.seed, step, 2, self.world.rank))
        return Batch([window_batch(t, rng, self.plan.batch, self.plan.augmentation) for t in pair], rng)

    def _train_on(self, batch: Batch) -> dict[str, float]:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        own, own_label, particleness = self._forward(batch)
        embeddings, label = self.world.gathered(own, label_in_world(own_label, self.world.rank))
        is_particle = own_label != BACKGROUND
        metric = self.loss(embeddings, label)
        presence = functional.binary_cross_entropy_with_logits(particleness, is_particle.float(), reduction="sum")
        presence = presence / len(label)
        self.optimizer.zero_grad(set_to_none=True)
        (metric + self.settings.particleness_weight * presence).backward()
        self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in self._parameters()], self.settings.clip)
        if not torch.isfinite(norm):
            raise UserError(
                f"step {self.step + 1}: the loss is no number any more; lower training.learning_rate and go on from {self.out}"
            )
        self.optimizer.step()
        self.world.average(self.network.buffers())
        self.average.update_parameters(self.network)
        return {
            "loss": metric.item(),
            "particleness_loss": self.world.total(presence.item(), self.device),
            "nearest_neighbour_accuracy": _nearest_neighbour_accuracy(embeddings.detach(), label),
            "particles": float((label != BACKGROUND).sum()),
        }

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings (n, d), labels (n,) and particleness logits (n,) of the windows of a batch."""
        plan, rng, inputs, labels = self.plan, batch.rng, [], []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            for cut in batch.windows:
                volume = torch.from_numpy(cut.volume).to(self.device)
                corners = torch.from_numpy(cut.corners).to(self.device)
                labels.append(torch.from_numpy(cut.label).to(self.device))
                if plan.batch.windows == "shared":
                    with counting(self.network, cut.usual):
                        pooled = self.network.dense_pooled(disturbed(volume[None, None], plan.augmentation, rng))
                    inputs.append(self.network.windows_of(pooled, corners))
                else:
                    inputs.append(
                        disturbed(cut_windows(volume, corners, plan.augmentation, rng), plan.augmentation, rng)
                    )
            windows = torch.cat(inputs)
            if plan.batch.windows == "single":
                windows = windows.contiguous(memory_format=torch.channels_last_3d)
                with counting(self.network, all(cut.usual for cut in batch.windows)):
                    windows = functional.max_pool3d(self.network.trunk(windows), 3, 2)
            raw = self.network.head(self.network.late(windows)).flatten(1)
        embeddings, particleness = split_output(raw.float())
        return embeddings, torch.cat(labels), particleness

    @property
    def _half(self) -> bool:
        chosen = self.settings.precision
        return chosen == "bfloat16" or (chosen == "auto" and self.device.type == "cuda")

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and parameters of network and loss, in the optimiser's order."""
        yield from self.network.named_parameters()
        for name, parameter in self.loss.named_parameters():
            yield f"loss.{name}", parameter

    def _share_gradients(self) -> None:
        """Gradients of the whole loss: the network's add up over the processes, the loss's own are whole already. A
        signal that one process got stops all."""
        stop = torch.tensor([float(self._signalled)], device=self.device)
        self.world.add_up([stop, *(p.grad for p in self.network.parameters() if p.grad is not None)])
        self.world.average([p.grad for p in self.loss.parameters() if p.grad is not None])
        self.stopped = bool(stop.item())

    def _report(self, log: TrainingLog, recent: list[dict[str, float]]) -> None:
        """One line of the log, the mean of the last steps."""
        row = {name: float(np.mean([figures[name] for figures in recent])) for name in recent[0]}
        speed = row["particles"] / row["seconds_per_step"]
        left = duration(row["seconds_per_step"] * (self.settings.steps - self.step))
        print(
            f"step {self.step} of {self.settings.steps}: loss {row['loss']:.3f}, nearest neighbour "
            f"{row['nearest_neighbour_accuracy']:.3f}, {speed:.0f} particles/s, {left} left",
            flush=True,
        )
        rate = self.schedule.rate(self.step)
        log.add({**row, "step": self.step, "particles": self.particles, "learning_rate": rate})

    def _validate(self, log: TrainingLog) -> dict[str, float]:
        """Validate the averaged model, log it, and keep it where it is the best so far. The best is chosen by the seen
        species alone: the unseen ones stay unseen by every choice."""
        assert self.validator is not None
        rows = self.validator(self._averaged)
        figures = summary(rows)
        log.add_validation([{"step": self.step, **row} for row in rows], figures)
        print(
            f"step {self.step}: " + ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in figures.items()), flush=True
        )
        if figures.get("mean_best_f1_seen", 0.0) >= self.best.get("mean_best_f1_seen", 0.0):
            self.best = {"step": self.step, **figures}
            save_model(self.out / "best.safetensors", self._averaged, {"training": self.card()})
        plot_curves(self.out)
        return figures

    @property
    def _averaged(self) -> EmbeddingNetwork:
        averaged = self.average.module
        assert isinstance(averaged, EmbeddingNetwork)
        return averaged

    def card(self) -> dict[str, Any]:
        """What made the weights: settings, molecules, how much was seen, on what."""
        return {
            **provenance(**asdict(self.plan)),
            "device": str(self.device),
            "processes": self.world.size,
            "species_trained": self.source.species,
            "species_held_out": self.held_out,
            "steps": self.step,
            "particles_seen": self.particles,
            "hours": round(self.seconds / 3600, 2),
            "validation": self.best,
        }

    def save(self) -> None:
        """Write the averaged model with its card, and the state to go on from."""
        save_model(self.out / "model.safetensors", self._averaged, {"training": self.card()})
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self._averaged.state_dict().items()}
        tensors |= {f"loss.{k}": v for k, v in self.loss.state_dict().items()}
        for name, parameter in self._parameters():
            state = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{name}.{key}": state[key] for key in _MOMENTS if key in state}
        counters = {
            "step": self.step,
            "particles": self.particles,
            "seconds": self.seconds,
            "n_averaged": int(self.average.n_averaged),
            "schedule": self.schedule.state(),
            "best": self.best,
        }
        write_state(self.out, tensors, counters)

    def _resume(self) -> None:
        found = read_state(self.out)
        if found is None:
            return
        tensors, counters = found

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.network.load_state_dict(part("network."))
            self._averaged.load_state_dict(part("average."))
            self.loss.load_state_dict(part("loss."))
            self.step, self.particles, self.seconds = counters["step"], counters["particles"], counters["seconds"]
            self.average.n_averaged.fill_(counters["n_averaged"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.out / 'last.safetensors'}: does not fit these settings; give another --out folder or the "
                "settings it was made with"
            ) from error
        self.best = counters.get("best", {})
        if counters.get("schedule"):
            self.schedule.restore(counters["schedule"])
        for name, parameter in self._parameters():
            moments = {
                key: tensors[f"optimizer.{name}.{key}"] for key in _MOMENTS if f"optimizer.{name}.{key}" in tensors
            }
            if any(value.shape != parameter.shape for value in moments.values()):
                raise UserError(f"{self.out / 'last.safetensors'}: does not fit these settings; give another --out folder")
            if moments:
                # In the parameter's own memory order, as the optimiser makes them.
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    **{key: torch.empty_like(parameter).copy_(value) for key, value in moments.items()},
                }

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the step at hand; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: FrameType | None) -> None:
            print("stopping after this step; once more to stop at once", flush=True)
            self._signalled = True
            for s, handler in before.items():
                signal.signal(s, handler)

        for s in before:
            signal.signal(s, stop)
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


def _nearest_neighbour_accuracy(embeddings: torch.Tensor, label: torch.Tensor) -> float:
    """Share of particles whose most similar other window is of their species."""
    particle = torch.nonzero(label != BACKGROUND).flatten()
    if len(particle) < 2:
        return 0.0
    similarity = embeddings[particle] @ embeddings.T
    similarity[torch.arange(len(particle), device=label.device), particle] = -2.0
    return float((label[similarity.argmax(1)] == label[particle]).float().mean())
