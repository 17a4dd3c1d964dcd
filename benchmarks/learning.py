"""What training depends on: the loss at equal compute, and the number of training species.

Every row is a run of `tomotwin train` from random weights over the same number of steps, with the same seed, validated on
the same tomograms: one of ten molecules that even the smallest set of training species has, two of twenty that none has
(references from five positions; each half of a tomogram is picked at the thresholds that were best in the other half).
Sets of species are nested and even over the masses. Molecules are those of the library only, but for the last row, where
half of those of every step are invented (stream.invented).

Run: python benchmarks/learning.py --work DIR [--steps 80] [--only losses|species] [--at-once 6 --set training.workers=2]
What is finished stays in --work, and a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tomotwin_core.structures.library import DensityLibrary, load_library
from tomotwin_core.training.settings import LOSSES, ValidationSettings
from tomotwin_core.training.validation import simulate_validation

SPECIES = (15, 30, 60, 120)
VALIDATION = ValidationSettings(seen=10, unseen=20)
_ALL = "loss supcon"  # a row of both tables: the default loss, all species


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=80, help="of each run (default: 80, about 43,000 particles)")
    parser.add_argument("--only", choices=("losses", "species"))
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="TABLE.NAME=VALUE", help="of every run, for `tomotwin train`"
    )
    options = parser.parse_args()
    library = load_library()
    nested = nested_species(library, options.seed)
    validation = options.work / "validation"
    simulate_validation(validation, library, nested[: SPECIES[0]], VALIDATION, "cpu")
    runs: dict[str, tuple[DensityLibrary | None, list[str]]] = {}
    if options.only != "species":
        runs |= {f"loss {loss}": (None, ["--loss", loss]) for loss in LOSSES}
    if options.only != "losses":
        runs |= {f"{n} species": (library_of(library, nested[:n]), []) for n in SPECIES}
        runs[_ALL] = (None, ["--loss", "supcon"])
        runs[f"{len(nested)} species, half invented"] = (None, ["--set", "stream.invented=0.5"])
    with ThreadPoolExecutor(options.at_once) as pool:
        rows = list(pool.map(lambda name: one_run(options, name, *runs[name]), runs))
    if options.only != "losses":
        curve([r for r in rows if r["run"] in (*(f"{n} species" for n in SPECIES), _ALL)], options.work / "species.png")
    report(rows, options)


def nested_species(library: DensityLibrary, seed: int) -> list[str]:
    """All training species in an order of which every beginning is spread over the masses."""
    rng = np.random.default_rng(seed)
    by_mass = sorted(library.ids("train"), key=lambda i: library.entries[i].mass_kDa)
    ordered: list[str] = []
    for parts in (*SPECIES, len(by_mass)):
        # A set of n has one of each n-th of the masses where it can.
        for part in np.array_split(np.array(by_mass, dtype=object), parts):
            left = [i for i in part if i not in ordered]
            if left and len(ordered) < parts and not (set(part) - set(left)):
                ordered.append(str(rng.choice(left)))
        rest = [i for i in by_mass if i not in ordered]
        ordered += [str(i) for i in rng.permutation(rest)[: parts - len(ordered)]]
    return ordered


def library_of(library: DensityLibrary, species: list[str]) -> DensityLibrary:
    """The library in which only `species` are trained on; the rest of its training set is left out."""
    out = {i for i in library.ids("train") if i not in species}
    entries = {i: e for i, e in library.entries.items() if i not in out}
    return DensityLibrary(entries, {i: library.arrays[i] for i in entries})


def one_run(
    options: argparse.Namespace, name: str, library: DensityLibrary | None, more: list[str]
) -> dict[str, object]:
    """Train on a library, by default the released one, or take the finished run; the row of the table."""
    folder = options.work / name.replace(" ", "_")
    species = len((library or load_library()).ids("train"))
    command = ["train", "--out", folder, "--steps", options.steps, "--validate-every", options.steps, "--precision",
               options.precision, "--validation-folder", options.work / "validation", "--seed", options.seed,
               "--set", "training.warmup=20", "--set", f"stream.species={min(28, species)}",
               "--set", "stream.invented=0", "--device", options.device, *more]  # fmt: skip
    for assignment in options.set:
        command += ["--set", assignment]
    if library:
        library.save(folder.with_suffix(".npz"))
        command += ["--library", folder.with_suffix(".npz")]
    if subprocess.run([sys.executable, "-m", "tomotwin_core.cli.main", *map(str, command)]).returncode:
        raise SystemExit(f"{name}: the training failed")
    figures = {}
    with open(folder / "validation.csv") as lines:
        table = [row for row in csv.DictReader(lines) if int(row["step"]) == options.steps]
    for group in ("seen", "unseen"):
        own = [row for row in table if row["group"] == group]
        figures |= {
            f"{group} F1": float(np.median([float(r["f1"]) for r in own])),
            f"{group} best F1": float(np.mean([float(r["best_f1"]) for r in own])),
        }
    with open(folder / "log.csv") as lines:
        particles = int(float(list(csv.DictReader(lines))[-1]["particles"]))
    return {"run": name, "species": species, "particles": particles, **figures}


def report(rows: list[dict[str, object]], options: argparse.Namespace) -> None:
    print(f"\n{options.steps} steps each, seed {options.seed}; median F1, mean of the best possible F1")
    print(f"{'run':24}{'particles':>10}" + "".join(f"{c:>16}" for c in list(rows[0])[3:]))
    for row in rows:
        cells = "".join(f"{float(str(row[c])):16.3f}" for c in list(row)[3:])
        print(f"{row['run']!s:24}{row['particles']:>10}{cells}")
    with open(options.work / "learning.csv", "w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def curve(rows: list[dict[str, object]], path: Path) -> None:
    figure = Figure(figsize=(5, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for column in ("seen best F1", "unseen best F1"):
        axes.plot([int(str(r["species"])) for r in rows], [float(str(r[column])) for r in rows], "o-", label=column)
    axes.set(xscale="log", xlabel="training species", ylabel="mean best F1", ylim=(0, 1))
    axes.minorticks_off()
    axes.set_xticks([int(str(r["species"])) for r in rows], [str(r["species"]) for r in rows])
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
