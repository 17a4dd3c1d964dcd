"""The microscope's optics: contrast transfer, its defocus gradient across a tilted field, radiation damage, and the
electrons that the ice takes out.

Everything acts on tilt images [tilt, x, y] or their spectra [tilt, x frequency, ky] (torch.fft.rfft2 of the images). Across
the tilt axis an image's middle lies at pixel 0 (FFT order), along it at ny // 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import interpolate
from torch_ctf import calculate_ctf_2d
from torch_fourier_filter.dose_weight import critical_exposure

from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.ice import Ice

_ELECTRON_REST_KEV = 510.999
# A change of the CTF's phase at the Nyquist frequency that is left out: it costs at most 1 - cos(0.5) = 12 % of the
# finest detail at the field's very edge.
_PHASE_LIMIT_RAD = 0.5
# The path through the ice is worked out on every so many pixels; ice is smooth over more.
_PATH_STRIDE = 4


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic electron wavelength in A; 0.0197 at 300 kV."""
    return float(12.2643 / np.sqrt(voltage_kV * 1e3 * (1 + 0.978476e-6 * voltage_kV * 1e3)))


def interaction_rad_per_V_A(voltage_kV: float) -> float:
    """sigma_e = 2 pi m e lambda / h^2 (relativistic), rad per V A; 6.53e-4 at 300 kV (Kirkland 2010)."""
    relative = (_ELECTRON_REST_KEV + voltage_kV) / (2 * _ELECTRON_REST_KEV + voltage_kV)
    return float(2 * np.pi / (wavelength_A(voltage_kV) * voltage_kV * 1000.0) * relative)


def frequencies_per_A(width: int, ny: int, voxel_size_A: float, device: torch.device | str) -> torch.Tensor:
    """Spatial frequency of each element of a spectrum, [width, ky]."""
    fx = torch.fft.fftfreq(width, voxel_size_A, device=device)[:, None]
    return torch.hypot(fx, torch.fft.rfftfreq(ny, voxel_size_A, device=device)[None])


def contrast_transfer(
    acquisition: Acquisition,
    width: int,
    ny: int,
    voxel_size_A: float,
    defocus_um: torch.Tensor,
    tilts: slice = slice(None),
) -> torch.Tensor:
    """CTF [n, width, ky] at n underfoci, negative at low frequency (protein dark), with or without a phase plate.

    tilts : which of the recorded ones the underfoci belong to, where each has an astigmatism of its own.
    """
    astigmatism, angle = _astigmatism(acquisition, defocus_um, tilts)
    # torch-ctf counts the angle from the last axis of an image, y here, and has underfocused protein bright.
    return -calculate_ctf_2d(
        defocus=defocus_um,
        astigmatism=astigmatism,
        astigmatism_angle=angle,
        voltage=acquisition.voltage_kV,
        spherical_aberration=acquisition.cs_mm,
        amplitude_contrast=acquisition.amplitude_contrast,
        phase_shift=acquisition.phase_shift_deg,
        pixel_size=voxel_size_A,
        image_shape=(width, ny),
        rfft=True,
        fftshift=False,
    ).to(torch.float32)


def filtered_by_ctf(
    spectra: torch.Tensor,
    acquisition: Acquisition,
    tilts_deg: np.ndarray,
    ny: int,
    nx: int,
    voxel_size_A: float,
    of_ctf: Callable[[torch.Tensor], torch.Tensor] = lambda ctf: ctf,
) -> torch.Tensor:
    """Spectra [tilt, width, ky] times a function of the CTF, image by image.

    nx : width in voxels of the sample that is tilted.  of_ctf : what of the CTF multiplies (the CTF itself, its sign).

    A tilted sample is nearer to the source on one side: at x' from the tilt axis in the image it lies x' tan(tilt) lower,
    as tilts turn right-handed about y and electrons travel towards -z, and lower means more underfocus (the other way
    round where a real series has a `defocus_hand` of -1). Where that
    changes the CTF's phase at the Nyquist frequency by less than 0.5 rad at the edge of the sample, the CTF of the middle
    is taken for all of the image: at 10 A per voxel that is so up to half a micrometre of field at 60 degrees. Finer
    images are filtered for strips parallel to the tilt axis, so close that the phase changes by 0.5 rad from one to the
    next, and blended linearly. Within the thickness of the ice the defocus is taken as one: 75 nm above the middle change
    the phase at 1/20 A by 0.12 rad.
    """
    width = spectra.shape[1]
    x = torch.fft.fftfreq(width, 1 / width, device=spectra.device) * voxel_size_A
    per_A_of_height = np.pi * wavelength_A(acquisition.voltage_kV) / (2 * voxel_size_A) ** 2
    # One for all tilts, where each has none of its own.
    own, hand = acquisition.per_tilt, acquisition.per_tilt.defocus_hand if acquisition.per_tilt else 1
    defoci_um = acquisition.defoci_um if own else np.array([acquisition.defocus_um])
    filtered = spectra * of_ctf(contrast_transfer(acquisition, width, ny, voxel_size_A, _um(defoci_um, spectra)))
    for index, tilt in enumerate(np.deg2rad(tilts_deg)):
        edge_A = nx * voxel_size_A / 2 * np.cos(tilt)
        phase = per_A_of_height * edge_A * abs(np.tan(tilt))
        if phase <= _PHASE_LIMIT_RAD:
            continue
        steps = int(np.ceil(phase / _PHASE_LIMIT_RAD))
        image = torch.zeros(width, ny, device=spectra.device)
        for strip in range(-steps, steps + 1):
            middle_um = defoci_um[index] if own else acquisition.defocus_um
            local_um = np.array([middle_um + hand * (strip / steps * edge_A * np.tan(tilt) * 1e-4)])
            this = slice(index, index + 1)
            ctf = contrast_transfer(acquisition, width, ny, voxel_size_A, _um(local_um, spectra), this)[0]
            place = (x / edge_A * steps).clamp(-steps, steps)
            weight = (1 - (place - strip).abs()).clamp_min(0)
            image += weight[:, None] * torch.fft.irfft2(spectra[index] * of_ctf(ctf), s=(width, ny))
        filtered[index] = torch.fft.rfft2(image)
    return filtered


