#!/usr/bin/env python3
"""A stand-in for the command ``tomotwin``: same command line and files, no network, instant.

It "finds" what a test planted: in a tomogram of zeros, the voxel of value -k is a particle of the k-th
reference. The n-th particle of a tomogram scores 0.99 - n/100. An all-constant volume is refused with exit code 2,
as the engine does. Every call is appended as a JSON line to the file that FAKE_TOMOTWIN_LOG names. As long as the file
that FAKE_TOMOTWIN_HOLD names contains a command's name, that command does not get on with inputs called "held".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
from fake_cluster import cluster
from fake_files import COLUMNS, DIAMETER_A, fail, write, write_header, write_mrc
from fake_simulate import simulate

PEAKS = COLUMNS + ("tomotwinFDR",)
AUTOMATIC_THRESHOLD = 0.5


def embed(options: argparse.Namespace) -> None:
    for tomogram in options.inputs:
        with mrcfile.open(tomogram, permissive=True) as file:
            volume = np.array(file.data)
        if volume.min() == volume.max():
            sys.exit(fail(f"{tomogram} is constant: there is nothing in it."))
        z, y, x = np.nonzero(volume)
        particles = [[int(a), int(b), int(c), int(-volume[c, b, a])] for a, b, c in zip(x, y, z, strict=True)]
        folder = Path(options.out, Path(tomogram).stem + ".zarr")
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            "particles": particles,
            "contrast": options.contrast,
            "shape": volume.shape,
            "step": 20 / options.voxel_size,
        }
        (folder / "fake.json").write_text(json.dumps(told))


def reference(options: argparse.Namespace) -> None:
    names = []
    for source in options.inputs:
        name, _, path = source.partition("=")
        if not path.startswith(("pdb:", "emdb:", "library:")) and not os.path.exists(
            path.removeprefix("subtomograms:")
        ):
            sys.exit(fail(f"there is no file {path}."))
        if path == "library:nowhere":
            print("progress 1 of 2\rprogress 2 of 2", file=sys.stderr)
            sys.exit(fail("there is no molecule nowhere in the library."))
        names.append(name)
    diameter = options.diameter or DIAMETER_A
    targets = [{"name": name, "diameter_A": diameter, "threshold": AUTOMATIC_THRESHOLD} for name in names]
    write_header(options.out, "references", {"targets": targets})


def read_references(path: str) -> dict:
    return json.loads(json.loads(Path(path).read_bytes()[8:])["__metadata__"]["references"])


def refine(options: argparse.Namespace) -> None:
    """The places that were rejected are remembered, and found no more."""
    picks, corrected = ([tuple(row) for row in read_places(paths)] for paths in (options.picks, options.corrected))
    rejected = [place for place in picks if place not in corrected]
    write_header(options.out, "references", {**read_references(options.references), "rejected": rejected})


def read_places(paths: list[str]) -> list[tuple]:
    """Tomogram, x, y, z and label (where there is one) of the rows of tables of positions."""
    lines = [line.split() for path in paths for line in Path(path).read_text().split("data_particles")[1].splitlines()]
    head = [words[0][1:] for words in lines if words and words[0].startswith("_")]
    chosen = [head.index(name) for name in COLUMNS[:5] if name in head]
    rows = [words for words in lines if len(words) == len(head) and not words[0].startswith("_")]
    return [
        (row[chosen[0]], *(round(float(row[i])) for i in chosen[1:4]), *(row[i] for i in chosen[4:])) for row in rows
    ]


def locate(options: argparse.Namespace) -> None:
    references = read_references(options.references)
    rejected = [tuple(place) for place in references.get("rejected", [])]
    region = read_mask(options.mask)
    first, last = options.z_range or (0, 10**6)
    for embedding in options.inputs:
        name = Path(embedding).stem
        rows = []
        particles = json.loads(Path(embedding, "fake.json").read_text())["particles"]
        for number, (x, y, z, kind) in enumerate(particles):
            inside = first <= z <= last and (region is None or region[z, y, x])
            target = target_of(kind, references)
            if target and inside and (name, x, y, z, target["name"]) not in rejected:
                score = 0.99 - number / 100
                rows.append((name, x, y, z, target["name"], score, target["diameter_A"], fdr_at(score)))
        write(Path(options.out, f"{name}_peaks.star"), rows, PEAKS)


def target_of(kind: int, references: dict) -> dict | None:
    """Clusters know their kinds; else the k-th target is the k-th kind."""
    targets, kinds = references["targets"], references.get("kinds")
    if kinds is not None:
        return next((target for target in targets if kind in kinds[target["name"]]), None)
    return targets[kind - 1] if kind <= len(targets) else None


def fdr_at(score: float) -> float:
    """Share of false ones among the peaks that score at least as much: 0.1 more for every hundredth below 0.99."""
    return round(10 * (0.99 - score), 4)


def read_mask(path: str | None) -> np.ndarray | None:
    if path is None:
        return None
    with mrcfile.open(path) as file:
        return np.array(file.data) != 0


def mask(options: argparse.Namespace) -> None:
    """1 in the planes asked for and in the mask given; gold is where the tomogram is below -5."""
    with mrcfile.open(options.inputs[0], permissive=True) as file:
        volume = np.array(file.data)
    if volume.min() == volume.max():
        sys.exit(fail(f"{options.inputs[0]} is constant: there is nothing in it."))
    given = read_mask(options.mask)
    region = np.ones(volume.shape, np.int8) if given is None else given.astype(np.int8)
    if options.z_range:
        region[: options.z_range[0]] = region[options.z_range[1] + 1 :] = 0
    if options.exclude_gold:
        region[volume < -5] = 0
    with mrcfile.new(options.out, overwrite=True) as file:
        file.set_data(region)
        file.voxel_size = options.voxel_size


def similarity_map(options: argparse.Namespace) -> None:
    """The colour of everything is (0.2, 0.4, 0.6), and of the grid point next to a particle (1, 0.4, 0.6)."""
    for embedding in options.inputs:
        if options.pca:
            told = json.loads(Path(embedding, "fake.json").read_text())
            if any(kind > 5 for *_, kind in told["particles"]):
                sys.exit(fail(f"{embedding}: no such colours."))
            for number in (1, 2, 3):
                volume = np.full([int((side - 1) / told["step"]) + 1 for side in told["shape"]], number / 5)
                for x, y, z, _ in told["particles"] if number == 1 else ():
                    volume[tuple(round(value / told["step"]) for value in (z, y, x))] = 1
                write_mrc(Path(options.out, f"{Path(embedding).stem}_pca{number}.mrc"), volume, 20.0)
            continue
        Path(options.out, f"{Path(embedding).stem}_map.mrc").touch()


def pick(options: argparse.Namespace) -> None:
    threshold = AUTOMATIC_THRESHOLD if options.threshold == "auto" else float(options.threshold)
    for peaks in options.inputs:
        rows = [line.split() for line in Path(peaks).read_text().splitlines() if len(line.split()) == len(PEAKS)]
        kept = [row for row in rows if (float(row[7]) <= options.fdr if options.fdr else float(row[5]) >= threshold)]
        write(Path(options.out, Path(peaks).name.replace("_peaks", "_picks")), kept, PEAKS)
        if options.summary:
            lines = ["tomogram,target,peaks,picks,threshold,median_score,expected_fdr,expected_right,expected_recall"]
            for label in sorted({row[4] for row in rows}):
                own = [row for row in kept if row[4] == label]
                rate = max((float(row[7]) for row in own), default=0.0)
                used = min((float(row[5]) for row in own), default=1.0) if options.fdr else threshold
                figures = (
                    Path(peaks).stem[:-6],
                    label,
                    sum(row[4] == label for row in rows),
                    len(own),
                    used,
                    0.9,
                    rate,
                )
                lines.append(",".join(map(str, (*figures, len(own) * (1 - rate), 1))))
            Path(options.summary).write_text("\n".join(lines) + "\n")


def library(options: argparse.Namespace) -> None:
    names = sorted(path.name for path in Path(options.inputs[1]).iterdir())
    Path(options.out).write_text(json.dumps({"molecules": names, "held_out": options.held_out}))


def train(options: argparse.Namespace) -> None:
    """Ten steps a line of the log, from the last line on; the setting break.at = N stops it there while no file "mended"
    lies in the run's folder. Validation every so often, best at step 20."""
    out = Path(options.out)
    out.mkdir(exist_ok=True)
    log = out / "log.csv"
    if not log.exists():
        log.write_text(
            "step,loss,nearest_neighbour_accuracy,particles,learning_rate,seconds_per_step,particleness_loss\n"
        )
        (out / "validation.csv").write_text("step,group,species,mass_kDa,n_true,f1,best_f1\n")
    done = 10 * (len(log.read_text().splitlines()) - 1)
    (broken,) = [int(line.partition("=")[2]) for line in options.set if line.startswith("break.at")] or [10**9]
    for step in range(done + 10, options.steps + 1, 10):
        if step > broken and not (out.parent / "mended").exists():
            sys.exit(fail(f"killed at step {step}."))
        with log.open("a") as file:
            file.write(f"{step},{10 / step:g},{1 - 5 / step:g},500,0.001,1,0.1\n")
        if options.validate_every and step % options.validate_every == 0:
            f1 = 0.9 - abs(step - 20) / 100
            with (out / "validation.csv").open("a") as file:
                for group, species, value in (("seen", "a", f1), ("seen", "b", f1 + 0.04), ("unseen", "c", f1 - 0.2)):
                    file.write(f"{step},{group},{species},100,10,{value:g},{value:g}\n")
            if step == 20:
                write_header(out / "best.safetensors", "card", {"step": step})
        write_header(out / "model.safetensors", "card", {"step": step})


