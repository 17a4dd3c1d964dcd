"""Detectors: MTF, noise and DQE measured from simulated edges and flat fields are the ones that were asked for."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.detector import DETECTORS, DetectorName
from tomotwin_core.simulation.microscope import take_tilt_series

PIXEL_A = 10.0
# Many images of nearly the same thing: an untilted sample at high dose, almost in focus.
MANY = Acquisition(
    tilt_min_deg=-1.0, tilt_max_deg=1.0, tilt_step_deg=0.1, dose_e_per_A2=200.0, defocus_um=0.3,
    shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0, tilt_axis_error_deg=0.0, ice_noise=0.0,
    inelastic_mfp_nm=10000.0, detector_pixel_A=PIXEL_A,
)  # fmt: skip
SIDE = 64


def images(detector: DetectorName, sample: torch.Tensor, seed: int = 0) -> NDArray[np.float32]:
    generator = torch.Generator().manual_seed(seed)
    series = take_tilt_series(sample, PIXEL_A, replace(MANY, detector=detector), generator)
    return series.images.numpy()


def noise_power(detector: DetectorName) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean frequencies of 8 rings up to 0.5 cycles per pixel, and the power of flat fields there in units of one
    electron's."""
    flat = images(detector, torch.zeros(4, SIDE, SIDE))
    power = (np.abs(np.fft.fft2(flat)) ** 2).mean(0) / flat[0].size
    radius = np.hypot(np.fft.fftfreq(flat.shape[1])[:, None], np.fft.fftfreq(SIDE)[None])
    ring = np.digitize(radius, np.linspace(0.06, 0.5, 9)).ravel()
    rings = [np.bincount(ring, v.ravel())[1:9] / np.bincount(ring)[1:9] for v in (radius, power)]
    electrons = MANY.dose_per_tilt_e_per_A2 * PIXEL_A**2 * np.exp(-4 * PIXEL_A / 10 / MANY.inelastic_mfp_nm)
    return rings[0], rings[1] * electrons


def edge(detector: DetectorName) -> NDArray[np.float64]:
    """Spectrum along y of the mean image of a block of half the field: its edges, at the odd frequencies."""
    sample = torch.zeros(4, SIDE, SIDE)
    sample[:, SIDE // 4 : 3 * SIDE // 4] = 2e4
    # The middle of the image, where the sample is.
    profile = np.fft.fftshift(images(detector, sample), axes=1)[:, 20:52].mean((0, 1))
    return np.asarray(np.fft.rfft(profile))[1::2]


@pytest.mark.parametrize("name", [n for n in get_args(DetectorName) if n != "ideal"])
def test_an_edge_is_blurred_by_the_mtf(name: DetectorName) -> None:
    seen = np.abs(edge(name) / edge("ideal"))
    frequency = np.fft.rfftfreq(SIDE)[1::2]
    np.testing.assert_allclose(seen, DETECTORS[name].mtf(frequency), atol=0.05)


@pytest.mark.parametrize("name", get_args(DetectorName))
def test_flat_fields_have_the_noise_that_the_dqe_asks_for(name: DetectorName) -> None:
    frequency, power = noise_power(name)
    detector = DETECTORS[name]
    # NPS = MTF^2 / DQE, so the efficiency that a user would measure is the one that was set.
    measured = detector.mtf(frequency) ** 2 / power
    np.testing.assert_allclose(measured, MANY.dqe * detector.dqe(frequency), rtol=0.07)


@pytest.mark.parametrize(("name", "at_nyquist"), [("K2", 0.44), ("K3", 0.61), ("Falcon4i", 0.53), ("Falcon2", 0.40)])
def test_the_dqe_falls_to_its_published_value_at_the_nyquist_frequency(name: DetectorName, at_nyquist: float) -> None:
    detector = DETECTORS[name]
    assert detector.dqe(np.array([0.0]))[0] == pytest.approx(1.0)
    assert detector.dqe(np.array([0.5]))[0] == pytest.approx(at_nyquist, abs=0.02)
    through, noise = detector.mtf(np.array([0.3])), detector.noise_amplitude(np.array([0.3]))
    np.testing.assert_allclose(detector.dqe(np.array([0.3])), through**2 / noise**2)


def test_binning_leaves_the_coarse_frequencies_of_a_fine_detector() -> None:
    sample = torch.zeros(4, SIDE, SIDE)
    sample[:, :, SIDE // 2 :] = 200.0
    seen = []
    for detector_pixel_A in (PIXEL_A, PIXEL_A / 4):
        acquisition = replace(MANY, detector="TEM-Simulator", detector_pixel_A=detector_pixel_A)
        seen.append(take_tilt_series(sample, PIXEL_A, acquisition, torch.Generator(), noise=False).images)
    coarse, fine = (np.abs(np.fft.rfft(s.numpy().std(0).mean(0)))[0] for s in seen)
    assert coarse < fine, "the same detector, binned four times, blurs less"
