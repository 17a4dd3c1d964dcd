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
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.special import i0

_WIDTH = 4
_OVERSAMPLING = 2.0
# Beatty et al. (2005), equation 5.
_BETA = np.pi * np.sqrt((_WIDTH / _OVERSAMPLING) ** 2 * (_OVERSAMPLING - 0.5) ** 2 - 0.8)
# As many oversampled planes are in work at once as fit into this, so that memory does not grow with the sample.
_PLANE_BYTES = 2**27


@dataclass(frozen=True)
class TiltGeometry:
    """Slices of an (nz, nx) plane at the tilts.

    nz, nx : the sample's size in voxels (z is the beam at tilt 0).  width : pixels of a tilt image across the tilt axis.
    mz, mx : the oversampled plane.
    """

    nz: int
    nx: int
    tilts_deg: tuple[float, ...]
    device: str = "cpu"

    @property
    def width(self) -> int:
        return _even(1.1 * np.hypot(self.nz, self.nx))

    @property
    def mz(self) -> int:
        return _even(_OVERSAMPLING * self.nz)

    @property
    def mx(self) -> int:
        return _even(_OVERSAMPLING * self.nx)

    def project(self, sample: torch.Tensor) -> torch.Tensor:
        """Sample [z, y, x] -> Fourier slices complex [tilt, width, ky], unnormalised FFT of the projections (sums
        over voxels)."""
        spectrum = torch.fft.rfft(sample, dim=1)  # z, ky, x
        n_ky = spectrum.shape[1]
        slices = torch.empty(len(self.tilts_deg) * self.width, n_ky, dtype=spectrum.dtype, device=sample.device)
        for some in self._chunks(n_ky):
            weighted = spectrum[:, some] * self._deapodise[:, None]
            plane = weighted.new_zeros(weighted.shape[1], self.mz, self.mx)
            for there, here in self._quadrants:
                plane[:, *there] = weighted[here[0], :, here[1]].permute(1, 0, 2)
            transform = torch.fft.fft2(plane).reshape(len(plane), -1).T
            slices[:, some] = _times(self._gather, transform)
        return slices.reshape(len(self.tilts_deg), self.width, n_ky)

    def backproject(self, slices: torch.Tensor, ny: int) -> torch.Tensor:
        """Fourier slices [tilt, width, ky] -> volume [z, y, x]: the sum over tilts of the smeared-out images, scaled
        for ramp weights in 1/pixel."""
        lines = slices.reshape(-1, slices.shape[-1])
        volume = lines.new_empty(self.nz, lines.shape[1], self.nx)  # z, ky, x
        for some in self._chunks(lines.shape[1]):
            spread = _times(self._spread, lines[:, some])
            # Contiguous: of planes that lie interleaved MKL's transform writes past its memory on some processors
            # (torch 2.13.0, AVX-512 with FP16; found at 9 planes of 16 x 2400).
            plane = torch.fft.ifft2(spread.T.contiguous().reshape(-1, self.mz, self.mx), norm="forward")
            for there, here in self._quadrants:
                volume[here[0], some, here[1]] = plane[:, *there].permute(1, 0, 2)
            volume[:, some] *= self._deapodise[:, None]
        return torch.fft.irfft(volume, n=ny, dim=1)

    @property
    def ramp(self) -> torch.Tensor:
        """Weights (n_tilts, width, 1) that make back-projection invert projection at full angular range: |k| dk dtheta."""
        frequency = torch.fft.fftfreq(self.width).abs()
        frequency[0] = 0.25 / self.width  # the mean of |k| over the central cell, so that the grey level survives
        steps = np.gradient(np.deg2rad(self.tilts_deg)) if len(self.tilts_deg) > 1 else np.array([np.pi])
        weights = torch.as_tensor(steps, dtype=torch.float32)[:, None] * frequency[None] / self.width
        return weights[..., None].to(self.device)

    @cached_property
    def _gather(self) -> torch.Tensor:
        """Sparse (n_tilts * width, mz * mx): rows ordered by tilt, then by frequency in FFT order."""
        return _on_device(self._weights, self.device)

    @cached_property
    def _spread(self) -> torch.Tensor:
        return _on_device(self._weights.T.tocsr(), self.device)

    @cached_property
    def _weights(self) -> sparse.csr_matrix:
        angle = np.deg2rad(np.asarray(self.tilts_deg))[:, None]
        frequency = np.fft.fftfreq(self.width)[None]
        x, z = (frequency * np.cos(angle)).ravel() * self.mx, (frequency * np.sin(angle)).ravel() * self.mz
        low_x, low_z = np.ceil(x - _WIDTH / 2), np.ceil(z - _WIDTH / 2)
        taps = np.arange(_WIDTH)
        column_x = (low_x[:, None] + taps).astype(np.int32) % self.mx
        column_z = (low_z[:, None] + taps).astype(np.int32) % self.mz
        columns = column_z[:, :, None] * self.mx + column_x[:, None, :]
        values = _kernel((z - low_z)[:, None] - taps)[:, :, None] * _kernel((x - low_x)[:, None] - taps)[:, None, :]
        starts = np.arange(0, values.size + 1, _WIDTH**2)
        shape = (x.size, self.mz * self.mx)
        return sparse.csr_matrix((values.ravel().astype(np.float32), columns.ravel(), starts), shape=shape)

    @cached_property
    def _deapodise(self) -> torch.Tensor:
        """What undoes the kernel's footprint in real space, (nz, nx)."""
        divisor = np.outer(_footprint(self.nz, self.mz), _footprint(self.nx, self.mx))
        return torch.as_tensor(1 / divisor, dtype=torch.float32, device=self.device)

    @property
    def _quadrants(self) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """Where the four quarters of an (nz, nx) plane lie in the (mz, mx) plane whose origin is the middle voxel."""
        along_z, along_x = _halves(self.nz, self.mz), _halves(self.nx, self.mx)
        return [((z[0], x[0]), (z[1], x[1])) for z in along_z for x in along_x]

    def _chunks(self, n_ky: int) -> list[slice]:
        step = max(_PLANE_BYTES // (8 * self.mz * self.mx), 1)
        return [slice(start, min(start + step, n_ky)) for start in range(0, n_ky, step)]


def _halves(n: int, m: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(place in m, place in n) of the upper and of the lower half."""
    middle = n // 2
    return (slice(0, n - middle), slice(middle, n)), (slice(m - middle, m), slice(0, middle))


def _on_device(matrix: sparse.csr_matrix, device: str) -> torch.Tensor:
    with warnings.catch_warnings():  # torch says once per process that its CSR support is young
        warnings.simplefilter("ignore", UserWarning)
        starts, columns, values = (torch.from_numpy(p).to(device) for p in (matrix.indptr, matrix.indices, matrix.data))
        return torch.sparse_csr_tensor(starts, columns, values, matrix.shape, check_invariants=False)


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


def _footprint(n: int, m: int) -> np.ndarray:
    """Fourier transform of the kernel at the n positions, counted from the middle, of an object in a grid of m."""
    position = np.arange(n) - n // 2
    root = np.sqrt((np.pi * _WIDTH * position / m) ** 2 - _BETA**2 + 0j)
    return np.asarray((_WIDTH / i0(_BETA)) * np.real(np.sinc(root / np.pi)))


def _times(matrix: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Real sparse times complex dense [rows, n], as one real product (sparse kernels take real numbers everywhere)."""
    product = matrix @ torch.view_as_real(dense.contiguous()).reshape(dense.shape[0], -1)
    return torch.view_as_complex(product.reshape(product.shape[0], -1, 2))
