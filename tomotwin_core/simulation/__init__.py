"""Simulated tomograms: sample, microscope, tilt series, reconstruction, data sets.

acquisition.py   how a tilt series is taken, every quantity with its unit; random draws of it
sample.py        molecules, vesicles and gold in a slab of ice
gridding.py      projection along tilts and back-projection (non-uniform FFT)
microscope.py    sample -> tilt series -> tomogram
experiment.py    one tomogram with its truth; data sets on disk
"""

from tomotwin_core.simulation.acquisition import Acquisition, random_acquisition

__all__ = ["Acquisition", "random_acquisition"]
