"""The region of a tomogram that is searched: everything the user named or asked to be found, taken together.

What is found (slab, gold, carbon) is found on a coarse copy of the tomogram of 20 A voxels; positions are looked up, and a
mask volume is written plane by plane, so that memory does not grow with the tomogram's own voxels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np

from tomotwin_core import __version__
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.regions.exclusion import find_carbon, find_dark_blobs
from tomotwin_core.regions.masks import Mask, opened_mask
from tomotwin_core.regions.slab import Slab, find_slab
from tomotwin_core.tomogram import Resampled, Specimen, TomogramSource, open_tomogram

_COARSE_VOXEL_A = 20.0


@dataclass(frozen=True)
class RegionSettings:
    """mask: a volume of the tomogram's own shape, or a folder with NAME_mask.mrc for each tomogram NAME; what of it is
    searched says `masks.py`.  z_range: first and last plane, counted from 0, both searched.  auto_slab: between the specimen's
    surfaces.  exclude_gold: not at gold beads and other very dark blobs.  exclude_carbon: not on carbon film."""

    mask: Path | None = None
    z_range: tuple[int, int] | None = None
    auto_slab: bool = False
    exclude_gold: bool = False
    exclude_carbon: bool = False

    @property
    def finds_something(self) -> bool:
        """Whether the tomogram itself has to be looked at."""
        return self.auto_slab or self.exclude_gold or self.exclude_carbon

    @property
    def is_everything(self) -> bool:
        return self.mask is None and self.z_range is None and not self.finds_something

    def as_dict(self) -> dict[str, Any]:
        """For a file's record."""
        return {**asdict(self), "mask": str(self.mask) if self.mask else None}


@dataclass(frozen=True)
class Region:
    """A part of a tomogram of `shape` (z, y, x) and `voxel_size_A`; every part that is given must hold.

    mask : a volume in the tomogram's voxels.  z_range : first and last plane.  slab : the specimen's surfaces.
    excluded : bool [z, y, x] on the coarse grid of `coarse_A`, whose voxel i lies at i * coarse_A.
    """

    shape: tuple[int, int, int]
    voxel_size_A: float
    mask: Mask | None = None
    z_range: tuple[int, int] | None = None
    slab: Slab | None = None
    excluded: np.ndarray | None = None
    coarse_A: float = _COARSE_VOXEL_A

    def contains(self, xyz_vox: np.ndarray) -> np.ndarray:
        """Which of the positions (n, 3) x, y, z in the tomogram's voxels lie inside, bool (n,)."""
        xyz = np.asarray(xyz_vox, float).reshape(-1, 3)
        nearest = np.clip(np.round(xyz[:, ::-1]).astype(int), 0, np.array(self.shape) - 1)
        inside = np.ones(len(xyz), bool)
        if self.z_range is not None:
            inside &= (nearest[:, 0] >= self.z_range[0]) & (nearest[:, 0] <= self.z_range[1])
        if self.slab is not None:
            x_A, y_A, z_A = (xyz * self.voxel_size_A).T
            bottom, top = self.slab.surfaces_A(y_A, x_A)
            inside &= (z_A >= bottom) & (z_A <= top)
        if self.excluded is not None:
            coarse = np.round(xyz[:, ::-1] * self.voxel_size_A / self.coarse_A).astype(int)
            inside &= ~self.excluded[tuple(np.clip(coarse, 0, np.array(self.excluded.shape) - 1).T)]
        if self.mask is not None:
            for z in np.unique(nearest[inside, 0]):
                here = np.flatnonzero(inside & (nearest[:, 0] == z))
                inside[here] = self.mask.plane(int(z))[nearest[here, 1], nearest[here, 2]]
        return inside

    def plane(self, z: int) -> np.ndarray:
        """One plane of the tomogram, bool [y, x]."""
        _, height, width = self.shape
        if self.z_range is not None and not self.z_range[0] <= z <= self.z_range[1]:
            return np.zeros((height, width), bool)
        inside = np.ones((height, width), bool)
        y_A, x_A = np.arange(height) * self.voxel_size_A, np.arange(width) * self.voxel_size_A
        if self.slab is not None:
            bottom, top = self.slab.surfaces_A(*np.meshgrid(y_A, x_A, indexing="ij"))
            inside &= (z * self.voxel_size_A >= bottom) & (z * self.voxel_size_A <= top)
        if self.excluded is not None:
            last = np.array(self.excluded.shape) - 1
            k = min(round(z * self.voxel_size_A / self.coarse_A), int(last[0]))
            rows, columns = (
                np.clip(np.round(p / self.coarse_A).astype(int), 0, n)
                for p, n in zip((y_A, x_A), last[1:], strict=True)
            )
            inside &= ~self.excluded[k][np.ix_(rows, columns)]
        if self.mask is not None:
            inside &= self.mask.plane(z)
        return inside

    def share(self, planes: int = 24) -> float:
        """About which part of the tomogram is searched, judged on some planes."""
        heights = np.unique(np.linspace(0, self.shape[0] - 1, planes).round().astype(int))
        return float(np.mean([self.plane(int(z)).mean() for z in heights]))

    def _mask_share(self) -> float:
        assert self.mask is not None
        return float(np.mean([self.mask.plane(z).mean() for z in range(self.shape[0])]))

    def write_mask(self, path: Path) -> None:
        """As an int8 MRC volume of the tomogram's shape, 1 where it is searched, written plane by plane."""
        with atomic_path(path) as temporary:
            mrc = mrcfile.new_mmap(str(temporary), self.shape, mrc_mode=0)
            try:
                for z in range(self.shape[0]):
                    mrc.data[z] = self.plane(z)
                mrc.voxel_size = self.voxel_size_A
                mrc.set_volume()
                mrc.header.label[0] = f"tomotwin {__version__} region searched".encode()
                mrc.header.nlabl = 1
                mrc.update_header_stats()
            finally:
                mrc.close()

    def described(self) -> str:
        """In words, for the log."""
        parts = []
        if self.mask is not None:
            parts.append(f"mask {self.mask.path} ({self.mask.kind}, {self._mask_share():.0%} of the tomogram)")
        if self.z_range is not None:
            parts.append(f"planes {self.z_range[0]} to {self.z_range[1]}")
        if self.slab is not None:
            low, high = (round(h[0] / self.voxel_size_A) for h in (self.slab.bottom_A, self.slab.top_A))
            parts.append(f"specimen from plane {low} to {high} at the middle")
        if self.excluded is not None:
            parts.append(f"{self.excluded.mean():.1%} excluded as gold or carbon")
        return ", ".join(parts) or "everything"


