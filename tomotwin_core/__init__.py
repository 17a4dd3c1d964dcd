"""The TomoTwin engine: a generalist particle picker for cryo-electron tomograms. It never imports Scipion."""

__version__ = "1.0.0"
