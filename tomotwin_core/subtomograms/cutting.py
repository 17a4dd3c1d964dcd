"""Subtomograms: boxes cut out at the picks, with what RELION 3 averages and classifies them by.

A folder of them holds

    particles.star           one row for each: box, missing wedge, place in its tomogram, orientation, shift, score
    TOMOGRAM/000001.mrc      boxes, protein bright, mean 0 and deviation 1 outside the particle, as RELION wants them
    wedge_48.mrc             what the tilts have measured: 1 where they have, 0 in the missing wedge, frequency 0 at n // 2;
                             wedge_48_TOMOGRAM.mrc where tomograms have other tilts each

    relion_reconstruct --i particles.star --o average.mrc --ctf --3d_rot          the average, weighted by the wedges
    relion_refine --i particles.star --o run --ref average.mrc --ctf --K 2 --skip_align --ini_high 40 ...

(RELION is called from that folder, as the names in the file are relative to it.) Boxes are cut at whole voxels, so nothing
is interpolated; what is left to the pick's own place is the shift (rlnOriginXAngst). RELION shifts a box by that before
it turns it. With `centre` the box is shifted by that itself, by its Fourier transform, for software that knows no shifts.
The middle of a box is voxel n // 2. What of a box lies beyond the tomogram has the mean of the rest; where
the particle itself does, it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.coordinates import Coordinates, relion_angles_from_rotation
from tomotwin_core.coordinates.starblocks import append, head, loop, numbers, word
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, provenance
from tomotwin_core.progress import progress
from tomotwin_core.tomogram import TomogramSource, write_mrc

PARTICLES_FILE = "particles.star"
_FEWEST, _MOST = 16, 1024
# The wedge's edge falls off over so many cells of the transform to each side.
_SOFT_CELLS = 1.0


@dataclass(frozen=True)
class CutSettings:
    """box_vox : edge, even.  tilt_min_deg, tilt_max_deg : what the tilt series has covered.  invert : turn the contrast over,
    for tomograms in which protein is dark.  normalise : mean 0 and deviation 1 outside a sphere about the particle.
    centre : shift boxes by parts of a voxel to the picks' own places.  voltage_kV, cs_mm, amplitude_contrast : for RELION's
    table, which wants them."""

    box_vox: int
    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    invert: bool = True
    normalise: bool = True
    centre: bool = False
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1

    def __post_init__(self) -> None:
        if not _FEWEST <= self.box_vox <= _MOST or self.box_vox % 2:
            raise UserError(f"a box of {self.box_vox} voxels: give an even number within {_FEWEST} to {_MOST}")
        if not -90 <= self.tilt_min_deg < self.tilt_max_deg <= 90:
            raise UserError(
                f"tilts {self.tilt_min_deg:g} to {self.tilt_max_deg:g} degrees: they must rise within -90 to 90"
            )


@dataclass(frozen=True)
class Cut:
    """How many boxes were written, and how many picks were left out because the particle reaches beyond the tomogram."""

    written: int
    left_out: int


def cut(
    tomograms: Sequence[tuple[TomogramSource, Coordinates]],
    folder: Path,
    settings: CutSettings,
    tilt_ranges: Mapping[str, tuple[float, float]] | None = None,
    **made_by: object,
) -> Cut:
    """Write the subtomograms of all picks, and the files beside them.

    Parameters
    ----------
    tomograms : sequence of (TomogramSource, Coordinates)
        Picks with orientations where they are known (0, 0, 0 else), in voxels of any size.
    folder : Path
        Where; `particles.star` appears last, when all boxes are there.
    settings : CutSettings
    tilt_ranges : mapping, optional
        Least and greatest tilt (degrees) of tomograms by name, before those of the settings; where they differ, each
        tomogram has a wedge of its own.
    made_by
        What made them, for the file's record.

    Raises
    ------
    UserError
        When the tomograms differ in voxel size, which RELION has one of, or no particle lies within its tomogram.
    """
    sizes = {round(source.voxel_size_A, 3) for source, _ in tomograms}
    if len(sizes) != 1:
        raise UserError(
            f"the tomograms have voxels of {', '.join(f'{s:g}' for s in sorted(sizes))} A: cut those of one size at a time"
        )
    size_A = tomograms[0][0].voxel_size_A
    wedges = _wedges([source.name for source, _ in tomograms], folder, settings, tilt_ranges or {}, size_A)
    particles: dict[str, list[str]] = {}
    tables, left_out = [], 0
    for source, picks in progress(tomograms, desc="cutting", unit="tomograms"):
        picks = picks.to_voxel_size(source.voxel_size_A, source.shape)
        middles = np.round(picks.xyz).astype(int)
        radius = np.nan_to_num(picks.diameter_A)[:, None] / 2 / source.voxel_size_A
        within = ((picks.xyz >= radius) & (picks.xyz <= np.array(source.shape[::-1]) - 1 - radius)).all(axis=1)
        left_out += int((~within).sum())
        kept = picks.select(within)
        tables.append(kept)
        names = [f"{source.name}/{number:06d}.mrc" for number in 1 + np.flatnonzero(within)]
        for name, middle, xyz in zip(names, middles[within], kept.xyz, strict=True):
            box = _box(source, middle, kept, settings)
            write_mrc(folder / name, _shifted(box, middle - xyz) if settings.centre else box, size_A)
        at = kept.xyz if settings.centre else middles[within].astype(float)
        append(particles, _columns(kept, names, wedges[source.name], at))
    if not sum(map(len, tables)):
        raise UserError("there is no pick whose particle lies within its tomogram: nothing is cut out")
    optics = {
        "rlnOpticsGroup": "1",
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnImagePixelSize": f"{size_A:.6f}",
        "rlnMicrographOriginalPixelSize": f"{size_A:.6f}",
        "rlnImageSize": str(settings.box_vox),
        "rlnImageDimensionality": "3",
        "rlnVoltage": f"{settings.voltage_kV:g}",
        "rlnSphericalAberration": f"{settings.cs_mm:g}",
        "rlnAmplitudeContrast": f"{settings.amplitude_contrast:g}",
    }
    text = loop("optics", {name: [value] for name, value in optics.items()}) + loop("particles", particles)
    with atomic_path(folder / PARTICLES_FILE) as temporary:
        temporary.write_text(head(tables, provenance(**made_by)) + text)
    return Cut(sum(map(len, tables)), left_out)


def _wedges(
    names: Sequence[str],
    folder: Path,
    settings: CutSettings,
    tilt_ranges: Mapping[str, tuple[float, float]],
    voxel_size_A: float,
) -> dict[str, str]:
    """Write the wedges; the file of each tomogram, by name: one for all where their tilts have the same range."""
    ranges = {name: tilt_ranges.get(name, (settings.tilt_min_deg, settings.tilt_max_deg)) for name in names}
    alike = len(set(ranges.values())) == 1
    files = {}
    for name, (low, high) in ranges.items():
        files[name] = f"wedge_{settings.box_vox}.mrc" if alike else f"wedge_{settings.box_vox}_{name}.mrc"
        if not alike or len(files) == 1:
            write_mrc(folder / files[name], missing_wedge(settings.box_vox, low, high), voxel_size_A)
    return files


def missing_wedge(box_vox: int, tilt_min_deg: float, tilt_max_deg: float) -> NDArray[np.float32]:
    """What a tilt series about y has measured of a box's transform, frequency 0 at n // 2: float32 [z, y, x], 1 where it
    has and 0 in the missing wedge, with an edge of about two cells.

    A projection at the tilt t, positive as in `simulation.gridding`, is the plane of the transform spanned by y and by
    (x, z) = (cos t, sin t).
    """
    axis = np.arange(box_vox) - box_vox // 2
    z, x = np.meshgrid(axis, axis, indexing="ij")
    middle, half = np.deg2rad((tilt_min_deg + tilt_max_deg) / 2), np.deg2rad((tilt_max_deg - tilt_min_deg) / 2)
    # In the frame of the middle tilt the measured part is |z| <= |x| tan(half), a double wedge; the distance to its rim.
    along, across = np.abs(x * np.cos(middle) + z * np.sin(middle)), np.abs(z * np.cos(middle) - x * np.sin(middle))
    inside = along * np.sin(half) - across * np.cos(half)
    plane = np.clip(0.5 + inside / (2 * _SOFT_CELLS), 0, 1)
    plane[box_vox // 2, box_vox // 2] = 1.0
    return np.ascontiguousarray(np.broadcast_to(plane[:, None, :], (box_vox,) * 3), np.float32)


def _box(
    source: TomogramSource, middle: NDArray[np.int_], picks: Coordinates, settings: CutSettings
) -> NDArray[np.float32]:
    n = settings.box_vox
    first = middle[::-1] - n // 2
    inside = tuple(slice(max(a, 0), min(a + n, size)) for a, size in zip(first, source.shape, strict=True))
    found = np.array(source.voxels[inside], np.float32)
    if not np.isfinite(found).all():
        raise UserError(f"{source.path} has NaN or infinite voxels: replace them, or reconstruct the tomogram again")
    missing = [(max(-a, 0), max(a + n - size, 0)) for a, size in zip(first, source.shape, strict=True)]
    mean = float(found.mean())
    box = np.pad(found - mean, missing) + mean
    if settings.invert:
        box = -box
    if settings.normalise:
        outside = _outside(n, _largest_diameter(picks) / source.voxel_size_A)
        box = (box - box[outside].mean()) / max(float(box[outside].std()), 1e-30)
    return box


def _shifted(box: NDArray[np.float32], shift: NDArray[np.float64]) -> NDArray[np.float32]:
    """A box moved by parts of a voxel (x, y, z); what leaves it on one side comes in on the other."""
    moved = ndimage.fourier_shift(np.fft.rfftn(box), shift[::-1], n=box.shape[-1])
    return np.fft.irfftn(moved, s=box.shape).astype(np.float32)


def _largest_diameter(picks: Coordinates) -> float:
    known = picks.diameter_A[np.isfinite(picks.diameter_A)]
    return float(known.max()) if len(known) else 0.0


def _outside(n: int, diameter_vox: float) -> NDArray[np.bool_]:
    """The voxels of a box outside the particle; at the least its corners, outside the largest sphere."""
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.asarray(z * z + y * y + x * x > min(diameter_vox / 2, n / 2 - 1) ** 2)


def _columns(
    picks: Coordinates, names: Sequence[str], wedge: str, middles: NDArray[np.float64]
) -> dict[str, list[str]]:
    n = len(picks)
    columns = {
        "rlnTomoName": [word(picks.tomogram)] * n,
        "rlnMicrographName": [word(picks.tomogram)] * n,
        "rlnImageName": [word(name) for name in names],
        "rlnCtfImage": [word(wedge)] * n,
        "rlnOpticsGroup": ["1"] * n,
    }
    columns |= numbers(["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"], middles, ".4f")
    rotation = np.broadcast_to(np.eye(3), (n, 3, 3)) if picks.rotation is None else picks.rotation
    angles = relion_angles_from_rotation(rotation)
    columns |= numbers(["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"], angles, ".4f")
    # What moves the box so that the particle comes to its middle.
    origins = (middles - picks.xyz) * picks.voxel_size_A
    columns |= numbers(["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"], origins, ".4f")
    columns["tomotwinLabel"] = [word(str(label)) for label in picks.label]
    columns |= numbers(["tomotwinScore"], picks.score[:, None], ".7g")
    columns |= numbers(["tomotwinDiameterAngst"], picks.diameter_A[:, None], ".6g")
    if picks.correlation is not None:
        columns |= numbers(["tomotwinCorrelation"], picks.correlation[:, None], ".5g")
    return columns
