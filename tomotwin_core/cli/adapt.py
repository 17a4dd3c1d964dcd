"""Adapt a model to targets from a few tens of their positions, in minutes on a CPU.

For a target that the released model does not tell well from the rest. The result is a model file for `tomotwin embed
--model` and `tomotwin reference --model`; tomograms embedded before are embedded again with it. What the model knew it
keeps: simulated tomograms of many molecules hold their embeddings where they were.

    tomotwin adapt --tomograms TS_01.mrc --positions picked.star --diameter 180 --out adapted.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import add_device, add_seed, use_device, use_seed

HELP = "adapt a model to your targets from a few tens of positions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tomograms", type=str, nargs="+", required=True, metavar="FILE", help="tomograms of any voxel size"
    )
    parser.add_argument(
        "--positions",
        type=str,
        nargs="+",
        required=True,
        metavar="FILE",
        help="positions of the targets in them (STAR, .coords ...); a target is named by its label, or the file",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="the adapted model")
    parser.add_argument(
        "--model", default="released", metavar="FILE", help="the model to start from (default: released)"
    )
    parser.add_argument("--diameter", type=float, metavar="A", help="of the targets, where the positions have none")
    parser.add_argument(
        "--all-listed", action="store_true", help="the positions are all there are of the targets in these tomograms"
    )
    parser.add_argument("--bright", action="store_true", help="protein is bright in these tomograms")
    parser.add_argument(
        "--voxel-size", type=float, metavar="A", help="of the tomograms, where their headers are wrong or empty"
    )
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="of the fit (default: 60)")
    parser.add_argument(
        "--keep",
        type=float,
        default=3.0,
        metavar="W",
        help="how much what the model knew weighs against the target (default: 3)",
    )
    parser.add_argument(
        "--library",
        type=Path,
        metavar="FILE.npz",
        help="molecules that stand for what it knew (default: the released ones)",
    )
    add_seed(parser, default=0)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    import tempfile

    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_at
    from tomotwin_core.model import load_model, save_model
    from tomotwin_core.structures.library import load_library
    from tomotwin_core.training.adapting import AdaptSettings, adapt
    from tomotwin_core.training.settings import DataSettings
    from tomotwin_core.training.sources import listed_tomograms

    if options.out.suffix != ".safetensors":
        raise UserError(f"--out {options.out}: give a name that ends in .safetensors")
    settings = AdaptSettings(steps=options.steps, keep=options.keep, seed=use_seed(options))
    data = DataSettings(
        tomograms=tuple(options.tomograms),
        positions=tuple(options.positions),
        all_listed=options.all_listed,
        contrast="bright" if options.bright else "dark",
        voxel_size_A=options.voxel_size,
        diameter_A=options.diameter,
    )
    device, model = use_device(options), load_model(options.model)
    with alone_at(options.out), tempfile.TemporaryDirectory() as cache:
        network, card = adapt(
            model, listed_tomograms(data), load_library(options.library), Path(cache), settings, data.contrast, device
        )
        save_model(options.out, network, card)
    print(options.out)
