"""Write the region that would be searched as a mask: an MRC volume of the tomogram's own shape, 1 where it is searched.

Without options that choose, it is the specimen between the empty spaces above and below it, less gold beads, other very
dark blobs and carbon film. `tomotwin locate --mask` takes the volume, as it is or edited, and so does any other software.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tomotwin_core.cli.options import add_contrast, add_region, add_voxel_size, region_of

HELP = "find the specimen in a tomogram and write it as a mask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tomogram", type=Path, metavar="TOMOGRAM", help=".mrc, .rec, .map, .mrc.gz or .tif")
    parser.add_argument("--out", type=Path, required=True, metavar="MASK.mrc", help="mask to write")
    add_region(parser)
    add_voxel_size(parser, "the tomogram")
    add_contrast(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.regions import find_region
    from tomotwin_core.tomogram import open_tomogram

    source = open_tomogram(options.tomogram, options.voxel_size)
    settings = region_of(options)
    if settings.is_everything:
        settings = replace(settings, auto_slab=True, exclude_gold=True, exclude_carbon=True)
    region = find_region(source, settings, options.contrast)
    region.write_mask(options.out)
    print(f"{options.out}: {region.described()}; {region.share():.0%} of {source.name} is searched")
