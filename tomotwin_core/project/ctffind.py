"""CTF of each image as CTFFIND 4 and 5 write it, and AreTomo 2 and 3 after them.

    # Pixel size: 1.350 Angstroms ; acceleration voltage: 300.0 keV ; spherical aberration: 2.70 mm ; amplitude contrast: 0.07
    # Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism;
    #          #5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) of the last fitted ring

Underfocus in A, positive; the azimuth is that of defocus 1 from x towards y, in degrees. CTFFIND 5 adds columns (tilt axis,
tilt angle, sample thickness), AreTomo 3 (its `CSaveCtfResults`) leaves out the line of the microscope. Rows are the images
of the stack in its order.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.project.imod import Ctf
from tomotwin_core.project.text import column, rows_of, text_of

_COLUMNS = re.compile(r"^#\s*Columns:.*defocus 1", re.MULTILINE | re.IGNORECASE)
_MICROSCOPE = {
    "pixel_size_A": re.compile(r"Pixel size:\s*(\d+(?:\.\d+)?)"),
    "voltage_kV": re.compile(r"acceleration voltage:\s*(\d+(?:\.\d+)?)"),
    "cs_mm": re.compile(r"spherical aberration:\s*(\d+(?:\.\d+)?)"),
    "amplitude_contrast": re.compile(r"amplitude contrast:\s*(\d+(?:\.\d+)?)"),
}
# Fitted underfocus is never less; what is in um or nm would be.
_LEAST_A = 500.0


def is_ctf_text(path: Path) -> bool:
    """Whether a text file is one of these."""
    return path.suffix == ".txt" and path.is_file() and bool(_COLUMNS.search(text_of(path, "a CTF table")[:5000]))


def read_ctf_text(path: Path) -> tuple[Ctf, dict[str, float]]:
    """CTF of each image, and voltage_kV, cs_mm, amplitude_contrast and pixel_size_A as far as they are there."""
    text = text_of(path, "a CTF table")
    if not _COLUMNS.search(text):
        raise UserError(f"{path}: has no line that names its columns; give a CTF table as CTFFIND writes it")
    rows = rows_of(path, text)
    first, second, angle, phase = (
        np.array(column(path, rows, i, name))
        for i, name in ((1, "defocus 1"), (2, "defocus 2"), (3, "an azimuth"), (4, "a phase shift"))
    )
    numbers = column(path, rows, 0, "a number")
    if list(numbers) != sorted(numbers):
        raise UserError(f"{path}: its rows are not in the order of the images; sort them by their first column")
    if min(first.min(), second.min()) < _LEAST_A:
        raise UserError(
            f"{path}: has an underfocus of {min(first.min(), second.min()):g}, but these are in A; correct the file"
        )
    ctf = Ctf(
        tuple(((first + second) / 2e4).tolist()),
        tuple((np.abs(first - second) / 2e4).tolist()),
        tuple(np.where(second > first, angle - 90, angle).tolist()),
        tuple(np.degrees(np.abs(phase)).tolist()),
    )
    found = {name: pattern.search(text) for name, pattern in _MICROSCOPE.items()}
    return ctf, {name: float(match[1]) for name, match in found.items() if match}
