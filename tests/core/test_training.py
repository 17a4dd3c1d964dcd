"""A training run: it learns, goes on after a break as if there had been none, and keeps its log straight."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import tiny_network
from planted_training import TINY, PlantedSource
from safetensors.torch import load_file

from tomotwin_core.errors import UserError
from tomotwin_core.model import EmbeddingNetwork, NetworkSettings, load_model
from tomotwin_core.model.checkpoint import read_safetensors
from tomotwin_core.structures import DensityLibrary, density_from_points
from tomotwin_core.training import state
from tomotwin_core.training.distributed import World
from tomotwin_core.training.log import read_rows
from tomotwin_core.training.settings import (
    AugmentationSettings,
    BatchSettings,
    LossSettings,
    TrainingPlan,
    TrainingSettings,
    ValidationSettings,
    paper_recipe,
)
from tomotwin_core.training.sources import LiveSource, Pair
from tomotwin_core.training.stream import MiniTomogramStream, StreamSettings
from tomotwin_core.training.trainer import Trainer

STREAM = StreamSettings(shape=(40, 48, 48), species=4, max_copies=4, variants=2, invented=0.0, usual=0.0)
RUN = TrainingSettings(
    steps=4, warmup=2, reuse=2, buffer=2, workers=0, checkpoint_every=2, log_every=2, learning_rate=1e-3
)
PLAN = TrainingPlan(
    RUN,
    batch=BatchSettings(anywhere=8, beside=8),
    network=TINY,
    stream=STREAM,
    validation=ValidationSettings(every=0),
)


def with_steps(plan: TrainingPlan, **changes: object) -> TrainingPlan:
    return replace(plan, training=replace(plan.training, **changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def library() -> DensityLibrary:
    """Six molecules of 100 to 600 kDa; two of them look alike."""
    made = DensityLibrary({}, {})
    rng = np.random.default_rng(0)
    for i in range(6):
        points = rng.normal(0, (10 + 3 * i, 25, 12), (300, 3))
        density = density_from_points(points, np.full(300, 100e3 * (i + 1) / 300), 5.0)
        made.add(f"m{i}", density, name=f"molecule {i}", source="a test", licence="none")
    made.entries["m0"] = replace(made.entries["m0"], lookalikes=("m1",))
    made.entries["m1"] = replace(made.entries["m1"], lookalikes=("m0",))
    return made


def test_the_stream_gives_normalised_pairs_of_the_same_species_and_the_same_seed_the_same_pair(
    library: DensityLibrary,
) -> None:
    streams = [iter(MiniTomogramStream(library, library.ids(), replace(STREAM, seed=seed))) for seed in (1, 1, 2)]
    (first, second), same, other = (next(s) for s in streams)
    assert first.volume.shape == STREAM.shape and first.volume.dtype == np.float32
    assert abs(first.volume.mean()) < 0.2 and 0.7 < first.volume.std() < 1.3
    assert set(first.label) - {-1} <= set(range(6)) and set(first.label) - {-1} == set(second.label) - {-1}
    assert not {0, 1} <= set(first.label), "of two look-alikes only one is drawn"
    assert np.array_equal(first.volume, same[0].volume) and not np.array_equal(first.volume, other[0].volume)
    assert (first.xyz >= -0.5).all() and (first.xyz <= np.array(STREAM.shape[::-1]) - 0.5).all()


def test_a_run_on_the_live_stream_leaves_a_model_with_its_card(library: DensityLibrary, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, PLAN, LiveSource(library, PLAN))
    assert trainer.run()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["curves.png", "last.safetensors", "log.csv", "model.json", "model.safetensors", "tensorboard"]
    model = load_model(tmp_path / "model.safetensors")
    card = model.card["training"]
    assert card["steps"] == 4 and card["species_trained"] == library.ids() and card["settings"]["training"]["seed"] == 0
    average = trainer.average.module.state_dict()
    assert all(torch.equal(v, average[k]) for k, v in model.network.state_dict().items()), "the average is the model"
    last = read_rows(tmp_path / "log.csv")[-1]
    assert int(last["step"]) == 4 and np.isfinite(float(last["loss"])) and int(last["particles"]) > 0
    with pytest.raises(UserError, match="at least 4"):
        few = DensityLibrary({k: library.entries[k] for k in ("m0", "m1")}, library.arrays)
        LiveSource(few, PLAN)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    moments = [v[k] for v in trainer.optimizer.state.values() for k in ("step", "exp_avg", "exp_avg_sq")]
    return [
        *trainer.network.state_dict().values(),
        *trainer.average.module.state_dict().values(),
        *trainer.loss.state_dict().values(),
        *moments,
    ]


@pytest.mark.parametrize("loss", ["supcon", "proxy-anchor"])
def test_a_killed_run_goes_on_bit_for_bit_as_if_it_had_not_been(tmp_path: Path, loss: str) -> None:
    plan = replace(
        with_steps(PLAN, steps=10, checkpoint_every=4, schedule="plateau", plateau_every=3, plateau_patience=1),
        loss=LossSettings(loss),
        augmentation=AugmentationSettings(noise=0.5, dropout=0.5),
    )
    at_once = Trainer(tmp_path / "once", plan, PlantedSource())
    at_once.run()

    class Killed(PlantedSource):
        def pairs(self, step: int, rank: int) -> Iterator[Pair]:
            for i, pair in enumerate(super().pairs(step, rank)):
                if i == 7:
                    raise RuntimeError("killed")
                yield pair

    with pytest.raises(RuntimeError, match="killed"):
        Trainer(tmp_path / "twice", plan, Killed()).run()
    assert [r["step"] for r in read_rows(tmp_path / "twice" / "log.csv")] == ["2", "4", "6"]
    resumed = Trainer(tmp_path / "twice", plan, PlantedSource())
    assert resumed.step == 4
    resumed.run()
    assert resumed.step == at_once.step == 10 and resumed.particles == at_once.particles
    for a, b in zip(weights(resumed), weights(at_once), strict=True):
        assert torch.equal(a, b)
    rows = [read_rows(tmp_path / f / "log.csv") for f in ("twice", "once")]
    assert [r["step"] for r in rows[0]] == ["2", "4", "6", "8", "10"]
    for a, b in zip(*rows, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds_per_step"} == {
            k: v for k, v in b.items() if k != "seconds_per_step"
        }


def test_a_run_learns_to_tell_four_bars_apart(tmp_path: Path) -> None:
    plan = with_steps(PLAN, steps=24, warmup=2, log_every=4, learning_rate=1e-2, particleness_weight=1.0)
    Trainer(tmp_path, plan, PlantedSource()).run()
    first, last = (read_rows(tmp_path / "log.csv")[i] for i in (0, -1))
    assert float(last["nearest_neighbour_accuracy"]) > 0.7 > float(first["nearest_neighbour_accuracy"]) + 0.2
    assert float(last["particleness_loss"]) < float(first["particleness_loss"])
    assert float(last["loss"]) < float(first["loss"])


def test_the_papers_recipe_trains(tmp_path: Path) -> None:
    paper = paper_recipe()
    plan = replace(
        paper,
        training=replace(paper.training, steps=2, checkpoint_every=2, log_every=1),
        network=TINY,
        validation=ValidationSettings(every=0),
    )
    trainer = Trainer(tmp_path, plan, PlantedSource())
    before = [p.clone() for p in trainer.network.parameters()]
    trainer.run()
    assert type(trainer.optimizer) is torch.optim.Adam
    moved = [float((a - b).abs().max()) for a, b in zip(before, trainer.network.parameters(), strict=True)]
    assert 0 < max(moved) < 5 * 5.9e-5, "two steps of its learning rate"
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer)[:5], trainer.average.module.state_dict().values()))


def test_single_and_shared_windows_of_the_same_places_embed_alike(tmp_path: Path) -> None:
    """One network, two ways to cut: in evaluation the windows' own batch statistics play no part."""
    pair = next(PlantedSource().pairs(0, 0))
    single = replace(PLAN, batch=BatchSettings(windows="single", anywhere=0, beside=0))
    trainer = Trainer(tmp_path, single, PlantedSource(), start=tiny_network(3, TINY.widths, TINY.head))
    trainer.network.eval()
    with torch.no_grad():
        # A step whose first mini-tomogram is not turned.
        step = next(s for s in range(99) if np.random.default_rng((0, s, 2, 0)).integers(4) == 0)
        embeddings, label, _ = trainer._forward(trainer.batch(pair, step))
        volume = torch.from_numpy(np.pad(pair[0].volume, 40))[None, None]
        x, y, z = pair[0].xyz[list(pair[0].label).index(0)].astype(int) + 40
        window = volume[:, :, z - 18 : z + 19, y - 18 : y + 19, x - 18 : x + 19]
        alone, _ = trainer.network(window)
    same = (embeddings[label == 0] @ alone[0]).max()
    assert len(label) == 8 and same > 0.99


