"""F1 per species on a fixed, seeded set of simulated tomograms, by the commands that a user gives.

Molecules are dealt into groups of a dozen, each simulated in a tomogram of its own under the paper's conditions (10 A
voxels, 61 tilts, 150 e/A^2, one defocus of 2 to 5 um, vesicles, gold, actin, a detector, alignment errors; a seed that
neither training nor references use). `heldout` are all molecules whose family the released model never saw, `trained` as
many of the training set as asked for, drawn evenly over their masses.

Each species is picked twice, all species of a tomogram competing:
  positions   reference from five true positions in the tomogram, which then do not count; threshold from the scores
  structure   reference simulated from the structure; threshold from the simulation
With --full tomograms and copies are as many as the paper's: 512 x 512 x 200 voxels, 150 copies of each tried; else a ninth of
that, 22 copies, which costs a tenth of the time. No truth takes part in either threshold. `best` is what the best threshold would have given, which only the truth tells.

Everything is kept in --work: simulated tomograms for the next model, finished tomograms after an interruption.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.evaluation import evaluate, tolerance_A
from tomotwin_core.model import load_model
from tomotwin_core.structures.library import DensityLibrary, load_library

DOSE = 150.0
DEFOCUS_UM = (2.0, 5.0)
CLASSES_KDA = ((0, 150), (150, 500), (500, 1e9))


@dataclass(frozen=True)
class Sample:
    """Of one tomogram: shape in voxels, thickness, copies of each species that are tried, and what lies beside them."""

    shape: tuple[int, int, int] = (100, 220, 220)
    thickness_A: float = 850.0
    copies: int = 22
    vesicles: int = 1
    gold: int = 4
    actin: int = 1


SMALL, FULL = Sample(), Sample((200, 512, 512), 1250.0, 150, vesicles=4, gold=20, actin=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--group", choices=("heldout", "trained"), default="heldout")
    parser.add_argument("--model", default="released")
    parser.add_argument("--species", type=int, default=120, help="of the training set (default: 120)")
    parser.add_argument("--per-tomogram", type=int, default=12)
    parser.add_argument("--examples", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="tomograms of the paper's size")
    parser.add_argument("--limit", type=int, default=0, help="only so many tomograms; 0 for all")
    parser.add_argument(
        "--references", nargs="+", choices=("positions", "structure"), default=("positions", "structure")
    )
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--again", action="store_true", help="pick anew what an earlier version of the software has picked"
    )
    options = parser.parse_args()
    library, model = load_library(), load_model(options.model)
    rng = np.random.default_rng(options.seed)
    groups = dealt(library, options, rng)[: options.limit or None]
    rows: list[dict[str, object]] = []
    for index, group in enumerate(groups):
        done = options.work / model.hash / f"seed{options.seed}" / f"{prefix(options)}_{index + 1:02d}.json"
        if options.again or not done.is_file():
            done.parent.mkdir(parents=True, exist_ok=True)
            done.write_text(json.dumps(one_tomogram(library, group, index, done.with_suffix(""), options)) + "\n")
        rows += json.loads(done.read_text())
    report(rows, options, model.hash)


def dealt(library: DensityLibrary, options: argparse.Namespace, rng: np.random.Generator) -> list[list[str]]:
    """The species of each tomogram; of look-alikes only one in a tomogram."""
    ids = library.ids("heldout")
    if options.group == "trained":
        by_mass = sorted(library.ids("train"), key=lambda i: library.entries[i].mass_kDa)
        ids = [str(rng.choice(part)) for part in np.array_split(by_mass, min(options.species, len(by_mass)))]
    groups: list[list[str]] = [[] for _ in range(-(-len(ids) // options.per_tomogram))]
    for name in rng.permutation(ids):
        lookalikes = library.entries[str(name)].lookalikes
        apart = [g for g in groups if not set(g) & set(lookalikes)]
        min(apart or groups, key=len).append(str(name))
    return groups


def prefix(options: argparse.Namespace) -> str:
    return options.group + ("_full" if options.full else "")


def one_tomogram(
    library: DensityLibrary, group: list[str], index: int, out: Path, options: argparse.Namespace
) -> list[dict[str, object]]:
    name, sample = f"{prefix(options)}_{index + 1:02d}", FULL if options.full else SMALL
    folder, device = options.work / f"{prefix(options)}_seed{options.seed}", ["--device", options.device]
    seed = str(1000 * options.seed + index)
    low, high = map(str, DEFOCUS_UM)
    run("simulate", "--out", folder, "--species", ",".join(group), "--copies", sample.copies, "--tomograms", 1,
        "--first", index + 1, "--prefix", prefix(options), "--voxel-size", 10, "--shape", *sample.shape, "--thickness",
        sample.thickness_A, "--dose", DOSE, "--defocus", low, high, "--vesicles", sample.vesicles, "--gold", sample.gold,
        "--set", f"sample.actin={sample.actin}", "--seed", seed, *device)  # fmt: skip
    truth = read_coordinates(folder / f"{name}_truth.star")
    run("embed", folder / f"{name}.mrc", "--out", out, "--model", options.model, *device)
    field, rows = out / f"{name}.zarr", []
    examples = some_of_each(truth, options.examples, np.random.default_rng((options.seed, index)))
    write_coordinates(out / "examples.star", truth.select(examples))
    for kind in options.references:
        sources = (
            [out / "examples.star", "--embedding", field]
            if kind == "positions"
            else [
                *(f"library:{g}" for g in group),
                "--dose",
                DOSE,
                "--defocus",
                low,
                high,
                "--seed",
                options.seed + 1000,
            ]
        )
        there = out / kind
        references = there / "references.safetensors"
        run("reference", *sources, "--out", references, "--model", options.model, *device)
        run("locate", field, "--references", references, "--out", there, "--min-score", -1)
        run("pick", there / f"{name}_peaks.star", "--references", references, "--out", there)
        peaks, picks = (read_coordinates(there / f"{name}_{what}.star") for what in ("peaks", "picks"))
        kept = truth
        if kind == "positions":
            known = truth.select(examples)
            peaks, picks = without(peaks, known), without(picks, known)
            kept = truth.select(~examples)
        for score in evaluate(picks, kept, peaks, labels=sorted(group)):
            mass = library.entries[score.label].mass_kDa
            rows.append({"tomogram": name, "species": score.label, "mass_kDa": mass, "reference": kind,
                         "true": score.n_true, "precision": score.precision, "recall": score.recall, "f1": score.f1,
                         "best_f1": score.best_f1})  # fmt: skip
    return rows


def some_of_each(truth: Coordinates, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mask over the truth: `count` particles of each species."""
    chosen = np.zeros(len(truth), bool)
    for label in np.unique(truth.label):
        own = np.flatnonzero(truth.label == label)
        chosen[rng.choice(own, min(count, len(own) - 1), replace=False)] = True
    return chosen


