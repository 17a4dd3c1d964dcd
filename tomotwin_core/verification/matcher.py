"""A molecule compared with a tomogram at given places: its best correlation over all orientations and short ways.

Matching everywhere costs thousands of correlations of the whole tomogram; where it is known at which few hundred places a
particle may lie, it is enough there. At each place every window within `reach` voxels is compared by the normalised
correlation under a sphere (Roseman, Ultramicroscopy 94, 225, 2003). Templates are written as sums of common volumes
(`templates.factors`), so a window is projected on these once, and each orientation costs a few dozen multiplications:

    first     orientations 30 degrees apart
    then      those of the fine grid that lie about the best few of these

    tomogram = Prepared.of(source, "dark", 10.0, 30.0)
    matcher = Matcher.of(density, acquisition, 10.0, 30.0)
    matches = matcher.at(tomogram, zyx)         zyx in voxels of `tomogram`

All on one device; places go in batches whose windows fit a processor's cache, or fill a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density
from tomotwin_core.subtomograms.templates import Imager, factors, low_pass, uniform_rotations
from tomotwin_core.tomogram import Resampled, Specimen, TomogramSource

# Orientations that are tried first, and how many of the best of these are looked about, each at so many of the fine grid.
_FIRST_STEP_DEG, _LOOKED_ABOUT = 30.0, 4
# The length of templates changes with the orientation by a few hundredths (wedge): a few tell it.
_LENGTH_STEP_DEG = 60.0
# Common volumes that stand for all templates, at most.
_MOST_VOLUMES = 192
# A window whose deviation is below this share of the tomogram's is empty and correlates with nothing.
_EMPTY = 0.05
# Numbers of windows that are held at a time.
_AT_ONCE_CPU, _AT_ONCE_GPU = 4e6, 4e8


@dataclass(frozen=True, eq=False)
class Prepared:
    """A tomogram as templates are compared with it: volume float32 [z, y, x] on the device, mean 0 and deviation 1, protein
    dark, low-passed, of voxels of voxel_size_A, the first of which lies where the tomogram's does."""

    volume: torch.Tensor
    voxel_size_A: float

    @classmethod
    def of(
        cls,
        source: TomogramSource,
        contrast: Literal["dark", "bright"],
        voxel_size_A: float,
        low_pass_A: float,
        device: str = "cpu",
    ) -> Prepared:
        """The tomogram at a voxel size, or at its own where that is coarser; its padding has its mean."""
        size = max(voxel_size_A, source.voxel_size_A)
        resampled = Resampled(Specimen(source), size)
        data = torch.from_numpy(resampled.slab(0, resampled.shape[0])).to(device)
        data = data - data.mean()
        shape = (data.shape[0], data.shape[1], data.shape[2])
        spectrum = torch.fft.rfftn(data)
        spectrum *= low_pass(shape, size, low_pass_A, device)
        data = torch.fft.irfftn(spectrum, s=shape)
        del spectrum
        data /= data.std().clamp_min(1e-30)
        return cls(data if contrast == "dark" else data.neg_(), size)


