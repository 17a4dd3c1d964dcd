"""Write similarity maps: for every target an MRC volume of cosines, on the embedding grid (20 A per voxel)."""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import require_distinct

HELP = "write similarity maps as MRC"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("embeddings", nargs="+", type=Path, metavar="ZARR", help="embedded tomograms")
    parser.add_argument("--references", type=Path, required=True, metavar="FILE", help="from `tomotwin reference`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_TARGET.mrc")


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.embedding import open_field
    from tomotwin_core.picking import load_references
    from tomotwin_core.picking.maps import write_similarity_maps

    references = load_references(options.references)
    fields = [open_field(p) for p in options.embeddings]
    require_distinct([f.tomogram for f in fields], "embeddings")
    for field in fields:
        for path in write_similarity_maps(field, references, options.out):
            print(path)
