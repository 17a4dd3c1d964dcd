"""The expected false-discovery rate against the real one, on simulated tomograms of held-out species, and what the
threshold proposed from it is worth; with competition between targets, with that of the background too, and without.

References are made from structures, and from five true positions of each species (which then do not count), as `tomotwin
reference` does. At every expected rate the picks of all targets and tomograms are pooled and counted. Beside the rates that
the software gives stand those of three other null distributions:
a normal one fitted to the left half of the peaks' scores (Efron's empirical null), a mixture of two normal ones, and decoy
references (random directions spread as the prototypes are).

Run: python benchmarks/calibration.py --work DIR --out DIR
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from heldout import VOXEL_A, HeldOut, add_arguments, best_f1, distance_to, f1_at, held_out, world
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.picking import LocationSettings, ReferenceSet, Target, locate, references_from_densities
from tomotwin_core.picking.discovery import fisher_z, threshold_of_best_f1
from tomotwin_core.picking.examples import Strangers, references_from_examples
from tomotwin_core.picking.from_positions import examples_at_positions
from tomotwin_core.simulation import Acquisition

RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
LEAST = 0.2
EXAMPLES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for calibration.png")
    options = parser.parse_args()
    counted: dict[str, dict[float, list[int]]] = {}
    f1: dict[str, list[float]] = {}
    model_hash = ""
    strangers = Strangers(world(options, {}, crowd=16)[2])
    for tomogram in held_out(options):
        model, settings, seen = world(options, tomogram.densities)
        model_hash = model.hash
        references = references_from_densities(
            tomogram.densities, model, Acquisition(), settings, options.device, seen=seen
        )
        for way, location in (
            ("targets compete", LocationSettings(min_score=LEAST)),
            ("background too", LocationSettings(min_score=LEAST, background=True)),
            ("no competition", LocationSettings(min_score=LEAST, competition=False)),
        ):
            peaks = locate(tomogram.field, references, location)
            for target in references.targets:
                one_target(tomogram, peaks, target, way, counted, f1)
        positions, known = from_positions(tomogram, strangers, options.seed)
        for way, location in (
            ("five positions, targets compete", LocationSettings(min_score=LEAST)),
            ("five positions, no competition", LocationSettings(min_score=LEAST, competition=False)),
        ):
            peaks = locate(tomogram.field, positions, location)
            for target in positions.targets:
                one_target(tomogram, peaks, target, way, counted, f1, known[target.name])
        with_decoys = locate(tomogram.field, decoys(references, options.seed), LocationSettings(min_score=LEAST))
        peaks = locate(tomogram.field, references, LocationSettings(min_score=LEAST))
        for target in references.targets:
            other_nulls(tomogram, peaks, with_decoys, target, counted)
    print(f"held-out species, {options.tomograms} tomograms, seed {options.seed}, model {model_hash}")
    print(f"{'real share of false picks at expected':38}" + "".join(f"{r:>12.2f}" for r in RATES))
    for way, at in counted.items():
        cells = (f"{at[r][0] / at[r][1]:6.2f}{f'({at[r][1]})':>6}" if at[r][1] else f"{'-':>12}" for r in RATES)
        print(f"{way:38}" + "".join(cells))
    print(f"\n{'F1 per species':38}{'median':>8}{'mean':>8}")
    for way, values in f1.items():
        print(f"{way:38}{np.median(values):8.3f}{np.mean(values):8.3f}")
    picture(counted, options.out / "calibration.png")
    print(options.out / "calibration.png")


def one_target(
    tomogram: HeldOut,
    peaks: Coordinates,
    target: Target,
    way: str,
    counted: dict[str, dict[float, list[int]]],
    f1: dict[str, list[float]],
    known: np.ndarray | None = None,
) -> None:
    """`known`: positions that count neither way."""
    own = peaks.select(peaks.label == target.name)
    assert own.fdr is not None
    proposed = threshold_of_best_f1(own.score, own.fdr)
    if known is not None:
        own = own.select(distance_to(own.xyz, known) > tomogram.tolerance(target.name))
    scores, right, n_true = tomogram.judged(own, target.name, known)
    count(counted, f"expected rate, {way}", np.sort(own.fdr), right)  # best first, as the scores
    f1.setdefault(f"{way}: best possible", []).append(best_f1(right, n_true))
    f1.setdefault(f"{way}: proposed threshold", []).append(f1_at(scores, right, n_true, proposed))
    if known is None:
        f1.setdefault(f"{way}: threshold of simulation", []).append(f1_at(scores, right, n_true, target.threshold))


def from_positions(tomogram: HeldOut, strangers: Strangers, seed: int) -> tuple[ReferenceSet, dict[str, np.ndarray]]:
    """References from some positions of each species, and these."""
    rng, field = np.random.default_rng(seed), tomogram.field
    known = {n: rng.permutation(tomogram.of(n))[: min(EXAMPLES, len(tomogram.of(n)) - 1)] for n in tomogram.densities}
    tables = [
        Coordinates.from_arrays(
            xyz, VOXEL_A, field.tomogram, field.tomogram_shape, name, diameter_A=tomogram.densities[name].diameter_A
        )
        for name, xyz in known.items()
    ]
    examples = examples_at_positions([(field, Coordinates.concatenate(tables))])
    return references_from_examples(examples, field.model_hash, field.sample(), strangers=strangers), known


def count(counted: dict[str, dict[float, list[int]]], way: str, rates: np.ndarray, right: np.ndarray) -> None:
    at = counted.setdefault(way, {rate: [0, 0] for rate in RATES})
    for rate in RATES:
        kept = rates <= rate
        at[rate][0] += int((~right[kept]).sum())
        at[rate][1] += int(kept.sum())


def decoys(references: ReferenceSet, seed: int) -> ReferenceSet:
    """The targets, and as many random directions of the mean and covariance of their prototypes."""
    prototypes = np.concatenate([t.prototypes for t in references.targets])
    spread = np.cov(prototypes.T) + 1e-4 * np.eye(prototypes.shape[1])
    drawn = np.random.default_rng(seed).multivariate_normal(prototypes.mean(0), spread, len(references.targets))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    false = tuple(
        replace(t, name=f"decoy {t.name}", prototypes=d[None].astype(np.float32), calibration=None)
        for t, d in zip(references.targets, drawn, strict=True)
    )
    return replace(references, targets=references.targets + false)


def other_nulls(
    tomogram: HeldOut,
    peaks: Coordinates,
    with_decoys: Coordinates,
    target: Target,
    counted: dict[str, dict[float, list[int]]],
) -> None:
    scores, right, _ = tomogram.judged(peaks, target.name)
    number, z = np.arange(1, len(scores) + 1), fisher_z(scores)
    if len(scores) < 10:
        return
    middle = np.median(z)
    false = len(z) * norm.sf(z, middle, middle - np.percentile(z, 15.87))
    count(counted, "normal null", running(false / number), right)
    mixture = GaussianMixture(2, random_state=0).fit(z[:, None])
    wrong = 1 - mixture.predict_proba(z[:, None])[:, int(mixture.means_.argmax())]
    count(counted, "two normal distributions", running(np.cumsum(wrong) / number), right)
    scores, right, _ = tomogram.judged(with_decoys, target.name)
    drawn = np.sort(with_decoys.score[np.char.startswith(with_decoys.label, "decoy ")])
    above = (len(drawn) - np.searchsorted(drawn, scores)) / len(np.unique(peaks.label))
    count(counted, "decoy references", running(above / np.arange(1, len(scores) + 1)), right)


def running(rates: np.ndarray) -> np.ndarray:
    """Never rising with the score; peaks best first."""
    return np.minimum.accumulate(np.clip(rates, 0, 1)[::-1])[::-1]


def picture(counted: dict[str, dict[float, list[int]]], path: Path) -> None:
    figure = Figure(figsize=(6, 5.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", lw=1, ls="--")
    for way, at in counted.items():
        known = [r for r in RATES if at[r][1] >= 10]
        axes.plot(known, [at[r][0] / at[r][1] for r in known], marker="o", label=way)
    axes.set(xlabel="expected false-discovery rate", ylabel="real share of false picks", xlim=(0, 0.75), ylim=(0, 1))
    axes.legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
