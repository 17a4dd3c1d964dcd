"""A real series in the simulator: its angles, exposures and underfoci of each tilt are what the images show."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from tomotwin_core.errors import UserError
from tomotwin_core.picking.references import ReferenceSet
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.optics import contrast_transfer, damage, filtered_by_ctf
from tomotwin_core.simulation.per_tilt import PerTilt
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.verification.locating import acquisition_of

ALIGNED = Acquisition(
    shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0, tilt_axis_error_deg=0.0, ice_noise=0.0
)
TILTS = (-41.0, -20.0, -3.0, 0.5, 18.0, 52.0)
EXPOSED = (27.0, 15.0, 3.0, 1.0, 9.0, 40.0)
OWN = PerTilt(
    TILTS,
    EXPOSED,
    (6.0, 6.0, 2.0, 2.0, 6.0, 12.0),
    (0.4, 0.1, 0.0, 0.0, -0.1, -0.4),
    (0.1, 0.0, 0.2, 0.0, 0.0, 0.3),
    (30.0, 0.0, -40.0, 0.0, 0.0, 75.0),
)
REAL = replace(ALIGNED, dose_e_per_A2=46.0, defocus_um=3.0, per_tilt=OWN)


def taken(acquisition: Acquisition, voxel_A: float = 8.0, shape: tuple[int, int, int] = (24, 40, 48)) -> Any:
    sample = 200.0 * torch.rand(shape, generator=torch.Generator().manual_seed(4))
    return take_tilt_series(sample, voxel_A, acquisition, torch.Generator().manual_seed(1), noise=False)


def test_a_regular_series_given_tilt_by_tilt_is_the_same_series() -> None:
    regular = replace(ALIGNED, tilt_step_deg=15.0, astigmatism_um=0.2, astigmatism_angle_deg=25.0, ctf_corrected=True,
                      dose_weighted=True)  # fmt: skip
    n = len(regular.tilts_deg)
    own = PerTilt(
        tuple(regular.tilts_deg),
        tuple(regular.exposure_before_e_per_A2),
        (regular.dose_per_tilt_e_per_A2,) * n,
        (0.0,) * n,
        (0.2,) * n,
        (25.0,) * n,
    )
    planned, given = replace(regular, missing_tilts_deg=()), replace(regular, per_tilt=own)
    np.testing.assert_allclose(taken(planned).images, taken(given).images, atol=1e-6)
    sample = torch.zeros(16, 24, 40)
    noisy = [take_tilt_series(sample, 8.0, a, torch.Generator().manual_seed(2)).images for a in (planned, given)]
    np.testing.assert_allclose(noisy[0], noisy[1], atol=1e-5)
    np.testing.assert_allclose(reconstruct(taken(planned), planned), reconstruct(taken(given), given), atol=1e-5)


def test_each_tilt_has_the_contrast_transfer_of_its_own_defocus_and_astigmatism() -> None:
    width, ny, nx = 64, 48, 40
    spectra = torch.ones(len(TILTS), width, ny // 2 + 1, dtype=torch.complex64)
    filtered = filtered_by_ctf(spectra, REAL, np.array(TILTS), ny, nx, 8.0).real
    for i in range(len(TILTS)):
        alone = replace(
            ALIGNED, defocus_um=3.0 + OWN.defocus_offset_um[i], astigmatism_um=OWN.astigmatism_um[i],
            astigmatism_angle_deg=OWN.astigmatism_angle_deg[i],
        )  # fmt: skip
        expected = contrast_transfer(alone, width, ny, 8.0, torch.tensor([alone.defocus_um]))[0]
        np.testing.assert_allclose(filtered[i], expected, atol=1e-4)


def test_each_tilt_is_damaged_by_its_own_exposure() -> None:
    at_10_A = torch.tensor([[0.1]])
    critical = 0.245 * 0.1**-1.665 + 2.81  # Grant and Grigorieff 2015, equation 3
    np.testing.assert_allclose(damage(REAL, at_10_A).ravel(), np.exp(-np.array(EXPOSED) / (2 * critical)), rtol=1e-4)
    assert list(REAL.exposure_order) == [3, 2, 4, 1, 0, 5]


def test_each_tilt_has_the_noise_of_its_own_dose() -> None:
    bare = replace(REAL, detector="ideal", inelastic_mfp_nm=10000.0, dqe=1.0)
    images = take_tilt_series(torch.zeros(4, 96, 96), 8.0, bare, torch.Generator().manual_seed(3)).images
    expected = 1 / np.sqrt(np.array(OWN.dose_e_per_A2) * 8.0**2)
    np.testing.assert_allclose(images.std(dim=(1, 2)), expected, rtol=0.05)


def test_the_tomogram_of_uneven_tilts_has_their_planes_and_no_others() -> None:
    point = torch.zeros(64, 64, 64)
    point[32, 32, 32] = 1.0
    ideal = replace(
        ALIGNED, detector="ideal", defocus_um=0.5, per_tilt=PerTilt((-50.0, -10.0, 0.0, 40.0)), dose_e_per_A2=4.0
    )
    made = reconstruct(take_tilt_series(point, 10.0, ideal, torch.Generator(), noise=False), ideal)
    power = torch.fft.fftshift(torch.fft.fftn(made).abs())[:, 32].numpy()  # [kz, kx]
    z, x = np.indices(power.shape) - 32
    ring = np.abs(np.hypot(z, x) - 14) < 1
    angle = (np.degrees(np.arctan2(z, x)) + 90) % 180 - 90
    strength = {t: power[ring & (np.abs(angle - t) < 2)].mean() for t in (-50, -30, -10, 0, 20, 40, 60)}
    assert min(strength[t] for t in (-50, -10, 0, 40)) > 4 * max(strength[t] for t in (-30, 20, 60))


@pytest.mark.parametrize("hand", [1, -1])
def test_hand_says_on_which_side_underfocus_grows(hand: int) -> None:
    width, ny, nx, voxel_A, at = 2048, 64, 1024, 3.0, 250
    own = PerTilt((0.0, 50.0), defocus_offset_um=(0.0, 0.0), defocus_hand=hand)
    acquisition = replace(ALIGNED, defocus_um=1.0, per_tilt=own)
    image = torch.zeros(2, width, ny)
    image[:, at, 0] = 1.0
    filtered = filtered_by_ctf(torch.fft.rfft2(image), acquisition, np.array([0.0, 50.0]), ny, nx, voxel_A)
    box = 128
    point = torch.fft.irfft2(filtered, s=(width, ny))[1].roll(box // 2 - at, 0)[:box].roll(-box // 2, 0)
    tried = torch.arange(0.8, 1.2, 0.005)
    ctf = contrast_transfer(replace(ALIGNED, defocus_um=1.0), box, ny, voxel_A, tried)
    found = float(tried[(ctf * torch.fft.rfft2(point).real).sum((1, 2)).argmax()])
    assert found == pytest.approx(1.0 + hand * at * voxel_A * 1e-4 * np.tan(np.deg2rad(50.0)), abs=0.02)


def test_what_is_not_known_follows_the_scheme() -> None:
    bare = replace(REAL, per_tilt=PerTilt(TILTS), dose_e_per_A2=60.0)
    assert list(bare.exposure_order) == [3, 2, 4, 1, 0, 5], "dose-symmetric about 0"
    np.testing.assert_allclose(sorted(bare.exposure_before_e_per_A2), 10.0 * np.arange(6) + 5)
    assert set(bare.defoci_um) == {3.0}


def test_a_real_series_comes_back_from_json() -> None:
    stored = json.loads(json.dumps(asdict(REAL)))
    stored["per_tilt"]["of a later version"] = 1
    assert acquisition_of(ReferenceSet((), "m", {"acquisition": stored})) == REAL, "as references know it"
    for wrong in ({"tilt_deg": 3}, {"tilt_deg": ["a", "b"]}, {}, [1.0], "x"):
        with pytest.raises(UserError, match="per_tilt is no tilt series"):
            acquisition_of(ReferenceSet((), "m", {"acquisition": {**stored, "per_tilt": wrong}}))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tilt_deg": (0.0,)}, "2 to 1000"),
        ({"tilt_deg": (10.0, 0.0)}, "must rise"),
        ({"tilt_deg": (0.0, 89.0)}, "within -85 to 85"),
        ({"tilt_deg": (0.0, float("nan"))}, "must rise"),
        ({"tilt_deg": (1.0, 1.0)}, "must rise"),
        ({"dose_e_per_A2": (1.0,)}, "one for each of 6"),
        ({"exposure_e_per_A2": (float("nan"),) * 6}, "must lie"),
        ({"defocus_hand": 0}, "must be 1 or -1"),
    ],
)  # fmt: skip
def test_tilts_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(PerTilt(TILTS), **wrong)


def test_underfocus_must_stay_underfocus_at_every_tilt() -> None:
    with pytest.raises(UserError, match="underfocus of -0.5"):
        replace(REAL, defocus_um=3.5, per_tilt=PerTilt((0.0, 1.0), defocus_offset_um=(-4.0, 0.0)))
