"""F1 on tomograms that another simulator made and that were treated as users treat theirs: the bench that decides.

    python benchmarks/foreign.py --data DIR --work DIR [--styles flip sirt deconv denoised coarse] [--ways embedding verified]

DIR holds pairs STYLE_A.mrc.gz, STYLE_B.mrc.gz with STYLE_A.csv, STYLE_B.csv (id, x, y, z in voxels) of molecules that the
released model never saw. All that is scored lies in B; A gives the five example positions of each species. Each species is
picked twice, all species of a tomogram competing:

  structure   from the library's density, simulated as the style's description says that it was taken
  positions   from five positions in A

and each of these by the embedding alone (`tomotwin locate --no-verification`) and with verification, as it is by default: positions
with the template that `tomotwin reference` makes of them where it is good.
F1 at the proposed threshold stands before the best that any threshold could have given, which only the truth tells;
`looked at` is the share of the particles that have a peak at all, the most that any threshold could reach. Medians are
over species; the last rows are means of the styles' medians. `local` and `dirty` are kept for the last look: what is chosen by this bench is chosen by the
others.

Beside F1: how many true centres are named rightly by the similarity there, and the real share of false picks where
`tomotwinFDR` promises one. Everything is kept in --work; a second call picks anew only with --again.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.embedding import open_field
from tomotwin_core.evaluation import evaluate, match, tolerance_A
from tomotwin_core.model import load_model
from tomotwin_core.picking import load_references
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import open_tomogram

# What the data's description says of each style, as a user would tell it to the software.
STYLES: dict[str, list[str]] = {
    "flip": ["--dose", "130", "--ctf-corrected"],
    "sirt": ["--dose", "130"],
    "deconv": ["--dose", "130", "--ctf-corrected"],
    "denoised": ["--dose", "110"],
    "coarse": [
        "--tilt-min",
        "-50",
        "--tilt-max",
        "50",
        "--tilt-step",
        "3",
        "--dose",
        "100",
        "--defocus",
        "4",
        "7",
        "--tomogram-voxel-size",
        "13.5",
    ],
    "local": ["--dose", "100"],
    "dirty": ["--tilt-min", "-54", "--tilt-max", "54", "--tilt-step", "3", "--dose", "80"],
}
LAST_LOOK = ("local", "dirty")
WAYS: dict[str, list[str]] = {"embedding": ["--no-verification"], "verified": []}
CLASSES_KDA = ((0, 1e9), (150, 1e9), (0, 150))
RATES = (0.05, 0.1, 0.2, 0.3)
EXAMPLES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=[s for s in STYLES if s not in LAST_LOOK])
    parser.add_argument(
        "--references", nargs="+", choices=("structure", "positions"), default=("structure", "positions")
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--model", default="released")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--again", action="store_true", help="pick anew what an earlier version of the software has picked"
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    hash_ = load_model(options.model).hash
    for style in options.styles:
        prepare(style, options)
        for kind in options.references:
            for way in options.ways:
                folder = options.work / hash_ / style / f"{kind}_{way}"
                done = folder / "scores.json"
                if options.again or not done.is_file():
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir(parents=True)
                    found = one(style, kind, way, folder, options)
                    done.write_text(json.dumps(found) + "\n")
                rows += json.loads(done.read_text())
    report(rows, options)


def prepare(style: str, options: argparse.Namespace) -> None:
    """Unpack both tomograms, write their truth and embed them."""
    library, folder = load_library(), options.work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for half in "AB":
        name = f"{style}_{half}"
        path = folder / f"{name}.mrc"
        if not path.is_file():
            with gzip.open(options.data / f"{name}.mrc.gz") as packed, open(path, "wb") as out:
                shutil.copyfileobj(packed, out)
            tomogram = open_tomogram(path)
            with open(options.data / f"{name}.csv") as lines:
                listed = list(csv.DictReader(lines))
            label = [row["id"] for row in listed]
            write_coordinates(
                folder / f"{name}_truth.star",
                Coordinates.from_arrays(
                    [[float(row[axis]) for axis in "xyz"] for row in listed],
                    tomogram.voxel_size_A,
                    name,
                    tomogram.shape,
                    label,
                    diameter_A=[library.entries[i].diameter_A for i in label],
                    mass_kDa=[library.entries[i].mass_kDa for i in label],
                ),
            )
        run("embed", path, "--out", embedded(options), "--model", options.model, "--device", options.device)


def embedded(options: argparse.Namespace) -> Path:
    return Path(options.work) / load_model(options.model).hash / "embeddings"


def one(style: str, kind: str, way: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Pick all species of a style in one way, by the commands that a user gives."""
    data, embeddings = options.work / "data", embedded(options)
    truth = read_coordinates(data / f"{style}_B_truth.star")
    species = sorted({str(label) for label in truth.label})
    references = folder.parent / f"{kind}.safetensors"
    if not references.is_file():
        sources: list[object] = [f"library:{s}" for s in species]
        if kind == "positions":
            sources = [examples(style, folder.parent, options), "--embedding", embeddings / f"{style}_A.zarr"]
        run(
            "reference",
            *sources,
            "--out",
            references,
            "--model",
            options.model,
            "--device",
            options.device,
            *STYLES[style],
        )
    start, clock = time.process_time(), time.perf_counter()
    run(
        "locate",
        embeddings / f"{style}_B.zarr",
        "--references",
        references,
        "--out",
        folder,
        "--min-score",
        -1,
        *WAYS[way],
    )
    spent = {"cpu_s": round(time.process_time() - start), "clock_s": round(time.perf_counter() - clock)}
    run("pick", folder / f"{style}_B_peaks.star", "--references", references, "--out", folder)
    peaks, picks = (read_coordinates(folder / f"{style}_B_{what}.star") for what in ("peaks", "picks"))
    named = named_at_centres(embeddings / f"{style}_B.zarr", references, truth)
    rows = []
    for score in evaluate(picks, truth, peaks, labels=species):
        own, true = (t.select(t.label == score.label) for t in (peaks, truth))
        limit = tolerance_A(float(true.diameter_A[0]))
        found = len(match(own.xyz * own.voxel_size_A, true.xyz * true.voxel_size_A, limit)[0])
        rows.append({
            "style": style, "reference": kind, "way": way, "species": score.label,
            "mass_kDa": round(float(true.mass_kDa[0]), 1), "true": score.n_true, "picked": score.n_picked,
            "precision": score.precision, "f1": score.f1, "best_f1": score.best_f1, "looked_at": found / len(true),
            "named": named[score.label], "rates": rates(own, true, limit), **spent,
        })  # fmt: skip
    return rows


