"""Windows per second of training, by part: simulation, cutting, network with its loss, and a whole step.

Run: python benchmarks/training.py [--device cuda] [--recipe paper] [--steps 10]
A window is a particle or a background of a step. Simulation is that of one process; `train --workers N` has N of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tomotwin_core.embedding import pick_device
from tomotwin_core.structures.library import load_library
from tomotwin_core.training.batches import BACKGROUND, window_batch
from tomotwin_core.training.settings import RECIPES
from tomotwin_core.training.sources import LiveSource
from tomotwin_core.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="tomotwin")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--pairs", type=int, default=4, help="simulated and measured (default: 4, one more to warm up)")
    parser.add_argument("--steps", type=int, default=10, help="of the network that are measured (default: 10)")
    options = parser.parse_args()
    device = str(pick_device(options.device))
    plan = RECIPES[options.recipe]()
    plan = replace(plan, training=replace(plan.training, workers=0, reuse=1, buffer=1, precision=options.precision))
    source = LiveSource(load_library(), plan)
    stream = source.pairs(0, 0)
    next(stream)
    simulating, pairs = timed(lambda: list(islice(stream, options.pairs)))
    rng = np.random.default_rng(0)
    cutting, batches = timed(
        lambda: [window_batch(p, rng, plan.batch, plan.augmentation) for pair in pairs for p in pair]
    )
    windows = sum(len(b.label) for b in batches) / len(pairs)
    particles = sum((b.label != BACKGROUND).sum() for b in batches) / len(pairs)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), plan, source, device=device)
        trainer._train_on(trainer.batch(pairs[0], 0))

        def steps() -> None:
            for step in range(options.steps):
                trainer._train_on(trainer.batch(pairs[step % len(pairs)], step))
            if device.startswith("cuda"):
                torch.cuda.synchronize()

        training, _ = timed(steps)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    print(f"{options.recipe} recipe, {name}, a step has {windows:.0f} windows, {particles:.0f} of them particles")
    print("part                         s per step   windows/s")
    reuse = RECIPES[options.recipe]().training.reuse
    rows = {
        "simulation, fresh": simulating / len(pairs),
        f"simulation, reused {reuse} times": simulating / len(pairs) / reuse,
        "cutting": cutting / len(pairs),
        "whole step but simulation": training / options.steps,
    }
    for part, seconds in rows.items():
        print(f"{part:28} {seconds:11.3f}   {windows / seconds:9.0f}")


def timed(work):  # type: ignore[no-untyped-def]
    """Seconds that a call took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
