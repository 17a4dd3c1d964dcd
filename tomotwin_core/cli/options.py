"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tomotwin_core.regions import RegionSettings
    from tomotwin_core.simulation.acquisition import Acquisition


_MOST_THREADS = 1024


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device and --threads."""
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1 ... (default: auto)"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0 takes all (default: 0)")


def use_device(options: argparse.Namespace) -> str:
    """Set the threads and return the device's name."""
    import torch

    from tomotwin_core.embedding import pick_device
    from tomotwin_core.errors import UserError

    if not 0 <= options.threads <= _MOST_THREADS:
        raise UserError(f"--threads {options.threads}: give 0 for all, or a number of threads up to {_MOST_THREADS}")
    if options.threads:
        torch.set_num_threads(options.threads)
    return str(pick_device(options.device))


POSITION_FORMATS = ("star", "relion4", "relion5", "coords", "cbox", "dynamo", "copick", "imod")


def add_format(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """--format of positions to write."""
    parser.add_argument(
        "--format",
        choices=POSITION_FORMATS,
        required=required,
        default=None if required else "star",
        help="of the positions written" + ("" if required else " (default: star, which RELION 4 reads too)"),
    )


def add_seed(parser: argparse.ArgumentParser, default: int = 1) -> None:
    """--seed."""
    parser.add_argument("--seed", type=int, default=default, help=f"of all random numbers (default: {default})")


def use_seed(options: argparse.Namespace) -> int:
    """The seed; UserError where it is one that generators do not take."""
    from tomotwin_core.errors import UserError

    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed}: give 0 or a positive number below 2^32")
    return int(options.seed)


class Noted(argparse.Action):
    """Keeps a value as usual, and notes in `given` that the user has given it: what is given goes before a project."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, True if self.nargs == 0 else values)
        namespace.given = getattr(namespace, "given", frozenset()) | {self.dest}


def add_project(parser: Any) -> None:
    """--project: where the acquisition of tomograms is described."""
    from pathlib import Path

    parser.add_argument(
        "--project",
        type=Path,
        metavar="PATH",
        help="take the acquisition from here, tilt by tilt: tomograms.star of RELION 5, .tomostar or .xml of Warp, .tlt, "
        ".rawtlt, .defocus, .mdoc, .aln, a CTF table of CTFFIND or AreTomo, or a folder of them; options that are given "
        "go before it",
    )


def add_acquisition(parser: argparse.ArgumentParser) -> None:
    """How the tilt series is taken."""
    group = parser.add_argument_group("acquisition (of the tomograms)")
    add_project(group)
    add_tilt_range(group)
    group.add_argument(
        "--tilt-step", type=float, default=2.0, metavar="DEG", help="degrees between tilts (default: 2)", action=Noted
    )
    group.add_argument(
        "--dose",
        type=float,
        default=120.0,
        metavar="E/A2",
        help="electrons per A^2 of the whole series (default: 120)",
        action=Noted,
    )
    group.add_argument(
        "--defocus",
        type=float,
        nargs=2,
        default=(2.5, 5.0),
        metavar=("LOW", "HIGH"),
        help="underfocus range in um (default: 2.5 5)",
        action=Noted,
    )
    add_voltage(group)
    group.add_argument("--ctf-corrected", action="store_true", help="phases were flipped before reconstruction")


def add_tilt_range(group: Any) -> None:
    """--tilt-min and --tilt-max."""
    for which, degrees in (("min", -60.0), ("max", 60.0)):
        said = f"{'first' if which == 'min' else 'last'} tilt angle (default: {degrees:g})"
        group.add_argument(f"--tilt-{which}", type=float, default=degrees, metavar="DEG", help=said, action=Noted)


def add_voltage(group: Any) -> None:
    """--voltage."""
    group.add_argument("--voltage", type=float, default=300.0, metavar="KV", help="(default: 300)", action=Noted)


def acquisition_of(options: argparse.Namespace) -> Acquisition:
    """The options as an Acquisition at the middle of the defocus range; UserError where they make no sense."""
    from tomotwin_core.errors import UserError
    from tomotwin_core.simulation.acquisition import Acquisition

    low, high = options.defocus
    if not 0.1 <= low <= high <= 20:
        raise UserError(f"--defocus {low:g} {high:g}: give the lower value first, both within 0.1 to 20 um")
    return Acquisition(
        tilt_min_deg=options.tilt_min,
        tilt_max_deg=options.tilt_max,
        tilt_step_deg=options.tilt_step,
        dose_e_per_A2=options.dose,
        defocus_um=(low + high) / 2,
        voltage_kV=options.voltage,
        ctf_corrected=options.ctf_corrected,
    )


def require_distinct(names: Sequence[str], what: str) -> None:
    """What is written is named after the tomogram: two of one name would overwrite each other."""
    from tomotwin_core.errors import UserError

    for name in names:
        if list(names).count(name) > 1:
            raise UserError(f"two {what} are of a tomogram called {name}; write them to different folders, one by one")


def told(name: str, error: Exception, of: int) -> str:
    """Tell why one of several inputs is passed over, and return its name; a single one raises its error instead."""
    import sys

    if of == 1:
        raise error
    print(f"tomotwin: {name}: {error}", file=sys.stderr)
    return name


def require_none_failed(failed: Sequence[str], of: int, done: str) -> None:
    """A UserError that names the inputs that were passed over, once all others are done."""
    from tomotwin_core.errors import UserError

    if failed:
        raise UserError(f"{len(failed)} of {of} could not be {done} ({', '.join(failed)}); see above")


def add_voxel_size(parser: argparse.ArgumentParser, what: str) -> None:
    """--voxel-size."""
    parser.add_argument(
        "--voxel-size", type=float, metavar="A", help=f"voxel size of {what} in A, where the header is wrong or empty"
    )


def add_contrast(parser: argparse.ArgumentParser) -> None:
    """--contrast of tomograms."""
    parser.add_argument(
        "--contrast", choices=("dark", "bright"), default="dark", help="of protein in the tomograms (default: dark)"
    )


def add_region(parser: argparse.ArgumentParser) -> None:
    """Where to look in a tomogram."""
    from pathlib import Path

    group = parser.add_argument_group("region (of each tomogram; what is given must all hold)")
    group.add_argument(
        "--mask",
        type=Path,
        metavar="MRC",
        help="volume of the tomogram's own shape, 0 outside, not 0 or (soft edges) at least half of its top value inside; or a folder with NAME_mask.mrc for each",
    )
    group.add_argument(
        "--z-range", type=int, nargs=2, metavar=("FIRST", "LAST"), help="planes to be searched, counted from 0"
    )
    group.add_argument(
        "--auto-slab", action="store_true", help="only the specimen between the empty spaces above and below it"
    )
    group.add_argument("--exclude-gold", action="store_true", help="not at gold beads and other very dark blobs")
    group.add_argument("--exclude-carbon", action="store_true", help="not on carbon film at the tomogram's rim")


def region_of(options: argparse.Namespace) -> RegionSettings:
    """The options as settings."""
    from tomotwin_core.regions import RegionSettings

    return RegionSettings(
        options.mask,
        tuple(options.z_range) if options.z_range else None,
        options.auto_slab,
        options.exclude_gold,
        options.exclude_carbon,
    )
