"""Example embeddings of cut-out subtomograms: boxes with one particle in the middle, of any voxel size.

A box is brought to the model's voxel size and normalised as a tomogram is. The network looks at 37 voxels of 10 A; a box
that is smaller is filled up with zeros, its mean, on all sides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tomotwin_core.errors import UserError
from tomotwin_core.model import HALF_WINDOW, WINDOW, Model
from tomotwin_core.model.statistics import suited, with_share
from tomotwin_core.picking.examples import Examples
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, normalise_local, open_tomogram, resample

# Smaller boxes show less than the particle's surroundings, by which it is told from others.
_LEAST_BOX_A = 160.0
_FEWEST_FOR_STATISTICS = 5
# Boxes that all have a particle in the middle lie farther from what is kept than the tomogram that they are of (0.04 to 0.07 with the
# released model for ten species of one at 0.014): they are unusual from so many times the distance on.
_CENTRED = 3.0
_ENDINGS = (".mrc", ".mrc.gz", ".map", ".rec")


def examples_of_subtomograms(
    name: str,
    source: Path,
    model: Model,
    diameter_A: float | None,
    voxel_size_A: float | None = None,
    contrast: Literal["dark", "bright"] = "dark",
    device: str = "cpu",
) -> Examples:
    """Embed a subtomogram, or all in a folder.

    diameter_A : of the particle.  contrast : of protein in the boxes.
    """
    if diameter_A is None:
        raise UserError(f"{source}: subtomograms do not say how large the particle is; give it with --diameter")
    files = sorted(p for p in source.iterdir() if p.name.lower().endswith(_ENDINGS)) if source.is_dir() else [source]
    if not files:
        raise UserError(f"{source}: holds no subtomogram (.mrc); give a folder with subtomograms, or one of them")
    windows = np.stack([_window(file, voxel_size_A, contrast) for file in files])
    with torch.inference_mode():
        # Of few boxes the statistics would be those of what is in them.
        wary = with_share(model.network, None, _CENTRED * model.network.settings.usual_within)
        network = suited(wary, [windows] if len(windows) >= _FEWEST_FOR_STATISTICS else [], device).network
        parts = [network(part.to(device))[0].cpu().numpy() for part in torch.from_numpy(windows)[:, None].split(64)]
    return Examples(name, np.concatenate(parts), diameter_A, f"{len(files)} subtomograms")


def _window(file: Path, voxel_size_A: float | None, contrast: str) -> np.ndarray:
    """The 37 model voxels about the middle of a box, protein bright, float32 [z, y, x]."""
    box = open_tomogram(file, voxel_size_A)
    if min(box.shape) * box.voxel_size_A < _LEAST_BOX_A:
        raise UserError(
            f"{file}: a box of {min(box.shape) * box.voxel_size_A:.0f} A is too small for the network to look at; cut out "
            f"boxes of {WINDOW * MODEL_VOXEL_SIZE_A:.0f} A or more"
        )
    volume = box.slab(0, box.shape[0])
    if float(np.ptp(volume)) == 0.0:
        raise UserError(f"{file}: the subtomogram is constant; give one with a particle in it")
    normalised = normalise_local(
        resample(-volume if contrast == "dark" else volume, box.voxel_size_A, MODEL_VOXEL_SIZE_A)
    )
    # Software that cuts boxes puts the particle on voxel n // 2.
    middle = [round(n // 2 * box.voxel_size_A / MODEL_VOXEL_SIZE_A) for n in box.shape]
    padded = np.pad(normalised, HALF_WINDOW)
    return np.ascontiguousarray(padded[tuple(slice(m, m + WINDOW) for m in middle)])
