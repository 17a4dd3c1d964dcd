"""IMOD's files of a tilt series: angles, transforms and defocus.

    NAME.tlt, NAME.rawtlt   one angle (degrees) per line, refined and as recorded
    NAME.xf                 A11 A12 A21 A22 DX DY per line; the image is turned by atan2(A21, A11) so that the tilt axis comes
                            to lie along y: minus that is its direction
    NAME.defocus            by ctfplotter, read by ctfphaseflip; underfocus in nm, view numbers from 1

Defocus files (https://bio3d.colorado.edu/imod/doc/man/ctfphaseflip.html, "Defocus File Format"; `readDefocusFile` of IMOD's
ctfutils.cpp):

    version 2   first view, last view, lowest and highest angle, defocus; the first line ends in a 2
    legacy      the same without the 2; early ones number their views from 0, which their lowest tells
    version 3   first line: flags 0 0. 0. 0 3; then after the defocus: a second one and the angle of the first where flags
                hold 1 (radians with 2), a phase shift with 4 (radians with 8), a cut-on frequency with 32; 16: angles inverted

A line speaks for the middle of its views; between lines the defocus is interpolated, beyond them it stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.project.text import column, number, rows_of, text_of

_ASTIGMATISM, _RADIANS, _PHASE, _PHASE_RADIANS, _INVERTED, _CUT_ON = 1, 2, 4, 8, 16, 32
_MOST_VIEWS = 1000


@dataclass(frozen=True)
class Ctf:
    """Underfocus (um), astigmatism (um, half the difference), its angle (degrees) and phase shift (degrees) of each image."""

    defocus_um: tuple[float, ...]
    astigmatism_um: tuple[float, ...] = ()
    astigmatism_angle_deg: tuple[float, ...] = ()
    phase_shift_deg: tuple[float, ...] = ()


@dataclass(frozen=True)
class DefocusFile:
    """Lines of a defocus file.  view : the middle of the views of each, from 0.  last_view : the highest, from 0.
    tilt_deg : the middle of their angles."""

    view: tuple[float, ...]
    tilt_deg: tuple[float, ...]
    last_view: int
    ctf: Ctf

    def of_views(self, n_views: int, path: Path) -> Ctf:
        """Of each of n images; a `UserError` where the file speaks of more."""
        if self.last_view >= n_views:
            raise UserError(
                f"{path}: speaks of view {self.last_view + 1}, but there are {n_views} tilts; are they one series?"
            )
        order = np.argsort(self.view, kind="stable")
        at = np.array(self.view)[order]

        def spread(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(np.interp(np.arange(n_views), at, np.array(values)[order]).tolist()) if values else ()

        angle: tuple[float, ...] = ()
        if self.ctf.astigmatism_angle_deg:  # a direction: that of the nearest line
            nearest = np.abs(np.arange(n_views)[:, None] - np.array(self.view)).argmin(1)
            angle = tuple(self.ctf.astigmatism_angle_deg[i] for i in nearest)
        return Ctf(
            spread(self.ctf.defocus_um), spread(self.ctf.astigmatism_um), angle, spread(self.ctf.phase_shift_deg)
        )


def read_tilts(path: Path) -> tuple[float, ...]:
    """Angles of a .tlt or .rawtlt file in degrees, in the order of the stack."""
    rows = rows_of(path, text_of(path, "a file of tilt angles"))
    if any(len(row) > 1 for row in rows):
        raise UserError(f"{path}: has more than one value on a line, a file of tilt angles one; give another file")
    return column(path, rows, 0, "a tilt angle")


def read_tilt_axis(path: Path) -> tuple[float, ...]:
    """Direction of the tilt axis in each image of a .xf file, degrees from y, counter-clockwise."""
    rows = rows_of(path, text_of(path, "a file of transforms"))
    a11, _, a21, _, _, _ = (column(path, rows, i, "one of its six numbers") for i in range(6))
    if any(math.hypot(c, s) < 1e-3 for c, s in zip(a11, a21, strict=True)):
        raise UserError(f"{path}: a transform has no rotation; correct the file")
    return tuple(-math.degrees(math.atan2(s, c)) for c, s in zip(a11, a21, strict=True))


def read_defocus(path: Path) -> DefocusFile:
    """A defocus file of any version."""
    rows = rows_of(path, text_of(path, "a defocus file"))
    version = number(rows[0][5], path, "its version") if len(rows[0]) > 5 else 0
    if version not in (0, 2, 3):
        raise UserError(f"{path}: is a defocus file of version {version:g}; 2 and 3 are read, write it with ctfplotter")
    flags = int(column(path, rows[:1], 0, "its flags")[0]) if version == 3 else 0
    if version == 3:
        rows = rows[1:]
        if not rows:
            raise UserError(f"{path}: has no line with a defocus; is the file complete?")
    first, last, low, high, defocus = (
        column(path, rows, i, name) for i, name in enumerate(("a view", "a view", "an angle", "an angle", "a defocus"))
    )
    views = (*first, *last)
    if any(v != int(v) or not 0 <= v <= _MOST_VIEWS for v in views) or any(a > b for a, b in zip(first, last)):
        raise UserError(f"{path}: has views that cannot be; give a defocus file as ctfplotter writes it")
    if version > 0 and min(views) < 1:
        raise UserError(f"{path}: numbers a view 0, but views are numbered from 1; correct the file")
    start = 0 if min(views) == 0 else 1  # of legacy ones, as ctfutils.cpp has it
    sign = -1.0 if flags & _INVERTED else 1.0
    return DefocusFile(
        tuple((a + b) / 2 - start for a, b in zip(first, last)),
        tuple(sign * (a + b) / 2 for a, b in zip(low, high)),
        int(max(views)) - start,
        _ctf(path, rows, defocus, flags),
    )


def _ctf(path: Path, rows: list[list[str]], defocus_nm: tuple[float, ...], flags: int) -> Ctf:
    at = 5
    first = np.array(defocus_nm) / 1000
    size: tuple[float, ...] = ()
    angle: tuple[float, ...] = ()
    phase: tuple[float, ...] = ()
    mean = first
    if flags & _ASTIGMATISM:
        second = np.array(column(path, rows, at, "a second defocus")) / 1000
        turn = np.array(column(path, rows, at + 1, "the angle of its astigmatism"))
        turn = np.degrees(turn) if flags & _RADIANS else turn
        mean, size = (first + second) / 2, tuple((np.abs(first - second) / 2).tolist())
        # The angle is that of the first; where the second is the greater, the greatest lies across.
        angle = tuple(np.where(second > first, turn - 90, turn).tolist())
        at += 2
    if flags & _PHASE:
        shift = np.abs(np.array(column(path, rows, at, "a phase shift")))
        phase = tuple((np.degrees(shift) if flags & _PHASE_RADIANS else shift).tolist())
    return Ctf(tuple(mean.tolist()), size, angle, phase)
