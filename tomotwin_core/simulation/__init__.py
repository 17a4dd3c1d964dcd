"""Simulated tomograms: sample, microscope, tilt series, reconstruction, data sets.

acquisition.py     how a tilt series is taken, every quantity with its unit; random draws of it; per_tilt.py a real series
building.py        a whole sample from its settings; sample.py, ice.py, molecules.py, membranes.py, filaments.py,
                   furniture.py its parts
gridding.py        projection along tilts and back-projection (non-uniform FFT)
optics.py          CTF, radiation damage, loss in the ice
detector.py        MTF, DQE and noise
microscope.py      sample -> tilt series
reconstruction.py  tilt series -> tomogram
delivery.py        what users do to a tomogram before it is picked; randomise.py draws everything at once
experiment.py      one tomogram with its truth
settings.py        an experiment as a TOML file
dataset.py         data sets on disk; series_files.py their tilt series
"""

from tomotwin_core.simulation.acquisition import Acquisition, random_acquisition

__all__ = ["Acquisition", "random_acquisition"]
