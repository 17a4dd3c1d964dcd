"""References, similarity, location, thresholds.

references.py        targets and their prototypes, on disk and in memory; similarity to them
from_structures.py   targets out of densities, simulated as the tomogram was taken; proposed thresholds
from_positions.py    targets out of example positions
location.py          peaks of the similarity
thresholds.py        peaks -> picks
maps.py              similarity maps as MRC
"""

from tomotwin_core.picking.from_positions import references_from_positions
from tomotwin_core.picking.from_structures import references_from_densities
from tomotwin_core.picking.location import LocationSettings, locate
from tomotwin_core.picking.references import ReferenceSet, Target, load_references
from tomotwin_core.picking.simulated import ReferenceSettings
from tomotwin_core.picking.thresholds import pick

__all__ = [
    "LocationSettings",
    "ReferenceSet",
    "ReferenceSettings",
    "Target",
    "load_references",
    "locate",
    "pick",
    "references_from_densities",
    "references_from_positions",
]
