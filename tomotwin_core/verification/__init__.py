"""Verified picks: the embedding and coarse matching propose places, matching at these decides.

verify.py              places of one tomogram -> verified picks of all targets
places.py              where a molecule may lie, by coarse matching
matcher.py             a molecule compared with the tomogram at places, in all orientations
decoys.py              molecules that are not in the sample, for what wrong matches come to
competition.py         scores; which target explains a place best
rates.py               how probable a match is, beside those of decoys
template_matching.py   matching everywhere
"""

from tomotwin_core.verification.verify import VerificationSettings, verify

__all__ = ["VerificationSettings", "verify"]