@pytest.mark.parametrize("windows", ["shared", "single"])
def test_only_usual_mini_tomograms_count_in_the_kept_statistics(tmp_path: Path, windows: str) -> None:
    plan = replace(PLAN, batch=replace(PLAN.batch, windows=windows), augmentation=AugmentationSettings(rotation=0, shift=0))
    trainer = Trainer(tmp_path, plan, PlantedSource())

    def kept() -> list[torch.Tensor]:
        return [t.clone() for n, t in trainer.network.state_dict().items() if "running" in n]

    pair = next(trainer.source.pairs(0, 0))
    before = kept()
    trainer._train_on(trainer.batch(tuple(replace(mini, usual=False) for mini in pair), 0))  # type: ignore[arg-type]
    unusual = kept()
    trunk = sum("running" in n for n in trainer.network.trunk.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before[:trunk], unusual[:trunk], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[trunk:], unusual[trunk:], strict=True))
    trainer._train_on(trainer.batch(pair, 1))
    assert not any(torch.equal(a, b) for a, b in zip(unusual, kept(), strict=True))


def test_bfloat16_gives_the_same_losses_to_its_own_rounding(tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(tmp_path / precision, with_steps(PLAN, precision=precision), PlantedSource())
        trainer.run()
        losses[precision] = float(read_rows(tmp_path / precision / "log.csv")[0]["loss"])
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02) and len(set(losses.values())) == 2


