"""Template matching: the baseline that knows the exact structure.

Locally normalised cross-correlation (Roseman, Ultramicroscopy 94, 225, 2003): at every voxel the tomogram under a
spherical mask, brought to mean 0 and deviation 1, is compared with the template in every orientation, and the best of
these correlations, within -1 to 1, is the voxel's score. The template is given every advantage: the true density, seen
by the simulated microscope at the very tilts, defocus, exposure and reconstruction of the tomogram (missing wedge, CTF
with its sign, radiation damage), which users know less well.

    match = match_template(tomogram, 10.0, density, acquisition)       score and best orientation of every voxel
    peaks = find_peaks(match, "ribosome", "TS_01")                     positions with scores and orientations
    picks = peaks.select(peaks.score >= expected_threshold(match))

Orientations: a super-Fibonacci spiral (Alexa, CVPR 2022) of 8 pi^2 / step^3 rotations, one for each cell of the step's
volume. At 15 degrees these are 4400; neighbours are 11 degrees apart, and no orientation is farther than 13.3 degrees from
one of them (7.5 on average). Symmetry is not made use of.

Speed: correlating 4400 templates by FFT costs 4400 Fourier transforms of the tomogram. Templates that differ by a turn of
15 degrees are alike, so they are written as sums of some dozens to hundreds of common volumes (a singular value
decomposition, Halko, Martinsson and Tropp, SIAM Rev. 53, 217, 2011); these are correlated by FFT, and each template's
correlation is a sum of theirs, one matrix product. The sums hold 98 % of the templates' variance, or what 384
volumes can (93 % for a proteasome), and are brought back to unit length: the score is the correlation with a template that
agrees with the true one to 0.99 (0.96). Memory beside tomogram, score and templates is bounded by about `MEMORY_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.special import erfcinv

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.picking.location import LocationSettings, peaks_of, suppressed
from tomotwin_core.picking.references import ReferenceSet, Target
from tomotwin_core.progress import progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density
from tomotwin_core.subtomograms.templates import Imager, factors, uniform_rotations

MEMORY_BYTES = 2.0e9
# Where the tomogram is empty its deviation is not divided by: this share of the median is the least.
_LEAST_DEVIATION = 0.1
_VOLUMES_AT_ONCE = 8
# Voxels whose correlations with all templates are held at a time: what fits a processor's cache, or fills a GPU.
_COLUMNS_CPU, _COLUMNS_GPU = 1024, 65536


@dataclass(frozen=True)
class TemplateMatch:
    """score float32 [z, y, x], the best correlation over all orientations.  best int32 [z, y, x], the index of that
    orientation in `rotations` (n, 3, 3), matrices R with x_tomogram = R @ x_reference.  noise: root mean square of the
    correlations of all voxels and orientations.  variance_kept: share of the templates' variance in the volumes that stand
    for them.  voxel_size_A, diameter_A: of tomogram and particle."""

    score: NDArray[np.float32]
    best: NDArray[np.int32]
    rotations: NDArray[np.float64]
    noise: float
    variance_kept: float
    voxel_size_A: float
    diameter_A: float


def match_template(
    volume: NDArray[np.float32],
    voxel_size_A: float,
    density: Density,
    acquisition: Acquisition,
    step_deg: float = 15.0,
    contrast: Literal["dark", "bright"] = "dark",
    device: str = "cpu",
    memory_bytes: float | None = None,
    told: bool = True,
) -> TemplateMatch:
    """Correlate a tomogram with a molecule in all orientations.

    Parameters
    ----------
    volume : float32 [z, y, x]
    voxel_size_A : float
        Of the tomogram; the molecule is sampled at it.
    density : Density
        The molecule; in its mirror image it is another one.
    acquisition : Acquisition
        How the tomogram was taken and reconstructed; its noise plays no part.
    step_deg : float
        Angular step.
    contrast : "dark" or "bright"
        Of protein in the tomogram.
    device : str
        Where torch computes.
    memory_bytes : float, optional
        About how much memory correlations may take; `MEMORY_BYTES` where it is not given.
    told : bool
        Whether progress is shown.
    """
    rotations = uniform_rotations(step_deg)
    imager = Imager.of(density, voxel_size_A, acquisition, device)
    mask = imager.mask
    weights, basis, kept = factors(imager.templates(rotations))
    # Imaged templates are dark, as the microscope makes them.
    signed = torch.from_numpy(np.asarray(volume, np.float32)).to(device) * (1 if contrast == "dark" else -1)
    signed = (signed - signed.mean()) / signed.std()
    score, best = np.empty(volume.shape, np.float32), np.empty(volume.shape, np.int32)
    gram, squares = weights.T @ weights, 0.0
    depth, height, width = volume.shape
    planes = max(1, int((memory_bytes or MEMORY_BYTES) / (4 * len(basis) * height * width)))
    columns = _COLUMNS_CPU if torch.device(device).type == "cpu" else _COLUMNS_GPU
    slabs = _normalised_slabs(signed, mask, basis, planes)
    if told:
        slabs = iter(progress(slabs, desc="matching", unit="slabs", total=-(-depth // planes)))
    for z0, maps in slabs:
        flat = maps.flatten(1)
        top = flat.new_empty(flat.shape[1])
        where = torch.empty(flat.shape[1], dtype=torch.long, device=device)
        for start in range(0, flat.shape[1], columns):
            part = flat[:, start : start + columns].T.contiguous()
            top[start : start + columns], where[start : start + columns] = (part @ weights.T).max(dim=1)
            # The sum of the squares over all orientations, without looking at each.
            squares += float(((part.T @ part) * gram).sum(dtype=torch.float64))
        score[z0 : z0 + planes] = top.reshape(maps.shape[1:]).cpu().numpy()
        best[z0 : z0 + planes] = where.reshape(maps.shape[1:]).cpu().numpy()
    noise = float(np.sqrt(squares / (score.size * len(rotations))))
    return TemplateMatch(score, best, rotations, noise, kept, voxel_size_A, density.diameter_A)


def find_peaks(
    match: TemplateMatch, label: str = "", tomogram: str = "", min_score: float = 0.0, separation: float = 0.6
) -> Coordinates:
    """Peaks of the score, best first, with their orientations; no two nearer than `separation` diameters.

    The same search, refined between voxels, as that for peaks of similarity.
    """
    settings = LocationSettings(min_score=min_score, separation=separation, competition=False)
    only = ReferenceSet((Target(label, np.zeros((1, 1), np.float32), match.diameter_A),), "")
    peaks = suppressed(peaks_of(match.score[..., None], settings), only, match.voxel_size_A, settings)
    voxel = tuple(np.clip(np.round(peaks.zyx).astype(int), 0, np.array(match.score.shape) - 1).T)
    z, y, x = match.score.shape
    return Coordinates.from_arrays(
        peaks.zyx[:, ::-1],
        match.voxel_size_A,
        tomogram,
        (z, y, x),
        label,
        peaks.score,
        match.diameter_A,
        rotation=match.rotations[match.best[voxel]],
    )


def expected_threshold(match: TemplateMatch, false_positives: float = 1.0) -> float:
    """The score that noise alone would pass `false_positives` times in the whole tomogram.

    Rickgauer, Grigorieff and Denk, eLife 6, e25648 (2017): correlations are taken as normal with the deviation that those
    of all voxels and orientations have, each an independent trial; so also pytom-match-pick (Chaillet et al. 2023).
    """
    trials = match.score.size * len(match.rotations)
    return float(np.sqrt(2) * match.noise * erfcinv(2 * false_positives / trials))


def _normalised_slabs(
    volume: torch.Tensor, mask: NDArray[np.bool_], basis: torch.Tensor, planes: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Locally normalised correlations of the basis with consecutive slabs of the tomogram: z0, [rank, z, y, x].

    `volume` has mean 0, which is also what stands outside of it, and deviation 1.
    """
    half = mask.shape[0] // 2
    padded = torch.nn.functional.pad(volume, (half,) * 6)
    inside = torch.from_numpy(mask).to(volume.device)
    boxes = torch.zeros(len(basis), *mask.shape, device=volume.device)
    boxes[:, inside] = basis
    sphere, n = inside.float()[None], int(mask.sum())
    for z0 in range(0, volume.shape[0], planes):
        slab = padded[z0 : z0 + planes + 2 * half]
        mean = _correlated(slab, sphere, half)[0] / n
        square = _correlated(slab**2, sphere, half)[0] / n
        deviation = (square - mean**2).clamp_min(_LEAST_DEVIATION**2).sqrt_()
        yield z0, _correlated(slab, boxes, half).div_(deviation * n**0.5)


def _correlated(slab: torch.Tensor, boxes: torch.Tensor, half: int) -> torch.Tensor:
    """sum_u box[u] slab[x + u] for every x at which the box lies within the slab: [boxes, z, y, x]."""
    depth, height, width = (next_fast_len(side, real=True) for side in slab.shape)
    valid = tuple(slice(0, side - 2 * half) for side in slab.shape)
    spectrum = torch.fft.rfftn(slab, s=(depth, height, width))
    made = slab.new_empty(len(boxes), *(v.stop for v in valid))
    for start in range(0, len(boxes), _VOLUMES_AT_ONCE):
        # Axis by axis, so that the padding along the later axes is not transformed along the earlier ones.
        part = torch.fft.rfft(boxes[start : start + _VOLUMES_AT_ONCE], n=width, dim=-1)
        part = torch.fft.fft(torch.fft.fft(part, n=height, dim=-2), n=depth, dim=-3)
        product = part.conj_physical_().mul_(spectrum)
        made[start : start + len(part)] = torch.fft.irfftn(product, s=(depth, height, width), dim=(1, 2, 3))[
            :, valid[0], valid[1], valid[2]
        ]
    return made
