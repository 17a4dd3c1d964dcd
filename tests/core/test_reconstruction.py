"""Reconstruction: filters, SIRT-like weighting, phase flipping and dose weighting, each against what it imitates."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.acquisition import Filter
from tomotwin_core.simulation.gridding import TiltGeometry
from tomotwin_core.simulation.microscope import AlignmentErrors, TiltSeries, take_tilt_series
from tomotwin_core.simulation.reconstruction import radial_filter, reconstruct

ALIGNED = Acquisition(
    shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0, tilt_axis_error_deg=0.0, ice_noise=0.0
)
SIDE = 64


def series_of(images: torch.Tensor, geometry: TiltGeometry, voxel_size_A: float = 10.0) -> TiltSeries:
    """A tilt series of given images [tilt, x, y]."""
    n = len(geometry.tilts_deg)
    errors = AlignmentErrors(np.zeros(n), np.zeros(n), np.zeros((n, 2)))
    return TiltSeries(images, torch.ones(n, 1, 1), geometry, voxel_size_A, errors)


def white_series(tilts: NDArray[np.float64], ny: int = 16) -> TiltSeries:
    geometry = TiltGeometry(SIDE, SIDE, tuple(tilts))
    images = torch.randn(len(tilts), geometry.width, ny, generator=torch.Generator().manual_seed(0))
    return series_of(images, geometry)


def plane_power(volume: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(radius in cycles per voxel, angle from kx towards kz in degrees, power) over the (kz, kx) plane."""
    window = np.hanning(SIDE)
    windowed = volume.numpy() * window[:, None, None] * window[None, None]
    power = (np.abs(np.fft.fftn(windowed, axes=(0, 2))) ** 2).mean(1)
    kz, kx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.hypot(kz, kx), np.rad2deg(np.arctan(kz / kx)), power


@pytest.mark.parametrize("name", get_args(Filter))
def test_a_filter_leaves_its_share_of_each_frequency(name: Filter) -> None:
    tilts = np.arange(-60.0, 61, 3)
    series = white_series(tilts)
    acquisition = replace(ALIGNED, tilt_step_deg=3.0)
    radius, angle, plain = plane_power(reconstruct(series, acquisition))
    _, _, filtered = plane_power(reconstruct(series, replace(acquisition, filter=name)))
    expected = {
        "ramp": lambda f: 1.0,
        "shepp-logan": lambda f: np.sin(np.pi * f) / (np.pi * f),
        "cosine": lambda f: np.cos(np.pi * f),
        "hamming": lambda f: 0.54 + 0.46 * np.cos(2 * np.pi * f),
        "hann": lambda f: np.cos(np.pi * f) ** 2,
        "gaussian": lambda f: np.exp(-(max(f - 0.35, 0.0) ** 2) / (2 * 0.035**2)),
    }[name]
    measured = np.abs(angle) < 50
    for at in (0.1, 0.2, 0.3, 0.38, 0.44):
        ring = measured & (np.abs(radius - at) < 0.012)
        share = np.sqrt(filtered[ring].sum() / plain[ring].sum())
        assert share == pytest.approx(expected(at), abs=0.04), f"at {at} cycles per voxel"


def test_missing_tilts_leave_their_wedges_empty() -> None:
    acquisition = replace(ALIGNED, tilt_step_deg=3.0, missing_tilts_deg=tuple(np.arange(12.0, 34.0, 3.0)))
    radius, angle, power = plane_power(reconstruct(white_series(acquisition.tilts_deg), acquisition))
    band = (radius > 0.2) & (radius < 0.45)

    def within(low: float, high: float) -> float:
        return float(power[band & (angle > low) & (angle < high)].mean())

    assert within(15, 30) < 0.02 * within(-30, -15)
    assert within(66, 90) < 0.02 * within(-30, -15)
    assert within(40, 55) == pytest.approx(within(-55, -40), rel=0.4)


@pytest.mark.parametrize("iterations", [3, 10, 30])
def test_sirt_like_weighting_gives_what_sirt_gives(iterations: int) -> None:
    """Landweber's form of SIRT, x + step A^T (b - A x), with the step that the weighting assumes: 0.99 of what the first
    Fourier cell lets converge."""
    ny = 8
    tilts = tuple(np.arange(-60.0, 61, 3))
    geometry = TiltGeometry(SIDE, SIDE, tilts)
    rng = np.random.default_rng(1)
    sample = ndimage.gaussian_filter(rng.normal(size=(SIDE, ny, SIDE)), 1.0, mode="wrap").astype(np.float32)
    # Empty borders, so that nothing leaves the volume on the way.
    sample *= (np.hanning(SIDE)[:, None, None] * np.hanning(SIDE)[None, None]).astype(np.float32)
    measured = geometry.project(torch.from_numpy(sample))
    step = 0.99 * np.deg2rad(3.0) / geometry.width**2
    x = torch.zeros(SIDE, ny, SIDE)
    for _ in range(iterations):
        x = x + step * geometry.backproject(measured - geometry.project(x), ny)
    images = torch.fft.irfft2(measured, s=(geometry.width, ny))
    # Voxels so large that the images are a whole micrograph.
    series = series_of(images, geometry, voxel_size_A=1e4)
    acquisition = replace(ALIGNED, tilt_step_deg=3.0)
    alike = reconstruct(series, replace(acquisition, sirt_iterations=iterations))
    plain = reconstruct(series, acquisition)

    def correlation(volume: torch.Tensor) -> float:
        inner = np.s_[8:-8, :, 8:-8]
        return float(np.corrcoef(volume[inner].numpy().ravel(), x[inner].numpy().ravel())[0, 1])

    assert correlation(alike) > 0.98
    assert correlation(alike) > correlation(plain) + (0.03 if iterations < 30 else 0.0)


