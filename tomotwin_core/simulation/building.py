"""A whole sample from its settings: ice, carbon, membranes with their proteins, filaments, gold, molecules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.simulation.filaments import add_actin, add_microtubule
from tomotwin_core.simulation.furniture import add_carbon_edge, add_gold
from tomotwin_core.simulation.ice import Ice
from tomotwin_core.simulation.membranes import Membrane, add_sheet, add_vesicle, seat
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample, fill


@dataclass(frozen=True)
class SampleSettings:
    """What is in the sample.

    shape : of the tomogram in voxels, z y x.  voxel_size_A : of the tomogram.  thickness_A : of the slab of ice in its
    middle, along the slab's normal.  copies : of each species that are tried, one number or a number by name.
    occupied : no more molecules once that share of the ice lies in their bodies (a body is about twice a molecule's dry
    volume); placement at random ends between 0.3 and 0.5.
    vesicles : closed lipid vesicles, how many are tried.  vesicle_radius_A : each is drawn between these two, and squashed
    where the ice is thinner.  membranes : flat and curved membranes through the field, how many are tried.
    membrane_proteins : where molecules whose bilayer is known go: auto, into the membranes if the sample has any and free
    in the ice like detergent-solubilised ones if not; seated, only into membranes; free, only into the ice.
    membrane_protein_side : where the larger part of a seated protein lies, outside, inside or random.
    actin, microtubules : filaments, how many are tried.  gold : beads, how many are tried.  gold_diameter_A : each is
    drawn between these two.
    carbon_A : thickness of a holey carbon film whose edge reaches into the field, usually 120 to 200; 0 for none.
    slab_tilt_deg : of the ice against the tomogram's plane, right-handed about x and about y.
    ice_unevenness_A : standard deviation of each of the ice's two surfaces about its plane.
    """

    shape: tuple[int, int, int]
    voxel_size_A: float
    thickness_A: float
    copies: int | Mapping[str, int] = 40
    occupied: float = 0.35
    vesicles: int = 0
    gold: int = 0
    vesicle_radius_A: tuple[float, float] = (200.0, 700.0)
    membranes: int = 0
    membrane_proteins: Literal["auto", "seated", "free"] = "auto"
    membrane_protein_side: Literal["outside", "inside", "random"] = "outside"
    actin: int = 0
    microtubules: int = 0
    gold_diameter_A: tuple[float, float] = (50.0, 100.0)
    carbon_A: float = 0.0
    slab_tilt_deg: tuple[float, float] = (0.0, 0.0)
    ice_unevenness_A: float = 0.0

    def __post_init__(self) -> None:
        if min(self.shape) < 16 or max(self.shape) > 4096:
            raise UserError(f"shape {' '.join(map(str, self.shape))}: each side must lie within 16 to 4096 voxels")
        if not 1.0 <= self.voxel_size_A <= 45.0:
            raise UserError(f"voxel size {self.voxel_size_A} A: must lie within 1 to 45 A")
        if not self.thickness_A > 0:
            raise UserError(f"thickness {self.thickness_A:g} A: the ice must be thicker than nothing")
        for name in ("vesicles", "gold", "membranes", "actin", "microtubules"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} {getattr(self, name)}: give 0 or a positive number")
        if not 0 < self.occupied <= 1:
            raise UserError(f"occupied {self.occupied:g}: give a share above 0, at most 1")
        for name, low, high in (("vesicle_radius_A", 100, 5000), ("gold_diameter_A", 10, 500)):
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise UserError(f"{name} {first:g} {last:g}: give the lower value first, both within {low} to {high} A")
        for name, known in (
            ("membrane_proteins", ("auto", "seated", "free")),
            ("membrane_protein_side", ("outside", "inside", "random")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name} {getattr(self, name)!r}: give one of {', '.join(known)}")
        if self.carbon_A != 0 and not 20 <= self.carbon_A <= 1000:
            raise UserError(f"carbon_A {self.carbon_A:g}: give 0 for no carbon, or a thickness of 20 to 1000 A")
        if max(map(abs, self.slab_tilt_deg)) > 45:
            raise UserError(f"slab_tilt_deg {self.slab_tilt_deg}: each must lie within -45 to 45 degrees")
        if not 0 <= self.ice_unevenness_A <= self.thickness_A:
            raise UserError(
                f"ice_unevenness_A {self.ice_unevenness_A:g}: must lie within 0 and the ice's thickness of {self.thickness_A:g} A"
            )


def build_sample(
    settings: SampleSettings, molecules: Molecules, rng: np.random.Generator, margin_vox: int = 0
) -> Sample:
    """Build what the settings ask for, in the order of size: what is in the way of larger things is placed later.

    molecules : at `settings.voxel_size_A`.  margin_vox : the sample is wider than the tomogram by so many voxels at
    either side along x, as a tilted beam brings in what lies there.

    Counts are tries: what finds no room is left out.  The same generator gives the same sample.
    """
    copies = _copies(settings, molecules)
    shape = (settings.shape[0], settings.shape[1], settings.shape[2] + 2 * margin_vox)
    voxel_A = settings.voxel_size_A
    ice = Ice.flat(
        shape, settings.thickness_A / voxel_A, settings.slab_tilt_deg, settings.ice_unevenness_A / voxel_A, rng
    )
    sample = Sample.empty(shape, voxel_A, ice)
    if settings.carbon_A:
        add_carbon_edge(sample, rng, settings.carbon_A)
    drawn = [add_sheet(sample, rng) for _ in range(settings.membranes)]
    drawn += [add_vesicle(sample, rng, rng.uniform(*settings.vesicle_radius_A)) for _ in range(settings.vesicles)]
    membranes = [m for m in drawn if m is not None and len(m.middle)]
    in_membrane = _seated_names(settings, molecules, membranes)
    _seat_all(sample, membranes, molecules, {n: copies.pop(n) for n in in_membrane if n in copies}, settings, rng)
    for _ in range(settings.microtubules):
        add_microtubule(sample, rng)
    for _ in range(settings.actin):
        add_actin(sample, rng)
    for _ in range(settings.gold):
        add_gold(sample, rng, rng.uniform(*settings.gold_diameter_A) / 2)
    fill(sample, molecules, copies, rng, settings.occupied, dense=True)
    return sample


def _copies(settings: SampleSettings, molecules: Molecules) -> dict[str, int]:
    if not isinstance(settings.copies, Mapping):
        return dict.fromkeys(molecules.densities, settings.copies)
    for name, count in settings.copies.items():
        if name not in molecules.densities:
            raise UserError(
                f"copies of {name}: no such molecule in the mixture; name one of {', '.join(molecules.densities)}"
            )
        if count < 0:
            raise UserError(f"copies {count} of {name}: give 0 or a positive number")
    return dict(settings.copies)


def _seated_names(settings: SampleSettings, molecules: Molecules, membranes: list[Membrane]) -> list[str]:
    known = [n for n, d in molecules.densities.items() if d.membrane is not None]
    if settings.membrane_proteins == "free" or (settings.membrane_proteins == "auto" and not membranes):
        return []
    if settings.membrane_proteins == "seated" and known and not (settings.membranes or settings.vesicles):
        raise UserError(
            f"membrane_proteins seated: the sample has no membrane for {known[0]}; ask for vesicles or membranes, or set it to auto"
        )
    return known


def _seat_all(
    sample: Sample,
    membranes: list[Membrane],
    molecules: Molecules,
    copies: Mapping[str, int],
    settings: SampleSettings,
    rng: np.random.Generator,
) -> None:
    """Seat all copies, large proteins first, each in a membrane drawn by its area."""
    if not membranes:
        return
    area = np.array([len(m.middle) for m in membranes], float)
    for name in sorted(copies, key=lambda name: -molecules.densities[name].mass_kDa):
        for _ in range(copies[name]):
            membrane = membranes[rng.choice(len(membranes), p=area / area.sum())]
            seat(sample, membrane, molecules, name, rng, settings.membrane_protein_side)
