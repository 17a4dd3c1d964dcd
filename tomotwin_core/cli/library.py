"""The density library: list what is in it, or build one from a folder of structures and maps.

`build` reads every .cif, .pdb and .mrc (gzipped or not) of a folder and of its sub-folder maps, finds families of
look-alikes by correlation at 20 A, and holds some families out of training. A manifest.csv in the folder (id, name,
mw_kda, source, licence) is taken over. The bilayer about membrane proteins is found from their atoms, and the subunits
of F-actin and microtubules are added where their structures (2zwh_filament13, 1ffx) are there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import add_seed, use_seed

HELP = "list or build the density library"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the molecules")
    listing.add_argument("--library", type=Path, metavar="FILE.npz", help="(default: the released one)")
    build = actions.add_parser("build", help="build a library from a folder")
    build.add_argument("folder", type=Path, metavar="FOLDER")
    build.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    build.add_argument("--voxel-size", type=float, default=5.0, metavar="A", help="of the densities (default: 5)")
    build.add_argument(
        "--held-out", type=int, default=36, metavar="N", help="molecules to hold out of training, about (default: 36)"
    )
    build.add_argument(
        "--together",
        nargs="+",
        default=[],
        metavar="A,B,...",
        help="ids that belong to one family whatever their shape",
    )
    add_seed(build)


def run(options: argparse.Namespace) -> None:
    if options.action == "list":
        from tomotwin_core.structures import load_library

        library = load_library(options.library)
        for e in sorted(library.entries.values(), key=lambda e: -e.mass_kDa):
            print(f"{e.id:18} {e.mass_kDa:8.1f} kDa {e.diameter_A:5.0f} A  {e.split:8} {e.name[:70]}")
        return
    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_at
    from tomotwin_core.structures.build import assign_families, build_library
    from tomotwin_core.structures.subunits import add_subunits

    if not 2 <= options.voxel_size <= 10:
        raise UserError(f"--voxel-size {options.voxel_size:g}: give 2 to 10 A")
    if options.out.suffix != ".npz":
        raise UserError(f"{options.out}: the name of a library ends in .npz")
    seed = use_seed(options)
    with alone_at(options.out):
        library = build_library(options.folder, options.voxel_size)
        assign_families(library, options.held_out, seed, [group.split(",") for group in options.together])
        add_subunits(library, options.folder, options.voxel_size)
        library.save(options.out)
    print(
        f"{options.out}: {len(library.ids('train'))} to train on, {len(library.ids('heldout'))} held out, {len(library.ids('crowder'))} others"
    )
