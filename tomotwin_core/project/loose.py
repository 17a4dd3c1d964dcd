"""A tilt series out of the files that lie side by side under one name, as IMOD, SerialEM, AreTomo and CTFFIND leave them.

| what | from |
|---|---|
| angles | NAME.tlt, else NAME.aln, else NAME.rawtlt, else the mdoc file, else the defocus file of single views |
| tilt axis | NAME.aln, else NAME.xf, else the mdoc file |
| exposures, voltage, pixel size | NAME.mdoc, NAME.st.mdoc, NAME.mrc.mdoc |
| underfocus | NAME.defocus, else a table of CTFFIND's form (NAME_CTF.txt and the like, below), else what the mdoc file says it was set to |

The mdoc file may have its images in another order, and those that were left out since: its sections go to the tilts by the
order of their angles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.project.aretomo import Alignment, read_aln
from tomotwin_core.project.ctffind import is_ctf_text, read_ctf_text
from tomotwin_core.project.imod import Ctf, DefocusFile, read_defocus, read_tilt_axis, read_tilts
from tomotwin_core.project.serialem import read_mdoc
from tomotwin_core.project.series import TiltSeries, Values
from tomotwin_core.remarks import remark

_MDOC = (".mdoc", ".st.mdoc", ".mrc.mdoc", ".mrcs.mdoc", ".ali.mdoc")
_CTF_TEXT = ("_CTF.txt", "_ctf.txt", "_ctffind.txt", "_diagnostic.txt", ".txt")
ENDINGS = (*sorted(_MDOC, key=len, reverse=True), ".tlt", ".rawtlt", ".xf", ".defocus", ".aln", *_CTF_TEXT)
# By so much alignment changes an angle, beside what it changes all of them by.
_REFINED_DEG = 3.0


@dataclass(frozen=True)
class Files:
    """What there is of one series."""

    angles: Path | None = None
    aln: Path | None = None
    xf: Path | None = None
    mdoc: Path | None = None
    defocus: Path | None = None
    ctf_text: Path | None = None

    @property
    def all(self) -> list[Path]:
        return [p for p in (self.angles, self.aln, self.xf, self.mdoc, self.defocus, self.ctf_text) if p is not None]


def name_of(path: Path) -> str:
    """The series' name in that of one of its files."""
    return next((path.name[: -len(e)] for e in ENDINGS if path.name.endswith(e) and path.name != e), path.stem)


def files_of(folder: Path, name: str) -> Files:
    """The files of a series by its name; none of them need be there."""

    def first(endings: tuple[str, ...], serves: Callable[[Path], bool] = Path.is_file) -> Path | None:
        return next((folder / (name + e) for e in endings if serves(folder / (name + e))), None)

    aln = first((".aln",))
    angles = first((".tlt",)) or (None if aln else first((".rawtlt",)))
    return Files(angles, aln, first((".xf",)), first(_MDOC), first((".defocus",)), first(_CTF_TEXT, is_ctf_text))


def read_loose(files: Files, name: str) -> TiltSeries:
    """The series that the files describe together; a `UserError` where they contradict each other."""
    aligned = read_aln(files.aln) if files.aln else None
    mdoc = read_mdoc(files.mdoc, name) if files.mdoc else None
    defocus = read_defocus(files.defocus) if files.defocus else None
    source = " with ".join([str(files.all[0]), *(p.name for p in files.all[1:])])
    tilts = _tilts(files, aligned, mdoc, defocus, source)
    if mdoc is not None:
        dark = aligned.dark_deg if aligned else ()
        series = replace(_in_order(mdoc, tilts, dark, files), source=source)
    else:
        series = TiltSeries(name, source, tilts)
    axis = _axis(files, aligned, len(tilts))
    if axis:
        series = replace(series, tilt_axis_deg=axis)
    ctf, microscope = _ctf(files, defocus, len(tilts))
    if ctf is not None:
        series = replace(
            series,
            defocus_um=ctf.defocus_um,
            astigmatism_um=ctf.astigmatism_um,
            astigmatism_angle_deg=ctf.astigmatism_angle_deg,
            phase_shift_deg=ctf.phase_shift_deg,
            nominal_defocus=False,
            **microscope,
        )
    return series


