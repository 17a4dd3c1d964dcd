"""Reconstruction: a tilt series becomes a tomogram by weighted back-projection (Radermacher 1992), protein dark."""

from __future__ import annotations

import numpy as np
import torch

from tomotwin_core.simulation.acquisition import Acquisition, Filter
from tomotwin_core.simulation.microscope import TiltSeries
from tomotwin_core.simulation.optics import filtered_by_ctf

# IMOD's RADIAL: the ramp rises to this many cycles per pixel and falls off as a Gaussian of this deviation.
_RADIAL_CUTOFF, _RADIAL_FALL_OFF = 0.35, 0.035
# IMOD counts frequencies in cells of an image's Fourier transform; images narrower than a micrograph's field are taken
# as parts of one.
_MICROGRAPH_A = 10000.0


def reconstruct(series: TiltSeries, acquisition: Acquisition) -> torch.Tensor:
    """Weighted back-projection -> tomogram [z, y, x] of the sample's size, protein dark, in relative counts per voxel.

    Before that, if asked: phases flipped with the CTF of each tilt, tilts weighted by what radiation damage has left of
    each frequency (Grant and Grigorieff 2015). The geometry is the nominal one: the residual alignment errors of the
    series blur the tomogram.
    """
    geometry, ny = series.geometry, series.images.shape[-1]
    spectra = torch.fft.rfft2(series.images)
    if acquisition.ctf_corrected:
        spectra = filtered_by_ctf(
            spectra,
            acquisition,
            np.array(geometry.tilts_deg),
            ny,
            geometry.nx,
            series.voxel_size_A,
            # Low frequencies, where the CTF is negative, stay as they are: protein stays dark.
            lambda ctf: -torch.sign(ctf),
        )
    if acquisition.dose_weighted:
        spectra *= series.damage
    frequency = torch.fft.fftfreq(geometry.width, device=spectra.device).abs()
    weight = radial_filter(acquisition.filter, frequency)
    if acquisition.sirt_iterations:
        field = max(geometry.width, _MICROGRAPH_A / series.voxel_size_A)
        weight = weight * sirt_weight(acquisition.sirt_iterations, frequency * field)
    spectra *= geometry.ramp * weight[:, None]
    return geometry.backproject(spectra, ny)


def radial_filter(name: Filter, frequency: torch.Tensor) -> torch.Tensor:
    """What multiplies the ramp at frequencies in cycles per pixel, 0 to 0.5, across the tilt axis.

    ramp 1; shepp-logan sinc(f); cosine cos(pi f); hamming 0.54 + 0.46 cos(2 pi f); hann (1 + cos(2 pi f)) / 2;
    gaussian 1 up to 0.35, then exp(-((f - 0.35) / 0.035)^2 / 2), IMOD's default RADIAL 0.35 0.035.
    """
    match name:
        case "shepp-logan":
            return torch.sinc(frequency)
        case "cosine":
            return torch.cos(np.pi * frequency)
        case "hamming":
            return 0.54 + 0.46 * torch.cos(2 * np.pi * frequency)
        case "hann":
            return 0.5 + 0.5 * torch.cos(2 * np.pi * frequency)
        case "gaussian":
            return torch.exp(-0.5 * ((frequency - _RADIAL_CUTOFF).clamp_min(0) / _RADIAL_FALL_OFF) ** 2)
        case _:
            return torch.ones_like(frequency)


def sirt_weight(iterations: int, cell: torch.Tensor) -> torch.Tensor:
    """What multiplies the ramp so that the tomogram looks like one of SIRT, at frequencies in cells of the Fourier transform.

    Back-projection without weights has a transfer of 1 / |f|. One iteration of SIRT adds the back-projected residual times a
    step; with a step of 0.99 of what the first cell lets converge, n iterations leave 1 - (1 - 0.99 / |f|)^n of each
    frequency (Landweber's iteration as a filter: Zeng 2012, Med. Phys. 39, 603). IMOD's FakeSIRTiterations is of this kind:
    cells up to about the number of iterations get the ramp, higher ones the flat weight of back-projection.
    """
    return 1 - (1 - 0.99 / cell.clamp_min(1)) ** iterations