def test_training_starts_from_given_weights(tmp_path: Path) -> None:
    start = tiny_network(3, TINY.widths, TINY.head)
    trainer = Trainer(tmp_path, PLAN, PlantedSource(), start=start)
    assert all(torch.equal(v, start.state_dict()[k]) for k, v in trainer.network.state_dict().items())


def test_a_state_of_other_settings_is_told(tmp_path: Path) -> None:
    Trainer(tmp_path, PLAN, PlantedSource()).save()
    other = replace(PLAN, network=NetworkSettings(widths=(2, 2, 2, 2, 2), head=4))
    with pytest.raises(UserError, match="does not fit these settings"):
        Trainer(tmp_path, other, PlantedSource())
    (tmp_path / "last.safetensors").write_text("text")
    with pytest.raises(UserError, match=r"last\.safetensors"):
        Trainer(tmp_path, PLAN, PlantedSource())


def test_a_state_as_the_first_release_wrote_it_is_gone_on_from(tmp_path: Path) -> None:
    """Its counters knew neither schedule nor best, its log one column less."""
    trainer = Trainer(tmp_path, with_steps(PLAN, steps=2), PlantedSource())
    trainer.run()
    tensors, metadata = read_safetensors(tmp_path / "last.safetensors", "a state")
    counters = json.loads(metadata["counters"])
    old = {k: counters[k] for k in ("step", "particles", "seconds", "n_averaged")}
    state.write_safetensors(tmp_path / "last.safetensors", tensors, {"counters": json.dumps(old)})
    rows = read_rows(tmp_path / "log.csv")
    with open(tmp_path / "log.csv", "w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0])[:-1], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    resumed = Trainer(tmp_path, PLAN, PlantedSource())
    assert resumed.step == 2
    resumed.run()
    found = read_rows(tmp_path / "log.csv")
    assert [r["step"] for r in found] == ["2", "4"] and found[0]["loss"] == rows[0]["loss"]
    assert float(found[1]["particleness_loss"]) > 0


def test_no_file_of_a_state_is_larger_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MOST_BYTES", 20_000)
    tensors = {f"t{i}": torch.full((1000,), float(i)) for i in range(14)}
    for step in (1, 2):
        state.write_state(tmp_path, tensors, {"step": step})
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["last.2.1.safetensors", "last.2.2.safetensors", "last.safetensors"], "older parts are gone"
    assert max(p.stat().st_size for p in tmp_path.iterdir()) < 21_000
    found = state.read_state(tmp_path)
    assert found is not None and found[1] == {"step": 2}
    assert found[0].keys() == tensors.keys() and all(torch.equal(found[0][k], tensors[k]) for k in tensors)
    (tmp_path / "last.2.2.safetensors").unlink()
    with pytest.raises(UserError, match=r"last\.2\.2\.safetensors"):
        state.read_state(tmp_path)


def test_a_network_whose_model_would_not_fit_into_16_mb_is_told(tmp_path: Path) -> None:
    wide = replace(PLAN, network=NetworkSettings(widths=(64, 128, 256, 256, 256), head=256))
    with pytest.raises(UserError, match="16 MB at most"):
        Trainer(tmp_path, wide, PlantedSource())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_its_state_saved(tmp_path: Path, number: int) -> None:
    class Signalling(PlantedSource):
        def pairs(self, step: int, rank: int) -> Iterator[Pair]:
            for i, pair in enumerate(super().pairs(step, rank)):
                if i == 3:
                    os.kill(os.getpid(), number)
                yield pair

    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    plan = with_steps(PLAN, steps=50, checkpoint_every=100)
    assert Trainer(tmp_path, plan, Signalling()).run() is False
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    resumed = Trainer(tmp_path, plan, PlantedSource())
    assert resumed.step == 4 and threading.active_count() >= 1
    assert read_rows(tmp_path / "log.csv")[-1]["step"] == "4"


def test_the_best_model_is_chosen_by_the_seen_species_and_survives_a_break(tmp_path: Path) -> None:
    plan = replace(with_steps(PLAN, steps=4), validation=ValidationSettings(every=1))
    figures = iter([0.2, 0.6, 0.4, 0.5])
    seen_by: list[EmbeddingNetwork] = []

    def validator(network: EmbeddingNetwork) -> list[dict[str, object]]:
        value = next(figures)
        seen_by.append(network)
        base = {"mass_kDa": 1.0, "n_true": 3, "f1": value}
        return [
            {"group": "seen", "species": "a", "best_f1": value, **base},
            {"group": "unseen", "species": "b", "best_f1": 1 - value, **base},
        ]

    calls: list[tuple[int, dict[str, float]]] = []
    Trainer(tmp_path, with_steps(plan, steps=2), PlantedSource(), validator=validator).run(
        lambda step, found: calls.append((step, found))
    )
    trainer = Trainer(tmp_path, plan, PlantedSource(), validator=validator)
    trainer.run()
    assert trainer.best["step"] == 2 and trainer.best["mean_best_f1_seen"] == 0.6
    best = load_model(tmp_path / "best.safetensors")
    assert best.card["training"]["steps"] == 2 and best.card["training"]["validation"]["median_f1_seen"] == 0.6
    assert [c[0] for c in calls] == [1, 2] and calls[1][1]["mean_best_f1_unseen"] == pytest.approx(0.4)
    rows = read_rows(tmp_path / "validation.csv")
    assert [(r["step"], r["group"]) for r in rows] == [(str(s), g) for s in (1, 2, 3, 4) for g in ("seen", "unseen")]
    assert (tmp_path / "curves.png").stat().st_size > 10_000 and seen_by[0] is not trainer.network


TWO = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from planted_training import TINY, PlantedSource
from safetensors.torch import save_file
from tomotwin_core.training.distributed import join_world, leave_world
from tomotwin_core.training.settings import BatchSettings, LossSettings, TrainingPlan, TrainingSettings, ValidationSettings
from tomotwin_core.training.trainer import Trainer
torch.set_num_threads(1)
world, device = join_world("cpu")
for loss in ("supcon", "proxy-anchor"):
    plan = TrainingPlan(TrainingSettings(steps=1, warmup=0, checkpoint_every=1, workers=0, clip=1e9), LossSettings(loss),
                        BatchSettings(anywhere=8, beside=8), network=TINY, validation=ValidationSettings(every=0))
    out = Path(sys.argv[2]) / loss
    trainer = Trainer(out, plan, PlantedSource(), world=world)
    figures = trainer._train_on(trainer.batch(next(trainer.source.pairs(0, world.rank)), 0))
    tensors = {f"figure.{n}": torch.tensor(v) for n, v in figures.items()}
    tensors |= {f"gradient.{n}": p.grad.contiguous() for n, p in trainer._parameters()}
    tensors |= {f"weight.{n}": t.contiguous() for n, t in trainer.network.state_dict().items()}
    save_file(tensors, out / f"{world.rank}.safetensors")
leave_world()
"""


def test_two_processes_take_the_step_of_one_with_both_their_windows(tmp_path: Path) -> None:
    """Equal but for batch norm, which each process takes over its own windows: the one process here does so too."""
    (tmp_path / "two.py").write_text(TWO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "two.py"), str(Path(__file__).parent), str(tmp_path)]
    running = [
        subprocess.Popen(command, env={**os.environ, **world, "RANK": str(r), "LOCAL_RANK": "0"}) for r in (0, 1)
    ]
    assert [process.wait(600) for process in running] == [0, 0]
    for loss in ("supcon", "proxy-anchor"):
        found = [load_file(tmp_path / loss / f"{rank}.safetensors") for rank in (0, 1)]
        assert all(torch.equal(found[0][k], found[1][k]) for k in found[0]), "both are one network still"
        plan = replace(PLAN, loss=LossSettings(loss), training=TrainingSettings(), stream=StreamSettings())
        trainer = Trainer(tmp_path / f"one_{loss}", plan, PlantedSource())
        trainer.network.train()
        halves = []
        for rank in (0, 1):
            trainer.world = World(rank)
            halves.append(trainer._forward(trainer.batch(next(PlantedSource().pairs(0, rank)), 0)))
        embeddings, label, particleness = (torch.cat([h[i] for h in halves]) for i in range(3))
        presence = torch.nn.functional.binary_cross_entropy_with_logits(particleness, (label >= 0).float())
        (trainer.loss(embeddings, label) + 0.2 * presence).backward()
        for name, parameter in trainer._parameters():
            assert parameter.grad is not None
            scale = float(parameter.grad.abs().max())
            assert torch.allclose(found[0][f"gradient.{name}"], parameter.grad, atol=1e-4 * scale + 1e-7), name
        assert int(found[0]["figure.particles"]) == int((label >= 0).sum())
        assert float(found[0]["figure.loss"]) == pytest.approx(trainer.loss(embeddings, label).item(), rel=1e-4)
        assert float(found[0]["figure.particleness_loss"]) == pytest.approx(presence.item(), rel=1e-4)
