"""What accepting and rejecting picks is worth: F1 before and after `tomotwin refine` with 5, 10 and 20 decided picks.

For each held-out species the picks of the reference from its structure are gone through as a user would: of the best
peaks (four times as many as there are particles) half the decisions fall on right ones and half on wrong ones, drawn at
random. F1 is that of the positions nobody decided on: best possible, and at the proposed threshold. Every species is picked
alone, so that all draws can be located in one go.

Run: python benchmarks/refinement.py --work DIR
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import product

import numpy as np
from heldout import HeldOut, add_arguments, best_f1, f1_at, held_out, world

from tomotwin_core.coordinates import ACCEPTED, REJECTED, Coordinates
from tomotwin_core.picking import LocationSettings, locate, references_from_densities
from tomotwin_core.picking.discovery import threshold_of_best_f1
from tomotwin_core.picking.refining import refined
from tomotwin_core.simulation import Acquisition

DECISIONS = (5, 10, 20)
LOCATION = LocationSettings(min_score=0.2, competition=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    results: dict[tuple[int, str], list[tuple[float, float]]] = {}
    seconds, model_hash = [], ""
    for tomogram in held_out(options):
        model, settings, seen = world(options, tomogram.densities)
        model_hash = model.hash
        references = references_from_densities(
            tomogram.densities, model, Acquisition(), settings, options.device, seen=seen
        )
        peaks = locate(tomogram.field, references, LOCATION)
        for name in sorted(tomogram.densities):
            before = peaks.select(peaks.label == name)
            trials: dict[str, tuple[int, Coordinates]] = {}
            for number, draw in product(DECISIONS, range(options.draws)):
                decided = decisions(tomogram, before, name, number, np.random.default_rng((options.seed, number, draw)))
                if decided is not None:
                    trials[f"{number} {draw}"] = number, decided
            targets = []
            for trial, (_, decided) in trials.items():
                start = time.perf_counter()
                new = refined(references, [(tomogram.field, decided)])
                seconds.append(time.perf_counter() - start)
                targets.append(replace(new.targets[new.names.index(name)], name=trial))
            if not targets:
                continue
            after = locate(tomogram.field, replace(references, targets=tuple(targets)), LOCATION)
            for trial, (number, decided) in trials.items():
                own = after.select(after.label == trial)
                own = replace(own, label=np.full(len(own), name))
                for when, found in (("before", before), ("after", own)):
                    results.setdefault((number, when), []).append(judged(tomogram, found, name, decided))
    print(f"{options.tomograms} tomograms, {options.draws} draws, seed {options.seed}, model {model_hash}")
    print(f"a refinement takes {np.median(seconds):.2f} s (median)")
    print(f"{'decided':>8}{'':10}{'n':>5}{'best F1':>9}{'mean':>8}{'proposed':>10}{'mean':>8}")
    for (number, when), values in results.items():
        best, proposed = np.transpose(values)
        print(
            f"{number:8d}  {when:8}{len(values):5d}{np.median(best):9.3f}{best.mean():8.3f}{np.median(proposed):10.3f}"
            f"{proposed.mean():8.3f}"
        )


def decisions(
    tomogram: HeldOut, peaks: Coordinates, name: str, number: int, rng: np.random.Generator
) -> Coordinates | None:
    """Picks with a person's decision; None where there are too few right ones to decide on."""
    own = peaks.select(peaks.label == name)
    own = own.select(np.argsort(-own.score, kind="stable"))
    _, right, n_true = tomogram.judged(own, name)
    shown = np.arange(min(len(own), 4 * n_true))
    half = -(-number // 2)
    accepted = rng.permutation(shown[right[shown]])[:half]
    rejected = rng.permutation(shown[~right[shown]])[: number - half]
    if len(accepted) < 2 or n_true - len(accepted) < 3:
        return None
    index = np.concatenate([accepted, rejected])
    table = own.select(index)
    flags = [ACCEPTED] * len(accepted) + [REJECTED] * len(rejected)
    return Coordinates.from_arrays(
        table.xyz, table.voxel_size_A, table.tomogram, table.shape, name, table.score, table.diameter_A, accepted=flags
    )


def judged(tomogram: HeldOut, peaks: Coordinates, name: str, decided: Coordinates) -> tuple[float, float]:
    """Best F1 and F1 at the proposed threshold, on what was not decided."""
    accepted = decided.xyz[decided.accepted == ACCEPTED]
    nearest = [int(np.linalg.norm(tomogram.of(name) - place, axis=1).argmin()) for place in accepted]
    scores, right, n_true = tomogram.judged(peaks, name, np.concatenate([decided.xyz, tomogram.of(name)[nearest]]))
    own = peaks.select(peaks.label == name)
    assert own.fdr is not None
    proposed = threshold_of_best_f1(own.score, own.fdr)
    return best_f1(right, n_true), f1_at(scores, right, n_true, proposed)


if __name__ == "__main__":
    main()