def without(table: Coordinates, known: Coordinates) -> Coordinates:
    """A table without what lies on example positions of the same species."""
    keep = np.ones(len(table), bool)
    for position, label, diameter in zip(known.xyz, known.label, known.diameter_A, strict=True):
        near = np.linalg.norm(table.xyz - position, axis=1) * table.voxel_size_A <= tolerance_A(float(diameter))
        keep &= ~(near & (table.label == label))
    return table.select(keep)


def run(command: str, *arguments: object) -> None:
    code = tomotwin([command, *map(str, arguments)])
    if code:
        raise SystemExit(code)


def report(rows: list[dict[str, object]], options: argparse.Namespace, model: str) -> None:
    columns = {kind: {str(r["species"]): r for r in rows if r["reference"] == kind} for kind in options.references}
    print(f"\n{prefix(options)}, seed {options.seed}, model {model}")
    print(f"{'species':24}{'kDa':>7}{'true':>6}" + "".join(f"{kind:>12}{'(best)':>8}" for kind in columns))
    for species in sorted(
        columns[options.references[0]], key=lambda s: float(str(columns[options.references[0]][s]["mass_kDa"]))
    ):
        first = columns[options.references[0]][species]
        cells = "".join(f"{t[species]['f1']:12.2f}{t[species]['best_f1']:8.2f}" for t in columns.values())
        print(f"{species:24}{first['mass_kDa']:7.0f}{first['true']:6d}{cells}")
    figures: dict[str, object] = {"model": model, "species": len(columns[options.references[0]])}
    command = f"python benchmarks/accuracy.py --work DIR --group {options.group} --seed {options.seed}"
    command += f" --species {options.species}" if options.group == "trained" else ""
    figures["command"] = command + (" --full" if options.full else "")
    for kind, table in columns.items():
        figures |= medians(kind, table.values())
    for name, value in figures.items():
        print(f"{name}: {value}")
    path = options.work / model / f"seed{options.seed}" / prefix(options)
    path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    with open(path.with_suffix(".csv"), "w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def medians(kind: str, table: Iterable[dict[str, object]]) -> dict[str, object]:
    table = list(table)
    figures: dict[str, object] = {}
    for low, high in ((0, 1e9), *CLASSES_KDA):
        chosen = [r for r in table if low <= float(str(r["mass_kDa"])) < high]
        if not chosen:
            continue
        of = "" if high - low == 1e9 else f", {low:g}-{high:g} kDa" if high < 1e9 else f", above {low:g} kDa"
        figures[f"median F1, {kind}{of} ({len(chosen)})"] = round(
            statistics.median(float(str(r["f1"])) for r in chosen), 3
        )
        figures[f"best, {kind}{of}"] = round(statistics.median(float(str(r["best_f1"])) for r in chosen), 3)
    return figures


if __name__ == "__main__":
    main()