def test_sirt_like_weighting_does_not_depend_on_how_much_of_a_micrograph_is_simulated() -> None:
    shares = []
    for side in (40, 80):
        geometry = TiltGeometry(16, side, (-3.0, 0.0, 3.0))
        images = torch.randn(3, geometry.width, 8, generator=torch.Generator().manual_seed(2))
        series = series_of(images, geometry)
        plain, weighted = (
            np.abs(np.fft.rfft(reconstruct(series, replace(ALIGNED, sirt_iterations=n)).numpy(), axis=2)).mean((0, 1))
            for n in (0, 20)
        )
        frequency = np.fft.rfftfreq(side)
        shares.append([(weighted / plain)[np.abs(frequency - f).argmin()] for f in (0.1, 0.2, 0.4)])
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.1)


def shell_correlations(volume: NDArray[np.float32], sample: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlation of Fourier coefficients with those of the sample, in shells of 0.04 cycles per voxel."""
    a, b = np.fft.fftn(volume), np.fft.fftn(sample)
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")))
    shell = (radius / 0.04).astype(int).ravel()
    cross, aa, bb = (np.bincount(shell, v.ravel()) for v in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2))
    return np.asarray((cross / np.sqrt(aa * bb))[1:11])


@pytest.mark.parametrize("phase_shift_deg", [0.0, 90.0])
def test_phase_flipping_leaves_protein_dark_at_every_frequency(phase_shift_deg: float) -> None:
    rng = np.random.default_rng(3)
    sample = (rng.normal(size=(24, 48, 48)) * 100).astype(np.float32)
    acquisition = replace(
        ALIGNED, tilt_step_deg=3.0, defocus_um=5.0, astigmatism_um=0.6, astigmatism_angle_deg=30.0, detector="ideal",
        phase_shift_deg=phase_shift_deg,
    )  # fmt: skip
    series = take_tilt_series(torch.from_numpy(sample), 6.0, acquisition, torch.Generator(), noise=False)
    raw = shell_correlations(reconstruct(series, acquisition).numpy(), sample)
    flipped = shell_correlations(reconstruct(series, replace(acquisition, ctf_corrected=True)).numpy(), sample)
    assert raw[0] < -0.2 and raw.max() > 0.2, "uncorrected, contrast reverses with frequency"
    assert (flipped < -0.2).all()


def test_phase_flipping_follows_the_defocus_gradient_of_fine_images() -> None:
    rng = np.random.default_rng(4)
    sample = np.zeros((8, 16, 1200), np.float32)
    sample[2:6] = rng.normal(size=(4, 16, 1200)) * 100
    acquisition = replace(
        ALIGNED, tilt_min_deg=49.0, tilt_max_deg=51.0, defocus_um=1.5, detector="ideal", ctf_corrected=True, dose_e_per_A2=1.0
    )  # fmt: skip
    series = take_tilt_series(torch.from_numpy(sample), 3.0, acquisition, torch.Generator(), noise=False)
    volume = reconstruct(series, acquisition).numpy()
    left, middle, right = (
        np.corrcoef(volume[:, :, x : x + 150].ravel(), sample[:, :, x : x + 150].ravel())[0, 1] for x in (20, 525, 1030)
    )
    assert middle < -0.2
    assert max(left, right) < 0.93 * middle


@pytest.mark.parametrize(
    "how",
    [
        {"phase_shift_deg": 90.0, "defocus_um": 0.8},
        {"phase_shift_deg": 130.0, "defocus_um": 1.5, "ctf_corrected": True},
        {"sirt_iterations": 10, "filter": "hamming"},
        {"astigmatism_um": 0.5, "detector": "TEM-Simulator", "ctf_corrected": True, "dose_weighted": True},
    ],
)
def test_a_particle_is_dark_however_it_is_taken_and_reconstructed(how: dict[str, Any]) -> None:
    sample = torch.zeros(24, 48, 48)
    sample[12, 20, 27] = 1e5
    sample = torch.from_numpy(ndimage.gaussian_filter(sample.numpy(), 2.5))
    acquisition = replace(ALIGNED, tilt_step_deg=4.0, **how)
    series = take_tilt_series(sample, 10.0, acquisition, torch.Generator(), noise=False)
    volume = reconstruct(series, acquisition).numpy()
    assert np.unravel_index(np.abs(volume).argmax(), volume.shape) == (12, 20, 27)
    assert volume[12, 20, 27] < 0


def test_dose_weighting_takes_the_fine_detail_of_late_tilts() -> None:
    acquisition = replace(ALIGNED, tilt_step_deg=3.0, scheme="continuous", dose_e_per_A2=200.0)
    series = take_tilt_series(torch.zeros(SIDE, 16, SIDE), 5.0, acquisition, torch.Generator().manual_seed(5))
    radius, angle, plain = plane_power(reconstruct(series, acquisition))
    _, _, weighted = plane_power(reconstruct(series, replace(acquisition, dose_weighted=True)))

    def share(low: float, high: float, k: float) -> float:
        place = (angle > low) & (angle < high) & (np.abs(radius - k) < 0.04)
        return float(np.sqrt(weighted[place].sum() / plain[place].sum()))

    early, late = share(-55, -45, 0.35), share(45, 55, 0.35)
    assert late < 0.5 * early
    assert share(45, 55, 0.08) > 2 * late, "coarse detail outlives fine detail"


def test_filters_are_one_at_low_frequency() -> None:
    for name in get_args(Filter):
        assert float(radial_filter(name, torch.tensor([0.0]))[0]) == pytest.approx(1.0)
