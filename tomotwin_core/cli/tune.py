"""Search for better training settings by short trainings that are judged by validation.

Start the same command several times, on one machine or on several with a common folder, and the processes share the
work; stop it and start it again, and it goes on. The best settings so far stand in OUT/best.toml:

    tomotwin tune settings.toml --out study --trials 40 --trial-steps 300
    tomotwin train study/best.toml --out model
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import add_device, use_device

HELP = "search for better training settings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        type=Path,
        nargs="?",
        metavar="SETTINGS.toml",
        help="settings to start from, as `tomotwin train --write-settings` writes them (default: the defaults)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument(
        "--trials", type=int, default=30, metavar="N", help="finished trials of all processes together (default: 30)"
    )
    parser.add_argument(
        "--trial-steps", type=int, default=300, metavar="N", help="steps of one trial's training (default: 300)"
    )
    parser.add_argument(
        "--search",
        nargs="+",
        default=["loss", "network", "rate", "batch", "augmentation"],
        metavar="PART",
        help="what is searched: loss (with margin, miner, temperature), network (widths, embedding size), rate, batch, "
        "augmentation (default: all)",
    )
    parser.add_argument("--library", type=Path, metavar="FILE.npz", help="density library (default: the released one)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting by its name in the file; may be repeated",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.toml_settings import read_settings, with_assignments
    from tomotwin_core.training.settings import TrainingPlan
    from tomotwin_core.training.tuning import tune

    for name in ("trials", "trial_steps"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: give 1 or more")
    plan = read_settings(options.settings, TrainingPlan()) if options.settings else TrainingPlan()
    plan = with_assignments(plan, options.set)
    device = use_device(options)
    if not tune(options.out, plan, options.trials, options.trial_steps, options.search, options.library, device):
        raise KeyboardInterrupt
    print(options.out / "best.toml")
