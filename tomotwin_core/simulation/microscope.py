"""The microscope: a sample becomes a tilt series, a tilt series a tomogram.

sample (Da per voxel) -> potential -> projected phase -> CTF and radiation damage -> loss with path length -> Poisson
counts tilt images -> (phase flipping, dose weighting) -> weighted back-projection -> tomogram, protein dark as in the
images

Weak-phase object: 1 + 2 CTF * phase, phase = sigma_e * projected potential (Kirkland 2010). The CTF is torch-ctf's,
the damage the critical exposure of Grant and Grigorieff (2015) as torch-fourier-filter has it. The defocus gradient
across a tilted field is left out: 200 nm to either side at 60 degrees change the defocus by 0.35 um, which at the 20
A limit of a 10 A voxel shifts the phase by 0.17 pi at the field's edge only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch_ctf import calculate_ctf_2d
from torch_fourier_filter.dose_weight import critical_exposure

from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.gridding import TiltGeometry, tilt_geometry
from tomotwin_core.structures.density import POTENTIAL_V_A3_PER_DA

_ELECTRON_REST_KEV = 510.999
# Scattering contrast of one water molecule, as mass in the units of the sample (Da).
_WATER_DA = 18.0
_WATER_VOLUME_A3 = 32.1


@dataclass(frozen=True)
class TiltSeries:
    """images : float32 [tilt, x, y] (across the tilt axis first), counts relative to the mean of each tilt minus 1,
    protein dark. transfer : [tilt, x frequency, ky] what CTF and damage did to the signal, kept for correction."""

    images: torch.Tensor
    transfer: torch.Tensor
    damage: torch.Tensor
    geometry: TiltGeometry


def interaction_rad_per_V_A(voltage_kV: float) -> float:
    """sigma_e = 2 pi m e lambda / h^2 (relativistic), rad per V A; 6.53e-4 at 300 kV."""
    wavelength = wavelength_A(voltage_kV)
    relative = (_ELECTRON_REST_KEV + voltage_kV) / (2 * _ELECTRON_REST_KEV + voltage_kV)
    return float(2 * np.pi / (wavelength * voltage_kV * 1000.0) * relative)


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic electron wavelength in A; 0.0197 at 300 kV."""
    return float(12.2643 / np.sqrt(voltage_kV * 1e3 * (1 + 0.978476e-6 * voltage_kV * 1e3)))


def take_tilt_series(
    sample: torch.Tensor, voxel_size_A: float, acquisition: Acquisition, generator: torch.Generator, noise: bool = True
) -> TiltSeries:
    """Image a sample float32 [z, y, x] (Da per voxel) at all tilts.

    The images are wider than the sample, so that nothing of it leaves them at high tilt.
    """
    nz, ny, nx = sample.shape
    geometry = tilt_geometry(nz, nx, tuple(np.round(acquisition.tilts_deg, 3)), str(sample.device))
    if noise and acquisition.ice_noise > 0:
        # Molecules placed at random: variance = count * weight^2.
        sigma = acquisition.ice_noise * np.sqrt(voxel_size_A**3 / _WATER_VOLUME_A3) * _WATER_DA
        sample = sample + sigma * torch.randn(sample.shape, generator=generator, device=sample.device)
    # Da per voxel summed over a column -> V A (potential times length): divide by the pixel's area.
    phase_per_da = interaction_rad_per_V_A(acquisition.voltage_kV) * POTENTIAL_V_A3_PER_DA / voxel_size_A**2
    spectrum = geometry.project(sample) * phase_per_da
    ctf, damage = _transfer(acquisition, geometry.width, ny, voxel_size_A, sample.device)
    shifts = (
        acquisition.shift_error_A
        / voxel_size_A
        * torch.randn(len(damage), 2, generator=generator, device=sample.device)
    )
    signal = torch.fft.irfft2(
        spectrum * (2 * ctf * damage) * _shift_phase(shifts if noise else 0 * shifts, geometry.width, ny),
        s=(geometry.width, ny),
    )
    if not noise:
        return TiltSeries(signal, ctf, damage, geometry)
    tilts = torch.as_tensor(np.deg2rad(acquisition.tilts_deg), dtype=torch.float32, device=sample.device)
    path_nm = nz * voxel_size_A / 10.0 / torch.cos(tilts)
    electrons = acquisition.dose_e_per_A2 / len(tilts) * voxel_size_A**2 * acquisition.dqe
    mean = electrons * torch.exp(-path_nm / acquisition.inelastic_mfp_nm)
    expected = (mean[:, None, None] * (1 + signal)).clamp_min(0.0)
    counts = torch.poisson(expected, generator=generator)
    return TiltSeries(counts / mean[:, None, None] - 1, ctf, damage, geometry)


def reconstruct(series: TiltSeries, acquisition: Acquisition) -> torch.Tensor:
    """Weighted back-projection -> tomogram [z, y, x] of the sample's size, protein dark, in relative counts per voxel."""
    ny = series.images.shape[-1]
    spectrum = torch.fft.rfft2(series.images)
    if acquisition.ctf_corrected:
        # Flipped so that protein stays dark: the sign is that of the lowest frequencies, which is negative.
        spectrum = spectrum * -torch.sign(series.transfer)
    if acquisition.dose_weighted:
        spectrum = spectrum * series.damage
    return series.geometry.backproject(spectrum * series.geometry.ramp, ny)


def _transfer(
    acquisition: Acquisition, width: int, ny: int, voxel_size_A: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """CTF [1, width, ky], negative at low frequency for underfocus, and damage [tilt, width, ky]."""
    ctf = calculate_ctf_2d(
        defocus=torch.tensor(acquisition.defocus_um, device=device),
        astigmatism=0.0,
        astigmatism_angle=0.0,
        voltage=acquisition.voltage_kV,
        spherical_aberration=acquisition.cs_mm,
        amplitude_contrast=acquisition.amplitude_contrast,
        phase_shift=0.0,
        pixel_size=voxel_size_A,
        image_shape=(width, ny),
        rfft=True,
        fftshift=False,
    )
    ctf = ctf.reshape(1, width, ny // 2 + 1).to(torch.float32)
    ctf = -ctf if float(ctf[0, 0, 0]) > 0 else ctf
    fx = torch.fft.fftfreq(width, voxel_size_A, device=device)[:, None]
    fy = torch.fft.rfftfreq(ny, voxel_size_A, device=device)[None]
    critical = critical_exposure(torch.sqrt(fx**2 + fy**2))
    if acquisition.voltage_kV < 250:  # damage per exposure grows as the electrons slow down (Grant and Grigorieff 2015)
        critical = critical * 0.8
    exposure = torch.as_tensor(acquisition.exposure_before_e_per_A2, dtype=torch.float32, device=device)
    return ctf, torch.exp(-exposure[:, None, None] / (2 * critical[None]))


def _shift_phase(shifts_vox: torch.Tensor, width: int, ny: int) -> torch.Tensor:
    fx = torch.fft.fftfreq(width, device=shifts_vox.device)[None, :, None]
    fy = torch.fft.rfftfreq(ny, device=shifts_vox.device)[None, None]
    return torch.exp(-2j * np.pi * (fx * shifts_vox[:, 0, None, None] + fy * shifts_vox[:, 1, None, None]))
