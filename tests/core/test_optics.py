"""Optics: contrast transfer, its gradient across a tilted field, damage and loss lie where theory puts them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import find_peaks

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.ice import Ice
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.optics import (
    contrast_transfer,
    damage,
    filtered_by_ctf,
    frequencies_per_A,
    path_length_vox,
    wavelength_A,
)

ALIGNED = Acquisition(
    shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0, tilt_axis_error_deg=0.0, ice_noise=0.0
)


def zeros_per_A(acquisition: Acquisition, defocus_um: float, upto_per_A: float) -> NDArray[np.float64]:
    """Frequencies of the CTF's zeros along a direction of that underfocus, by the textbook's formula."""
    k = np.linspace(0, upto_per_A, 50000)
    wavelength, cs_A = wavelength_A(acquisition.voltage_kV), acquisition.cs_mm * 1e7
    chi = np.pi * wavelength * defocus_um * 1e4 * k**2 - np.pi / 2 * cs_A * wavelength**3 * k**4
    chi += np.arcsin(acquisition.amplitude_contrast) + np.deg2rad(acquisition.phase_shift_deg)
    return np.asarray(k[np.flatnonzero(np.diff(np.floor(chi / np.pi)) != 0)])


def micrograph_power(acquisition: Acquisition, voxel_A: float, nx: int, ny: int) -> tuple[NDArray, NDArray, NDArray]:
    """(fx, fy, power) of micrographs of a thin, random sample, the middle of the image where the sample is."""
    generator = torch.Generator().manual_seed(0)
    power = np.zeros((nx, ny))
    for _ in range(6):
        sample = torch.zeros(4, ny, nx)
        sample[2] = 1000.0 * torch.randn(ny, nx, generator=generator)
        images = take_tilt_series(sample, voxel_A, acquisition, generator).images.numpy()
        middle = np.fft.fftshift(images, axes=1)
        start = images.shape[1] // 2 - nx // 2
        power += (np.abs(np.fft.fft2(middle[:, start : start + nx])) ** 2).mean(0)
    fx, fy = np.meshgrid(np.fft.fftfreq(nx, voxel_A), np.fft.fftfreq(ny, voxel_A), indexing="ij")
    return fx, fy, power


@pytest.mark.parametrize(("angle_deg", "phase_shift_deg"), [(25.0, 0.0), (-60.0, 0.0), (0.0, 90.0)])
def test_the_power_spectrum_of_a_micrograph_has_its_zeros_where_theory_puts_them(
    angle_deg: float, phase_shift_deg: float
) -> None:
    voxel_A = 4.0
    acquisition = replace(
        ALIGNED, tilt_min_deg=0.0, tilt_max_deg=0.4, tilt_step_deg=0.2, dose_e_per_A2=12.0, defocus_um=2.5,
        astigmatism_um=0.5, astigmatism_angle_deg=angle_deg, phase_shift_deg=phase_shift_deg, detector="ideal",
    )  # fmt: skip
    fx, fy, power = micrograph_power(acquisition, voxel_A, 240, 200)
    k, direction = np.hypot(fx, fy), np.rad2deg(np.arctan2(fy, fx))
    bins = np.arange(0.012, 0.11, 0.0012)
    for turn, defocus_um in ((0.0, 3.0), (90.0, 2.0)):
        off = np.abs((direction - angle_deg - turn + 90) % 180 - 90)
        sector = (off < 9) & (k < 0.12)
        # Within the sector the defocus varies a little: rings of one phase, not of one frequency.
        local = acquisition.defocus_um + acquisition.astigmatism_um * np.cos(2 * np.deg2rad(direction - angle_deg))
        scaled = k * np.sqrt(local / defocus_um)
        which = np.digitize(scaled[sector], bins)
        profile = np.bincount(which, power[sector], len(bins) + 1) / np.bincount(which, minlength=len(bins) + 1)
        smooth = np.convolve(profile, [0.25, 0.5, 0.25], "same")[1:-1]
        middle = (bins[1:] + bins[:-1]) / 2
        minima = middle[find_peaks(-np.log(smooth), prominence=0.4)[0]]
        expected = zeros_per_A(acquisition, defocus_um, 0.09)
        expected, minima = expected[expected > 0.016], minima[minima < 0.0905]
        assert len(minima) == len(expected) >= 3, f"{defocus_um} um: {minima} instead of {expected}"
        np.testing.assert_allclose(minima, expected, atol=0.0015)


@pytest.mark.parametrize("phase_shift_deg", [0.0, 40.0, 90.0, 140.0, 170.0])
def test_low_frequencies_are_dark_with_and_without_a_phase_plate(phase_shift_deg: float) -> None:
    acquisition = replace(ALIGNED, phase_shift_deg=phase_shift_deg)
    ctf = contrast_transfer(acquisition, 64, 64, 10.0, torch.tensor([3.5]))
    expected = -np.sin(np.deg2rad(phase_shift_deg) + np.arcsin(acquisition.amplitude_contrast))
    assert float(ctf[0, 0, 0]) == pytest.approx(expected, abs=1e-4)
    assert (ctf[0, :3, :3] < 0).all()


def local_defocus_um(acquisition: Acquisition, tilt_deg: float, at_px: int, voxel_A: float, nx: int) -> float:
    """Underfocus that best explains what becomes of a point at a distance from the tilt axis."""
    width, ny, box = 2 * nx, 128, 128
    image = torch.zeros(1, width, ny)
    image[0, at_px, 0] = 1.0
    spectrum = torch.fft.rfft2(image)
    filtered = filtered_by_ctf(spectrum, acquisition, np.array([tilt_deg]), ny, nx, voxel_A)
    point = torch.fft.irfft2(filtered, s=(width, ny)).roll(box // 2 - at_px, 1)[0, :box].roll(-box // 2, 0)
    seen = torch.fft.rfft2(point).real
    tried = torch.arange(0.5, 1.5, 0.01)
    ctf = contrast_transfer(acquisition, box, ny, voxel_A, tried)
    return float(tried[(ctf * seen).sum((1, 2)).argmax()])


@pytest.mark.parametrize("tilt_deg", [-50.0, 50.0])
def test_fine_images_have_the_defocus_gradient_of_a_tilted_field(tilt_deg: float) -> None:
    voxel_A, nx = 3.0, 1024
    acquisition = replace(ALIGNED, defocus_um=1.0)
    for at_px in (-250, 0, 250):
        # A right-handed turn about y takes what is imaged at positive x away from the source: more underfocus.
        expected = 1.0 + at_px * voxel_A * 1e-4 * np.tan(np.deg2rad(tilt_deg))
        found = local_defocus_um(acquisition, tilt_deg, at_px, voxel_A, nx)
        assert found == pytest.approx(expected, abs=0.015)


def test_coarse_images_are_filtered_with_one_defocus() -> None:
    acquisition = replace(ALIGNED, defocus_um=3.0)
    spectra = torch.fft.rfft2(torch.randn(2, 560, 64, generator=torch.Generator().manual_seed(1)))
    filtered = filtered_by_ctf(spectra, acquisition, np.array([0.0, 60.0]), 64, 512, 10.0)
    ctf = contrast_transfer(acquisition, 560, 64, 10.0, torch.tensor([3.0]))
    assert torch.equal(filtered, spectra * ctf)


def test_damage_is_that_of_grant_and_grigorieff() -> None:
    acquisition = replace(ALIGNED, tilt_step_deg=20.0, scheme="continuous", dose_e_per_A2=140.0)
    at_10_A = torch.tensor([[0.1]])
    critical = 0.245 * 0.1**-1.665 + 2.81  # their equation 3
    exposure = 20.0 * np.arange(7) + 10
    for voltage_kV, factor in ((300.0, 1.0), (200.0, 0.8), (100.0, 0.64)):
        left = damage(replace(acquisition, voltage_kV=voltage_kV), at_10_A).ravel().numpy()
        np.testing.assert_allclose(left, np.exp(-exposure / (2 * factor * critical)), rtol=1e-4)


def test_frequencies_are_in_cycles_per_angstrom() -> None:
    grid = frequencies_per_A(20, 10, 5.0, "cpu")
    assert grid.shape == (20, 6)
    assert float(grid[1, 0]) == pytest.approx(1 / 100) and float(grid[0, 1]) == pytest.approx(1 / 50)


@pytest.mark.parametrize("slab_tilt_deg", [0.0, 12.0, -8.0])
def test_the_path_through_a_tilted_slab_is_its_thickness_over_the_cosine_of_the_whole_tilt(
    slab_tilt_deg: float,
) -> None:
    ice = Ice.flat((60, 40, 96), 16.0, tilt_deg=(0.0, slab_tilt_deg))
    tilts = np.array([-50.0, -20.0, 0.0, 35.0, 55.0])
    path = np.fft.fftshift(path_length_vox(ice, 60, tilts, 128).numpy(), axes=1)
    assert path.shape == (5, 128, 40)
    # About the tilt axis; elsewhere the field's edge comes in.
    expected = 16.0 / np.cos(np.deg2rad(tilts + slab_tilt_deg))
    np.testing.assert_allclose(path[:, 60:68].mean((1, 2)), expected, rtol=0.02)


def test_electrons_get_lost_along_the_true_path_through_uneven_ice() -> None:
    nz, ny, nx, voxel_A = 40, 32, 128, 10.0
    wedge = np.broadcast_to(np.linspace(2.0, 36.0, nx, dtype=np.float32), (ny, nx)).copy()
    ice = Ice(np.full((ny, nx), 1.0, np.float32), 1.0 + wedge)
    acquisition = replace(
        ALIGNED, tilt_min_deg=0.0, tilt_max_deg=0.2, tilt_step_deg=0.2, inelastic_mfp_nm=40.0, dose_e_per_A2=2000.0
    )
    series = take_tilt_series(torch.zeros(nz, ny, nx), voxel_A, acquisition, torch.Generator().manual_seed(2), ice=ice)
    counts = 1 + series.stack(nx, ny).mean((0, 1))
    expected = np.exp(-wedge[0] * voxel_A / 10 / 40.0)
    assert np.corrcoef(counts, expected)[0, 1] > 0.999
    np.testing.assert_allclose(counts / counts[64], expected / expected[64], rtol=0.02)
    assert counts[0] > 2 * counts[-1], "thick ice is dark"


def test_solvent_noise_is_where_the_ice_is() -> None:
    nz, ny, nx = 24, 48, 96
    height = np.where(np.arange(nx) < nx // 2, 22.0, 2.0).astype(np.float32)
    ice = Ice(np.full((ny, nx), 2.0, np.float32), np.broadcast_to(height, (ny, nx)).copy())
    acquisition = replace(
        ALIGNED, tilt_min_deg=0.0, tilt_max_deg=0.2, tilt_step_deg=0.2, ice_noise=10.0, dose_e_per_A2=400.0,
        inelastic_mfp_nm=10000.0, detector="ideal",
    )  # fmt: skip
    series = take_tilt_series(torch.zeros(nz, ny, nx), 10.0, acquisition, torch.Generator().manual_seed(3), ice=ice)
    first, second = series.stack(nx, ny)
    shared = (first * second).mean(0)  # what both tilts show: not the electrons' noise
    inside, outside = shared[8:40].mean(), shared[56:88].mean()
    assert inside > 20 * abs(outside)
