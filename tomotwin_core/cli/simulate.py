"""Simulate crowded tomograms of known molecules, with their truth.

Writes NAME.mrc (protein dark, as microscopes give it) and NAME_truth.star for each, and references/SPECIES.mrc if
asked. The same seed gives the same tomograms; what is already there is kept, so an interrupted data set goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import acquisition_of, add_acquisition, add_device, add_seed, use_device, use_seed

HELP = "simulate tomograms of known molecules with their truth"
# Held-out and trained molecules of all sizes, told apart at 10 A.
DEFAULT_SPECIES = "4v6x,1dzl,1eab,1qvr,5t4o,1g3i,3uwx,2iy5,1a9x,1n2c"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tomograms")
    parser.add_argument("--tomograms", type=int, default=2, metavar="N", help="how many (default: 2)")
    parser.add_argument(
        "--species",
        default=DEFAULT_SPECIES,
        metavar="A,B,...",
        help="ids of the library, structure files (.cif, .pdb) or maps, comma separated; all-heldout takes every molecule that the released "
        f"model never saw (default: {DEFAULT_SPECIES})",
    )
    parser.add_argument("--voxel-size", type=float, default=8.0, metavar="A", help="(default: 8)")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        default=(110, 220, 220),
        metavar=("Z", "Y", "X"),
        help="in voxels (default: 110 220 220)",
    )
    parser.add_argument(
        "--thickness", type=float, metavar="A", help="of the ice (default: 0.8 of the tomogram's height)"
    )
    parser.add_argument(
        "--copies", type=int, default=30, metavar="N", help="of each species that are tried (default: 30)"
    )
    parser.add_argument("--vesicles", type=int, default=0, metavar="N", help="lipid vesicles in each (default: 0)")
    parser.add_argument("--gold", type=int, default=0, metavar="N", help="gold beads in each (default: 0)")
    parser.add_argument("--references", action="store_true", help="write the molecules' density maps too")
    add_seed(parser)
    add_acquisition(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.simulation.experiment import SampleSettings, simulate_dataset
    from tomotwin_core.structures import load_density, load_library

    library = load_library()
    names = (
        library.ids("heldout")
        if options.species == "all-heldout"
        else [s.strip() for s in options.species.split(",") if s.strip()]
    )
    if not names or options.tomograms < 1 or options.copies < 1:
        raise UserError("--species, --tomograms and --copies: give at least one of each")
    sources = [f"library:{n}" if n in library.entries else n for n in names]
    densities = {
        Path(s.removeprefix("library:").removeprefix("pdb:")).name.split(".")[0]: load_density(s) for s in sources
    }
    shape = (options.shape[0], options.shape[1], options.shape[2])
    thickness = 0.8 * shape[0] * options.voxel_size if options.thickness is None else options.thickness
    settings = SampleSettings(
        shape, options.voxel_size, thickness, options.copies, vesicles=options.vesicles, gold=options.gold
    )
    written = simulate_dataset(
        options.out,
        densities,
        settings,
        acquisition_of(options),
        options.tomograms,
        use_seed(options),
        tuple(options.defocus),
        references=options.references,
        device=use_device(options),
    )
    for path in written:
        print(path)
