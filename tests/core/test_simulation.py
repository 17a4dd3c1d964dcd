"""Projection, reconstruction and microscope: points come out where geometry and optics put them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.gridding import TiltGeometry
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.optics import interaction_rad_per_V_A, wavelength_A
from tomotwin_core.simulation.reconstruction import reconstruct

ALIGNED = Acquisition(shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0, tilt_axis_error_deg=0.0)
QUIET = replace(ALIGNED, ice_noise=0.0)
FULL_TURN = tuple(np.arange(-90.0, 90.0, 2.0))


def blob(shape: tuple[int, int, int], at_zyx: tuple[float, float, float], sigma: float = 2.0) -> np.ndarray:
    """A Gaussian of total 1000 at a place, [z, y, x]."""
    grid = np.indices(shape).astype(float)
    square = sum((g - a) ** 2 for g, a in zip(grid, at_zyx, strict=True))
    values = np.exp(-square / (2 * sigma**2))
    return np.asarray(1000 * values / values.sum(), np.float32)


def images_of(geometry: TiltGeometry, slices: torch.Tensor, ny: int) -> np.ndarray:
    """Tilt images [tilt, x, y] with the sample's middle at pixel width // 2."""
    images = torch.fft.irfft2(slices, s=(geometry.width, ny)).numpy()
    return np.roll(images, geometry.width // 2, axis=1)


def smooth_noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Band-limited noise that fades towards the faces."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    for axis, n in enumerate(shape):
        noise *= np.hanning(n + 2)[1:-1].reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(noise / noise.std(), np.float32)


@pytest.mark.parametrize("shape", [(20, 24, 32), (21, 25, 33)])
def test_the_projection_at_tilt_0_is_the_sum_over_z(shape: tuple[int, int, int]) -> None:
    sample = smooth_noise(shape)
    nz, ny, nx = shape
    geometry = TiltGeometry(nz, nx, (0.0,))
    image = images_of(geometry, geometry.project(torch.from_numpy(sample)), ny)[0]
    start = geometry.width // 2 - nx // 2
    expected = sample.sum(0).T
    np.testing.assert_allclose(image[start : start + nx], expected, atol=3e-3 * np.abs(expected).max())
    outside = np.delete(image, np.s_[start - 2 : start + nx + 2], axis=0)
    assert np.abs(outside).max() < 3e-3 * np.abs(expected).max()


def test_slices_obey_the_fourier_slice_theorem() -> None:
    """The projection's transform is the sample's on the line at the tilt, by the plain sum over all voxels."""
    nz, ny, nx = 15, 12, 18
    sample = smooth_noise((nz, ny, nx), seed=3)
    tilts = (-50.0, 17.0, 60.0)
    geometry = TiltGeometry(nz, nx, tilts)
    slices = geometry.project(torch.from_numpy(sample)).numpy()
    transform_y = np.fft.rfft(sample, axis=1)
    z, x = np.arange(nz) - nz // 2, np.arange(nx) - nx // 2
    for index, turn in enumerate(np.deg2rad(tilts)):
        for column, frequency in enumerate(np.fft.fftfreq(geometry.width)):
            wave = np.exp(-2j * np.pi * frequency * (np.cos(turn) * x[None] + np.sin(turn) * z[:, None]))
            expected = np.einsum("zyx,zx->y", transform_y, wave)
            np.testing.assert_allclose(slices[index, column], expected, atol=2e-3 * np.abs(slices).max())


@pytest.mark.parametrize("tilt_deg", [-60.0, -25.0, 10.0, 45.0, 80.0])
def test_a_point_is_imaged_where_a_right_handed_turn_about_y_takes_it(tilt_deg: float) -> None:
    shape, at = (40, 20, 48), (28.0, 7.0, 16.0)
    geometry = TiltGeometry(shape[0], shape[2], (tilt_deg,))
    image = images_of(geometry, geometry.project(torch.from_numpy(blob(shape, at))), shape[1])[0]
    x, y = ndimage.center_of_mass(np.clip(image, 0, None))
    z_from_middle, x_from_middle = at[0] - shape[0] // 2, at[2] - shape[2] // 2
    turn = np.deg2rad(tilt_deg)
    # Right-handed about +y: z turns towards x.
    expected = x_from_middle * np.cos(turn) + z_from_middle * np.sin(turn)
    assert x - geometry.width // 2 == pytest.approx(expected, abs=0.05)
    assert y == pytest.approx(at[1], abs=0.05)
    assert image.sum() == pytest.approx(1000.0, rel=1e-3), "a projection keeps the sum"


@pytest.mark.parametrize("shape", [(30, 16, 40), (31, 17, 27)])
def test_back_projection_over_the_full_range_restores_the_sample(shape: tuple[int, int, int]) -> None:
    sample = smooth_noise(shape)
    geometry = TiltGeometry(shape[0], shape[2], FULL_TURN)
    slices = geometry.project(torch.from_numpy(sample))
    restored = geometry.backproject(slices * geometry.ramp, shape[1]).numpy()
    assert restored.shape == shape
    assert np.corrcoef(restored.ravel(), sample.ravel())[0, 1] > 0.99
    assert np.polyfit(sample.ravel(), restored.ravel(), 1)[0] == pytest.approx(1.0, abs=0.05)


def test_nothing_is_reconstructed_in_the_missing_wedge() -> None:
    side, ny, limit = 64, 16, 50.0
    tilts = tuple(np.arange(-limit, limit + 1, 2.0))
    geometry = TiltGeometry(side, side, tilts)
    images = torch.randn(len(tilts), geometry.width, ny, generator=torch.Generator().manual_seed(0))
    volume = geometry.backproject(torch.fft.rfft2(images) * geometry.ramp, ny).numpy()
    window = np.hanning(side)
    power = (np.abs(np.fft.fftn(volume * window[:, None, None] * window[None, None], axes=(0, 2))) ** 2).mean(1)
    kz, kx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    # The line measured at a tilt lies at that angle from kx towards kz.
    angle = np.rad2deg(np.arctan(np.divide(kz, kx, out=np.full_like(kz, np.inf), where=kx != 0)))
    radius = np.hypot(kz, kx)
    band = (radius > 0.1) & (radius < 0.4)
    missing, measured = band & (np.abs(angle) > limit + 8), band & (np.abs(angle) < limit - 8)
    assert power[missing].mean() < 1e-3 * power[measured].mean()


def test_a_one_sided_tilt_range_fills_its_own_side_of_fourier_space() -> None:
    side = 64
    geometry = TiltGeometry(side, side, tuple(np.arange(10.0, 61.0, 2.0)))
    sample = torch.randn(side, 8, side, generator=torch.Generator().manual_seed(1))
    volume = geometry.backproject(geometry.project(sample) * geometry.ramp, 8).numpy()
    power = (np.abs(np.fft.fftn(volume, axes=(0, 2))) ** 2).mean(1)
    at = 10  # frequency index along kx and along kz
    assert power[at, at] > 20 * power[-at, at]


def test_the_constants_of_the_microscope_are_those_of_the_books() -> None:
    assert wavelength_A(300) == pytest.approx(0.01969, abs=2e-5)
    assert wavelength_A(200) == pytest.approx(0.02508, abs=2e-5)
    assert interaction_rad_per_V_A(300) == pytest.approx(6.53e-4, rel=2e-3)
    assert interaction_rad_per_V_A(200) == pytest.approx(7.29e-4, rel=2e-3)


def test_the_zeros_of_the_ctf_lie_where_theory_puts_them() -> None:
    voxel_A, side = 4.0, 96
    acquisition = replace(QUIET, tilt_min_deg=0.0, tilt_max_deg=2.0, defocus_um=3.0)
    sample = blob((4, side, side), (2, side // 2, side // 2), sigma=0.6)
    series = take_tilt_series(torch.from_numpy(sample), voxel_A, acquisition, torch.Generator(), noise=False)
    transform = np.abs(np.fft.rfft(series.images[0].sum(0).numpy())), np.fft.rfftfreq(side, voxel_A)
    wavelength = wavelength_A(acquisition.voltage_kV)

    def chi(k: np.ndarray) -> np.ndarray:
        """Phase shift in units of pi, with amplitude contrast; zeros are the whole numbers from 1 on."""
        defocus, spherical = acquisition.defocus_um * 1e4, acquisition.cs_mm * 1e7
        phase = np.pi * wavelength * defocus * k**2 - np.pi / 2 * spherical * wavelength**3 * k**4
        return np.asarray((phase + np.arcsin(acquisition.amplitude_contrast)) / np.pi)

    amplitude, k = transform
    fine = np.linspace(0, k[-1], 20000)
    expected = np.interp([1, 2, 3, 4], chi(fine), fine)
    minima = k[1:-1][(amplitude[1:-1] < amplitude[:-2]) & (amplitude[1:-1] < amplitude[2:])]
    for zero in expected:
        assert np.abs(minima - zero).min() <= 1.01 * k[1], f"no zero at {zero:.4f} / A among {minima}"


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("at", [(16.0, 24.0, 30.0), (22.0, 33.0, 13.0)])
def test_a_particle_comes_out_dark_at_its_place(corrected: bool, at: tuple[float, float, float]) -> None:
    shape = (36, 48, 60)
    acquisition = replace(QUIET, tilt_step_deg=3.0, ctf_corrected=corrected)
    sample = torch.from_numpy(100 * blob(shape, at, sigma=2.5))
    series = take_tilt_series(sample, 10.0, acquisition, torch.Generator(), noise=False)
    volume = reconstruct(series, acquisition).numpy()
    assert volume.shape == shape
    darkest = np.unravel_index(volume.argmin(), shape)
    near = tuple(slice(d - 2, d + 3) for d in darkest)
    middle = np.array(ndimage.center_of_mass(np.clip(-volume[near], 0, None))) + np.array(darkest) - 2
    np.testing.assert_allclose(middle, at, atol=0.15)
    assert -volume.min() > 2 * volume.max()


def test_noise_falls_with_the_square_root_of_the_dose() -> None:
    empty = torch.zeros(16, 32, 32)
    deviations = []
    for dose in (50.0, 200.0):
        acquisition = replace(QUIET, dose_e_per_A2=dose, tilt_step_deg=6.0)
        series = take_tilt_series(empty, 10.0, acquisition, torch.Generator().manual_seed(2))
        deviations.append(float(reconstruct(series, acquisition).std()))
    assert deviations[0] / deviations[1] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("dose", [30.0, 120.0, 480.0])
def test_signal_and_noise_of_a_tilt_follow_its_dose(dose: float) -> None:
    """Relative noise variance 1 / electrons; signal as much as damage leaves of it, whatever the dose."""
    tilts, voxel_A, k_per_A = 5, 10.0, 1 / 40
    acquisition = replace(
        QUIET, tilt_min_deg=-0.2, tilt_max_deg=0.2, tilt_step_deg=0.1, dose_e_per_A2=dose, detector="ideal",
        scheme="continuous",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(9)
    flat = take_tilt_series(torch.zeros(10, 128, 128), voxel_A, acquisition, generator).images
    electrons = dose / tilts * voxel_A**2 * acquisition.dqe * np.exp(-10.0 / acquisition.inelastic_mfp_nm)
    np.testing.assert_allclose(flat.var((1, 2)).numpy() * electrons, 1.0, rtol=0.05)
    sample = torch.zeros(10, 128, 128)
    sample[5] = 4e3 * torch.cos(2 * np.pi * k_per_A * voxel_A * torch.arange(128))[:, None]
    seen = take_tilt_series(sample, voxel_A, acquisition, generator).stack(128, 128)
    wave = np.abs(np.fft.rfft(seen, axis=1)[:, 32].mean(1))
    critical = 0.245 * k_per_A**-1.665 + 2.81
    expected = np.exp(-dose / tilts * (np.arange(tilts) + 0.5) / (2 * critical))
    fresh = take_tilt_series(sample, voxel_A, replace(acquisition, dose_e_per_A2=1.0), generator, noise=False)
    undamaged = np.abs(np.fft.rfft(fresh.stack(128, 128), axis=1)[:, 32].mean(1))
    np.testing.assert_allclose(wave / undamaged, expected, atol=0.05)


def test_electrons_get_lost_as_the_path_through_the_ice_grows() -> None:
    acquisition = replace(QUIET, tilt_step_deg=20.0, inelastic_mfp_nm=100.0)
    series = take_tilt_series(torch.zeros(20, 64, 64), 10.0, acquisition, torch.Generator().manual_seed(3))
    variance = series.images.var(dim=(1, 2)).numpy()  # of relative counts: 1 / electrons
    path_nm = 20.0 / np.cos(np.deg2rad(acquisition.tilts_deg))
    expected = np.exp(path_nm / 100.0)
    np.testing.assert_allclose(variance / variance[3], expected / expected[3], rtol=0.08)


def test_radiation_damage_takes_the_late_tilts_fine_detail_first() -> None:
    acquisition = Acquisition(tilt_step_deg=10.0)
    exposure = acquisition.exposure_before_e_per_A2
    tilts = acquisition.tilts_deg
    assert tilts[exposure.argmin()] == 0 and abs(tilts[exposure.argmax()]) == 60
    assert exposure.max() < acquisition.dose_e_per_A2 and len(set(exposure)) == len(tilts)
    series = take_tilt_series(torch.zeros(8, 32, 32), 5.0, acquisition, torch.Generator(), noise=False)
    damage = series.damage[:, 0].numpy()
    fine, coarse = damage[:, -1], damage[:, 2]
    assert (np.diff(fine[exposure.argsort()]) < 0).all()
    assert fine[exposure.argmax()] < 0.5 * coarse[exposure.argmax()]


def test_alignment_errors_shift_the_images_by_their_deviation() -> None:
    acquisition = replace(QUIET, shift_error_A=20.0, dose_e_per_A2=2000.0, tilt_min_deg=-30.0, tilt_max_deg=30.0)
    sample = torch.from_numpy(3e4 * blob((8, 48, 48), (4, 24, 24), sigma=4.0))
    series = take_tilt_series(sample, 10.0, acquisition, torch.Generator().manual_seed(4))
    images = np.roll(series.images.numpy(), series.geometry.width // 2, axis=1)
    weight = np.clip(-ndimage.gaussian_filter(images, (0, 3, 3)), 0, None) ** 4
    centres = np.array([ndimage.center_of_mass(w) for w in weight])
    np.testing.assert_allclose(centres.std(0), 2.0, rtol=0.4)
    np.testing.assert_allclose(np.median(centres, 0), (series.geometry.width // 2, 24), atol=1.2)


def test_the_same_generator_gives_the_same_tilt_series() -> None:
    sample = torch.from_numpy(blob((10, 20, 20), (5, 10, 10)))
    acquisition = Acquisition(tilt_step_deg=20.0)
    first, same, other = (
        take_tilt_series(sample, 10.0, acquisition, torch.Generator().manual_seed(seed)).images for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
