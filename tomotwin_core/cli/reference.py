"""Make references: what targets look like to the network.

A SOURCE is
  a density map (.mrc, .map; molecule bright), a structure (.cif, .pdb), library:ID, pdb:ID or emdb:ID,
  a folder of maps and structures,
  a coordinates file with examples (.star, .coords ...; then --embedding names the embedded tomogram they lie in),
  or subtomograms:FILE or subtomograms:FOLDER, boxes with a particle in the middle (then --diameter says how large it is).
All of these mix. NAME=SOURCE gives the target a name, else it is the file's.

Maps and structures are simulated in many orientations as the tomograms were taken (--project, or --tilt-min ...
--defocus). The simulated tomograms also tell how scores of right and wrong peaks are spread, from which the
false-discovery rates of `tomotwin locate` come. For examples, other molecules are simulated to the same end, unless
--no-simulation.

Three and more positions of a target also give a template: copies found in the --embedding tomograms are aligned and averaged, some
rounds over, and where two halves of them agree to 85 A, picks are verified with the average as they are with a structure.
That takes a minute for one target, and five for a dozen; --no-template leaves it at the similarity of embeddings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import (
    add_acquisition,
    add_device,
    add_seed,
    add_voxel_size,
    use_device,
    use_seed,
)
from tomotwin_core.cli.project import acquisition_and_defocus

if TYPE_CHECKING:
    from tomotwin_core.verification.from_examples import Template

HELP = "make references from maps, structures or example positions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="map, structure, library:ID, pdb:ID, emdb:ID, folder, coordinates, or subtomograms:FILE; NAME=SOURCE to name it",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="references file to write (.safetensors)"
    )
    parser.add_argument("--model", default="released", metavar="FILE", help="model file, or released (default)")
    parser.add_argument(
        "--embedding",
        type=Path,
        action="append",
        default=[],
        metavar="ZARR",
        help="embedded tomogram of the example positions; again for more",
    )
    parser.add_argument(
        "--diameter",
        type=float,
        metavar="A",
        help="of the targets, where it is not to be measured (needed for bare positions)",
    )
    add_voxel_size(parser, "maps and subtomograms")
    parser.add_argument(
        "--contrast", choices=("dark", "bright"), default="bright", help="of the molecule in maps (default: bright)"
    )
    parser.add_argument(
        "--subtomogram-contrast",
        choices=("dark", "bright"),
        default="dark",
        help="of protein in subtomograms (default: dark)",
    )
    parser.add_argument(
        "--no-simulation",
        action="store_true",
        help="examples alone: ready in a second, but without expected false-discovery rates",
    )
    parser.add_argument(
        "--no-template",
        action="store_true",
        help="no averages of the examples to verify picks with: positions are found by similarity alone",
    )
    parser.add_argument(
        "--self-teach",
        action="store_true",
        help="look for the targets in the --embedding tomograms and take confident picks in as further examples",
    )
    parser.add_argument(
        "--tomogram-voxel-size",
        type=float,
        default=10.0,
        metavar="A",
        help="of the tomograms to be picked; matters where it is coarser than 10 A (default: 10)",
    )
    add_seed(parser)
    add_acquisition(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.embedding import open_field
    from tomotwin_core.errors import UserError
    from tomotwin_core.picking import ReferenceSettings
    from tomotwin_core.picking.collect import collect_references, examples_placed
    from tomotwin_core.picking.self_teaching import self_taught
    from tomotwin_core.verification.learnt import with_templates

    if options.diameter is not None and not 10 <= options.diameter <= 2000:
        raise UserError(f"--diameter {options.diameter:g}: give it in A, within 10 to 2000")
    if not 1 <= options.tomogram_voxel_size <= 45:
        raise UserError(f"--tomogram-voxel-size {options.tomogram_voxel_size:g}: must lie within 1 to 45 A")
    named, device = _named(options.sources), use_device(options)
    acquisition, defocus_um = acquisition_and_defocus(options, [open_field(p).tomogram for p in options.embedding])
    references = collect_references(
        named,
        options.embedding,
        options.model,
        acquisition,
        ReferenceSettings(defocus_um=defocus_um, voxel_size_A=options.tomogram_voxel_size, seed=use_seed(options)),
        device,
        diameter_A=options.diameter,
        voxel_size_A=options.voxel_size,
        dark_maps=options.contrast == "dark",
        dark_boxes=options.subtomogram_contrast == "dark",
        simulate=not options.no_simulation,
    )
    if options.self_teach:
        if not options.embedding:
            raise UserError("--self-teach needs the embedded tomograms to learn from; give --embedding FILE.zarr")
        references = self_taught(references, [open_field(path) for path in options.embedding])
    templates: dict[str, Template] = {}
    if options.embedding and not options.no_template:
        references, templates = with_templates(references, examples_placed(named, options.embedding), device)
    references.save(options.out)
    for target in references.targets:
        proposed = "scores calibrated" if target.calibration else "threshold from each tomogram's own scores"
        if target.threshold == target.threshold:
            proposed += f", threshold {target.threshold:.3f} in simulated tomograms"
        if target.name in templates:
            proposed += f"; {_told(templates[target.name])}"
        print(f"{target.name}: {len(target.prototypes)} prototypes, {target.diameter_A:.0f} A, {proposed}")
    print(options.out)


def _told(template: Template) -> str:
    halves = (
        f"halves agree to {template.resolution_A:.0f} A" if template.resolution_A < 1e3 else "halves do not agree"
    )
    use = "picks are verified with it" if template.is_good else "not enough to verify picks with"
    return f"a template of {template.copies} copies, {halves}: {use}"


def _named(sources: Sequence[str]) -> list[tuple[str, str]]:
    """(name, source) of every argument; a folder stands for the maps and structures in it.  Positions that are given
    without a name have none here: their labels may name them."""
    from tomotwin_core.errors import UserError
    from tomotwin_core.picking.collect import files_of_folder, is_positions_file, name_of

    named = []
    for source in sources:
        name, equals, rest = source.partition("=")
        if not equals or Path(source).exists():  # a path may hold an equals sign
            name, rest = "", source
        if Path(rest).is_dir():
            if name:
                raise UserError(f"{source}: a folder holds several targets; give it without NAME=")
            named += [(name_of(str(f)), str(f)) for f in files_of_folder(Path(rest))]
        else:
            named.append((name or ("" if is_positions_file(rest) else name_of(rest)), rest))
    return named
