"""Train a model on simulated tomograms that are never seen twice.

Molecules come from a density library (by default the released one, its held-out families left out). Progress,
log.csv, model.safetensors and last.safetensors go to --out; the same command goes on from there after an
interruption. Most users never train: the released model takes molecules it has not seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import add_device, add_seed, use_device, use_seed

HELP = "train a model on simulated tomograms"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the model, the state to go on from, and the log",
    )
    parser.add_argument("--library", type=Path, metavar="FILE.npz", help="density library (default: the released one)")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="FILE",
        help="start from the weights of this model (or released) instead of random ones",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=2000,
        metavar="N",
        help="length of the schedule; a step sees about 500 particles (default: 2000)",
    )
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, metavar="R", help="(default: 0.0015)")
    parser.add_argument(
        "--loss",
        choices=("supcon", "triplet", "multisimilarity"),
        default="supcon",
        help="(default: supcon; triplet is the paper's)",
    )
    parser.add_argument("--species", type=int, default=28, metavar="N", help="species per step (default: 28)")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        default=(52, 136, 136),
        metavar=("Z", "Y", "X"),
        help="of a mini-tomogram (default: 52 136 136)",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that simulate (default: 1)")
    add_seed(parser, default=0)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.model import NetworkSettings, load_model
    from tomotwin_core.structures import load_library
    from tomotwin_core.training.stream import StreamSettings
    from tomotwin_core.training.trainer import Trainer, TrainingSettings

    if options.steps < 1 or options.workers < 0 or options.species < 2:
        raise UserError("--steps, --workers, --species: give at least 1, 0 and 2")
    if min(options.shape) < 40:
        raise UserError(
            f"--shape {' '.join(map(str, options.shape))}: a mini-tomogram must be wider than the network's window, 40 voxels at least"
        )
    if not 0 < options.learning_rate < 1:
        raise UserError(f"--learning-rate {options.learning_rate:g}: give a value between 0 and 1")
    library = load_library(options.library)
    start = load_model(options.start) if options.start else None
    network = start.network.settings if start else NetworkSettings()
    settings = TrainingSettings(
        steps=options.steps,
        learning_rate=options.learning_rate,
        loss=options.loss,
        workers=options.workers,
        seed=use_seed(options),
        device=use_device(options),
    )
    stream = StreamSettings(shape=tuple(options.shape), species=options.species, seed=settings.seed)
    trainer = Trainer(options.out, library, settings, stream, network, start=start.network if start else None)
    print(
        f"{len(trainer.species)} molecules, {trainer.network.n_parameters} parameters, seed {options.seed}, from step {trainer.step}"
    )
    trainer.run()
    print(options.out / "model.safetensors")
