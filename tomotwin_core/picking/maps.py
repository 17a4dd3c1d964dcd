"""Similarity maps as MRC, one per target, on the embedding grid (20 A per voxel; voxel i lies at i * 20 A from the
tomogram's first voxel)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import mrcfile

from tomotwin_core import __version__
from tomotwin_core.files import atomic_path
from tomotwin_core.locks import alone_at_all
from tomotwin_core.picking.references import ReferenceSet, require_same_model
from tomotwin_core.picking.similarity import Field, layers_to_compare, strips


def write_similarity_maps(field: Field, references: ReferenceSet, out: Path) -> list[Path]:
    """Write OUT/TOMOGRAM_TARGET.mrc for every target; values are cosines, -1 to 1. All of them are written side by
    side, layer by layer, so that none is ever in memory as a whole."""
    require_same_model(references, field.model_hash, field.tomogram)
    paths = [out / f"{field.tomogram}_{target.name}.mrc" for target in references.targets]
    with ExitStack() as stack:
        stack.enter_context(alone_at_all(paths))
        # Left in the reverse order: a map is closed before it takes its name.
        temporary = [stack.enter_context(atomic_path(path)) for path in paths]
        maps = [stack.enter_context(mrcfile.new_mmap(str(t), field.shape, mrc_mode=2)) for t in temporary]
        layers, compare = layers_to_compare(field, references)
        for z0, layer in layers:
            for y0, y1, _, similarity in strips(layer, compare, len(maps)):
                for written, values in zip(maps, similarity, strict=True):
                    written.data[z0 : z0 + len(values), y0:y1] = values
        for written in maps:
            written.voxel_size = field.spacing_A
            written.set_volume()
            written.update_header_stats()
            written.header.label[0] = f"tomotwin {__version__} similarity".encode()
            written.header.nlabl = 1
    return paths