def damage(acquisition: Acquisition, frequency_per_A: torch.Tensor) -> torch.Tensor:
    """Share of the amplitude that exposure has left, [tilt, width, ky]: exp(-exposure / 2 Ne) (Grant and Grigorieff 2015,
    equation 5; Ne grows with the electrons' speed, the factors are theirs for 200 kV and RELION's for 100 kV)."""
    slower = 1.0 if acquisition.voltage_kV > 250 else 0.8 if acquisition.voltage_kV > 150 else 0.64
    exposure = torch.as_tensor(acquisition.exposure_before_e_per_A2, dtype=torch.float32, device=frequency_per_A.device)
    return torch.exp(-exposure[:, None, None] / (2 * slower * critical_exposure(frequency_per_A)))


def path_length_vox(
    ice: Ice, nz: int, tilts_deg: np.ndarray, width: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Length of every pixel's ray inside the ice, [tilt, x, y] in voxels.

    A ray of the image at x' holds the points (x, z), counted from the middle voxel, with x cos(tilt) + z sin(tilt) = x':
    both surfaces are looked up where it crosses them, and its length is the difference of their heights over cos(tilt).
    Beside the sample the ice goes on as at its edge.
    """
    ny, nx = ice.bottom.shape
    turn = torch.as_tensor(np.deg2rad(tilts_deg), dtype=torch.float32, device=device)[:, None, None]
    rows = torch.linspace(0, ny - 1, max(ny // _PATH_STRIDE, 2), device=device)
    rays = torch.linspace(-(width // 2), (width - 1) // 2, width // _PATH_STRIDE, device=device)
    x = torch.arange(nx, device=device) - nx // 2
    heights = []
    for surface in (ice.top, ice.bottom):
        height = torch.as_tensor(surface, dtype=torch.float32, device=device)[rows.round().long()] - nz // 2
        # Where each point of the surface is imaged; a ray that meets it more than once enters at the first.
        seen_at = (x * torch.cos(turn) + height * torch.sin(turn)).cummax(-1).values
        after = torch.searchsorted(seen_at, rays.expand(*seen_at.shape[:2], -1).contiguous()).clamp(1, nx - 1)
        height = height.expand(*seen_at.shape)
        left, right = seen_at.gather(-1, after - 1), seen_at.gather(-1, after)
        share = ((rays - left) / (right - left).clamp_min(1e-3)).clamp(0, 1)
        heights.append(torch.lerp(height.gather(-1, after - 1), height.gather(-1, after), share))
    length = ((heights[0] - heights[1]) / torch.cos(turn)).clamp_min(0).transpose(1, 2)
    fine = interpolate(length[:, None], (width, ny), mode="bilinear", align_corners=True)[:, 0]
    return torch.fft.ifftshift(fine, dim=1)


def _um(defoci_um: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(defoci_um.tolist(), dtype=torch.float32, device=like.device)


def _astigmatism(
    acquisition: Acquisition, like: torch.Tensor, tilts: slice
) -> tuple[float | torch.Tensor, float | torch.Tensor]:
    """Astigmatism (um) and its angle as torch-ctf counts it, one number or one for each tilt."""
    own = acquisition.per_tilt
    if own is None or not own.astigmatism_um or not own.astigmatism_angle_deg:
        return acquisition.astigmatism_um, 90.0 - acquisition.astigmatism_angle_deg
    size, angle = np.array(own.astigmatism_um)[tilts], 90.0 - np.array(own.astigmatism_angle_deg)[tilts]
    return _um(size, like), _um(angle, like)
