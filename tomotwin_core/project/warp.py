"""Warp's files of a tilt series: NAME.tomostar as it was imported, NAME.xml as it was processed.

.tomostar, a STAR file: wrpMovieName, wrpAngleTilt, wrpAxisAngle (degrees), wrpDose (e/A^2 before the tilt: that of the first
is 0), wrpAxisOffsetX and Y, wrpMaskedFraction. .xml: the attributes AreAnglesInverted and LevelAngleY, a value per line in Angles, Dose, UseTilt and
AxisAngle, Param elements of the CTF (Voltage kV, Cs mm, Amplitude, Defocus um, DefocusDelta um, DefocusAngle degrees,
PhaseShift in units of pi; PixelSize is that of the binned images, and not taken), and GridCTF, GridCTFDefocusDelta, GridCTFDefocusAngle and GridCTFPhase with a node
per tilt (Z) of the same units.

Signs are those of Warp's `TiltSeries.GetPositionInAllTilts`: `Matrix3.Euler(0, angle, -axis)` images (x, z) at
x cos(angle) - z sin(angle), so the angle is minus that of `simulation.gridding`, and what it adds to the underfocus is
x sin(angle), or minus that with AreAnglesInverted: `defocus_hand` -1 and 1. DefocusDelta is the whole difference of both axes, as
its export to RELION has it (U = Defocus + Delta / 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from tomotwin_core.coordinates.starblocks import blocks_of, floats
from tomotwin_core.errors import UserError
from tomotwin_core.project.series import TiltSeries, Values
from tomotwin_core.project.text import number, text_of

_HINT = "give a .tomostar file of Warp"


def read_tomostar(path: Path, name: str) -> TiltSeries:
    """The series of a .tomostar file."""
    rows = next(iter(blocks_of(path, _HINT).values()), None)
    if rows is None or "wrpAngleTilt" not in rows or rows.empty:
        raise UserError(f"{path}: has no wrpAngleTilt; give a .tomostar file of Warp")

    def one(column: str) -> Values:
        return tuple(floats(path, rows, [column])[:, 0].tolist()) if column in rows else ()

    return TiltSeries(name, str(path), tuple(-a for a in one("wrpAngleTilt")), one("wrpAxisAngle"), one("wrpDose"))


def read_warp_xml(path: Path, name: str) -> TiltSeries:
    """The series of an .xml file that Warp has written for a tilt series."""
    root = _root(path)
    angles = _lines(path, root, "Angles")
    if not angles:
        raise UserError(f"{path}: has no Angles; give the .xml file that Warp writes for a tilt series")
    n = len(angles)
    level = number(root.get("LevelAngleY", "0"), path, "LevelAngleY")
    used = [line.lower() == "true" for line in _words(root, "UseTilt")]
    if used and len(used) != n:
        raise UserError(f"{path}: has {n} Angles, but {len(used)} UseTilt; is the file complete?")
    ctf = root.find("CTF")

    def param(key: str) -> float | None:
        found = None if ctf is None else ctf.find(f"Param[@Name='{key}']")
        value = found.get("Value") if found is not None else None
        return None if value is None else number(value, path, key)

    def grid(element: str, key: str, scale: float) -> Values:
        nodes = _nodes(path, root, element, n)
        value = param(key)
        return tuple(scale * v for v in nodes) if nodes else () if value is None else (scale * value,) * n

    defocus = grid("GridCTF", "Defocus", 1.0) if _fitted(root) else ()
    size = grid("GridCTFDefocusDelta", "DefocusDelta", 0.5) if defocus else ()
    turn = grid("GridCTFDefocusAngle", "DefocusAngle", 1.0) if size else ()
    return TiltSeries(
        name,
        str(path),
        tuple(-(a + level) for a in angles),
        _lines(path, root, "AxisAngle"),
        _lines(path, root, "Dose"),
        (),
        defocus,
        tuple(map(abs, size)),
        tuple(a - 90 if s < 0 else a for a, s in zip(turn, size, strict=True)),
        grid("GridCTFPhase", "PhaseShift", 180.0) if defocus else (),
        tuple(not u for u in used),
        1 if root.get("AreAnglesInverted", "False").lower() == "true" else -1,
        param("Voltage"),
        param("Cs"),
        param("Amplitude"),
    )


def _root(path: Path) -> ElementTree.Element:
    text = text_of(path, "an .xml file of Warp")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path}: defines entities of its own, which Warp never does; give another file")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: is no complete XML ({error}); give the .xml file that Warp writes") from None
    if root.tag != "TiltSeries":
        raise UserError(f"{path}: describes a {root.tag[:40]}, not a TiltSeries; give the .xml file of a tilt series")
    return root


def _fitted(root: ElementTree.Element) -> bool:
    """Whether the CTF was fitted: Warp writes a defocus of 1 um for one that was not."""
    grid = root.find("GridCTF")
    values = {node.get("Value") for node in grid.iter("Node")} if grid is not None else set()
    return bool(values - {"0", "1"})


def _words(root: ElementTree.Element, element: str) -> list[str]:
    found = root.find(element)
    return (found.text or "").split() if found is not None else []


def _lines(path: Path, root: ElementTree.Element, element: str) -> Values:
    return tuple(number(word, path, element) for word in _words(root, element))


def _nodes(path: Path, root: ElementTree.Element, element: str, n: int) -> Values:
    """A grid's value at each tilt, the mean over the image; one node along Z is that of all. Nothing where there is no grid."""
    grid = root.find(element)
    if grid is None:
        return ()
    by_tilt: dict[int, list[float]] = {}
    for node in grid.iter("Node"):
        z = int(number(node.get("Z", "0"), path, f"Z in {element}"))
        by_tilt.setdefault(z, []).append(number(node.get("Value", ""), path, element))
    if sorted(by_tilt) not in ([0], list(range(n))):
        if not by_tilt:
            return ()
        raise UserError(
            f"{path}: has {n} Angles, but {element} has nodes of {len(by_tilt)} tilts; is the file complete?"
        )
    mean: Callable[[int], float] = lambda z: math.fsum(by_tilt[z]) / len(by_tilt[z])  # noqa: E731
    return tuple(mean(z) if len(by_tilt) > 1 or n == 1 else mean(0) for z in range(n))
