"""Template matching beside embedding and picking, on simulated tomograms: F1 and time per target.

DATA is a folder of `tomotwin simulate`. Both ways know the structure and how the tomogram was taken, neither any position:
  matching   locally normalised correlation with the imaged structure in 4400 orientations (15 degrees), each species by
             itself; threshold: the score that noise passes once in a tomogram (Rickgauer et al. 2017)
  together   the same peaks, all species competing by score over noise, as the embedding's do
  embedding  references from the structures, thresholds from their simulation, all species competing
  verified   places of the embedding and of coarse matching, matched with the structures, thresholds beside decoys
`best` is what the best threshold would have given, which only the truth tells. Seconds are processor time per species, of
all threads; the embedding, made once for all species of a tomogram, is shared out among them.

  tomotwin simulate --out DATA --tomograms 2 --voxel-size 10
  python benchmarks/template_matching.py DATA --out RESULTS
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.embedding import pick_device
from tomotwin_core.evaluation import evaluate
from tomotwin_core.evaluation.scores import SpeciesScore
from tomotwin_core.picking.location import LocationSettings, Peaks, suppressed
from tomotwin_core.picking.references import ReferenceSet, Target
from tomotwin_core.simulation import Acquisition
from tomotwin_core.structures import load_density
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, open_tomogram, resample
from tomotwin_core.verification.template_matching import expected_threshold, find_peaks, match_template

Contrast = Literal["dark", "bright"]
WAYS = ("matching", "together", "embedding", "verified")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of `tomotwin simulate`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="tables; finished species are kept")
    parser.add_argument("--species", nargs="+", metavar="NAME", help="default: all of the truth")
    parser.add_argument("--limit", type=int, default=0, help="only so many tomograms; 0 for all")
    parser.add_argument("--step", type=float, default=15.0, help="of the orientations, degrees (default: 15)")
    parser.add_argument("--model", default="released")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    records = json.loads((options.data / "simulation.json").read_text())["tomograms"]
    rows = []
    for name in sorted(records)[: options.limit or None]:
        truth = read_coordinates(options.data / f"{name}_truth.star")
        species = options.species or sorted(map(str, np.unique(truth.label)))
        acquisition = acquisition_of(records[name])
        contrast = records[name]["delivery"]["contrast"]
        ways = matched(name, species, acquisition, contrast, options)
        for way in ("embedding", "verified"):
            ways[way] = embedded(name, species, acquisition, contrast, way, options)
        own = truth.select(np.isin(truth.label, species))
        scores = {
            way: {s.label: s for s in evaluate(picks, own, peaks, labels=species)}
            for way, (picks, peaks, _) in ways.items()
        }
        for label in species:
            rows.append(row(name, label, {w: s[label] for w, s in scores.items()}, {w: ways[w][2] for w in ways}))
    report(rows, options)


def acquisition_of(record: dict[str, Any]) -> Acquisition:
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record["acquisition"].items()}
    return Acquisition(**fields)


Found = tuple[Coordinates, Coordinates, dict[str, float]]
"""Picks, all peaks, seconds per species."""


def matched(
    name: str, species: list[str], acquisition: Acquisition, contrast: Contrast, options: argparse.Namespace
) -> dict[str, Found]:
    """Both ways of using template matching; what was matched before is read."""
    source = open_tomogram(options.data / f"{name}.mrc")
    volume = resample(source.slab(0, source.shape[0]), source.voxel_size_A, MODEL_VOXEL_SIZE_A)
    tables, noise, thresholds, seconds = [], {}, {}, {}
    for label in species:
        file = options.out / "matching" / f"{name}_{label}.star"
        done = file.with_suffix(".json")
        if not done.is_file():
            start = time.process_time(), time.perf_counter()
            density = load_density(f"library:{label}")
            device = str(pick_device(options.device))
            match = match_template(volume, MODEL_VOXEL_SIZE_A, density, acquisition, options.step, contrast, device)
            # Scores below three deviations of the noise are never picks.
            write_coordinates(file, find_peaks(match, label, name, min_score=3 * match.noise))
            told = {"noise": match.noise, "threshold": expected_threshold(match), "kept": match.variance_kept,
                    "cpu_s": time.process_time() - start[0], "wall_s": time.perf_counter() - start[1]}  # fmt: skip
            done.write_text(json.dumps(told) + "\n")
        told = json.loads(done.read_text())
        noise[label], thresholds[label], seconds[label] = told["noise"], told["threshold"], told["cpu_s"]
        tables.append(read_coordinates(file))
    peaks = Coordinates.concatenate(tables)
    apart, together = above(peaks, thresholds), competing(peaks, species, noise)
    return {"matching": (apart, peaks, seconds), "together": (above(together, thresholds), together, seconds)}


def above(peaks: Coordinates, thresholds: dict[str, float]) -> Coordinates:
    return peaks.select(peaks.score >= np.array([thresholds[str(label)] for label in peaks.label]))


def competing(peaks: Coordinates, species: list[str], noise: dict[str, float]) -> Coordinates:
    """Of two peaks of different species whose middles coincide, that which stands out of its noise the more."""
    index = {label: i for i, label in enumerate(species)}
    diameter = {label: float(np.nanmax(peaks.diameter_A[peaks.label == label], initial=1)) for label in species}
    targets = tuple(Target(label, np.zeros((1, 1), np.float32), diameter[label]) for label in species)
    of = np.array([index[str(label)] for label in peaks.label], int)
    relative = peaks.score / np.array([noise[str(label)] for label in peaks.label])
    order = np.argsort(-relative, kind="stable")
    everything = Peaks(peaks.xyz[order, ::-1], relative[order], of[order])
    kept = suppressed(everything, ReferenceSet(targets, ""), peaks.voxel_size_A, LocationSettings())
    score = kept.score * np.array([noise[species[i]] for i in kept.target])
    return Coordinates.from_arrays(
        kept.zyx[:, ::-1], peaks.voxel_size_A, peaks.tomogram, peaks.shape, [species[i] for i in kept.target], score,
        [diameter[species[i]] for i in kept.target],
    )  # fmt: skip


def embedded(
    name: str, species: list[str], acquisition: Acquisition, contrast: Contrast, way: str, options: argparse.Namespace
) -> Found:
    """Embed, refer, locate and pick by the commands a user gives."""
    out = options.out / way
    references, field, device = out / f"{name}.safetensors", out / f"{name}.zarr", ["--device", options.device]
    done = out / f"{name}.json"
    if not done.is_file():
        start = time.process_time()
        tomogram = options.data / f"{name}.mrc"
        run("embed", tomogram, "--out", out, "--model", options.model, "--contrast", contrast, *device)
        run("reference", *(f"library:{s}" for s in species), "--out", references, "--model", options.model,
            "--tilt-min", acquisition.tilt_min_deg, "--tilt-max", acquisition.tilt_max_deg, "--tilt-step",
            acquisition.tilt_step_deg, "--dose", acquisition.dose_e_per_A2, "--defocus", acquisition.defocus_um,
            acquisition.defocus_um, *(["--ctf-corrected"] if acquisition.ctf_corrected else []), *device)  # fmt: skip
        alone = ["--no-verification"] if way == "embedding" else []
        run("locate", field, "--references", references, "--out", out, "--min-score", -1, *alone)
        run("pick", out / f"{name}_peaks.star", "--references", references, "--out", out)
        done.write_text(json.dumps({"cpu_s": time.process_time() - start}) + "\n")
    share = json.loads(done.read_text())["cpu_s"] / len(species)
    picks, peaks = (read_coordinates(out / f"{name}_{what}.star") for what in ("picks", "peaks"))
    return picks, peaks, dict.fromkeys(species, share)


def run(command: str, *arguments: object) -> None:
    if code := tomotwin([command, *map(str, arguments)]):
        raise SystemExit(code)


def row(
    name: str, label: str, scores: dict[str, SpeciesScore], seconds: dict[str, dict[str, float]]
) -> dict[str, object]:
    first = scores["matching"]
    mass = load_library().entries[label].mass_kDa
    cells = {f"{way}_{what}": getattr(scores[way], what) for way in WAYS for what in ("f1", "best_f1")}
    times = {f"{way}_s": seconds[way][label] for way in ("matching", "embedding", "verified")}
    return {"tomogram": name, "species": label, "mass_kDa": mass, "true": first.n_true, **cells, **times}


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    head = "".join(f"{way:>12}{'(best)':>8}" for way in WAYS)
    print(f"\n{'tomogram':12}{'species':10}{'kDa':>7}{'true':>6}{head}{'matching s':>12}{'embedding s':>13}{'verified s':>12}")
    for r in sorted(rows, key=lambda r: r["mass_kDa"]):
        cells = "".join(f"{r[f'{way}_f1']:12.2f}{r[f'{way}_best_f1']:8.2f}" for way in WAYS)
        print(f"{r['tomogram']:12}{r['species']:10}{r['mass_kDa']:7.0f}{r['true']:6d}{cells}"
              f"{r['matching_s']:12.0f}{r['embedding_s']:13.0f}{r['verified_s']:12.0f}")  # fmt: skip
    middle = {key: float(np.median([r[key] for r in rows])) for key in rows[0] if key.endswith(("f1", "_s"))}
    cells = "".join(f"{middle[f'{way}_f1']:12.2f}{middle[f'{way}_best_f1']:8.2f}" for way in WAYS)
    print(f"{'median':35}{cells}{middle['matching_s']:12.0f}{middle['embedding_s']:13.0f}{middle['verified_s']:12.0f}")
    with open(options.out / "template_matching.csv", "w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
