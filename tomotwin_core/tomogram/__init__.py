"""A tomogram: voxels, voxel size and contrast; reading, rescaling, normalising, writing.

    source.py       a tomogram on disk, read lazily, and everything that can be wrong with it; writing MRC
    resampling.py   from one voxel size to another, anti-aliased, whole or in slabs
    padding.py      what of a tomogram is no specimen, and is left out of statistics
    normalising.py  local mean and deviation over the network's window
    contrast.py     whether protein is dark or bright, as far as it shows

`open_tomogram` gives a `TomogramSource` in its own voxels; `ModelTomogram` is the same tomogram as the network wants to
see it (10 A/voxel, locally normalised, protein bright), computed slab by slab. Both have `shape` (z, y, x),
`voxel_size_A` and `slab(z0, z1)`.

    source = open_tomogram("TS_01.mrc")
    seen_by_network = ModelTomogram(source, contrast="dark")
    for z0 in range(0, seen_by_network.shape[0], 64):
        slab = seen_by_network.slab(z0, min(z0 + 64, seen_by_network.shape[0]))

Frame of reference: arrays are [z, y, x], a voxel's centre is its integer index, voxel i lies at i * voxel size (A).
"""

from tomotwin_core.tomogram.normalising import WINDOW, ModelTomogram, local_std_floor, normalise_local
from tomotwin_core.tomogram.padding import Specimen
from tomotwin_core.tomogram.resampling import (
    MODEL_VOXEL_SIZE_A,
    Resampled,
    at_detail,
    resample,
    resampled_shape,
    resampled_slabs,
)
from tomotwin_core.tomogram.source import TomogramSource, Voxels, open_tomogram, tomogram_name, write_mrc

__all__ = [
    "MODEL_VOXEL_SIZE_A",
    "WINDOW",
    "ModelTomogram",
    "Resampled",
    "Specimen",
    "TomogramSource",
    "Voxels",
    "at_detail",
    "local_std_floor",
    "normalise_local",
    "open_tomogram",
    "resample",
    "resampled_shape",
    "resampled_slabs",
    "tomogram_name",
    "write_mrc",
]
