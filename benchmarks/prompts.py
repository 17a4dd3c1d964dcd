"""How much the choice of the examples decides: F1 over random choices of 1, 3, 5 and 10 example positions, beside the
reference made from the structure.

For each held-out species and each choice: best possible F1 (the highest of any threshold) and F1 at the proposed threshold,
on the positions that were not chosen; every species is picked alone, without others in competition. The spread is the
standard deviation over the choices, its median over the species. --jitter moves the examples off the true centres, as those
picked by hand are.

Ways: `simulated` compares in the space of simulated library molecules (none of them the target), as `tomotwin reference`
does; `tomogram` in that of the tomogram itself (--no-simulation); `taught` takes confident picks in (--self-teach).

Run: python benchmarks/prompts.py --work DIR
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from heldout import HeldOut, add_arguments, best_f1, f1_at, held_out, world

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.picking import LocationSettings, locate, references_from_densities
from tomotwin_core.picking.discovery import threshold_of_best_f1
from tomotwin_core.picking.examples import Strangers, references_from_examples
from tomotwin_core.picking.from_positions import examples_at_positions
from tomotwin_core.picking.self_teaching import self_taught
from tomotwin_core.picking.thresholds import null_threshold
from tomotwin_core.progress import progress
from tomotwin_core.simulation import Acquisition

COUNTS = (1, 3, 5, 10)
FEWEST_LEFT = 4
WAYS = ("simulated", "tomogram", "taught")
ALONE = LocationSettings(min_score=0.2, competition=False)
Results = dict[tuple[str, int], dict[str, list[tuple[float, float]]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--choices", type=int, default=20)
    parser.add_argument("--species", type=int, default=0, help="only so many of each tomogram; 0 for all")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="VOXELS", help="standard deviation per axis")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["simulated"])
    options = parser.parse_args()
    results: Results = {}
    model_hash = ""
    # Library molecules alone: the targets must not lend their own simulated copies to the examples.
    strangers = Strangers(world(options, {}, crowd=16)[2])
    for tomogram in held_out(options):
        model, settings, seen = world(options, tomogram.densities)
        model_hash = model.hash
        by_structure = references_from_densities(
            tomogram.densities, model, Acquisition(), settings, options.device, seen=seen
        )
        peaks = locate(tomogram.field, by_structure, ALONE)
        names = sorted(tomogram.densities)[: options.species or None]
        for name in progress(names, desc=f"choosing in {tomogram.field.tomogram}", unit="species"):
            record(results, ("structure", 0), name, tomogram, peaks.select(peaks.label == name), np.empty((0, 3)))
            one_species(results, tomogram, name, strangers, options)
        report(results, options, model_hash)


def one_species(
    results: Results, tomogram: HeldOut, name: str, strangers: Strangers, options: argparse.Namespace
) -> None:
    """All choices of a count are targets of one set, each on its own, and so located in one go."""
    true, field = tomogram.of(name), tomogram.field
    everything, last = field.sample(), np.array(field.tomogram_shape[::-1]) - 1
    for count in COUNTS:
        if len(true) < count + FEWEST_LEFT:
            continue
        rng = np.random.default_rng((options.seed, count))
        chosen = {f"choice {i}": true[rng.choice(len(true), count, replace=False)] for i in range(options.choices)}
        xyz = np.concatenate(list(chosen.values()))
        table = Coordinates.from_arrays(
            np.clip(xyz + rng.normal(0, options.jitter, xyz.shape), 0, last),
            10.0,
            field.tomogram,
            field.tomogram_shape,
            np.repeat(list(chosen), count),
            diameter_A=tomogram.densities[name].diameter_A,
        )
        examples = examples_at_positions([(field, table)])
        for way in options.ways:
            known = None if way == "tomogram" else strangers
            references = references_from_examples(examples, field.model_hash, everything, strangers=known)
            if way == "taught":
                targets = (self_taught(replace(references, targets=(t,)), [field]).targets for t in references.targets)
                references = replace(references, targets=tuple(t for (t,) in targets))
            found = locate(field, references, ALONE)
            for choice, places in chosen.items():
                record(results, (way, count), name, tomogram, found.select(found.label == choice), places)


def record(
    results: Results, way: tuple[str, int], name: str, tomogram: HeldOut, peaks: Coordinates, chosen: np.ndarray
) -> None:
    peaks = replace(peaks, label=np.full(len(peaks), name))
    scores, right, n_true = tomogram.judged(peaks, name, chosen)
    proposed = null_threshold(scores)
    if peaks.fdr is not None and len(peaks) and np.isfinite(peaks.fdr).all():
        proposed = threshold_of_best_f1(peaks.score, peaks.fdr)
    values = best_f1(right, n_true), f1_at(scores, right, n_true, proposed)
    results.setdefault(way, {}).setdefault(name, []).append(values)


def report(results: Results, options: argparse.Namespace, model_hash: str) -> None:
    print(
        f"F1 over {options.choices} choices of examples, jitter {options.jitter:g} voxels, "
        f"seed {options.seed}, model {model_hash}"
    )
    print(f"{'reference':18}{'examples':>9}{'species':>9}{'best F1':>9}{'spread':>8}{'proposed':>10}{'spread':>8}")
    for (way, count), by_species in sorted(results.items(), key=lambda item: (item[0][1], item[0][0])):
        means = np.array([np.mean(v, axis=0) for v in by_species.values()])
        spread = np.median([np.std(v, axis=0) for v in by_species.values()], axis=0)
        middle = np.median(means, axis=0)
        print(
            f"{way:18}{count or '-':>9}{len(by_species):9d}{middle[0]:9.3f}{spread[0]:8.3f}{middle[1]:10.3f}{spread[1]:8.3f}"
        )


if __name__ == "__main__":
    main()
