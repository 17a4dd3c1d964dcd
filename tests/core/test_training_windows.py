"""Training windows: the particle in the middle, negatives that are none, changes that are what they are called."""

import numpy as np
import pytest
import torch
from planted_training import SHAPE, planted

from tomotwin_core.errors import UserError
from tomotwin_core.model import HALF_WINDOW, STRIDE, WINDOW
from tomotwin_core.model.network import dense_shape
from tomotwin_core.training.augmentation import cut_windows, disturbed, shifts, turned_about_z
from tomotwin_core.training.batches import _MARGIN, BACKGROUND, PartlyListed, turned_about_axes, window_batch
from tomotwin_core.training.settings import AugmentationSettings, BatchSettings, TrainingPlan


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


@pytest.mark.parametrize("seed", range(3))
def test_single_windows_have_the_particle_within_half_a_voxel_and_the_shift(seed: int) -> None:
    tomogram = planted(seed=seed)
    single = BatchSettings(windows="single")
    for shift in (0, 2):
        batch = window_batch(
            tomogram, np.random.default_rng(seed), single, AugmentationSettings(shift=1.0, shift_vox=shift)
        )
        particle = batch.label != BACKGROUND
        middle = batch.volume[tuple((batch.corners[particle] + HALF_WINDOW).T)]
        known = middle > 0
        assert known.sum() == 12
        place = np.stack(np.unravel_index(middle[known].astype(int) - 1, SHAPE), axis=1)[:, ::-1]
        for label, found in zip(batch.label[particle][known], place, strict=True):
            offsets = np.abs(tomogram.xyz[tomogram.label == label] - found).max(1)
            assert offsets.min() <= 0.5 + shift


def test_no_species_and_no_furniture_has_more_windows_than_allowed() -> None:
    tomogram = planted(n=40, gold=30)
    assert np.bincount(tomogram.label[tomogram.label >= 0]).max() > 4
    settings = BatchSettings(instances=4, furniture=5, anywhere=0, beside=0)
    batch = window_batch(tomogram, np.random.default_rng(0), settings)
    assert np.bincount(batch.label[batch.label >= 0]).tolist() == [4, 4, 4, 4]
    assert (batch.label == BACKGROUND).sum() == 5
    other = window_batch(tomogram, np.random.default_rng(1), settings)
    assert not np.array_equal(batch.corners, other.corners), "others each time"


def test_where_not_all_is_listed_background_is_only_within_a_diameter_of_what_is() -> None:
    whole = planted(n=6)
    part = PartlyListed(whole.volume, whole.xyz, whole.label, whole.diameter_A)
    batch = window_batch(part, np.random.default_rng(0))
    found = middles(batch.volume, batch.corners[batch.label == BACKGROUND])
    found = found[np.isfinite(found).all(1)]
    distance = np.linalg.norm(found[:, None] - whole.xyz[None], axis=-1).min(1)
    assert len(found) > 10 and distance.min() > 5.0
    assert distance.max() < 12.0 + 2 * np.sqrt(3), "120 A, and the grid"
    everywhere = window_batch(whole, np.random.default_rng(0))
    found = middles(everywhere.volume, everywhere.corners[everywhere.label == BACKGROUND])
    assert np.nanmax(np.linalg.norm(found[:, None] - whole.xyz[None], axis=-1).min(1)) > 15


def test_a_window_turned_by_ninety_degrees_has_x_where_y_was() -> None:
    window = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    turned = turned_about_z(window, torch.tensor([0.0, torch.pi / 2]), 9)
    assert torch.allclose(turned[0], window[0], atol=1e-5)
    # A point at +x goes to +y: the new window at (y, x) shows the old one at (-x, y).
    assert torch.allclose(turned[1], torch.rot90(window[1], 1, (2, 1)), atol=1e-5)
    assert torch.allclose(turned[1, :, 8, 4], window[1, :, 4, 8], atol=1e-5)


def test_windows_are_cut_where_asked_and_turned_with_what_lies_beside_them() -> None:
    volume = torch.arange(40 * 80 * 80.0).reshape(40, 80, 80)
    corners = torch.tensor([[1, 2, 3], [3, 43, 40]])
    plain = cut_windows(volume, corners, AugmentationSettings(), np.random.default_rng(0))
    assert plain.shape == (2, 1, WINDOW, WINDOW, WINDOW)
    assert torch.equal(plain[1, 0], volume[3:40, 43:80, 40:77])
    turned = cut_windows(torch.ones(40, 120, 120), corners, AugmentationSettings(rotation=1), np.random.default_rng(0))
    assert turned.shape == plain.shape
    middle = cut_windows(
        torch.ones(40, 120, 120),
        torch.tensor([[0, 40, 40]]),
        AugmentationSettings(rotation=1),
        np.random.default_rng(0),
    )
    assert torch.allclose(middle, torch.ones(())), "the corners of a turned window are not empty"


def test_dropout_noise_and_shifts_come_as_often_and_as_strong_as_set() -> None:
    ones = torch.ones(400, 1, 8, 8, 8)
    rng = np.random.default_rng(0)
    dropped = disturbed(ones, AugmentationSettings(dropout=0.3, dropout_ratio=(0.1, 0.1)), rng)
    share = (dropped == 0).float().mean((1, 2, 3, 4))
    changed = share > 0
    assert 0.2 < changed.float().mean() < 0.4 and share[changed].mean() == pytest.approx(0.1, abs=0.01)
    noisy = disturbed(ones, AugmentationSettings(noise=0.9, noise_sigma=0.3), rng)
    deviation = noisy.std((1, 2, 3, 4))
    assert 0.85 < (deviation > 1e-6).float().mean() < 0.95 and 0.25 < deviation.max() < 0.33
    assert deviation[deviation > 1e-6].mean() == pytest.approx(0.15, abs=0.02)
    assert disturbed(ones, AugmentationSettings(), rng) is ones
    moved = shifts(2000, AugmentationSettings(shift=0.3, shift_vox=2), rng)
    assert set(np.unique(moved)) == {-2, -1, 0, 1, 2}
    assert 0.25 < moved.any(1).mean() < 0.35


def test_shared_windows_are_not_turned_one_by_one() -> None:
    with pytest.raises(UserError, match="batch.windows"):
        TrainingPlan(augmentation=AugmentationSettings(rotation=0.3))
