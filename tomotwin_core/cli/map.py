"""Write maps as MRC on the embedding grid (20 A per voxel): for every target a volume of cosines, the similarity; or with
--pca the embeddings themselves as colours.

INPUT is an embedded tomogram (.zarr), or a tomogram, which is then embedded while it is mapped. With --pca it is an
embedded one, and three volumes are written for each, red, green and blue from 0 to 1: the first principal components, in
which places that look alike to the network are alike. Colours compare where they are fitted to the same tomograms: those
of --fit, else all inputs of the call.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.inputs import add_inputs, opened_inputs

HELP = "write similarity maps, or embeddings as colours, as MRC"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_inputs(parser)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--references", type=Path, metavar="FILE", help="from `tomotwin reference`: similarity")
    wanted.add_argument("--pca", action="store_true", help="principal components of the embeddings")
    parser.add_argument(
        "--fit", nargs="+", type=Path, default=[], metavar="EMBEDDING", help="embeddings that --pca is fitted to"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for TOMOGRAM_TARGET.mrc, or TOMOGRAM_pca1.mrc ...",
    )


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError

    if options.fit and not options.pca:
        raise UserError("--fit says what --pca is fitted to: give it together with that")
    fields = opened_inputs(options)
    if options.pca:
        from tomotwin_core.embedding import EmbeddingField, open_field
        from tomotwin_core.embedding.colours import fit_colours, write_colours

        stored = [field for field in fields if isinstance(field, EmbeddingField)]
        if len(stored) < len(fields):
            raise UserError("--pca colours embedded tomograms: run `tomotwin embed` first and give the .zarr folders")
        axes = fit_colours([open_field(path) for path in options.fit] or stored)
        for one in stored:
            for path in write_colours(one, axes, options.out):
                print(path)
        return
    from tomotwin_core.picking import load_references
    from tomotwin_core.picking.maps import write_similarity_maps

    references = load_references(options.references)
    for field in fields:
        for path in write_similarity_maps(field, references, options.out):
            print(path)
