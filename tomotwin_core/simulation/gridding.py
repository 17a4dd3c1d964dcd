"""Projection along tilts and back-projection, exact to a part in a thousand, as one sparse matrix.

For a single tilt axis along y the three-dimensional problem falls apart into one two-dimensional problem per
frequency along y: the projection of the sample at tilt t is, by the Fourier slice theorem, the line of its (kx, kz)
Fourier plane at angle t. The lines are read off the oversampled plane with a Kaiser-Bessel kernel (non-uniform FFT:
Fessler and Sutton 2003; Beatty et al. 2005 for the kernel's shape), that is, by a sparse matrix that is the same for
all ky. Its transpose spreads the lines back: weighted with the ramp filter, that is weighted back-projection
(Radermacher 1992). Neither ever interpolates in real space, so there are no aliasing artefacts, and the cost is two
FFTs of the sample.

A positive tilt turns the sample right-handed about +y: the point (x, z), counted from the middle voxel n // 2, is imaged
at x cos(tilt) + z sin(tilt). In the images that middle lies at pixel 0 across the tilt axis (FFT order).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import i0

_WIDTH = 4
_OVERSAMPLING = 2.0
# Beatty et al. (2005), equation 5.
_BETA = np.pi * np.sqrt((_WIDTH / _OVERSAMPLING) ** 2 * (_OVERSAMPLING - 0.5) ** 2 - 0.8)


@dataclass(frozen=True)
class TiltGeometry:
    """Slices of an (nz, nx) plane at the tilts.

    nz, nx : the sample's size in voxels (z is the beam at tilt 0).  width : pixels of a tilt image across the tilt axis.
    matrix : (n_tilts * width, mz * mx) sparse, rows ordered by tilt, then by frequency in FFT order.
    spread : its transpose.  apodisation : (mz, mx) divisor in real space, FFT order, zero where it would amplify without need.
    """

    nz: int
    nx: int
    mz: int
    mx: int
    width: int
    tilts_deg: tuple[float, ...]
    matrix: torch.Tensor
    spread: torch.Tensor
    deapodise: torch.Tensor

    def project(self, sample: torch.Tensor) -> torch.Tensor:
        """Sample [z, y, x] -> Fourier slices complex [tilt, width, ky], unnormalised FFT of the projections (sums
        over voxels)."""
        ny = sample.shape[1]
        plane = torch.fft.rfft(sample, dim=1).permute(1, 0, 2)  # ky, z, x
        padded = _centre_to_origin(plane, self.mz, self.mx) * self.deapodise
        transform = torch.fft.fft2(padded).reshape(plane.shape[0], -1).T  # mz*mx, ky
        slices = _sparse_times_complex(self.matrix, transform)
        return slices.reshape(len(self.tilts_deg), self.width, ny // 2 + 1)

    def backproject(self, slices: torch.Tensor, ny: int) -> torch.Tensor:
        """Fourier slices [tilt, width, ky] -> volume [z, y, x]: the sum over tilts of the smeared-out images, scaled
        for ramp weights in 1/pixel."""
        spread = _sparse_times_complex(self.spread, slices.reshape(-1, slices.shape[-1]))
        plane = torch.fft.ifft2(spread.T.reshape(-1, self.mz, self.mx)) * (self.deapodise * (self.mz * self.mx))
        volume = _origin_to_centre(plane, self.nz, self.nx)  # ky, z, x
        return torch.fft.irfft(volume.permute(1, 0, 2), n=ny, dim=1)

    @property
    def ramp(self) -> torch.Tensor:
        """Weights (n_tilts, width, 1) that make back-projection invert projection at full angular range: |k| dk dtheta."""
        frequency = torch.fft.fftfreq(self.width).abs()
        frequency[0] = 0.25 / self.width  # the mean of |k| over the central cell, so that the grey level survives
        steps = np.gradient(np.deg2rad(self.tilts_deg)) if len(self.tilts_deg) > 1 else np.array([np.pi])
        weights = torch.as_tensor(steps, dtype=torch.float32)[:, None] * frequency[None] / self.width
        return weights[..., None].to(self.deapodise.device)


@lru_cache(maxsize=8)
def tilt_geometry(nz: int, nx: int, tilts_deg: tuple[float, ...], device: str = "cpu") -> TiltGeometry:
    """Make (or take from the cache) the matrices for a sample of nz x nx voxels at these tilts."""
    mz, mx = _even(_OVERSAMPLING * nz), _even(_OVERSAMPLING * nx)
    width = _even(1.1 * np.hypot(nz, nx))
    angle = np.deg2rad(np.asarray(tilts_deg))[:, None]
    frequency = np.fft.fftfreq(width)[None]
    kx, kz = (frequency * np.cos(angle)).ravel(), (frequency * np.sin(angle)).ravel()
    rows, columns, values = [], [], []
    low_x, low_z = np.ceil(kx * mx - _WIDTH / 2), np.ceil(kz * mz - _WIDTH / 2)
    for dz in range(_WIDTH):
        wz = _kernel(kz * mz - (low_z + dz))
        for dx in range(_WIDTH):
            rows.append(np.arange(kx.size))
            columns.append(((low_z + dz).astype(int) % mz) * mx + (low_x + dx).astype(int) % mx)
            values.append(wz * _kernel(kx * mx - (low_x + dx)))
    index = torch.as_tensor(np.stack([np.concatenate(rows), np.concatenate(columns)]))
    value = torch.as_tensor(np.concatenate(values), dtype=torch.float32)
    shape = (kx.size, mz * mx)
    matrix = _csr(index, value, shape, device)
    spread = _csr(index.flip(0), value, shape[::-1], device)
    deapodise = np.outer(_inverse_transform(nz, mz), _inverse_transform(nx, mx))
    return TiltGeometry(
        nz, nx, mz, mx, width, tilts_deg, matrix, spread, torch.as_tensor(deapodise, dtype=torch.float32, device=device)
    )


def _csr(index: torch.Tensor, value: torch.Tensor, shape: tuple[int, ...], device: str) -> torch.Tensor:
    with warnings.catch_warnings():  # torch says once per process that its CSR support is young
        warnings.simplefilter("ignore", UserWarning)
        return (
            torch.sparse_coo_tensor(index, value, shape, check_invariants=False).coalesce().to_sparse_csr().to(device)
        )


def _even(size: float) -> int:
    """The next even number without large prime factors, for fast FFTs."""
    n = 2 * int(np.ceil(size / 2))
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 2


def _kernel(distance: np.ndarray) -> np.ndarray:
    inside = np.clip(1 - (2 * distance / _WIDTH) ** 2, 0, None)
    return i0(_BETA * np.sqrt(inside)) * (np.abs(distance) <= _WIDTH / 2) / i0(_BETA)


def _inverse_transform(n: int, m: int) -> np.ndarray:
    """1 / Fourier transform of the kernel at the positions of a centred object of n in a grid of m, FFT order, 0
    outside the object."""
    position = np.fft.fftfreq(m) * m
    root = np.sqrt((np.pi * _WIDTH * position / m) ** 2 - _BETA**2 + 0j)
    transform = (_WIDTH / i0(_BETA)) * np.real(np.sinc(root / np.pi))
    return np.where(np.abs(position) <= n // 2 + 1, 1 / transform, 0.0)


def _centre_to_origin(plane: torch.Tensor, mz: int, mx: int) -> torch.Tensor:
    nz, nx = plane.shape[-2:]
    padded = torch.zeros(*plane.shape[:-2], mz, mx, dtype=plane.dtype, device=plane.device)
    padded[..., :nz, :nx] = plane
    return torch.roll(padded, (-(nz // 2), -(nx // 2)), (-2, -1))


def _origin_to_centre(plane: torch.Tensor, nz: int, nx: int) -> torch.Tensor:
    return torch.roll(plane, (nz // 2, nx // 2), (-2, -1))[..., :nz, :nx]


def _sparse_times_complex(matrix: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Real sparse times complex dense [rows, n], as one real product (sparse kernels take real numbers everywhere)."""
    n = dense.shape[1]
    both = torch.cat([dense.real, dense.imag], dim=1)
    product = matrix @ both
    return torch.complex(product[:, :n].contiguous(), product[:, n:].contiguous())
