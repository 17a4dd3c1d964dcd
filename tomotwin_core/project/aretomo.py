"""AreTomo's alignment file (.aln), of versions 1 to 3.

    # AreTomo Alignment / Priims bprmMn
    # RawSize = 4096 4096 61                 of the stack before dark images were taken out
    # DarkFrame =     0    1   -60.00        number among the tilts sorted by angle, section, angle as recorded
    # AlphaOffset =    -7.00
    # SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
        1   -95.4040    1.00000      9.220    103.933     1.00     1.00     1.00     0.00    -63.20
    # Local Alignment                        (a table of patches follows, which is not needed here)

(`CSaveAlignFile` of AreTomo3.) ROT is the direction of the tilt axis from y, counter-clockwise; TILT is the angle that the
tomogram was reconstructed with, offset and all, with the sense that `simulation.gridding` has: pytom-match-pick compared its
missing wedge with AreTomo's reconstructions (its `_create_binary_wedge`), and it is this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tomotwin_core.errors import UserError
from tomotwin_core.project.text import column, number, text_of

_COLUMNS = 10


@dataclass(frozen=True)
class Alignment:
    """tilt_deg, tilt_axis_deg : of each aligned image, in the order of the file.  dark_deg : recorded angles of the images
    that were left out."""

    tilt_deg: tuple[float, ...]
    tilt_axis_deg: tuple[float, ...]
    dark_deg: tuple[float, ...]


def read_aln(path: Path) -> Alignment:
    """The global alignment; a `UserError` where images are missing in it."""
    rows: list[list[str]] = []
    dark: list[float] = []
    raw: int | None = None
    in_table = False
    for line in text_of(path, "an .aln file").splitlines():
        words = line.replace("=", " = ").split()
        if not words:
            continue
        if words[0] != "#":
            if in_table:
                rows.append(words)
            continue
        key = words[1] if len(words) > 1 else ""
        if key == "SEC":
            in_table = True
        elif key == "Local":
            break
        elif key == "DarkFrame":
            dark.append(number(words[-1], path, "the angle of a dark frame"))
        elif key == "RawSize":
            raw = int(number(words[-1], path, "the number of images in RawSize"))
    if not rows:
        raise UserError(f"{path}: has no table of alignments (# SEC ROT ...); give an .aln file of AreTomo")
    if raw is not None and len(rows) + len(dark) != raw:
        raise UserError(
            f"{path}: has {len(rows)} images and {len(dark)} dark ones, but RawSize says {raw}; is the file complete?"
        )
    if any(len(row) != _COLUMNS for row in rows):
        raise UserError(f"{path}: a line of its table has not {_COLUMNS} values; is the file complete?")
    return Alignment(column(path, rows, 9, "TILT"), column(path, rows, 1, "ROT"), tuple(dark))
