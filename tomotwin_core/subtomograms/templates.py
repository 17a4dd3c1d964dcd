"""A molecule as the tomogram shows it, in any orientation: the templates of template matching and of orienting picks.

In: the true density and how the tomogram was taken. Out: the density turned, and seen by the simulated microscope at the
very tilts, defocus, exposure and reconstruction (missing wedge, CTF with its sign, radiation damage), protein dark as in
the tomogram, under a spherical mask. All of that is one transfer function, the transform of a point's tomogram, so an
orientation costs a turn and two Fourier transforms of a small box.

    imager = Imager.of(density, 10.0, acquisition)
    templates = imager.templates(uniform_rotations(15.0))       (4400, voxels of imager.mask), each of mean 0 and length 1
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.structures.density import Density, low_passed

RANK_LIMIT = 384
VARIANCE_KEPT = 0.98
# Room around the template for what the CTF spreads out, voxels.
_MARGIN = 8
_TEMPLATES_AT_ONCE = 64
# A low-pass falls from 1 to 0 over this share of its frequency, as half a cosine.
_FALL_OFF = 0.25
_SEEDED = threading.Lock()


@dataclass(frozen=True, eq=False)
class Imager:
    """Make one with `of`.

    mask : bool [edge, edge, edge], the sphere that a template fills, its middle at edge // 2.  voxel_size_A : of tomogram
    and templates.
    """

    mask: NDArray[np.bool_]
    voxel_size_A: float
    _density: torch.Tensor  # [1, 1, z, y, x], blurred for the voxel size
    _places: torch.Tensor  # [edge, edge, edge, 3] x, y, z of the template's voxels where the density spans -1 to 1
    _transfer: torch.Tensor
    _inside: torch.Tensor

    @classmethod
    def of(
        cls,
        density: Density,
        voxel_size_A: float,
        acquisition: Acquisition,
        device: str = "cpu",
        low_pass_A: float | None = None,
    ) -> Imager:
        """Get a molecule ready.

        Parameters
        ----------
        density : Density
        voxel_size_A : float
            Of the tomogram.
        acquisition : Acquisition
            How the tomogram was taken and reconstructed; its noise plays no part.
        device : str
            Where torch computes.
        low_pass_A : float, optional
            Nothing finer than this is in the templates.
        """
        radius = density.diameter_A / 2 / voxel_size_A + 1
        mask = sphere(int(np.ceil(radius)), radius)
        edge = mask.shape[0]
        box = next_fast_len(edge + 2 * _MARGIN, real=True)
        seen = transfer(box, voxel_size_A, acquisition, device)
        if low_pass_A is not None:
            seen = seen * low_pass((box,) * 3, voxel_size_A, low_pass_A, device)
        axis = torch.arange(edge, device=device) - edge // 2
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        # grid_sample counts from -1 to 1 between the middles of the outermost voxels.
        scale = voxel_size_A / density.voxel_size_A / ((density.values.shape[0] - 1) / 2)
        # Da per voxel of the tomogram, as the microscope counts.
        da_per_voxel = low_passed(density, voxel_size_A) * (voxel_size_A / density.voxel_size_A) ** 3
        values = torch.from_numpy(da_per_voxel.astype(np.float32)).to(device)[None, None]
        places = torch.stack((x, y, z), dim=-1).float() * scale
        return cls(mask, voxel_size_A, values, places, seen, torch.from_numpy(mask).to(device))

    def templates(self, rotations: NDArray[np.float64]) -> torch.Tensor:
        """The imaged molecule under the mask: (orientations, voxels of the mask), each of mean 0 and length 1.

        rotations : (n, 3, 3), matrices R with x_tomogram = R @ x_reference.
        """
        return torch.cat([one / one.norm(dim=1, keepdim=True) for one in self._imaged(rotations)])

    def length(self, rotations: NDArray[np.float64]) -> float:
        """The mean length of these templates before they are brought to 1, as the microscope makes them: how strong the
        molecule is in the tomogram, whose unit is relative counts."""
        return float(torch.cat([one.norm(dim=1) for one in self._imaged(rotations)]).mean())

    def _imaged(self, rotations: NDArray[np.float64]) -> Iterator[torch.Tensor]:
        """Templates of mean 0, some at a time."""
        edge, box = self.mask.shape[0], self._transfer.shape[0]
        for turn in torch.from_numpy(rotations).float().to(self._places.device).split(_TEMPLATES_AT_ONCE):
            # The reference's place is R^T x: row vectors times R.
            grid = torch.einsum("zyxi,nij->nzyxj", self._places, turn)
            values = self._density.expand(len(turn), -1, -1, -1, -1)
            turned = torch.nn.functional.grid_sample(values, grid, align_corners=True)
            spectrum = torch.fft.rfftn(turned[:, 0], s=(box,) * 3, dim=(1, 2, 3)) * self._transfer
            imaged = torch.fft.irfftn(spectrum, s=(box,) * 3, dim=(1, 2, 3))[:, :edge, :edge, :edge][:, self._inside]
            yield imaged - imaged.mean(1, keepdim=True)


def uniform_rotations(step_deg: float) -> NDArray[np.float64]:
    """Matrices (n, 3, 3) that are spread evenly over all rotations, n = 8 pi^2 / step^3.

    Super-Fibonacci spirals (Alexa, CVPR 2022, algorithm 1); 8 pi^2 is the volume of the rotations where a turn by a small
    angle has that angle's length.
    """
    if not 2 <= step_deg <= 90:
        raise ValueError(f"an angular step of {step_deg} degrees; it must lie within 2 to 90")
    n = int(np.ceil(8 * np.pi**2 / np.deg2rad(step_deg) ** 3))
    s = np.arange(n) + 0.5
    near, far = np.sqrt(s / n), np.sqrt(1 - s / n)
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    quaternions = np.stack((near * np.sin(a), near * np.cos(a), far * np.sin(b), far * np.cos(b)), axis=1)
    return np.asarray(Rotation.from_quat(quaternions).as_matrix(), np.float64)


def sphere(half: int, radius: float) -> NDArray[np.bool_]:
    """The voxels [z, y, x] of a cube of edge 2 half + 1 that lie within `radius` of its middle."""
    z, y, x = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    return np.asarray(z * z + y * y + x * x <= radius**2)


def factors(templates: torch.Tensor, most: int = RANK_LIMIT) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Templates (n, voxels) as weights (n, rank) of orthonormal volumes (rank, voxels), `most` of them at most, rows of unit
    length again, and the share of their variance that these hold."""
    limit = min(most, *templates.shape)
    with _SEEDED:  # the decomposition starts from random vectors, which threads would draw in turn
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(templates, q=limit, niter=2)
    share = torch.cumsum(s.double() ** 2, 0) / len(templates)  # each template has length 1
    rank = min(int((share < VARIANCE_KEPT).sum()) + 1, limit)
    weights = u[:, :rank] * s[:rank]
    weights = weights / weights.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return weights.contiguous(), v[:, :rank].T.contiguous(), float(share[rank - 1])


