"""Picks into a RELION 5 project, so that its jobs take them as they are.

RELION 5 places a particle at rlnCenteredCoordinate (A, from the middle of the tomogram) over the tilt series' pixel size, which
its tomograms.star has as rlnTomoTiltSeriesPixelSize (`ParticleSet::getPosition`); the name must be that of tomograms.star. Its
jobs take an optimisation set, a list of the two files (`OptimisationSet::write`), whose paths count from the project's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tomotwin_core.coordinates import REJECTED, Coordinates
from tomotwin_core.coordinates.starblocks import word
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.project.finding import read_project
from tomotwin_core.project.relion import is_relion_project, project_folder


def in_relion_project(tables: Sequence[Coordinates], project: Path) -> tuple[list[Coordinates], float]:
    """The picks with the names of their tomograms in the project, without those that were rejected by hand, and the tilt series'
    pixel size (A).

    Raises
    ------
    UserError
        Where the project is none of RELION, lacks a tomogram, or its series have several pixel sizes, or none.
    """
    if not is_relion_project(project):
        raise UserError(f"{project}: lists no tilt series; give RELION 5's tomograms.star")
    listed, named, sizes = read_project(project), [], set()
    for table in tables:
        if table.accepted is not None:
            table = table.select(table.accepted != REJECTED)
        name = listed.name_of(table.tomogram, f"{table.tomogram}.mrc")
        named.append(replace(table, tomogram=name))
        sizes.add(listed.readers[name]().pixel_size_A)
    size, *others = sizes or {None}
    if size is None or others:
        said = "several pixel sizes" if others else "no rlnTomoTiltSeriesPixelSize"
        raise UserError(
            f"{project}: has {said} for these tomograms; give --to-voxel-size, or tomograms of one size at a time"
        )
    return named, size


def write_optimisation_set(particles: Path, tomograms: Path) -> Path:
    """Write PARTICLES_optimisation_set.star beside the particles; its path."""
    folder = project_folder(tomograms)

    def from_folder(path: Path) -> str:
        whole = path.resolve()
        return word(str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole))

    path = particles.with_name(f"{particles.stem}_optimisation_set.star")
    lines = [
        "",
        "# version 50001",
        "",
        "data_",
        "",
        f"_rlnTomoParticlesFile   {from_folder(particles)}",
        f"_rlnTomoTomogramsFile   {from_folder(tomograms)}",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path