def adapt(options: argparse.Namespace) -> None:
    places = read_places(options.positions) if len(options.positions) == 1 else []
    targets = {Path(path).stem: len(places) for path in options.positions}
    write_header(options.out, "card", {"adapted": {"targets": targets, "from": options.model}})


def is_held(options: argparse.Namespace) -> bool:
    hold = Path(os.environ.get("FAKE_TOMOTWIN_HOLD", "/nowhere"))
    names = [Path(source).name.split(".")[0] for source in options.inputs]
    return "held" in names and hold.exists() and hold.read_text() == options.command


def main() -> None:
    if "FAKE_TOMOTWIN_LOG" in os.environ:
        with open(os.environ["FAKE_TOMOTWIN_LOG"], "a") as file:
            file.write(json.dumps(sys.argv[1:]) + "\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--out", required=True)
    parser.add_argument("--references", nargs="?", const="wanted")  # a file for locate, a switch for simulate
    parser.add_argument("--model")
    parser.add_argument("--voxel-size", type=float)
    parser.add_argument("--contrast", choices=["dark", "bright"])
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--diameter", type=float)
    parser.add_argument("--threshold", default="auto")
    parser.add_argument("--min-score", type=float)
    parser.add_argument("--embedding", action="append", default=[])
    parser.add_argument("--no-template", action="store_true")
    parser.add_argument("--fdr", type=float)
    parser.add_argument("--summary")
    parser.add_argument("--mask")
    parser.add_argument("--z-range", type=int, nargs=2)
    parser.add_argument("--no-verification", action="store_true")
    parser.add_argument("--picks", nargs="+")
    parser.add_argument("--corrected", nargs="+")
    parser.add_argument("--prior", type=float)
    parser.add_argument("--subtomogram-contrast", choices=["dark", "bright"])
    parser.add_argument("--voltage", type=float)
    for option in (
        "--auto-slab",
        "--exclude-gold",
        "--exclude-carbon",
        "--no-simulation",
        "--ctf-corrected",
        "--all-listed",
        "--bright",
        "--pca",
    ):
        parser.add_argument(option, action="store_true")
    for option in ("--tilt-min", "--tilt-max", "--tilt-step", "--dose", "--tomogram-voxel-size"):
        parser.add_argument(option, type=float)
    parser.add_argument("--fit", nargs="+")
    parser.add_argument("--defocus", type=float, nargs=2)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--tomograms", nargs="+", default=["2"])  # a number for simulate, files for train and adapt
    parser.add_argument("--positions", nargs="+")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--held-out", type=int)
    for option in ("--steps", "--validate-every", "--workers", "--species"):
        parser.add_argument(option, type=int)
    for option in ("--keep", "--learning-rate", "--live-share"):
        parser.add_argument(option, type=float)
    for option in ("--recompute", "--leftover", "--no-library"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--fewest", type=int)
    parser.add_argument("--salience", type=float)
    parser.add_argument("--selection")
    for option in ("--recipe", "--loss", "--from", "--library"):
        parser.add_argument(option)
    parser.add_argument("--prefix", default="tomo")
    for option in ("--tilt-series", "--labels", "--noise-free"):
        parser.add_argument(option, action="store_true")
    options = parser.parse_args()
    while is_held(options):
        time.sleep(0.1)
    COMMANDS[options.command](options)


COMMANDS = {
    "embed": embed,
    "reference": reference,
    "refine": refine,
    "mask": mask,
    "cluster": cluster,
    "locate": locate,
    "map": similarity_map,
    "pick": pick,
    "simulate": simulate,
    "library": library,
    "train": train,
    "adapt": adapt,
}

if __name__ == "__main__":
    main()
