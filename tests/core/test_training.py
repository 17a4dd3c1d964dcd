"""Training: windows with the particle in the middle, negatives that are none, losses, and a run that goes on after a break."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import tiny_network

from tomotwin_core.errors import UserError
from tomotwin_core.model import HALF_WINDOW, STRIDE, WINDOW, NetworkSettings, load_model
from tomotwin_core.model.network import dense_shape
from tomotwin_core.structures import DensityLibrary, density_from_points
from tomotwin_core.training.batches import _MARGIN, BACKGROUND, turned_about_axes, window_batch
from tomotwin_core.training.losses import make_loss
from tomotwin_core.training.stream import MiniTomogram, MiniTomogramStream, StreamSettings
from tomotwin_core.training.trainer import Trainer, TrainingSettings

SHAPE = (40, 60, 70)
TINY = NetworkSettings(widths=(3, 4, 5, 6, 8), head=8)
STREAM = StreamSettings(shape=(40, 48, 48), species=4, max_copies=4, variants=2)
RUN = TrainingSettings(
    steps=4, warmup=2, reuse=2, buffer=2, workers=0, checkpoint_every=2, learning_rate=1e-3, loss="supcon"
)


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


def planted(n: int = 12, seed: int = 0, gold: int = 0) -> MiniTomogram:
    """A volume whose value names its voxel, so that a window tells where it was cut; particles at random places."""
    rng = np.random.default_rng(seed)
    volume = 1 + np.arange(np.prod(SHAPE)).reshape(SHAPE)
    # A window fits about all places but the outermost 10 voxels to the sides, and 2 above and below.
    xyz = rng.uniform((12, 12, 4), np.array(SHAPE[::-1]) - (13, 13, 5), (n + gold, 3))
    label = np.concatenate([rng.integers(0, 4, n), np.full(gold, -1)])
    return MiniTomogram(volume.astype(np.float64), xyz, label, np.full(n + gold, 120.0))


def middles(volume: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The places (x, y, z in the mini-tomogram) of the middle voxels of windows, read off the volume's values; NaN in
    the margin."""
    middle = volume[tuple((STRIDE * corners + HALF_WINDOW).T)]
    zyx = np.stack(np.unravel_index(np.maximum(middle.astype(int) - 1, 0), SHAPE), axis=1).astype(float)
    zyx[middle == 0] = np.nan
    return zyx[:, ::-1]


@pytest.mark.parametrize("seed", range(6))
def test_every_particle_has_a_window_with_its_centre_within_a_voxel_and_a_half_of_the_middle(seed: int) -> None:
    tomogram = planted(seed=seed)
    batch = window_batch(tomogram, np.random.default_rng(seed))
    particle = batch.label != BACKGROUND
    assert (batch.corners >= 0).all() and (batch.corners < dense_shape(batch.volume.shape)).all()
    found = middles(batch.volume, batch.corners[particle])
    known = np.isfinite(found).all(1)
    assert known.sum() == 12
    for label, place in zip(batch.label[particle][known], found[known], strict=True):
        offsets = np.abs(tomogram.xyz[tomogram.label == label] - place).max(1)
        assert offsets.min() <= 1.5


@pytest.mark.parametrize("seed", range(4))
def test_background_is_farther_from_all_centres_than_a_pick_may_be(seed: int) -> None:
    tomogram = planted(seed=seed)
    batch = window_batch(tomogram, np.random.default_rng(seed))
    found = middles(batch.volume, batch.corners[batch.label == BACKGROUND])
    found = found[np.isfinite(found).all(1)]
    assert len(found) > 20
    distance = np.linalg.norm(found[:, None] - tomogram.xyz[None], axis=-1).min(1)
    assert distance.min() > 5.0, "50 A in voxels of 10 A"
    assert (distance < 10).sum() > 5, "some lie close beside a particle"


def test_gold_is_background_in_the_middle_of_a_window() -> None:
    tomogram = planted(n=2, gold=8)
    batch = window_batch(tomogram, np.random.default_rng(0))
    found = middles(batch.volume, batch.corners[batch.label == BACKGROUND])
    distance = np.linalg.norm(found[:, None] - tomogram.xyz[None, 2:], axis=-1)
    assert (np.nanmin(distance, axis=0) <= 1.5 * np.sqrt(3)).all()


def test_a_tomogram_without_particles_gives_background_only() -> None:
    batch = window_batch(planted(n=0), np.random.default_rng(0))
    assert len(batch.label) > 20 and (batch.label == BACKGROUND).all()
    assert batch.volume.shape[0] >= SHAPE[0] + 2 * _MARGIN[0] >= WINDOW


@pytest.mark.parametrize("which", range(4))
def test_half_turns_take_positions_along_and_keep_the_handedness(which: int) -> None:
    volume = np.arange(4 * 5 * 6, dtype=float).reshape(4, 5, 6)
    xyz = np.array([[1.0, 2, 3], [5, 0, 1], [0, 4, 2], [3, 1, 0]])
    turned, moved = turned_about_axes(volume, xyz, which)
    for before, after in zip(xyz.astype(int), moved.astype(int), strict=True):
        assert turned[tuple(after[::-1])] == volume[tuple(before[::-1])]
    handedness = [np.sign(np.linalg.det(p[1:] - p[0])) for p in (xyz, moved)]
    assert handedness[0] == handedness[1] != 0
    assert which == 0 or not np.array_equal(turned, volume)


