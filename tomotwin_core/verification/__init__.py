"""Verified picks: the embedding and coarse matching propose places, matching at these decides.

locating.py            an embedded tomogram -> peaks of all targets, verified where they have a density
verifying.py           places of one tomogram -> verified picks of all targets
places.py              where a molecule may lie, by coarse matching
matcher.py             a molecule compared with the tomogram at places, in all orientations
decoys.py              molecules that are not in the sample, for what wrong matches come to
competition.py         scores; which target explains a place best
rates.py               how probable a match is, beside those of decoys
template_matching.py   matching everywhere
averages.py            copies of known orientation -> a density of the molecule
from_examples.py       example positions -> copies -> a template, where its halves bear it out
learnt.py              references of positions, with their templates
"""

from tomotwin_core.verification.locating import locate_verified
from tomotwin_core.verification.verifying import VerificationSettings, verify

__all__ = ["VerificationSettings", "locate_verified", "verify"]