def examples(style: str, folder: Path, options: argparse.Namespace) -> Path:
    """Five positions of each species in A."""
    truth = read_coordinates(options.work / "data" / f"{style}_A_truth.star")
    rng = np.random.default_rng(sorted(STYLES).index(style))
    chosen = [rng.choice(np.flatnonzero(truth.label == s), EXAMPLES, replace=False) for s in np.unique(truth.label)]
    path = folder / "examples.star"
    write_coordinates(path, truth.select(np.sort(np.concatenate(chosen))))
    return path


def named_at_centres(field: Path, references: Path, truth: Coordinates) -> dict[str, float]:
    """The share of each species' true centres that are most similar to it of all targets."""
    targets = load_references(references)
    names = np.array(targets.names)[targets.similarity(open_field(field).at(truth.xyz)).argmax(1)]
    return {str(s): float((names[truth.label == s] == s).mean()) for s in np.unique(truth.label)}


def rates(peaks: Coordinates, truth: Coordinates, limit: float) -> list[tuple[int, int]]:
    """At each of `RATES` how many peaks promise it, and how many of these are wrong."""
    found = []
    for rate in RATES:
        kept = peaks.select(peaks.fdr <= rate) if peaks.fdr is not None else peaks.select(np.zeros(len(peaks), bool))
        right = len(match(kept.xyz * kept.voxel_size_A, truth.xyz * truth.voxel_size_A, limit)[0])
        found.append((len(kept), len(kept) - right))
    return found


def run(command: str, *arguments: object) -> None:
    if code := tomotwin([command, *map(str, arguments)]):
        raise SystemExit(code)


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    ways = [(kind, way) for kind in options.references for way in options.ways]
    for style in options.styles:
        own = [r for r in rows if r["style"] == style]
        print(f"\n{style:10}{'kDa':>6}" + "".join(f"{f'{kind} {way}':>30}" for kind, way in ways))
        for species, mass in sorted({(r["species"], r["mass_kDa"]) for r in own}, key=lambda pair: pair[1]):
            cells = [next(r for r in own if (r["species"], r["reference"], r["way"]) == (species, *w)) for w in ways]
            print(f"{species:10}{mass:6.0f}" + "".join(
                f"{r['f1']:10.2f} ({r['best_f1']:.2f}) of {r['looked_at']:.2f}" + f"{r['picked']:5d}".rjust(7) for r in cells))  # fmt: skip
    for low, high in CLASSES_KDA:
        name = "all" if (low, high) == CLASSES_KDA[0] else f"from {low:g} kDa on" if low else f"below {high:g} kDa"
        print(f"\nmedians, {name:22}" + "".join(f"{f'{kind} {way}':>30}" for kind, way in ways))
        means: list[list[tuple[float, ...]]] = [[] for _ in ways]
        for style in options.styles:
            cells = []
            for column, (kind, way) in enumerate(ways):
                here = [r for r in rows if (r["style"], r["reference"], r["way"]) == (style, kind, way)]
                here = [r for r in here if low <= r["mass_kDa"] < high]
                if here:
                    means[column].append(tuple(middle(here, what) for what in ("f1", "best_f1", "looked_at", "named")))
                cells.append(told(means[column][-1]) if here else "-")
            print(f"{style:30}" + "".join(f"{cell:>30}" for cell in cells))
        print(f"{'mean of these':30}" + "".join(f"{told(np.mean(m, axis=0)) if m else '-':>30}" for m in means))
    print("\nreal share of false picks (number) where expected" + "".join(f"{rate:>14}" for rate in RATES))
    for kind, way in ways:
        for style in [*options.styles, "all"]:
            here = [
                r["rates"] for r in rows if (r["reference"], r["way"]) == (kind, way) and style in (r["style"], "all")
            ]
            sums = np.array(here).sum(0)
            cells = "".join(f"{wrong / max(n, 1):8.2f} ({n:d})".rjust(14) for n, wrong in sums)
            print(f"{f'{kind} {way}, {style}':50}{cells}")
    for kind, way in ways:
        spent = {r["style"]: (r["clock_s"], r["cpu_s"]) for r in rows if (r["reference"], r["way"]) == (kind, way)}
        print(f"locating, {kind} {way}: " + ", ".join(f"{s} {c} s ({p} s of processor)" for s, (c, p) in spent.items()))


def middle(rows: Iterable[dict[str, Any]], what: str) -> float:
    return statistics.median(r[what] for r in rows)


def told(values: Iterable[float]) -> str:
    f1, best, looked_at, named = values
    return f"{f1:.2f} ({best:.2f}) of {looked_at:.2f}, {named:.2f}"


if __name__ == "__main__":
    main()
