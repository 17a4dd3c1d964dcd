"""Positions in tomograms: one table, its frames and its file formats.

    table.py    `Coordinates`: positions with labels, scores, diameters and orientations, in the voxels of one tomogram
    frames.py   every conversion of a position: voxel sizes, RELION's frames, tiles and the embedding grid, Euler angles
    files.py    reading and writing, and the registry of formats
    placed.py   reading together with the tomograms that the positions lie in
    plausible.py  what positions and voxel sizes can be: refused or told where they cannot
    star.py     the STAR formats: our own, RELION 4's and RELION 5's (starblocks.py: what STAR files share)
    text.py     ``.coords``: x y z, one position a line
    cbox.py     ``.cbox`` of crYOLO's box manager
    dynamo.py   Dynamo's tables ``.tbl``
    copick.py   copick's picks ``.json``
    imod.py     IMOD's models ``.mod``

Frame of reference: tables hold x, y, z in voxels; a voxel's centre is its integer index, so that the position (x, y, z)
is the array element [z, y, x]. Positions are float64 throughout.
"""

from tomotwin_core.coordinates.files import (
    ENDINGS,
    FORMATS,
    files_in_folder,
    read_all_coordinates,
    read_coordinates,
    write_coordinates,
    write_folder,
)
from tomotwin_core.coordinates.frames import (
    centred_A_from_voxels,
    grid_from_voxels,
    relion_angles_from_rotation,
    rescaled,
    rotation_from_relion_angles,
    voxels_from_centred_A,
    voxels_from_grid,
)
from tomotwin_core.coordinates.placed import placed_coordinates, tables_in
from tomotwin_core.coordinates.table import ACCEPTED, REJECTED, UNDECIDED, Coordinates

__all__ = [
    "ENDINGS",
    "ACCEPTED",
    "FORMATS",
    "REJECTED",
    "UNDECIDED",
    "Coordinates",
    "centred_A_from_voxels",
    "files_in_folder",
    "grid_from_voxels",
    "placed_coordinates",
    "read_all_coordinates",
    "read_coordinates",
    "relion_angles_from_rotation",
    "rescaled",
    "rotation_from_relion_angles",
    "tables_in",
    "voxels_from_centred_A",
    "voxels_from_grid",
    "write_coordinates",
    "write_folder",
]