def _tilts(
    files: Files, aligned: Alignment | None, mdoc: TiltSeries | None, defocus: DefocusFile | None, source: str
) -> Values:
    if files.angles:
        tilts = read_tilts(files.angles)
        if aligned is not None and len(aligned.tilt_deg) != len(tilts):
            raise UserError(
                f"{files.angles}: {len(tilts)} tilts, but {len(aligned.tilt_deg)} in {files.aln}; remove the one that is old"
            )
        return tilts
    if aligned is not None:
        return aligned.tilt_deg
    if mdoc is not None:
        return mdoc.tilt_deg
    if defocus is not None:
        order = np.argsort(defocus.view)
        if [defocus.view[i] for i in order] == list(range(defocus.last_view + 1)):
            return tuple(defocus.tilt_deg[i] for i in order)
    raise UserError(
        f"{source}: has no tilt angles; lay the .tlt, .rawtlt, .aln or .mdoc file of the same name beside it"
    )


def _axis(files: Files, aligned: Alignment | None, n: int) -> Values:
    if aligned is not None:
        return aligned.tilt_axis_deg
    if files.xf is None:
        return ()
    axis = read_tilt_axis(files.xf)
    if len(axis) != n:
        raise UserError(f"{files.xf}: transforms of {len(axis)} images, but {n} tilts; are they one series?")
    return axis


def _ctf(files: Files, defocus: DefocusFile | None, n: int) -> tuple[Ctf | None, dict[str, Any]]:
    """CTF of each image, and what else its file says."""
    if defocus is not None and files.defocus is not None:
        return defocus.of_views(n, files.defocus), {}
    if files.ctf_text is None:
        return None, {}
    ctf, microscope = read_ctf_text(files.ctf_text)
    if len(ctf.defocus_um) != n:
        raise UserError(
            f"{files.ctf_text}: the CTF of {len(ctf.defocus_um)} images, but {n} tilts; are they one series?"
        )
    return ctf, microscope


def _in_order(mdoc: TiltSeries, tilts: Values, dark: Values, files: Files) -> TiltSeries:
    """What the mdoc file says, in the order of the tilts, whose angles count."""
    recorded, kept = np.array(mdoc.tilt_deg), np.ones(len(mdoc.tilt_deg), bool)
    for angle in dark if len(tilts) + len(dark) == len(recorded) else ():
        kept[np.where(kept, np.abs(recorded - angle), np.inf).argmin()] = False
    if kept.sum() != len(tilts):
        raise UserError(
            f"{files.mdoc}: describes {len(recorded)} images, but there are {len(tilts)} tilts; "
            "take those that were left out of the mdoc file, or it away"
        )
    of_tilt = np.empty(len(tilts), int)
    of_tilt[np.argsort(tilts, kind="stable")] = np.flatnonzero(kept)[np.argsort(recorded[kept], kind="stable")]
    apart = np.array(tilts) - recorded[of_tilt]
    apart -= np.median(apart)
    if np.abs(apart).max() > _REFINED_DEG:
        worst = int(np.abs(apart).argmax())
        remark(
            f"{files.mdoc}: the tilt of {tilts[worst]:.4g} degrees was recorded at {recorded[of_tilt[worst]]:.4g}; "
            "are these the files of one series?"
        )

    def of(values: Values) -> Values:
        return tuple(values[i] for i in of_tilt) if values else ()

    return replace(
        mdoc,
        tilt_deg=tilts,
        tilt_axis_deg=of(mdoc.tilt_axis_deg),
        exposure_before_e_per_A2=of(mdoc.exposure_before_e_per_A2),
        dose_e_per_A2=of(mdoc.dose_e_per_A2),
        defocus_um=of(mdoc.defocus_um),
    )