@pytest.mark.parametrize("name", ["supcon", "triplet", "multisimilarity"])
def test_a_loss_pulls_copies_together_and_never_backgrounds(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    species = torch.nn.functional.normalize(torch.randn(4, 32, generator=generator), dim=1)
    label = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3] + [BACKGROUND] * 6)
    noise = torch.nn.functional.normalize(torch.randn(16, 32, generator=generator), dim=1)
    loss = make_loss(name)
    near = torch.where((label >= 0)[:, None], 2 * species[label.clamp_min(0)] + noise, noise)
    random = noise.clone().requires_grad_()
    assert loss(torch.nn.functional.normalize(near, dim=1), label) < loss(random, label)
    loss(random, label).backward()
    assert random.grad is not None and torch.isfinite(random.grad).all() and random.grad.abs().sum() > 0
    # Backgrounds on one spot are no better than backgrounds apart from each other: nobody's positives.
    background = torch.full((16,), BACKGROUND)
    assert loss(noise[:1].expand(16, -1), background) >= loss(noise, background) - 1e-6


def test_a_loss_that_is_not_known_is_told() -> None:
    with pytest.raises(UserError, match="choose supcon, triplet or multisimilarity"):
        make_loss("guess")


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


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_training_run_that_is_resumed_counts_on_like_one_at_a_stretch(
    library: DensityLibrary, tmp_path: Path
) -> None:
    at_once = Trainer(tmp_path / "once", library, RUN, STREAM, TINY)
    at_once.run()
    first = Trainer(tmp_path / "twice", library, replace(RUN, steps=2), STREAM, TINY)
    first.run()
    resumed = Trainer(tmp_path / "twice", library, RUN, STREAM, TINY)
    assert resumed.step == 2 and resumed.particles == first.particles > 0
    for a, b in zip(resumed.network.state_dict().values(), first.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(
        resumed.average.module.state_dict().values(), first.average.module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    before, after = (t.optimizer.state_dict()["state"] for t in (first, resumed))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k]["exp_avg"], after[k]["exp_avg"]) for k in before)
    resumed.run()
    assert resumed.step == at_once.step == 4
    assert int(resumed.average.n_averaged) == int(at_once.average.n_averaged)
    assert resumed.particles > first.particles
    steps = {
        k: {float(v["step"]) for v in t.optimizer.state_dict()["state"].values()}
        for k, t in (("a", at_once), ("b", resumed))
    }
    assert steps["a"] == steps["b"] == {4.0}
    for folder in ("once", "twice"):
        last = rows(tmp_path / folder)[-1]
        assert int(last["step"]) == 4 and np.isfinite(float(last["loss"])) and int(last["particles"]) > 0
        assert 0 <= float(last["nearest_neighbour_accuracy"]) <= 1
        names = sorted(p.name for p in (tmp_path / folder).iterdir())
        assert names == ["last.safetensors", "log.csv", "model.json", "model.safetensors"]
    model = load_model(tmp_path / "once" / "model.safetensors")
    card = model.card["training"]
    assert card["steps"] == 4 and card["species_trained"] == library.ids() and card["settings"]["training"]["seed"] == 0
    average = at_once.average.module.state_dict()
    assert all(torch.equal(v, average[k]) for k, v in model.network.state_dict().items()), "the average is the model"


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth(library: DensityLibrary, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, library, replace(RUN, steps=100, warmup=10), STREAM, TINY)
    rates = [trainer.learning_rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == pytest.approx(1e-3) and rates[100] == pytest.approx(1e-5)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[11:]) < 0).all()


def test_training_starts_from_given_weights(library: DensityLibrary, tmp_path: Path) -> None:
    start = tiny_network(3)
    trainer = Trainer(tmp_path, library, RUN, STREAM, start.settings, start=start)
    assert all(torch.equal(v, start.state_dict()[k]) for k, v in trainer.network.state_dict().items())


def test_a_state_of_other_settings_and_a_library_too_small_are_told(library: DensityLibrary, tmp_path: Path) -> None:
    Trainer(tmp_path, library, RUN, STREAM, TINY).save()
    with pytest.raises(UserError, match="does not fit these settings"):
        Trainer(tmp_path, library, RUN, STREAM, NetworkSettings(widths=(2, 2, 2, 2, 2), head=4))
    (tmp_path / "last.safetensors").write_text("text")
    with pytest.raises(UserError, match="last.safetensors"):
        Trainer(tmp_path, library, RUN, STREAM, TINY)
    few = DensityLibrary({k: library.entries[k] for k in ("m0", "m1")}, library.arrays)
    with pytest.raises(UserError, match="at least 4"):
        Trainer(tmp_path / "few", few, RUN, STREAM, TINY)
    assert not (tmp_path / "few").exists()
