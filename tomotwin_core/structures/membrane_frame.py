"""Where the bilayer lies about a membrane protein, found from its atoms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MembraneFrame:
    """The seat of a protein in a bilayer.

    normal : unit vector x, y, z in the frame of the density, towards the side with more of the protein's mass.
    centre_A : a point of the bilayer's middle plane in A from the middle of the density's box, x, y, z.
    """

    normal: tuple[float, float, float]
    centre_A: tuple[float, float, float]
