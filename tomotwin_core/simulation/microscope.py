"""The microscope: a sample becomes a tilt series.

sample (Da per voxel) -> potential -> projected phase -> CTF and radiation damage -> loss with path length -> Poisson
counts -> detector -> tilt images, protein dark

Weak-phase object: 1 + 2 CTF * phase, phase = sigma_e * projected potential (Kirkland 2010). The optics are in
optics.py, the detectors in detector.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.detector import DETECTORS
from tomotwin_core.simulation.gridding import TiltGeometry
from tomotwin_core.simulation.ice import Ice
from tomotwin_core.simulation.optics import (
    damage,
    filtered_by_ctf,
    frequencies_per_A,
    interaction_rad_per_V_A,
    path_length_vox,
)
from tomotwin_core.structures.density import POTENTIAL_V_A3_PER_DA

# Scattering contrast of one water molecule, as mass in the units of the sample (Da).
_WATER_DA = 18.0
_WATER_VOLUME_A3 = 32.1


@dataclass(frozen=True)
class AlignmentErrors:
    """What the alignment of each tilt has missed: the true tilt is tilt_deg greater than the nominal one, the image is turned
    by rotation_deg (from x towards y) and then shifted by shift_vox (n, 2) along x and y."""

    tilt_deg: np.ndarray
    rotation_deg: np.ndarray
    shift_vox: np.ndarray


@dataclass(frozen=True)
class TiltSeries:
    """Images of a sample with the geometry that the reconstruction believes in.

    images : float32 [tilt, x, y] (across the tilt axis first, its middle at pixel 0), counts relative to the mean of each
    tilt minus 1, protein dark.  damage : [tilt, x frequency, ky] what radiation damage has left of the signal.
    """

    images: torch.Tensor
    damage: torch.Tensor
    geometry: TiltGeometry
    voxel_size_A: float
    errors: AlignmentErrors

    def stack(self, nx: int, ny: int) -> np.ndarray:
        """The images as a stack file holds them: float32 [tilt, y, x], nx by ny pixels about the middle, tilts in rising
        order."""
        images = torch.fft.fftshift(self.images, dim=1)
        width, height = images.shape[1:]
        if nx > width or ny > height:
            raise ValueError(f"a stack of {nx} x {ny} pixels was asked for, the images have {width} x {height}")
        x, y = width // 2 - nx // 2, height // 2 - ny // 2
        return np.ascontiguousarray(images[:, x : x + nx, y : y + ny].transpose(1, 2).cpu().numpy())


def take_tilt_series(
    sample: torch.Tensor,
    voxel_size_A: float,
    acquisition: Acquisition,
    generator: torch.Generator,
    noise: bool = True,
    ice: Ice | None = None,
) -> TiltSeries:
    """Image a sample at all tilts.

    Parameters
    ----------
    sample
        float32 [z, y, x], Da per voxel.
    generator
        Of all random numbers, on the sample's device.
    noise
        False leaves out solvent noise, the electrons' statistics and alignment errors.
    ice
        Where the ice is: solvent noise and loss of electrons then follow its surfaces, and images are darker where it is
        thicker. None: it fills the sample.

    The images are wider than the sample, so that nothing of it leaves them at high tilt.
    """
    nz, ny, nx = sample.shape
    device = sample.device
    nominal_deg = np.round(acquisition.tilts_deg, 3)
    geometry = TiltGeometry(nz, nx, tuple(nominal_deg), str(device))
    errors = _alignment_errors(acquisition, voxel_size_A, generator if noise else None)
    tilts_deg = nominal_deg + errors.tilt_deg
    if noise and acquisition.ice_noise > 0:
        # Molecules placed at random: variance = count * weight^2.
        sigma = acquisition.ice_noise * np.sqrt(voxel_size_A**3 / _WATER_VOLUME_A3) * _WATER_DA
        solvent = torch.randn(sample.shape, generator=generator, device=device).mul_(sigma)
        if ice is not None:
            solvent *= torch.from_numpy(ice.mask(nz)).to(device).sqrt_()
        sample = solvent.add_(sample)
    seen = TiltGeometry(nz, nx, tuple(tilts_deg), str(device)) if errors.tilt_deg.any() else geometry
    # Da per voxel summed over a column -> V A (potential times length): divide by the pixel's area.
    phase_per_da = interaction_rad_per_V_A(acquisition.voltage_kV) * POTENTIAL_V_A3_PER_DA / voxel_size_A**2
    spectra = _turned(seen.project(sample), ny, errors.rotation_deg)
    frequency_per_A = frequencies_per_A(geometry.width, ny, voxel_size_A, device)
    left = damage(acquisition, frequency_per_A)
    detector, per_pixel = DETECTORS[acquisition.detector], frequency_per_A * acquisition.detector_pixel_A
    # The signal passes the MTF in two steps: what stays of it against noise before the counts are drawn, the rest after.
    recorded = detector.dqe(per_pixel).sqrt() if noise else detector.mtf(per_pixel)
    spectra *= left * (2 * phase_per_da * recorded)
    spectra = filtered_by_ctf(spectra, acquisition, tilts_deg, ny, nx, voxel_size_A)
    spectra *= _shifts(errors.shift_vox, geometry.width, ny, device)
    signal = torch.fft.irfft2(spectra, s=(geometry.width, ny))
    if noise:
        counted = _counted(signal, voxel_size_A, acquisition, generator, tilts_deg, nz, ice)
        signal = counted if detector.noise_blur == 0 else _filtered(counted, detector.noise_amplitude(per_pixel))
    return TiltSeries(signal, left, geometry, voxel_size_A, errors)


def _counted(
    signal: torch.Tensor,
    voxel_size_A: float,
    acquisition: Acquisition,
    generator: torch.Generator,
    tilts_deg: np.ndarray,
    nz: int,
    ice: Ice | None,
) -> torch.Tensor:
    """Poisson counts of the electrons that come through, relative to the mean of each tilt, minus 1."""
    device = signal.device
    if ice is None:
        path_vox = nz / torch.cos(torch.deg2rad(torch.as_tensor(tilts_deg, dtype=torch.float32, device=device)))
        path_vox = path_vox[:, None, None]
    else:
        path_vox = path_length_vox(ice, nz, tilts_deg, signal.shape[1], device)
    electrons: float | torch.Tensor = acquisition.dose_per_tilt_e_per_A2 * voxel_size_A**2 * acquisition.dqe
    if acquisition.per_tilt and acquisition.per_tilt.dose_e_per_A2:
        counted = acquisition.doses_e_per_A2 * voxel_size_A**2 * acquisition.dqe
        electrons = torch.as_tensor(counted, dtype=torch.float32, device=device)[:, None, None]
    unscattered = electrons * torch.exp(path_vox * (-0.1 * voxel_size_A / acquisition.inelastic_mfp_nm))
    mean = unscattered.mean(dim=(1, 2), keepdim=True)
    expected = (signal + 1).mul_(unscattered).clamp_min_(0.0)
    return torch.poisson(expected, generator=generator).div_(mean).sub_(1)


def _alignment_errors(
    acquisition: Acquisition, voxel_size_A: float, generator: torch.Generator | None
) -> AlignmentErrors:
    """A draw of all errors; without a generator there are none."""
    nominal_deg = acquisition.tilts_deg
    n = len(nominal_deg)
    if generator is None:
        return AlignmentErrors(np.zeros(n), np.zeros(n), np.zeros((n, 2)))
    drawn = torch.randn(4 * n + 1, generator=generator, device=generator.device).cpu().double().numpy()
    axis, tilt, rotation, shift = drawn[0], drawn[1 : n + 1], drawn[n + 1 : 2 * n + 1], drawn[2 * n + 1 :]
    return AlignmentErrors(
        # No error makes the beam run along the slab.
        np.clip(nominal_deg + acquisition.tilt_error_deg * tilt, -89.0, 89.0) - nominal_deg,
        acquisition.rotation_error_deg * rotation + acquisition.tilt_axis_error_deg * axis,
        acquisition.shift_error_A / voxel_size_A * shift.reshape(n, 2),
    )


def _turned(spectra: torch.Tensor, ny: int, degrees: np.ndarray) -> torch.Tensor:
    """Spectra [tilt, width, ky] of the images turned about their middles from x towards y.

    A rotation is three shears, each a shift of lines that Fourier phases do exactly (Larkin, Oldfield and Klemm 1997).
    """
    if not degrees.any():
        return spectra
    device, width = spectra.device, spectra.shape[1]
    angle = torch.as_tensor(np.deg2rad(degrees), dtype=torch.float32, device=device)[:, None, None]
    x = torch.fft.fftfreq(width, 1 / width, device=device)[:, None]
    y = torch.arange(ny, device=device)[None] - ny // 2
    along_x = _phase(-torch.tan(angle / 2) * y * torch.fft.rfftfreq(width, device=device)[:, None])
    along_y = _phase(torch.sin(angle) * x * torch.fft.rfftfreq(ny, device=device)[None])
    images = torch.fft.irfft2(spectra, s=(width, ny))
    for axis, n, phase in ((1, width, along_x), (2, ny, along_y), (1, width, along_x)):
        images = torch.fft.irfft(torch.fft.rfft(images, dim=axis).mul_(phase), n=n, dim=axis)
    return torch.fft.rfft2(images)


def _shifts(shift_vox: np.ndarray, width: int, ny: int, device: torch.device) -> torch.Tensor:
    """Phases [tilt, width, ky] that shift images along x and y."""
    shift = torch.as_tensor(shift_vox, dtype=torch.float32, device=device)[:, :, None, None]
    fx = torch.fft.fftfreq(width, device=device)[:, None]
    fy = torch.fft.rfftfreq(ny, device=device)[None]
    return _phase(shift[:, 0] * fx) * _phase(shift[:, 1] * fy)


def _phase(turns: torch.Tensor) -> torch.Tensor:
    """exp(-2 pi i turns)."""
    return torch.polar(torch.ones_like(turns), -2 * np.pi * turns)


def _filtered(images: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(images) * transfer, s=images.shape[1:])
