"""Tilt series: alignment errors do what they say, and the stack holds the images as other programs read them."""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch_reconstruct_tomogram import reconstruct_tomogram
from torch_tilt_series import TiltSeries as OtherTiltSeries

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.microscope import TiltSeries, take_tilt_series
from tomotwin_core.simulation.reconstruction import reconstruct

ALIGNED = Acquisition(
    shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0, tilt_axis_error_deg=0.0, ice_noise=0.0
)
SHAPE = (60, 72, 96)


def spot(at_zyx: tuple[float, float, float], mass_Da: float = 1.2e7) -> torch.Tensor:
    grid = np.indices(SHAPE).astype(float)
    square = sum((g - a) ** 2 for g, a in zip(grid, at_zyx, strict=True))
    values = np.exp(-square / (2 * 3.0**2))
    return torch.from_numpy((mass_Da * values / values.sum()).astype(np.float32))


def seen_at(series: TiltSeries) -> NDArray[np.float64]:
    """Where the spot is in each image, (n, 2): x, y counted from the middle."""
    images = series.stack(120, SHAPE[1])
    found = []
    for image in images:
        smooth = ndimage.gaussian_filter(image, 2.5)
        y, x = np.unravel_index(smooth.argmin(), smooth.shape)
        near = smooth[y - 4 : y + 5, x - 4 : x + 5]
        weight = np.clip(0.5 * near.min() - near, 0, None)
        dy, dx = ndimage.center_of_mass(weight)
        found.append((x - 4 + dx - 60, y - 4 + dy - SHAPE[1] // 2))
    return np.array(found)


@pytest.mark.parametrize(
    "errors",
    [
        {"tilt_error_deg": 3.0},
        {"rotation_error_deg": 4.0},
        {"tilt_axis_error_deg": 8.0},
        {"shift_error_A": 40.0},
        {"tilt_error_deg": 2.0, "rotation_error_deg": 3.0, "tilt_axis_error_deg": 3.0, "shift_error_A": 20.0},
    ],
)
def test_alignment_errors_move_a_particle_as_they_say(errors: dict[str, float]) -> None:
    acquisition = replace(
        ALIGNED, tilt_step_deg=10.0, dose_e_per_A2=100.0, **errors, inelastic_mfp_nm=10000.0, detector="ideal",
        defocus_um=1.0, amplitude_contrast=0.2,
    )  # fmt: skip
    z, y, x = 8, 20, 26  # counted from the middle
    at = (SHAPE[0] // 2 + z, SHAPE[1] // 2 + y, SHAPE[2] // 2 + x)
    series = take_tilt_series(spot(at), 10.0, acquisition, torch.Generator().manual_seed(5))
    made = series.errors
    tilt = np.deg2rad(acquisition.tilts_deg + made.tilt_deg)
    turn = np.deg2rad(made.rotation_deg)
    across = x * np.cos(tilt) + z * np.sin(tilt)
    expected = (
        np.stack([across * np.cos(turn) - y * np.sin(turn), across * np.sin(turn) + y * np.cos(turn)], axis=1)
        + made.shift_vox
    )
    np.testing.assert_allclose(seen_at(series), expected, atol=0.25)
    aligned = np.stack([x * np.cos(np.deg2rad(acquisition.tilts_deg)) + z * np.sin(np.deg2rad(acquisition.tilts_deg)),
                        np.full(len(tilt), y)], axis=1)  # fmt: skip
    assert np.abs(expected - aligned).max() > 0.8, "the errors are large enough to be seen"


def test_alignment_errors_have_the_deviations_that_were_asked_for() -> None:
    acquisition = replace(
        ALIGNED,
        tilt_step_deg=0.5,
        tilt_error_deg=0.5,
        rotation_error_deg=0.3,
        shift_error_A=6.0,
        tilt_axis_error_deg=0.0,
    )
    made = take_tilt_series(torch.zeros(4, 8, 8), 3.0, acquisition, torch.Generator().manual_seed(6)).errors
    assert made.tilt_deg.std() == pytest.approx(0.5, rel=0.15)
    assert made.rotation_deg.std() == pytest.approx(0.3, rel=0.15)
    assert made.shift_vox.std() == pytest.approx(2.0, rel=0.15)
    axis_only = replace(ALIGNED, tilt_step_deg=20.0, tilt_axis_error_deg=1.0)
    drawn = [
        take_tilt_series(torch.zeros(4, 8, 8), 3.0, axis_only, torch.Generator().manual_seed(seed)).errors.rotation_deg
        for seed in range(40)
    ]
    assert all(np.ptp(d) == 0 for d in drawn), "one tilt axis for the whole series"
    assert np.std([d[0] for d in drawn]) == pytest.approx(1.0, rel=0.3)


def test_alignment_errors_blur_the_tomogram() -> None:
    sample = spot((30, 36, 48), 4e6)
    contrasts = []
    for acquisition in (
        ALIGNED,
        Acquisition(shift_error_A=30.0, tilt_error_deg=1.0, rotation_error_deg=2.0, ice_noise=0.0),
    ):
        taken = replace(acquisition, tilt_step_deg=6.0, detector="ideal", dose_e_per_A2=200.0)
        series = take_tilt_series(sample, 10.0, taken, torch.Generator().manual_seed(7))
        contrasts.append(float(-reconstruct(series, taken).min()))
    assert contrasts[1] < 0.8 * contrasts[0]


def test_a_stack_is_cut_from_the_middle_of_the_images() -> None:
    acquisition = replace(ALIGNED, tilt_min_deg=-2.0, tilt_max_deg=2.0)
    series = take_tilt_series(spot((30, 30, 55)), 10.0, acquisition, torch.Generator(), noise=False)
    whole = series.stack(SHAPE[2], SHAPE[1])
    assert whole.shape == (3, SHAPE[1], SHAPE[2]) and whole.dtype == np.float32
    assert np.unravel_index(whole[1].argmin(), whole[1].shape) == (30, 55)
    cut = series.stack(40, 30)
    assert np.array_equal(cut, whole[:, 36 - 15 : 36 + 15, 48 - 20 : 48 + 20])
    with pytest.raises(ValueError, match="was asked for"):
        series.stack(500, 30)


def test_an_independent_back_projection_of_the_stack_gives_the_same_tomogram(tmp_path: Path) -> None:
    """torch-reconstruct-tomogram inserts the images' Fourier transforms into that of the volume; it takes tilt angles as IMOD
    and AreTomo write them. A lopsided range of tilts and a lopsided object tell all mirror images apart."""
    shape = (24, 32, 32)
    sample = np.zeros(shape, np.float32)
    for z, y, x, mass in ((8, 10, 12, 5), (16, 20, 22, 9), (12, 24, 9, 14), (15, 8, 21, 7), (7, 18, 24, 11)):
        sample[z, y, x] = mass
    sample = 2e4 * ndimage.gaussian_filter(sample, 1.5)
    acquisition = replace(ALIGNED, tilt_step_deg=3.0, tilt_max_deg=45.0, dose_e_per_A2=300.0)
    series = take_tilt_series(torch.from_numpy(sample), 10.0, acquisition, torch.Generator().manual_seed(8))
    ours = reconstruct(series, acquisition).numpy()
    mrcfile.write(tmp_path / "series.st", series.stack(shape[2], shape[1]))
    tilts = torch.from_numpy(acquisition.tilts_deg)
    other = OtherTiltSeries(
        tilts, torch.tensor(0.0), torch.zeros(len(tilts), 2), image_path=tmp_path / "series.st", pixel_spacing=10.0
    )
    theirs = reconstruct_tomogram(other, shape, 32, preprocess=False).numpy()
    inner = np.s_[3:-3, 4:-4, 4:-4]

    def agreement(volume: NDArray[np.float32]) -> float:
        first, second = (ndimage.gaussian_filter(v, 1.0)[inner].ravel() for v in (volume, theirs))
        return float(np.corrcoef(first, second)[0, 1])

    assert agreement(ours) > 0.97
    assert all(agreement(np.flip(ours, axes)) < 0.5 for axes in (0, 1, 2, (0, 2)))
    assert all(agreement(np.roll(ours, 1, axis)) < agreement(ours) - 0.02 for axis in range(3))
