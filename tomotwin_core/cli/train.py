"""Train a model on simulated tomograms that are never seen twice, or on tomograms on disk.

Molecules come from a density library (by default the released one, its held-out families left out). Progress, the log
with its curves, model.safetensors, best.safetensors and last.safetensors go to --out; the same command goes on from
there after an interruption. Most users never train: the released model takes molecules it has not seen.

All settings:        tomotwin train --write-settings train.toml
From that file:      tomotwin train train.toml --out DIR         options override the file
The paper's recipe:  tomotwin train --recipe paper --out DIR
Several GPUs:        torchrun --nproc-per-node 4 -m tomotwin_core.cli.main train train.toml --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomotwin_core.cli.options import add_device, use_device

if TYPE_CHECKING:
    from tomotwin_core.training.settings import TrainingPlan

HELP = "train a model on simulated tomograms or on your own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings", type=Path, nargs="?", metavar="SETTINGS.toml", help="settings; what it leaves out is as by default"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the model, the state to go on from, and the log"
    )
    parser.add_argument(
        "--write-settings", type=Path, metavar="FILE.toml", help="write all settings, explained, and stop"
    )
    parser.add_argument(
        "--recipe",
        choices=("tomotwin", "paper"),
        help="the settings to start from: ours (default), or the paper's triplet loss, augmentations and schedule",
    )
    parser.add_argument("--library", type=Path, metavar="FILE.npz", help="density library (default: the released one)")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="FILE",
        help="start from the weights of this model (or released) instead of random ones",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="length of the schedule; a step sees about 500 particles (default: 2000)"
    )
    parser.add_argument("--learning-rate", type=float, metavar="R", help="(default: 0.0015)")
    parser.add_argument(
        "--loss",
        choices=("supcon", "triplet", "multisimilarity", "proxy-anchor", "circle"),
        help="(default: supcon; triplet is the paper's)",
    )
    parser.add_argument("--species", type=int, metavar="N", help="species per step (default: 28)")
    parser.add_argument(
        "--shape", type=int, nargs=3, metavar=("Z", "Y", "X"), help="of a mini-tomogram (default: 52 136 136)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that simulate, for each GPU (default: 1)")
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), help="(default: auto, bfloat16 on a GPU)"
    )
    parser.add_argument(
        "--validate-every", type=int, metavar="N", help="steps between two validations, 0 for none (default: 500)"
    )
    parser.add_argument(
        "--validation-folder", metavar="DIR", help="tomograms for it (default: simulated once into OUT/validation)"
    )
    parser.add_argument("--seed", type=int, help="of all random numbers (default: 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting by its name in the file, for example loss.temperature=0.05; may be repeated",
    )
    add_device(parser)
    group = parser.add_argument_group("tomograms on disk instead of the live stream of simulated ones")
    group.add_argument("--data", nargs="+", metavar="DIR", help="folders that `tomotwin simulate` wrote")
    group.add_argument("--tomograms", nargs="+", metavar="FILE", help="tomograms of any voxel size")
    group.add_argument(
        "--positions", nargs="+", metavar="FILE", help="what lies in them (STAR or .coords), named by its label or file"
    )
    group.add_argument(
        "--all-listed",
        action="store_true",
        default=None,
        help="all particles of the targets are listed: windows away from them are background. Without this, background is "
        "taken only so close beside the listed particles that no other can be there",
    )
    group.add_argument("--bright", action="store_true", help="protein is bright in these tomograms")
    group.add_argument(
        "--voxel-size", type=float, metavar="A", help="of these tomograms, where their headers are wrong or empty"
    )
    group.add_argument("--diameter", type=float, metavar="A", help="of the particles, where the positions have none")
    group.add_argument(
        "--live-share", type=float, metavar="SHARE", help="share of the steps that simulate all the same (default: 0)"
    )


def plan_of(options: argparse.Namespace) -> TrainingPlan:
    """The recipe, the file over it, the options over both."""
    from tomotwin_core.errors import UserError
    from tomotwin_core.toml_settings import read_settings, with_assignments, with_values
    from tomotwin_core.training.settings import RECIPES

    plan = RECIPES[options.recipe or "tomotwin"]()
    if options.settings:
        if options.recipe:
            raise UserError(
                f"{options.settings} and --recipe: give one; `--recipe NAME --write-settings FILE` makes a file of a recipe"
            )
        plan = read_settings(options.settings, plan)
    for option, (table, name) in _OPTIONS.items():
        value: Any = getattr(options, option)
        if value is not None:
            called = f"--{option.replace('_', '-')}"
            plan = with_values(plan, {table: {name: tuple(value) if isinstance(value, list) else value}}, called)
    if options.tomograms or options.positions:
        files = {"tomograms": options.tomograms or (), "positions": options.positions or ()}
        plan = with_values(plan, {"data": files}, "--tomograms, --positions")
    if options.bright:
        plan = with_values(plan, {"data": {"contrast": "bright"}}, "--bright")
    return with_assignments(plan, options.set)


_OPTIONS = {
    "steps": ("training", "steps"),
    "learning_rate": ("training", "learning_rate"),
    "workers": ("training", "workers"),
    "precision": ("training", "precision"),
    "seed": ("training", "seed"),
    "loss": ("loss", "name"),
    "species": ("stream", "species"),
    "shape": ("stream", "shape"),
    "validate_every": ("validation", "every"),
    "validation_folder": ("validation", "folder"),
    "data": ("data", "folders"),
    "all_listed": ("data", "all_listed"),
    "voxel_size": ("data", "voxel_size_A"),
    "diameter": ("data", "diameter_A"),
    "live_share": ("data", "live_share"),
}


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.toml_settings import write_settings

    plan = plan_of(options)
    if options.write_settings:
        write_settings(options.write_settings, plan, "Settings of `tomotwin train`; what is left out is as by default.")
        print(options.write_settings)
        return
    if options.out is None:
        raise UserError("--out: give a folder for the model")
    from contextlib import ExitStack

    from tomotwin_core.locks import alone_in
    from tomotwin_core.training.distributed import join_world, leave_world
    from tomotwin_core.training.run import prepare
    from tomotwin_core.training.trainer import FILES

    world, device = join_world(use_device(options))
    with ExitStack() as stack:
        stack.callback(leave_world)
        if world.writes:
            stack.enter_context(alone_in(options.out, FILES))
        trainer = prepare(options.out, plan, options.library, options.start, device, world)
        if world.writes:
            print(
                f"{len(trainer.source.species)} molecules, {trainer.network.n_parameters} parameters, seed "
                f"{plan.training.seed}, from step {trainer.step}",
                flush=True,
            )
        finished = trainer.run()
    if not finished:
        raise KeyboardInterrupt
    if world.writes:
        for name in ("model.safetensors", "best.safetensors"):
            if (options.out / name).is_file():
                print(options.out / name)
