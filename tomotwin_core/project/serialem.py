"""SerialEM's mdoc file of a tilt series: what the microscope did for each image.

    PixelSpacing = 1.35                      A, of the images as saved
    Voltage = 300
    [T =     Tilt axis angle = 85.3, binning = 1  spot = 8  camera = 2]
    [ZValue = 0]                             one section for each image of the stack
    TiltAngle = 0.001
    ExposureDose = 3.05                      e/A^2 of this image, 0 where not calibrated
    PriorRecordDose = 0                      e/A^2 before it
    TargetDefocus = -4                       um, negative is underfocus
    DateTime = 30-Nov-15  15:21:38

https://bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm. The tilt axis is taken from the title, as RotationAngle is
that of the camera and differs from it by quarter turns. Without PriorRecordDose the exposures are added up in the order of
their dates; without dates, in that of the sections where these are not sorted by their angles.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.project.series import TiltSeries
from tomotwin_core.project.text import number, text_of

_SECTION = re.compile(r"^\[(\w+)\s*=\s*(.*?)\]$")
_AXIS = re.compile(r"Tilt\s*axis\s*angle\s*=\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
# What SerialEM and other writers of mdoc files put there.
_DATES = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%d-%m-%Y %H:%M:%S")


def read_mdoc(path: Path, name: str) -> TiltSeries:
    """The series of an mdoc file, images in the order of ZValue."""
    head, axis, sections = _parts(path, text_of(path, "an mdoc file"))
    if not sections:
        raise UserError(f"{path}: has no section [ZValue = 0]; give the mdoc file of a tilt series")
    sections.sort(key=lambda s: number(s["ZValue"], path, "ZValue"))

    def each(key: str) -> tuple[float, ...]:
        """One value per image; nothing where one of them lacks it."""
        if any(key not in s for s in sections):
            return ()
        return tuple(number(s[key].split()[0] if s[key] else "", path, key) for s in sections)

    tilts = each("TiltAngle")
    if not tilts:
        raise UserError(f"{path}: has a section without TiltAngle; is it the mdoc file of a tilt series?")
    doses = each("ExposureDose")
    if doses and max(doses) <= 0:  # what SerialEM writes where the dose is not calibrated
        doses = ()
    target = each("TargetDefocus")
    underfocus = tuple(-d for d in target) if target and max(target) < -0.05 else ()
    size = head.get("PixelSpacing") or next((s["PixelSpacing"] for s in sections if "PixelSpacing" in s), None)
    voltage = head.get("Voltage") or sections[0].get("Voltage")
    return TiltSeries(
        name,
        str(path),
        tilts,
        (axis,) * len(tilts) if axis is not None else (),
        _before(tilts, doses, each("PriorRecordDose"), [s.get("DateTime", "") for s in sections]),
        doses,
        underfocus,
        voltage_kV=number(voltage, path, "Voltage") if voltage else None,
        pixel_size_A=number(size, path, "PixelSpacing") if size else None,
        nominal_defocus=bool(underfocus),
    )


def _parts(path: Path, text: str) -> tuple[dict[str, str], float | None, list[dict[str, str]]]:
    """What stands before the sections, the direction of the tilt axis, and the sections of images."""
    head: dict[str, str] = {}
    axis: float | None = None
    sections: list[dict[str, str]] = []
    current: dict[str, str] | None = head
    for line in map(str.strip, text.splitlines()):
        section = _SECTION.match(line)
        if section and section[1] == "T":
            found = _AXIS.search(section[2])
            axis = float(found[1]) if found else axis
        elif section and section[1] == "ZValue":
            current = {"ZValue": section[2]}
            sections.append(current)
        elif section and section[1] in ("FrameSet", "MontSection"):
            raise UserError(
                f"{path}: describes frames or a montage ([{section[1]}]), no tilt series; give the mdoc of one"
            )
        elif current is not None and "=" in line and not section:
            key, _, value = line.partition("=")
            current[key.strip()] = value.strip()
    return head, axis, sections


def _before(
    tilts: tuple[float, ...], doses: tuple[float, ...], prior: tuple[float, ...], dates: list[str]
) -> tuple[float, ...]:
    """Exposure before each image; nothing where it cannot be known."""
    if not doses:
        return ()
    if prior and max(prior) > 0:
        return prior
    taken = [_date(text) for text in dates]
    known = [t for t in taken if t is not None]
    if len(set(known)) == len(tilts):
        order = sorted(range(len(tilts)), key=lambda i: known[i])
    elif list(tilts) not in (sorted(tilts), sorted(tilts, reverse=True)):
        order = list(range(len(tilts)))
    else:
        return ()
    before = np.empty(len(tilts))
    before[order] = np.concatenate([[0.0], np.cumsum(np.array(doses)[order])[:-1]])
    return tuple(before.tolist())


def _date(text: str) -> datetime | None:
    for form in _DATES:
        try:
            return datetime.strptime(" ".join(text.split()), form)
        except ValueError:
            continue
    return None
