"""Simulate crowded tomograms of known molecules, with their truth.

  tomotwin simulate --out DIR                              a first data set
  tomotwin simulate --write-settings my.toml               every quantity there is, explained, to be changed
  tomotwin simulate my.toml --out DIR --tilt-series

Writes for each tomogram NAME.mrc (protein dark, as microscopes give it) and NAME_truth.star (positions, orientations,
masses), on demand its aligned tilt series, labels and a tomogram without noise; simulation.json says what made them and
how crowded they became. Options go before what the file says. The same seed gives the same tomograms; what is already
there is kept, so an interrupted data set goes on. --project takes tilts, exposures, underfocus and microscope from a real
tilt series, tilt by tilt, before what FILE.toml says.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomotwin_core.cli.options import add_acquisition, add_device, add_seed, use_device
from tomotwin_core.cli.project import taken_as_project

if TYPE_CHECKING:
    from tomotwin_core.simulation.settings import Experiment

HELP = "simulate tomograms of known molecules with their truth"
# Options and the settings they stand for; what is not among them is set with --set.
_SETTINGS = {
    "tomograms": "tomograms",
    "first": "first",
    "prefix": "prefix",
    "species": "species",
    "copies": "copies",
    "voxel_size": "voxel_size_A",
    "shape": "shape",
    "thickness": "thickness_A",
    "vesicles": "vesicles",
    "membranes": "membranes",
    "gold": "gold",
    "tilt_series": "tilt_series",
    "labels": "labels",
    "noise_free": "noise_free",
    "references": "references",
    "random": "draw",
    "seed": "seed",
    "tilt_min": "tilt_min_deg",
    "tilt_max": "tilt_max_deg",
    "tilt_step": "tilt_step_deg",
    "dose": "dose_e_per_A2",
    "defocus": "defocus_um",
    "voltage": "voltage_kV",
    "ctf_corrected": "ctf_corrected",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", nargs="?", type=Path, metavar="FILE.toml", help="settings of the experiment")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tomograms")
    parser.add_argument(
        "--write-settings",
        type=Path,
        metavar="FILE.toml",
        help="write all settings, with those of FILE.toml and of the options, as a file that explains them, and end",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.NAME=VALUE",
        help="any setting of the file, for example --set microscope.phase_shift_deg=90; can be given several times",
    )
    group = parser.add_argument_group("sample")
    group.add_argument(
        "--species",
        metavar="A,B=N,...",
        help="ids of the library, pdb:ID, structure files (.cif, .pdb) or maps, comma separated, each with its copies if "
        "wanted; all-heldout takes every molecule that the released model never saw (default: ten of all sizes)",
    )
    group.add_argument("--copies", type=int, metavar="N", help="of each species that are tried (default: 30)")
    group.add_argument("--voxel-size", type=float, metavar="A", help="(default: 8)")
    group.add_argument("--shape", type=int, nargs=3, metavar=("Z", "Y", "X"), help="in voxels (default: 110 220 220)")
    group.add_argument(
        "--thickness", type=float, metavar="A", help="of the ice (default: 0.8 of the tomogram's height)"
    )
    group.add_argument("--vesicles", type=int, metavar="N", help="lipid vesicles in each (default: 0)")
    group.add_argument("--membranes", type=int, metavar="N", help="membranes through each (default: 0)")
    group.add_argument("--gold", type=int, metavar="N", help="gold beads in each (default: 0)")
    group.add_argument(
        "--random", action="store_true", help="draw sample, microscope and delivery of each tomogram as for training"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--tomograms", type=int, metavar="N", help="how many (default: 2)")
    group.add_argument("--first", type=int, metavar="N", help="number of the first one (default: 1)")
    group.add_argument("--prefix", metavar="NAME", help="of their names (default: tomo)")
    group.add_argument(
        "--tilt-series", action="store_true", help="the aligned tilt series too: NAME.st, NAME.rawtlt, NAME.st.mdoc"
    )
    group.add_argument(
        "--labels", action="store_true", help="which species each voxel belongs to: NAME_labels.mrc, labels.csv"
    )
    group.add_argument(
        "--noise-free", action="store_true", help="the tomogram without noise and alignment errors: NAME_noisefree.mrc"
    )
    group.add_argument("--references", action="store_true", help="the molecules' density maps: references/")
    add_seed(parser)
    add_acquisition(parser)
    add_device(parser)
    # None tells that an option was not given: then the file's value counts.
    parser.set_defaults(**dict.fromkeys(_SETTINGS))


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.simulation.dataset import load_molecules, simulate_dataset
    from tomotwin_core.simulation.settings import read_experiment, write_experiment

    given: dict[str, tuple[str, Any]] = {
        name: (f"--{option.replace('_', '-')}", getattr(options, option))
        for option, name in _SETTINGS.items()
        if getattr(options, option) is not None
    }
    if "species" in given:
        given["species"] = "--species", _species(options.species, options.copies)
        given.pop("copies", None)
    experiment = read_experiment(options.settings, given, options.set)
    if options.project is not None:
        experiment = _as_project(experiment, options)
    if options.write_settings:
        write_experiment(options.write_settings, experiment)
        print(options.write_settings)
    elif options.out is None:
        raise UserError("--out: name the folder for the tomograms")
    else:
        densities, experiment = load_molecules(experiment)
        for path in simulate_dataset(options.out, densities, experiment, use_device(options)):
            print(path)


def _as_project(experiment: Experiment, options: argparse.Namespace) -> Experiment:
    """The experiment taken tilt by tilt as the series of --project was; what is said of tilts, dose, underfocus or microscope by
    options goes before it."""
    from dataclasses import replace

    from tomotwin_core.errors import UserError

    if options.write_settings or experiment.dataset.draw:
        raise UserError(
            "--project: its series has no place in a file of settings, nor where all is drawn (--random); leave it out"
        )
    acquisition, defocus_um = taken_as_project(options, experiment.acquisition, experiment.defocus_um)
    return replace(experiment, acquisition=acquisition, defocus_um=defocus_um)


def _species(text: str, copies: int | None) -> dict[str, int]:
    """`A,B=N,...` as copies by molecule; `copies` of those without a number."""
    from tomotwin_core.simulation.settings import DEFAULT_COPIES

    species = {}
    for word in filter(None, map(str.strip, text.split(","))):
        name, _, number = word.rpartition("=")
        own = bool(name) and number.strip().isdecimal()
        species[name.strip() if own else word] = int(number) if own else DEFAULT_COPIES if copies is None else copies
    return species