def named_region(name: str, shape: tuple[int, int, int], voxel_size_A: float, settings: RegionSettings) -> Region:
    """What the user named of a tomogram of `shape` (z, y, x): mask and planes.

    Raises UserError where the mask has another shape than the tomogram, is empty, or the planes lie outside.
    """
    mask = _opened_mask(settings.mask, name, shape, voxel_size_A) if settings.mask else None
    if settings.z_range is not None:
        first, last = settings.z_range
        if not 0 <= first <= last < shape[0]:
            raise UserError(
                f"--z-range {first} {last}: {name} has planes 0 to {shape[0] - 1}; give the first and the last to be searched."
            )
    return Region(shape, voxel_size_A, mask, settings.z_range)


def find_region(
    source: TomogramSource, settings: RegionSettings, contrast: Literal["dark", "bright"] = "dark"
) -> Region:
    """The region that the settings ask for in a tomogram, with what has to be found in it; raises as `named_region`."""
    region = named_region(source.name, source.shape, source.voxel_size_A, settings)
    if not settings.finds_something:
        return region
    coarse_A = max(_COARSE_VOXEL_A, source.voxel_size_A)
    coarse = Resampled(Specimen(source), coarse_A)
    volume = coarse.slab(0, coarse.shape[0])
    darkness = -volume if contrast == "dark" else volume
    film = find_carbon(darkness, coarse_A)
    excluded = np.zeros(volume.shape, bool)
    if settings.exclude_gold:
        excluded |= find_dark_blobs(darkness, coarse_A)
    if settings.exclude_carbon:
        excluded |= film
    slab = find_slab(volume, coarse_A, film) if settings.auto_slab else None
    return replace(region, slab=slab, excluded=excluded if excluded.any() else None, coarse_A=coarse_A)


def _opened_mask(path: Path, name: str, shape: tuple[int, int, int], voxel_size_A: float) -> Mask:
    if path.is_dir():
        found = [p for p in (path / f"{name}{end}" for end in ("_mask.mrc", ".mrc")) if p.is_file()]
        if not found:
            raise UserError(f"{path} has no mask for {name}: call it {name}_mask.mrc.")
        path = found[0]
    mask = open_tomogram(path, voxel_size_A)  # over what the header says, which software that edits masks gets wrong
    if mask.shape != shape:
        have, want = (" x ".join(str(n) for n in s[::-1]) for s in (mask.shape, shape))
        raise UserError(f"{path} is {have} voxels and {name} is {want}: give a mask of the tomogram's own shape.")
    return opened_mask(mask)
