"""Atomic models and density maps -> density of known mass at a voxel size."""

from tomotwin_core.structures.density import Density, density_from_map, density_from_points
from tomotwin_core.structures.library import DensityLibrary, LibraryEntry, load_library
from tomotwin_core.structures.sources import load_density

__all__ = [
    "Density",
    "DensityLibrary",
    "LibraryEntry",
    "density_from_map",
    "density_from_points",
    "load_density",
    "load_library",
]