def low_pass(shape: tuple[int, int, int], voxel_size_A: float, finest_A: float, device: str = "cpu") -> torch.Tensor:
    """A low-pass for the `rfftn` of a volume [z, y, x]: 1, falling to 0 as half a cosine that ends at 1 / finest_A."""
    axes = [torch.fft.fftfreq(n, voxel_size_A, device=device) for n in shape[:2]]
    axes.append(torch.fft.rfftfreq(shape[2], voxel_size_A, device=device))
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    relative = torch.sqrt(z * z + y * y + x * x) * finest_A
    return 0.5 + 0.5 * torch.cos(torch.pi * ((relative - 1 + _FALL_OFF) / _FALL_OFF).clamp(0, 1))


def transfer(box: int, voxel_size_A: float, acquisition: Acquisition, device: str) -> torch.Tensor:
    """What microscope and reconstruction make of each frequency: the transform of a point's tomogram, for the `rfftn` of a cube of
    edge `box`, complex [box, box, box // 2 + 1]."""
    point = torch.zeros(box, box, box, device=device)
    point[box // 2, box // 2, box // 2] = 1.0
    generator = torch.Generator(device=device)  # without noise nothing is drawn
    series = take_tilt_series(point, voxel_size_A, acquisition, generator, noise=False)
    spread = torch.roll(reconstruct(series, acquisition), (-(box // 2),) * 3, (0, 1, 2))
    return torch.fft.rfftn(spread)
