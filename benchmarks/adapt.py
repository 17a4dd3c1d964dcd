"""What adapting a model gains on targets that it does not tell well, and what it forgets.

Three tomograms are simulated (paper's conditions, 10 A voxels): A and B of one dozen molecules that the released model
never saw, C of molecules that it was trained on. The targets are those that are picked worst in A. The model is adapted
to each from some of its positions in A, as a user would list them (not all of them), and measured in B and C with
references from the tomogram: F1 at the proposed threshold, and the best possible F1.

Run: python benchmarks/adapt.py --out DIR [--targets 2iy5 5t4o] [--layers last head late] [--keep 3]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.coordinates import read_coordinates, write_coordinates
from tomotwin_core.model import load_model
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import open_tomogram, write_mrc
from tomotwin_core.training.adapting import AdaptSettings, adapt
from tomotwin_core.training.sources import ListedTomogram
from tomotwin_core.training.validation import open_validation, validate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="released")
    parser.add_argument("--targets", nargs="+", help="default: the three that are picked worst in A")
    parser.add_argument("--positions", type=int, default=20, help="of the target in A that are listed (default: 20)")
    parser.add_argument("--layers", nargs="+", default=["late"])
    parser.add_argument("--keep", nargs="+", type=float, default=[3.0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--shape", type=int, nargs=3, default=(80, 200, 200))
    parser.add_argument("--copies", type=int, default=30)
    parser.add_argument("--seed", type=int, default=9)
    options = parser.parse_args()
    library, model = load_library(), load_model(options.model)
    rng = np.random.default_rng(options.seed)
    unseen = [str(i) for i in rng.permutation(library.ids("heldout"))[:12]]
    unseen = list(dict.fromkeys([*(options.targets or []), *unseen]))[:12]
    seen = [
        str(i) for i in rng.permutation([i for i in library.ids("train") if library.entries[i].mass_kDa < 3000])[:12]
    ]
    for name, species in (("A", unseen), ("B", unseen), ("C", seen)):
        simulate(options, name, species)
    a, b, c = (open_validation(options.out / name, options.out / "cache") for name in "ABC")
    before_a = figures(validate(model.network, a, ()))
    targets = options.targets or sorted(before_a, key=lambda s: before_a[s]["best_f1"])[:3]
    before = {"B": figures(validate(model.network, b, ())), "C": figures(validate(model.network, c, ()))}
    print(
        "target   positions  layers  keep   F1 before  after   best F1 before  after   others in B   trained in C   seconds"
    )
    for layers in options.layers:
        for keep in options.keep:
            for target in targets:
                one_target(options, model, library, target, layers, keep, before, b, c)


def simulate(options: argparse.Namespace, name: str, species: list[str]) -> None:
    """One tomogram of the benchmark, kept where it is there already."""
    folder = options.out / name
    if (folder / f"{name}_truth.star").is_file():
        return
    library, rng = load_library(), np.random.default_rng((options.seed, ord(name)))
    shape = tuple(options.shape)
    made = simulate_tomogram(
        Molecules({i: library.density(i) for i in species}, 10.0),
        settings=SampleSettings(shape, 10.0, 0.85 * shape[0] * 10, options.copies),
        acquisition=Acquisition(dose_e_per_A2=150.0, defocus_um=float(rng.uniform(2, 5))),
        rng=rng,
        name=name,
    )
    write_mrc(folder / f"{name}.mrc", made.volume, 10.0)
    write_coordinates(folder / f"{name}_truth.star", made.truth)


def one_target(
    options: argparse.Namespace,
    model: Any,
    library: Any,
    target: str,
    layers: str,
    keep: float,
    before: Any,
    b: Any,
    c: Any,
) -> None:
    source = open_tomogram(options.out / "A" / "A.mrc")
    truth = read_coordinates(options.out / "A" / "A_truth.star").by_label()[target]
    chosen = np.random.default_rng(options.seed).permutation(len(truth))[: options.positions]
    started = time.monotonic()
    network, _ = adapt(
        model,
        [ListedTomogram(source, truth.select(chosen), complete=False)],
        library,
        options.out / "cache",
        AdaptSettings(steps=options.steps, layers=layers, keep=keep),
    )
    seconds = time.monotonic() - started
    after = {"B": figures(validate(network, b, ())), "C": figures(validate(network, c, ()))}
    others = [s for s in before["B"] if s != target]
    change = {
        "B": np.mean([after["B"][s]["best_f1"] - before["B"][s]["best_f1"] for s in others]),
        "C": np.mean([after["C"][s]["best_f1"] - before["C"][s]["best_f1"] for s in before["C"]]),
    }
    old, new = before["B"][target], after["B"][target]
    print(
        f"{target:8} {len(chosen):9d}  {layers:6}  {keep:4g}   {old['f1']:9.2f}  {new['f1']:5.2f}   {old['best_f1']:14.2f}  "
        f"{new['best_f1']:5.2f}   {change['B']:+11.3f}   {change['C']:+12.3f}   {seconds:7.0f}",
        flush=True,
    )


def figures(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["species"]: row for row in rows}


if __name__ == "__main__":
    main()
