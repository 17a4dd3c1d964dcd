"""A molecule's density out of the tomograms themselves: copies of known orientation, averaged and sharpened.

Each copy is weighted by what microscope and reconstruction have left of each frequency in its orientation (missing wedge, CTF,
exposure), and the sum is divided by the sum of the squares of that, as a Wiener filter does. What remains has also gone through
whatever else was done to the tomogram: a denoised one holds next to nothing of 40 A. Compared as it is, such an average
correlates with its copies better than the true molecule does, and tells them from other molecules worse, since the coarse
features that all molecules share outweigh the fine ones. So its amplitudes, shell by shell, are brought to those that
molecules of this size have, which are known well (of denoised copies best F1 0.57 before, 0.85 after, 0.96 of the true molecule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density, low_passed
from tomotwin_core.structures.library import load_library
from tomotwin_core.subtomograms.templates import low_pass, transfer
from tomotwin_core.verification.matcher import Matcher, Prepared, cubes

# The least weight that a frequency is divided by, as a share of the mean weight.
_WIENER = 0.15
# Voxels about the molecule, where its contrast is spread to; how wide the soft edge about it is, A.
_ROOM, _EDGE_A = 5, 20.0
# Library molecules of about the size that tell its amplitudes.
_ALIKE = 12
# Protein fills about so much of the sphere of its diameter (library, median), A^3 per Da.
_FILLED, _A3_PER_DA = 0.35, 1.21


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of one molecule. tomograms : all of one voxel size.  of (n,): the index of each copy's tomogram.  zyx (n, 3), in its
    voxels.  rotation (n, 3, 3), x_tomogram = R @ x_molecule.  correlation (n,), with what they were aligned to."""

    tomograms: Sequence[Prepared]
    of: NDArray[np.int64]
    zyx: NDArray[np.float64]
    rotation: NDArray[np.float64]
    correlation: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.of)

    def select(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Copies:
        return Copies(
            self.tomograms, self.of[which], self.zyx[which], self.rotation[which], self.correlation[which]
        )

    def aligned(self, matcher: Matcher, reach: int) -> tuple[Copies, NDArray[np.float64]]:
        """The same places, moved by up to `reach` voxels along each axis to where the matcher's molecule fits best, and the strengths
        there (`matcher.Matches`)."""
        zyx, turn = self.zyx.astype(float), np.zeros((len(self), 3, 3))
        correlation, strength = np.zeros(len(self)), np.zeros(len(self))
        for k, tomogram in enumerate(self.tomograms):
            here = self.of == k
            match = matcher.at(tomogram, self.zyx[here], reach)
            zyx[here], turn[here] = match.zyx, matcher.rotations[match.rotation]
            correlation[here], strength[here] = match.correlation, match.strength
        return Copies(self.tomograms, self.of, zyx, turn, correlation), strength


def average(
    copies: Copies, diameter_A: float, acquisition: Acquisition, low_pass_A: float, device: str = "cpu"
) -> NDArray[np.float32]:
    """The molecule in its own frame, a cube [z, y, x] about its middle n // 2, bright, in voxels of the tomograms; not sharpened.

    copies : in tomograms `Prepared` with this low-pass.
    """
    size = copies.tomograms[0].voxel_size_A
    half = int(np.ceil(diameter_A / 2 / size)) + _ROOM
    edge = 2 * half + 1
    seen = transfer(edge, size, acquisition, device) * low_pass((edge,) * 3, size, low_pass_A, device)
    # As a whole transform with frequency 0 in the middle, so that it can be turned.
    weight = torch.fft.fftshift(torch.fft.fftn(torch.fft.irfftn(seen, s=(edge,) * 3)).abs().square())
    axis = torch.linspace(-1, 1, edge, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack((x, y, z), dim=-1)
    total, weights = torch.zeros_like(weight), torch.zeros_like(weight)
    middles = np.round(copies.zyx).astype(np.int64)
    for k, tomogram in enumerate(copies.tomograms):
        here = np.flatnonzero(copies.of == k)
        for i, cube in zip(here, cubes(tomogram.volume, middles[here], half, edge), strict=True):
            cube = cube.view(edge, edge, edge)
            back = torch.fft.irfftn(torch.fft.rfftn(cube - cube.mean()) * seen.conj(), s=(edge,) * 3)
            # The molecule's place y lies at R y in the tomogram: row vectors times the transpose.
            turned = places @ torch.from_numpy(copies.rotation[i].T.copy()).float().to(device)
            off = torch.from_numpy((copies.zyx[i] - middles[i])[::-1].copy()).float().to(device) / half
            total += _sampled(back, turned + off)
            weights += _sampled(weight, turned)
    weights = torch.fft.ifftshift(weights)
    spectrum = torch.fft.fftn(total) / (weights + _WIENER * weights.mean()).clamp_min(1e-12)
    made: NDArray[np.float32] = torch.fft.ifftn(spectrum).real.cpu().numpy()
    return made


def _sampled(volume: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.grid_sample(volume[None, None], places[None], align_corners=True)[0, 0]


def as_molecule(volume: NDArray[np.floating], voxel_size_A: float, diameter_A: float, low_pass_A: float) -> Density:
    """An average as a density of protein: without what lies outside the molecule, amplitudes as molecules of this size
    have them, mass as they have it. Contrast is proportional to mass, so about as strong as it is told to be."""
    round_ = _within(volume, voxel_size_A, diameter_A)
    spectrum = np.fft.fftn(round_)
    shell, frequency = _shells(volume.shape[0], voxel_size_A)
    amplitude = np.sqrt(np.bincount(shell.ravel(), np.abs(spectrum.ravel()) ** 2) / np.bincount(shell.ravel()))
    usual = usual_amplitudes(volume.shape[0], voxel_size_A, round(diameter_A))
    gain = np.where(frequency <= 1 / low_pass_A, usual / np.maximum(amplitude, 1e-12 * amplitude.max()), 0.0)
    radius = np.linalg.norm(np.stack(_frequencies(volume.shape[0], voxel_size_A)), axis=0)
    sharp = np.fft.ifftn(spectrum * np.interp(radius, frequency, gain)).real
    values = _within(sharp, voxel_size_A, diameter_A)
    values *= mass_of_Da(diameter_A) / max(float(np.clip(values, 0, None).sum()), 1e-12)
    return Density(values.astype(np.float32), voxel_size_A, 0.45 * voxel_size_A, told_diameter_A=diameter_A)


def mass_of_Da(diameter_A: float) -> float:
    """Of protein, as a sphere of this diameter holds it."""
    return float(_FILLED * np.pi / 6 * diameter_A**3 / _A3_PER_DA)


@lru_cache(maxsize=256)
def usual_amplitudes(edge: int, voxel_size_A: float, diameter_A: float) -> NDArray[np.float64]:
    """The root mean square amplitude of each shell, of library molecules of about this diameter, in a cube of `edge` voxels;
    that of the first shell is 1."""
    library = load_library()
    ids = library.ids("train")
    near = sorted(ids, key=lambda i: abs(np.log(library.entries[i].diameter_A / diameter_A)))[:_ALIKE]
    shell, _ = _shells(edge, voxel_size_A)
    each = []
    for id_ in near:
        spectrum = np.abs(np.fft.fftn(_on_grid(library.density(id_), edge, voxel_size_A))) ** 2
        amplitude = np.sqrt(np.bincount(shell.ravel(), spectrum.ravel()) / np.bincount(shell.ravel()))
        each.append(np.log(np.maximum(amplitude / amplitude[1], 1e-9)))
    return np.asarray(np.exp(np.mean(each, axis=0)))


def _on_grid(density: Density, edge: int, voxel_size_A: float) -> NDArray[np.float64]:
    """A molecule in the middle of a cube, blurred for its voxels."""
    half = (density.values.shape[0] - 1) / 2
    axis = torch.linspace(-1, 1, edge) * (edge // 2) * voxel_size_A / density.voxel_size_A / half
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    values = torch.from_numpy(low_passed(density, voxel_size_A).astype(np.float32))
    return np.asarray(_sampled(values, torch.stack((x, y, z), dim=-1)).numpy(), np.float64)


def _within(volume: NDArray[np.floating], voxel_size_A: float, diameter_A: float) -> NDArray[np.float64]:
    """The volume above what surrounds the molecule, 0 outside of it, softly."""
    half = volume.shape[0] // 2
    z, y, x = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    beyond_A = np.sqrt(z * z + y * y + x * x) * voxel_size_A - diameter_A / 2
    around = (beyond_A > 0.5 * _EDGE_A) & (beyond_A < (_ROOM - 0.5) * voxel_size_A)
    return np.asarray((volume - np.median(volume[around])) * np.clip(1 - beyond_A / _EDGE_A, 0, 1), np.float64)


def _frequencies(edge: int, voxel_size_A: float) -> tuple[NDArray[np.float64], ...]:
    axis = np.fft.fftfreq(edge, voxel_size_A)
    return tuple(np.meshgrid(axis, axis, axis, indexing="ij"))


def _shells(edge: int, voxel_size_A: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The shell of each frequency of a cube's transform, and the frequency of each shell."""
    radius = np.linalg.norm(np.stack(_frequencies(edge, voxel_size_A)), axis=0)
    shell = np.round(radius * edge * voxel_size_A).astype(np.intp)
    return shell, np.arange(shell.max() + 1) / (edge * voxel_size_A)
