"""How each pick lies: its orientation and its centre, by a constrained search about it.

Picking by embeddings says where a particle is, not how it lies; averaging needs both. So at each pick, and only there, the
molecule is compared in all orientations and within a short way of the pick with what the tomogram shows, both imaged alike
(missing wedge, CTF, radiation damage: `templates.Imager`), by the normalised correlation under a sphere of the molecule's
diameter (Roseman, Ultramicroscopy 94, 225, 2003):

    coarse   orientations by `step_deg`, all shifts within `shift_A`, at a third of the resolution limit a voxel
    fine     uphill from the best few of them, steps halved until `finest_deg`, at a quarter of the limit a voxel; the
             correlation's peak is also refined between voxels and between the last steps

Nothing finer than `low_pass_A` of the reference is used: what an average of the picks shows beyond it was not put there by
the reference. The best correlation is kept as the pick's `correlation`; it is low where there is no such molecule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.parabola import vertex
from tomotwin_core.progress import progress
from tomotwin_core.side_by_side import side_by_side
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density
from tomotwin_core.subtomograms.templates import Imager, factors, low_pass, uniform_rotations
from tomotwin_core.tomogram import TomogramSource, resample

# Coarse candidates that are refined; each is farther than this many steps from the others.
_CANDIDATES, _APART = 3, 1.5
# Voxels beyond the sphere that are cut out too, so that the low-pass has something to look at.
_MARGIN = 4
# A window whose deviation is below this share of the patch's is empty and correlates with nothing.
_EMPTY = 1e-3
# Steps about an orientation: none, and a turn to either side about each of the three axes.
_ABOUT = np.concatenate([np.zeros((1, 3)), *([turn, -turn] for turn in np.eye(3))])
# At one step it is turned so often at most; more would lead to another peak.
_TURNS = 3


@dataclass(frozen=True)
class OrientingSettings:
    """step_deg : of the coarse search.  finest_deg : the last step is no larger.  shift_A : how far the centre may move along
    each axis.  low_pass_A : nothing finer of the reference is used.  contrast : of protein in the tomogram."""

    step_deg: float = 15.0
    finest_deg: float = 2.0
    shift_A: float = 25.0
    low_pass_A: float = 30.0
    contrast: Literal["dark", "bright"] = "dark"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("step_deg", 5, 60),
            ("finest_deg", 0.5, 60),
            ("shift_A", 0, 200),
            ("low_pass_A", 5, 200),
        ):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} = {getattr(self, name):g}: must lie within {low} to {high}")


def orient(
    source: TomogramSource,
    picks: Coordinates,
    density: Density,
    acquisition: Acquisition,
    settings: OrientingSettings | None = None,
    device: str = "cpu",
) -> Coordinates:
    """The picks with orientations, refined centres and correlations.

    Parameters
    ----------
    source : TomogramSource
        The tomogram they are in.
    picks : Coordinates
        Of one molecule; in voxels of any size.
    density : Density
        The molecule. Centres are those of its mass.
    acquisition : Acquisition
        How the tomogram was taken and reconstructed.
    settings : OrientingSettings, optional
    device : str
        Where torch computes.

    Returns
    -------
    The same picks in the same order, in the tomogram's voxels.
    """
    settings = settings or OrientingSettings()
    picks = picks.to_voxel_size(source.voxel_size_A, source.shape)
    search = _Search.of(source, density, acquisition, settings, device)
    search.factored  # noqa: B018 - before threads want it
    # On a CPU the arrays of one place are too small to be shared out.
    searched = (side_by_side if torch.device(device).type == "cpu" else map)(search.at, picks.xyz)
    return _with(picks, list(progress(searched, len(picks), "orienting", "picks")))


def refine(
    source: TomogramSource,
    oriented: Coordinates,
    density: Density,
    acquisition: Acquisition,
    settings: OrientingSettings | None = None,
    device: str = "cpu",
) -> Coordinates:
    """Positions that have orientations already, brought uphill from these by the fine part of `orient`: better orientations,
    centres between voxels, and their correlations."""
    settings = settings or OrientingSettings()
    oriented = oriented.to_voxel_size(source.voxel_size_A, source.shape)
    assert oriented.rotation is not None
    search = _Search.of(source, density, acquisition, settings, device)
    starts = [_Found(xyz, turn, 0.0) for xyz, turn in zip(oriented.xyz, oriented.rotation, strict=True)]
    searched = (side_by_side if torch.device(device).type == "cpu" else map)(search.uphill, [[one] for one in starts])
    return _with(oriented, list(searched))


def orient_with_background(
    source: TomogramSource,
    picks: Coordinates,
    density: Density,
    acquisition: Acquisition,
    settings: OrientingSettings | None = None,
    places: int = 20,
    seed: int = 1,
    device: str = "cpu",
    avoid: Coordinates | None = None,
) -> tuple[Coordinates, NDArray[np.float32]]:
    """`orient`, and the correlations of the same search at `places` random places at which nothing was picked.

    They lie a diameter or more from the picks and from those of `avoid`, and as deep in the tomogram as picks do; fewer
    where there is no room.
    """
    rng = np.random.default_rng(seed)
    picks = picks.to_voxel_size(source.voxel_size_A, source.shape)
    others = picks if avoid is None else avoid.to_voxel_size(source.voxel_size_A, source.shape)
    low, high = np.zeros(3), np.array(source.shape[::-1]) - 1.0
    if len(picks):
        low[2], high[2] = picks.xyz[:, 2].min(), picks.xyz[:, 2].max()
    tried = rng.uniform(low, high, (50 * places, 3))
    taken = np.concatenate([picks.xyz, others.xyz])
    tree = cKDTree(taken) if len(taken) else None
    free = tried if tree is None else tried[tree.query(tried)[0] * source.voxel_size_A >= density.diameter_A]
    everything = np.concatenate([picks.xyz, free[:places]])
    both = Coordinates.from_arrays(everything, source.voxel_size_A, source.name, source.shape)
    found = orient(source, both, density, acquisition, settings, device)
    assert found.rotation is not None and found.correlation is not None
    n = len(picks)
    oriented = replace(picks, xyz=found.xyz[:n], rotation=found.rotation[:n], correlation=found.correlation[:n])
    return oriented, found.correlation[n:]


def suggested_correlation(background: ArrayLike, picks: ArrayLike) -> float:
    """A correlation that right picks pass and false ones do not, out of those of a tomogram's picks and of `background`.

    The greater of two: what chance does not reach, four robust deviations above the median of the background, of which a few
    may be particles that were missed; and half of what the best tenth of the picks reach, since copies of one molecule in one
    tomogram correlate alike, and others that were taken for it, though more than nothing, less. NaN where there is none.
    """
    nothing, found = np.asarray(background, np.float64), np.asarray(picks, np.float64)
    both = []
    if len(nothing) > 2:
        middle = np.median(nothing)
        both.append(float(middle + 4 * 1.4826 * np.median(np.abs(nothing - middle))))
    if len(found):
        both.append(0.5 * float(np.quantile(found, 0.9)))
    return max(both, default=float("nan"))


@dataclass(frozen=True)
class _Found:
    xyz: NDArray[np.float64]
    rotation: NDArray[np.float64]
    correlation: float


def _with(picks: Coordinates, found: list[_Found]) -> Coordinates:
    """Picks as they were found."""
    return replace(
        picks,
        xyz=np.array([one.xyz for one in found]).reshape(-1, 3),
        rotation=np.array([one.rotation for one in found]).reshape(-1, 3, 3),
        correlation=np.array([one.correlation for one in found], np.float32),
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """Everything about a molecule and a tomogram that is the same for all picks."""

    source: TomogramSource
    settings: OrientingSettings
    device: str
    coarse: Imager
    fine: Imager
    rotations: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        source: TomogramSource,
        density: Density,
        acquisition: Acquisition,
        settings: OrientingSettings,
        device: str,
    ) -> _Search:
        def imager(voxel_size_A: float) -> Imager:
            size = max(source.voxel_size_A, voxel_size_A)
            return Imager.of(density, size, acquisition, device, settings.low_pass_A)

        coarse = imager(settings.low_pass_A / 3)
        rotations = uniform_rotations(settings.step_deg)
        return cls(source, settings, device, coarse, imager(settings.low_pass_A / 4), rotations)

    @cached_property
    def factored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and basis of the coarse templates."""
        weights, basis, _ = factors(self.coarse.templates(self.rotations))
        return weights, basis

    def at(self, xyz: NDArray[np.float64]) -> _Found:
        """The best orientation and centre about a place (x, y, z) in the tomogram's voxels."""
        return self.uphill(list(self._coarsely(xyz)))

    def uphill(self, candidates: list[_Found]) -> _Found:
        """The best that is reached from any of some orientations and centres near each other."""
        patch, first = self._patch(candidates[0].xyz, self.fine)
        factor = self.fine.voxel_size_A / self.source.voxel_size_A
        reach = int(np.ceil(self.coarse.voxel_size_A / self.fine.voxel_size_A))
        step = self.settings.step_deg / 2
        starts = [_Found((one.xyz - first) / factor, one.rotation, one.correlation) for one in candidates]
        best = max((self._finely(patch, one, step, reach) for one in starts), key=lambda found: found.correlation)
        while True:
            for _ in range(_TURNS):
                before, best = best, self._finely(patch, best, step, 1)
                if best.rotation is before.rotation:
                    break
            if step <= self.settings.finest_deg:
                break
            step /= 2
        return _Found(first + best.xyz * factor, self._between_turns(patch, best, step), best.correlation)

    def _coarsely(self, xyz: NDArray[np.float64]) -> Iterator[_Found]:
        """The best orientations at their best places, in the tomogram's voxels."""
        patch, first = self._patch(xyz, self.coarse)
        factor = self.coarse.voxel_size_A / self.source.voxel_size_A
        reach = round(self.settings.shift_A / self.coarse.voxel_size_A)
        windows, places = _windows(patch, np.round((xyz - first) / factor), reach, self.coarse)
        weights, basis = self.factored
        scores = (windows @ basis.T) @ weights.T
        top, where = scores.max(dim=0)
        score, at = top.cpu().numpy(), where.cpu().numpy()
        left = np.ones(len(score), bool)
        for _ in range(_CANDIDATES):
            if not left.any():
                return
            best = int(np.where(left, score, -np.inf).argmax())
            yield _Found(first + places[at[best]] * factor, self.rotations[best], float(score[best]))
            left &= _angles_deg(self.rotations, self.rotations[best]) > _APART * self.settings.step_deg

    def _finely(self, patch: torch.Tensor, start: _Found, step_deg: float, reach: int) -> _Found:
        """The best of the orientations a step about one, and its peak between voxels; places in voxels of the patch. The
        orientation is the very same object where none is better."""
        turns = Rotation.from_rotvec(np.deg2rad(step_deg) * _ABOUT).as_matrix() @ start.rotation
        windows, places = _windows(patch, np.round(start.xyz), reach, self.fine)
        scores = (windows @ self.fine.templates(turns).T).cpu().numpy()
        at, best = np.unravel_index(scores.argmax(), scores.shape)
        cube = scores[:, best].reshape((2 * reach + 1,) * 3)
        rotation = turns[best] if best else start.rotation
        return _Found(places[at] + _between(cube), rotation, float(scores[at, best]))

    def _between_turns(self, patch: torch.Tensor, found: _Found, step_deg: float) -> NDArray[np.float64]:
        """The orientation at the vertex of a parabola about each axis, through the correlations a step to either side."""
        turns = Rotation.from_rotvec(np.deg2rad(step_deg) * _ABOUT).as_matrix() @ found.rotation
        windows, _ = _windows(patch, np.round(found.xyz), 0, self.fine)
        middle, *sides = (windows @ self.fine.templates(turns).T)[0].tolist()
        vector = [float(vertex(sides[2 * axis + 1], middle, sides[2 * axis])) for axis in range(3)]
        return np.asarray(Rotation.from_rotvec(np.deg2rad(step_deg) * np.array(vector)).as_matrix() @ found.rotation)

    def _patch(self, xyz: NDArray[np.float64], imager: Imager) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """The tomogram about a place at the imager's voxel size, low-passed, templates' contrast [z, y, x]; and where its
        voxel 0 lies (x, y, z) in the tomogram's voxels. Beyond the tomogram it has its mean."""
        size, factor = self.source.voxel_size_A, imager.voxel_size_A / self.source.voxel_size_A
        reach = self.settings.shift_A / size + (imager.mask.shape[0] // 2 + _MARGIN + 1) * factor
        first = np.floor(xyz - reach).astype(int)
        last = np.ceil(xyz + reach).astype(int) + 1
        shape = self.source.shape[::-1]
        inside = tuple(slice(max(a, 0), max(min(b, n), 0)) for a, b, n in zip(first, last, shape, strict=True))[::-1]
        data = np.asarray(self.source.voxels[inside], np.float32)
        if data.size == 0 or not np.isfinite(data).all():
            what = "lies outside of it" if data.size == 0 else "has NaN or infinite voxels about it"
            raise UserError(f"{self.source.path}: the pick at {', '.join(f'{v:.1f}' for v in xyz)} {what}")
        data = data - data.mean()
        missing = [(max(-a, 0), max(b - n, 0)) for a, b, n in zip(first, last, shape, strict=True)][::-1]
        volume = resample(np.pad(data, missing), size, imager.voxel_size_A)
        values = torch.from_numpy(volume if self.settings.contrast == "dark" else -volume).to(self.device)
        z, y, x = values.shape
        passed = low_pass((z, y, x), imager.voxel_size_A, self.settings.low_pass_A, self.device)
        return torch.fft.irfftn(torch.fft.rfftn(values) * passed, s=(z, y, x)), first.astype(np.float64)


def _windows(
    patch: torch.Tensor, middle: NDArray[np.float64], reach: int, imager: Imager
) -> tuple[torch.Tensor, NDArray[np.float64]]:
    """Every window of a patch whose middle lies within `reach` voxels of a place (x, y, z) along each axis: (windows, voxels
    of the mask), each of mean 0 and length 1, z slowest; and their middles (windows, 3), x, y, z."""
    edge = imager.mask.shape[0]
    half = edge // 2
    # The place stays where whole windows fit: refinement may have come to the patch's rim.
    limits = np.array(patch.shape[::-1]) - 1 - half - reach
    centre = np.clip(middle, half + reach, limits).astype(int)
    x, y, z = (int(c) - reach - half for c in centre)
    span = edge + 2 * reach
    part = patch[z : z + span, y : y + span, x : x + span]
    cut = part.unfold(0, edge, 1).unfold(1, edge, 1).unfold(2, edge, 1).reshape(-1, edge**3)
    rows = cut[:, torch.from_numpy(imager.mask.ravel()).to(patch.device)]
    rows = rows - rows.mean(1, keepdim=True)
    least = _EMPTY * float(patch.std()) * rows.shape[1] ** 0.5
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(max(least, 1e-30))
    offsets = np.array(list(product(range(-reach, reach + 1), repeat=3)), np.float64)[:, ::-1]
    return rows, centre + offsets


def _between(cube: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the peak of a cube of scores lies between voxels, as an offset (x, y, z) from its highest voxel: the vertex of a
    parabola along each axis; 0 along an axis at whose end the peak lies."""
    top = np.unravel_index(int(cube.argmax()), cube.shape)
    offset = np.zeros(3)
    for axis in range(3):
        if not 0 < top[axis] < cube.shape[axis] - 1:
            continue
        low, middle, high = (float(cube[(*top[:axis], top[axis] + d, *top[axis + 1 :])]) for d in (-1, 0, 1))
        offset[2 - axis] = vertex(low, middle, high)
    return offset


def _angles_deg(rotations: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The angle of the turn from each of many orientations to another."""
    cosine = (np.einsum("nij,ij->n", rotations, other) - 1) / 2
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
