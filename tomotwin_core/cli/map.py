"""Write similarity maps: for every target an MRC volume of cosines, on the embedding grid (20 A per voxel).

INPUT is an embedded tomogram (.zarr), or a tomogram, which is then embedded while it is mapped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.inputs import add_inputs, opened_inputs

HELP = "write similarity maps as MRC"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_inputs(parser)
    parser.add_argument("--references", type=Path, required=True, metavar="FILE", help="from `tomotwin reference`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_TARGET.mrc")


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.picking import load_references
    from tomotwin_core.picking.maps import write_similarity_maps

    references = load_references(options.references)
    for field in opened_inputs(options):
        for path in write_similarity_maps(field, references, options.out):
            print(path)
