"""References, similarity, location, thresholds.

references.py         targets and their prototypes, on disk and in memory; similarity to them
simulated.py          simulated tomograms through the network, what the next three learn from
from_structures.py    targets out of densities, simulated as the tomogram was taken
examples.py           targets out of example embeddings: from_positions.py, from_subtomograms.py
collect.py            targets named in any mixture of ways
similarity.py         similarity layer by layer, from disk or straight from the network; maps.py as MRC
location.py           peaks of the similarity
discovery.py          scores -> expected false-discovery rates and thresholds
thresholds.py         peaks -> picks; overview.py: tables of them
refining.py           references refitted to accepted and rejected picks; self_teaching.py: to confident ones
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
