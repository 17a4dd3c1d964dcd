"""Similarity maps as MRC, one per target, on the embedding grid (20 A per voxel; voxel i lies at i * 20 A from the
tomogram's first voxel)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.picking.references import ReferenceSet, require_same_model
from tomotwin_core.progress import progress
from tomotwin_core.tomogram import write_mrc


def write_similarity_maps(field: EmbeddingField, references: ReferenceSet, out: Path) -> list[Path]:
    """Write OUT/TOMOGRAM_TARGET.mrc for every target; values are cosines, -1 to 1."""
    require_same_model(references, field.model_hash, str(field.path))
    volumes = np.empty((len(references.targets), *field.shape), np.float32)
    for z0, z1, _, _ in progress(list(field.slabs()), desc=f"mapping {field.tomogram}", unit="slabs"):
        volumes[:, z0:z1] = np.moveaxis(references.similarity(field.embeddings(z0, z1)), -1, 0)
    paths = []
    for target, volume in zip(references.targets, volumes, strict=True):
        path = out / f"{field.tomogram}_{target.name}.mrc"
        write_mrc(path, volume, field.spacing_A)
        paths.append(path)
    return paths
