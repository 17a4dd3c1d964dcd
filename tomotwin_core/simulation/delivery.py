"""What happens to a tomogram between its reconstruction and picking.

Users rarely feed raw weighted back-projections: they bin and filter, deconvolve or denoise, even out the contrast,
convert to 8 bits. Each of these changes what the network sees. `deliver` does them in the order in which they are done
in practice; `random_delivery` draws them for training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage
from skimage.restoration import denoise_tv_chambolle
from torch_ctf import calculate_ctf_1d

from tomotwin_core.errors import UserError
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.tomogram import normalise_local, resample

# Full width at half maximum of a Gaussian of deviation 1.
_FWHM = 2.3548
# tom_deconv's own: the signal-to-noise ratio rises from zero to full over this share of the Nyquist frequency.
_HIGH_PASS_NYQUIST = 0.02
_CTF_SAMPLES = 2048
# Where a sloped spectrum is level: coarser than what the network's window holds.
_LEVEL_BELOW_A = 1500.0


@dataclass(frozen=True)
class Delivery:
    """Every step is off by default.

    binned_to_A : voxel size the tomogram was binned to, anti-aliased.  delivered_at_A : voxel size of the file, where it
    was resampled once more (an upsampled tomogram has small voxels and little detail).  spectral_slope : power of the
    frequency that amplitudes are multiplied by: below 0 coarse structure and grey-level gradients outweigh detail, as after
    back-projection without full weights, denoising, or where ice and contamination vary.  low_pass_A : half-maximum width of
    a Gaussian filter in real space.  deconvolution : strength of the CTF deconvolution filter (1 is Warp's usual).
    denoising : weight of total-variation denoising, in deviations of the tomogram.  local_contrast_A : side of the box
    over which mean and contrast are evened out.  bits : 32, or 8.  clip_deviations : from the mean, where 8 bits cut the
    range.  contrast : of the protein.
    """

    binned_to_A: float = 0.0
    delivered_at_A: float = 0.0
    spectral_slope: float = 0.0
    low_pass_A: float = 0.0
    deconvolution: float = 0.0
    denoising: float = 0.0
    local_contrast_A: float = 0.0
    bits: int = 32
    clip_deviations: float = 4.0
    contrast: Literal["dark", "bright"] = "dark"

    def __post_init__(self) -> None:
        for name in ("binned_to_A", "delivered_at_A"):
            value = getattr(self, name)
            if value and not 1.0 <= value <= 45.0:
                raise UserError(f"{name} = {value}: must lie within 1 to 45 A, or be 0 to leave the voxel size")
        for name, most in (("low_pass_A", 300.0), ("deconvolution", 5.0), ("denoising", 10.0)):
            if not 0.0 <= getattr(self, name) <= most:
                raise UserError(f"{name} = {getattr(self, name)}: must lie within 0 to {most:g}")
        if not -2.0 <= self.spectral_slope <= 2.0:
            raise UserError(f"spectral_slope = {self.spectral_slope}: must lie within -2 to 2")
        if self.local_contrast_A < 0:
            raise UserError(f"local_contrast_A = {self.local_contrast_A}: give a length in A, or 0 for none")
        if self.bits not in (8, 32):
            raise UserError(f"bits = {self.bits}: give 8 or 32")
        if self.clip_deviations <= 0:
            raise UserError(f"clip_deviations = {self.clip_deviations}: give a positive number of deviations")
        if self.contrast not in ("dark", "bright"):
            raise UserError(f"contrast = {self.contrast!r}: give dark or bright")


def deliver(
    volume: NDArray[np.float32], voxel_size_A: float, delivery: Delivery, acquisition: Acquisition
) -> tuple[NDArray[np.float32] | NDArray[np.int8], float]:
    """A reconstructed tomogram [z, y, x], protein dark, as the user hands it on; with its voxel size (A).

    Its shape changes with the voxel size as `tomogram.resample` says; int8 where 8 bits are asked for.
    """
    if delivery.binned_to_A > voxel_size_A:
        volume, voxel_size_A = resample(volume, voxel_size_A, delivery.binned_to_A), delivery.binned_to_A
    if delivery.deconvolution > 0:
        volume = deconvolved(volume, voxel_size_A, acquisition, delivery.deconvolution)
    if delivery.spectral_slope:
        volume = sloped(volume, voxel_size_A, delivery.spectral_slope)
    if delivery.low_pass_A > 0:
        volume = ndimage.gaussian_filter(volume, delivery.low_pass_A / _FWHM / voxel_size_A)
    if delivery.denoising > 0:
        scale = float(volume.std()) or 1.0
        volume = denoise_tv_chambolle(volume / scale, weight=delivery.denoising, max_num_iter=12).astype(np.float32)
    if delivery.local_contrast_A > 0:
        box = 2 * round(delivery.local_contrast_A / voxel_size_A / 2) + 1
        volume = normalise_local(volume, window=box)
    if delivery.delivered_at_A:
        volume, voxel_size_A = resample(volume, voxel_size_A, delivery.delivered_at_A), delivery.delivered_at_A
    if delivery.contrast == "bright":
        volume = -volume
    return (eight_bit(volume, delivery.clip_deviations) if delivery.bits == 8 else volume), voxel_size_A


def deconvolved(
    volume: NDArray[np.float32], voxel_size_A: float, acquisition: Acquisition, strength: float, falloff: float = 1.0
) -> NDArray[np.float32]:
    """Wiener-like deconvolution of the CTF with an assumed signal-to-noise ratio that falls off exponentially.

    The filter of Warp (Tegunov and Cramer, Nature Methods 2019) as its authors' tom_deconv gives it; the CTF is that of
    the series' middle defocus, its modulus where phases were flipped. The contrast keeps its sign.
    """
    relative = np.linspace(0.0, 1.0, _CTF_SAMPLES)  # of the Nyquist frequency
    rise = 1.0 - np.cos(np.pi * np.minimum(1.0, relative / _HIGH_PASS_NYQUIST))
    snr = np.exp(-relative * falloff * 100.0 / voxel_size_A) * 10.0 ** (3.0 * strength) * rise
    transfer = calculate_ctf_1d(
        defocus=acquisition.defocus_um,
        voltage=acquisition.voltage_kV,
        spherical_aberration=acquisition.cs_mm,
        amplitude_contrast=acquisition.amplitude_contrast,
        phase_shift=acquisition.phase_shift_deg,
        pixel_size=voxel_size_A,
        n_samples=_CTF_SAMPLES,
        oversampling_factor=1,
    )
    ctf = np.asarray(transfer, np.float64).ravel()
    ctf = np.abs(ctf) if acquisition.ctf_corrected else ctf * np.sign(ctf[1])
    wiener = ctf * snr / (ctf**2 * snr + 1.0)
    wiener[0] = wiener[1:8].max()  # the grey level is no signal, but neither is it to vanish
    return _multiplied(volume, lambda radius: np.interp(radius / 0.5, relative, wiener).astype(np.float32))


def sloped(volume: NDArray[np.float32], voxel_size_A: float, slope: float) -> NDArray[np.float32]:
    """Amplitudes times frequency^slope, level below one cycle in 1500 A; the mean is kept."""
    level = voxel_size_A / _LEVEL_BELOW_A

    def gain(radius: NDArray[np.float32]) -> NDArray[np.float32]:
        values = ((radius**2 + level**2) / level**2) ** np.float32(slope / 2)
        return values.astype(np.float32)

    return _multiplied(volume, gain)


def _multiplied(
    volume: NDArray[np.float32], gain: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The spectrum of a volume times a gain of the frequency, in cycles per voxel."""
    axes = [np.fft.fftfreq(n) for n in volume.shape[:2]] + [np.fft.rfftfreq(volume.shape[2])]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij")))
    spectrum = fft.rfftn(volume, workers=torch.get_num_threads())
    restored: NDArray[np.float32] = fft.irfftn(spectrum * gain(radius), s=volume.shape, workers=torch.get_num_threads())
    return restored


def eight_bit(volume: NDArray[np.float32], clip_deviations: float) -> NDArray[np.int8]:
    """Mean at 0, +-clip_deviations deviations at +-127, the rest cut off: what conversion to bytes leaves."""
    middle, spread = float(volume.mean()), float(volume.std()) or 1.0
    grey = np.round((volume - middle) * (127.0 / (clip_deviations * spread)))
    return np.clip(grey, -127, 127).astype(np.int8)


def random_delivery(rng: np.random.Generator, voxel_size_A: float = 10.0) -> Delivery:
    """Draw what a user may have done, for a tomogram of `voxel_size_A` that ends at that voxel size again.

    | step | how often | drawn from |
    |---|---|---|
    | binned to coarser voxels, brought back | 0.25 | log-uniform, up to 36 A |
    | deconvolved | 0.12 | strength 0.5 to 1.2 |
    | spectral slope | 0.50 | -1.3 to 0.3 |
    | Gaussian filter | 0.35 | half width 7 to 26 A |
    | denoised (total variation) | 0.10 | 0.2 to 0.8 deviations |
    | local contrast | 0.10 | box of 200 to 1000 A |
    | 8 bits | 0.30 | cut at 2.5 to 6 deviations |
    """
    binned = float(np.exp(rng.uniform(np.log(voxel_size_A), np.log(36.0)))) if rng.random() < 0.25 else 0.0
    deconvolution = float(rng.uniform(0.5, 1.2)) if rng.random() < 0.12 else 0.0
    slope = float(rng.uniform(-1.3, 0.3)) if rng.random() < 0.50 else 0.0
    low_pass = float(rng.uniform(7.0, 26.0)) if rng.random() < 0.35 else 0.0
    denoising = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.10 else 0.0
    local_contrast = float(rng.uniform(200.0, 1000.0)) if rng.random() < 0.10 else 0.0
    bits = 8 if rng.random() < 0.30 else 32
    return Delivery(
        binned_to_A=binned,
        delivered_at_A=voxel_size_A if binned else 0.0,
        spectral_slope=slope,
        low_pass_A=low_pass,
        deconvolution=deconvolution,
        denoising=denoising,
        local_contrast_A=local_contrast,
        bits=bits,
        clip_deviations=float(rng.uniform(2.5, 6.0)),
    )
