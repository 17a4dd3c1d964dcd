"""Where to look: masks, ranges of z, the specimen between empty spaces, and what is no specimen (gold, carbon).

region.py      `Region`: all of it together; which positions lie inside, and the same as a mask volume
masks.py       what of a mask volume counts as inside
slab.py        the specimen's lower and upper surface, from texture
exclusion.py   gold beads, other very dark blobs, and carbon film

region = find_region(open_tomogram("TS_01.mrc"), RegionSettings(auto_slab=True, exclude_gold=True))
inside = region.contains(picks.xyz)
"""

from tomotwin_core.regions.region import Region, RegionSettings, find_region, named_region
from tomotwin_core.regions.slab import Slab, find_slab

__all__ = ["Region", "RegionSettings", "Slab", "find_region", "find_slab", "named_region"]