@dataclass(frozen=True)
class Matches:
    """Of each place: correlation (n,), the best one, within -1 to 1; strength (n,), the factor by which the molecule as the
    microscope would have made it explains the tomogram best there (its unit is whatever the tomogram's grey values are); zyx
    int (n, 3), the voxel where that was; rotation (n,), the index of the orientation in the matcher's `rotations`."""

    correlation: NDArray[np.float64]
    strength: NDArray[np.float64]
    zyx: NDArray[np.int64]
    rotation: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matcher:
    """A molecule in all orientations of a step. Make one with `of`.

    rotations : (n, 3, 3), matrices R with x_tomogram = R @ x_reference.  imager : what makes its templates.  length : that of
    its templates as the microscope makes them, which those that are compared have 1 of.
    """

    imager: Imager
    rotations: NDArray[np.float64]
    length: float
    _weights: torch.Tensor  # (rotations, rank)
    _basis: torch.Tensor  # (rank, voxels of the mask)
    _about: torch.Tensor  # (first orientations, neighbours): indices of rotations

    @classmethod
    def of(
        cls,
        density: Density,
        acquisition: Acquisition,
        voxel_size_A: float,
        low_pass_A: float,
        step_deg: float = 15.0,
        device: str = "cpu",
    ) -> Matcher:
        """Get a molecule ready for tomograms that were `Prepared` with the same voxel size and low-pass."""
        imager = Imager.of(density, voxel_size_A, acquisition, device, low_pass_A)
        rotations = uniform_rotations(step_deg)
        weights, basis, _ = factors(imager.templates(rotations), _MOST_VOLUMES)
        length = imager.length(uniform_rotations(_LENGTH_STEP_DEG))
        return cls(imager, rotations, length, weights, basis, _neighbours(rotations, step_deg).to(device))

    def at(self, tomogram: Prepared, zyx: NDArray[np.float64], reach: int = 2) -> Matches:
        """The best match within `reach` voxels along each axis of places (n, 3) in voxels of the tomogram."""
        places = _within(tomogram, zyx)
        if not len(places):
            return Matches(np.empty(0), np.empty(0), places, np.empty(0, np.int64))
        ways = 2 * reach + 1
        correlation, length, rotation, way = [], [], [], []
        for projected, lengths in self._projected(tomogram, places, reach):
            first = torch.matmul(projected, self._weights[self._about[:, 0]].T).amax(dim=1)
            best = first.topk(min(_LOOKED_ABOUT, first.shape[1]), dim=1).indices
            tried = self._about[best].flatten(1)
            found = torch.bmm(projected, self._weights[tried].transpose(1, 2))  # (places, ways, tried)
            top, which = found.flatten(1).max(dim=1)
            correlation.append(top)
            way.append(which // tried.shape[1])
            length.append(lengths.gather(1, way[-1][:, None])[:, 0])
            rotation.append(tried.gather(1, (which % tried.shape[1])[:, None])[:, 0])
        offset = np.stack(np.unravel_index(torch.cat(way).cpu().numpy(), (ways,) * 3), axis=1) - reach
        value, long = (torch.cat(one).double().cpu().numpy() for one in (correlation, length))
        found_at: NDArray[np.int64] = _within(tomogram, places + offset)
        return Matches(value, value * long / self.length, found_at, torch.cat(rotation).cpu().numpy())

    def deviation(self, tomogram: Prepared, zyx: NDArray[np.float64]) -> float:
        """The root mean square of the correlations at places (n, 3), over orientations: what chance comes to."""
        places = _within(tomogram, zyx)
        first = self._weights[self._about[:, 0]]
        squares = [float((p[:, 0] @ first.T).square().mean()) for p, _ in self._projected(tomogram, places, 0)]
        return float(np.sqrt(np.mean(squares)))

    def _projected(
        self, tomogram: Prepared, places: NDArray[np.int64], reach: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Windows of mean 0 and length 1 on the basis, (places of a batch, ways, rank), and their lengths before that."""
        device = tomogram.volume.device
        edge, ways = self.imager.mask.shape[0], 2 * reach + 1
        pad, span = edge // 2 + reach, edge + 2 * reach
        # Voxels of a window at each way, counted along the cube that holds all of them.
        inside = np.argwhere(self.imager.mask)
        offsets = np.indices((ways,) * 3).reshape(3, -1).T
        strides = np.array([span * span, span, 1])
        index = torch.from_numpy(((offsets @ strides)[:, None] + inside @ strides).ravel()).to(device)
        n = len(inside)
        all_cubes = cubes(tomogram.volume, places, pad, span)
        at_once = max(1, int((_AT_ONCE_CPU if device.type == "cpu" else _AT_ONCE_GPU) / (n * len(offsets))))
        while batch := [cube for _, cube in zip(range(at_once), all_cubes, strict=False)]:
            windows = torch.stack(batch)[:, index].view(len(batch), len(offsets), n)
            windows = windows - windows.mean(2, keepdim=True)
            length = windows.norm(dim=2, keepdim=True).clamp_min(_EMPTY * n**0.5)
            yield torch.matmul(windows, self._basis.T) / length, length[:, :, 0]


def _within(tomogram: Prepared, zyx: NDArray[Any]) -> NDArray[np.int64]:
    """The nearest voxels of a tomogram to places (n, 3)."""
    last = np.array(tomogram.volume.shape) - 1
    return np.asarray(np.clip(np.round(zyx).astype(np.int64).reshape(-1, 3), 0, last))


def cubes(volume: torch.Tensor, places: NDArray[np.int64], pad: int, span: int) -> Iterator[torch.Tensor]:
    """The cube of edge `span` about each place, flat; beyond the tomogram it has its mean, 0."""
    shape = np.array(volume.shape)
    for place in places:
        low, high = place - pad, place - pad + span
        cut = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, shape, strict=True))
        cube = volume[cut]
        if cube.shape != (span,) * 3:
            missing = [(max(-a, 0), max(b - n, 0)) for a, b, n in zip(low, high, shape, strict=True)]
            cube = torch.nn.functional.pad(cube, [int(side) for pair in missing[::-1] for side in pair])
        yield cube.reshape(-1)


def _neighbours(rotations: NDArray[np.float64], step_deg: float) -> torch.Tensor:
    """Of orientations 30 degrees apart the nearest of `rotations`, nearest first: (first, neighbours) indices.

    As many neighbours as fill the cell of such an orientation about three times, so that cells overlap.
    """
    first = uniform_rotations(_FIRST_STEP_DEG) if step_deg < _FIRST_STEP_DEG else rotations
    count = min(len(rotations), max(1, round(3 * len(rotations) / len(first))))
    # A quaternion and its negative are one orientation.
    quaternions = Rotation.from_matrix(rotations).as_quat()
    tree = cKDTree(np.concatenate([quaternions, -quaternions]))
    _, index = tree.query(Rotation.from_matrix(first).as_quat(), count)
    return torch.from_numpy(np.asarray(index).reshape(len(first), count) % len(rotations))
