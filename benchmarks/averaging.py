"""From simulated tomograms to a structure: picks are oriented, cut out, averaged with RELION 3 and held against the truth.

  simulate -> embed -> reference -> locate -> pick -> orient -> extract -> relion_reconstruct -> shell correlation

by the commands that a user gives. Averages are made of
  true, as it is     the true positions with the true orientations: what the tomograms hold
  true, oriented     the true positions, their orientations found
  found, all         the picks at an expected false-discovery rate of --fdr, their orientations found
  found, own scores  those of them whose correlation is above what `tomotwin orient` suggests
  found, RELION      those of them that relion_refine puts into the class of the particle (two classes, no alignment)
  right of found     those of them that are right, which only the truth tells
  nothing            places where nothing was picked, oriented too: what the reference puts into an average by itself
Resolutions are those of the shell correlation with the true density at 0.5, and of two halves of the particles at 0.143. The
reference of orienting is the true density without anything finer than --low-pass; the picks' own reference is, too.

  python benchmarks/averaging.py --work DIR            needs RELION 3 (apt-get install relion), about 6 minutes of 2 cores
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.evaluation import match, tolerance_A
from tomotwin_core.evaluation.resolution import density_in_box, shell_correlation
from tomotwin_core.structures import Density, load_density

TARGET = "1aon"
SPECIES = "1aon=60,1fnt=25,1g3i=25,2buk=25,6fml=25"
# GroEL/GroES is sevenfold: any of seven orientations is right.
FOLD = 7


@dataclass(frozen=True)
class Row:
    """One average: its particles, how many of them are right, and its resolutions (A)."""

    name: str
    particles: int
    right: int
    with_truth_A: float
    halves_A: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="everything goes here; what is there is kept"
    )
    parser.add_argument("--tomograms", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=3, default=(90, 220, 220), metavar=("Z", "Y", "X"))
    parser.add_argument("--voxel-size", type=float, default=6.0)
    parser.add_argument("--species", default=SPECIES, help=f"with copies, {TARGET} among them (default: {SPECIES})")
    parser.add_argument("--fdr", type=float, default=0.3)
    parser.add_argument("--low-pass", type=float, default=30.0, metavar="A")
    parser.add_argument("--box", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if shutil.which("relion_reconstruct") is None:
        raise SystemExit("RELION is not installed: apt-get install relion")
    for row in whole_way(options):
        print(
            f"{row.name:22}{row.particles:10d}{row.right / max(row.particles, 1):8.2f}{row.with_truth_A:12.1f}{row.halves_A:12.1f}"
        )


def whole_way(options: argparse.Namespace) -> list[Row]:
    """Everything from the simulation to the table, which is also written as averaging.csv."""
    names = [f"tomo_{i + 1:02d}" for i in range(options.tomograms)]
    simulated_and_picked(names, options)
    density = load_density(f"library:{TARGET}")
    sets = oriented_sets(names, density, options)
    rows = [averaged(name, tables, names, density, options) for name, tables in sets.items()]
    rows.insert(5, classified(sets["found, all"], names, density, options))
    report(rows, sets, names, options)
    return rows


def simulated_and_picked(names: Sequence[str], options: argparse.Namespace) -> None:
    work, seed = options.work, ("--seed", options.seed)
    run("simulate", "--out", work / "data", "--tomograms", len(names), "--species", options.species, "--voxel-size",
        options.voxel_size, "--shape", *options.shape, "--ctf-corrected", *seed)  # fmt: skip
    files = [work / "data" / f"{name}.mrc" for name in names]
    run("embed", *files, "--out", work / "embedded")
    references = work / "references.safetensors"
    if not references.is_file():
        species = [word.partition("=")[0] for word in options.species.split(",")]
        run("reference", *(f"library:{s}" for s in species), "--out", references, "--ctf-corrected", *seed)
    run("locate", *(work / "embedded" / f"{name}.zarr" for name in names), "--references", references, "--out",
        work / "picks")  # fmt: skip
    run("pick", *(work / "picks" / f"{name}_peaks.star" for name in names), "--references", references, "--out",
        work / "picks", "--fdr", options.fdr)  # fmt: skip


Tables = dict[str, Coordinates]
"""Oriented positions by tomogram."""


def oriented_sets(names: Sequence[str], density: Density, options: argparse.Namespace) -> dict[str, Tables]:
    """All sets of particles that are averaged, in the table's order."""
    work, truth = options.work, true_positions(names, density, options)
    found = {name: read_coordinates(work / "picks" / f"{name}_picks.star").by_label()[TARGET] for name in names}
    suggested = {}
    oriented: dict[str, Tables] = {}
    for what, tables in (("true", truth), ("found", found)):
        folder = work / "oriented" / what
        for name in names:
            plain = replace(tables[name], rotation=None, mass_kDa=None)
            write_coordinates(folder / f"{name}_{what}.star", plain)
        run("orient", *(folder / f"{name}_{what}.star" for name in names), "--tomograms",
            *(work / "data" / f"{name}.mrc" for name in names), "--reference", f"library:{TARGET}", "--out", folder,
            "--ctf-corrected", "--low-pass", options.low_pass, "--summary", folder / "summary.csv")  # fmt: skip
        oriented[what] = {name: read_coordinates(folder / f"{name}_oriented.star") for name in names}
    with open(work / "oriented" / "found" / "summary.csv", newline="") as file:
        suggested = {row["tomogram"]: float(row["suggested"]) for row in csv.DictReader(file)}
    print("suggested correlations:", suggested)
    kept = {
        n: t.select(t.correlation >= suggested[n]) for n, t in oriented["found"].items() if t.correlation is not None
    }
    right = {n: t.select(is_right(t, truth[n])) for n, t in oriented["found"].items()}
    return {
        "true, as it is": truth,
        "true, oriented": oriented["true"],
        "found, all": oriented["found"],
        "found, own scores": kept,
        "right of found": right,
        "nothing": places_of_nothing(names, truth, found, density, options),
    }


def true_positions(names: Sequence[str], density: Density, options: argparse.Namespace) -> Tables:
    tables = {}
    for name in names:
        own = read_coordinates(options.work / "data" / f"{name}_truth.star").by_label()[TARGET]
        tables[name] = replace(own, diameter_A=np.full(len(own), density.diameter_A, np.float32))
    return tables


def places_of_nothing(
    names: Sequence[str], truth: Tables, found: Tables, density: Density, options: argparse.Namespace
) -> Tables:
    """As many random places as there are picks, away from all picks and true particles of the target, oriented."""
    rng, folder = np.random.default_rng(options.seed), options.work / "oriented" / "nothing"
    for name in names:
        taken = np.concatenate([truth[name].xyz, found[name].xyz])
        low, high = taken.min(0), taken.max(0)
        tried = rng.uniform(low, high, (20000, 3))
        distance = np.linalg.norm(tried[:, None] - taken[None], axis=2).min(1) * options.voxel_size
        free = tried[distance > 0.6 * density.diameter_A][: len(found[name])]
        table = Coordinates.from_arrays(
            free, options.voxel_size, name, found[name].shape, TARGET, 0.0, density.diameter_A
        )
        write_coordinates(folder / f"{name}_nothing.star", table)
    run("orient", *(folder / f"{name}_nothing.star" for name in names), "--tomograms",
        *(options.work / "data" / f"{name}.mrc" for name in names), "--reference", f"library:{TARGET}", "--out", folder,
        "--ctf-corrected", "--low-pass", options.low_pass, "--background", 0)  # fmt: skip
    return {name: read_coordinates(folder / f"{name}_oriented.star") for name in names}


def is_right(picks: Coordinates, truth: Coordinates) -> np.ndarray:
    """Whether each pick is at a true particle, one pick for one."""
    wanted = np.zeros(len(picks), bool)
    if len(picks) and len(truth):
        tolerance = tolerance_A(float(truth.diameter_A[0]))
        wanted[match(picks.xyz * picks.voxel_size_A, truth.xyz * truth.voxel_size_A, tolerance)[0]] = True
    return wanted


def averaged(name: str, tables: Tables, names: Sequence[str], density: Density, options: argparse.Namespace) -> Row:
    """Cut out, average with RELION (all, and both halves), and compare."""
    folder = options.work / "averages" / name.replace(", ", "_").replace(" ", "_")
    for n in names:
        write_coordinates(folder / f"{n}_set.star", tables[n])
    run("extract", *(folder / f"{n}_set.star" for n in names), "--tomograms",
        *(options.work / "data" / f"{n}.mrc" for n in names), "--out", folder, "--box", options.box)  # fmt: skip
    return resolved(name, folder, names, density, options)


def resolved(name: str, folder: Path, names: Sequence[str], density: Density, options: argparse.Namespace) -> Row:
    """Averages of all particles of a folder and of both halves, and their resolutions."""
    blocks = starfile.read(folder / "particles.star", always_dict=True, parse_as_string=["tomotwinProvenance"])
    rows = blocks["particles"]
    volumes = {}
    for part, chosen in (("all", rows), ("half1", rows.iloc[::2]), ("half2", rows.iloc[1::2])):
        star = f"{part}.star"
        starfile.write({"optics": blocks["optics"], "particles": chosen}, folder / star, overwrite=True)
        relion(folder, "relion_reconstruct", "--i", star, "--o", f"{part}.mrc", "--ctf", "--3d_rot")
        volumes[part] = mrcfile.read(folder / f"{part}.mrc").astype(np.float64)
    truth = density_in_box(density, options.box, options.voxel_size)
    with_truth = shell_correlation(volumes["all"], truth, options.voxel_size, density.diameter_A)
    halves = shell_correlation(volumes["half1"], volumes["half2"], options.voxel_size, density.diameter_A)
    np.savetxt(folder / "fsc.txt", np.stack([with_truth.frequency_per_A, with_truth.correlation, halves.correlation], 1),
               fmt="%.4f", header="frequency_per_A with_truth halves")  # fmt: skip
    right = count_right(rows, true_positions(names, density, options), options)
    return Row(name, len(rows), right, with_truth.resolution_A(0.5), halves.resolution_A(0.143))


def classified(tables: Tables, names: Sequence[str], density: Density, options: argparse.Namespace) -> Row:
    """The picks that two-class classification without alignment puts with the particle.

    The particle's class is the one whose average agrees better with the average of all, which the picks themselves made."""
    folder = options.work / "averages" / "found_all"
    (folder / "class").mkdir(exist_ok=True)
    relion(folder, "relion_refine", "--i", "all.star", "--o", "class/run", "--ref", "all.mrc", "--ini_high", "40", "--ctf",
           "--K", "2", "--iter", "15", "--skip_align", "--flatten_solvent", "--zero_mask", "--tau2_fudge", "2",
           "--particle_diameter", f"{density.diameter_A + 30:.0f}", "--pad", "2", "--random_seed", str(options.seed),
           "--dont_combine_weights_via_disc", "--pool", "10", "--j", "2")  # fmt: skip
    blocks = starfile.read(folder / "class" / "run_it015_data.star", always_dict=True)
    rows = blocks["particles"]
    volumes = [mrcfile.read(folder / "class" / f"run_it015_class00{k}.mrc").astype(np.float64) for k in (1, 2)]
    whole = mrcfile.read(folder / "all.mrc").astype(np.float64)
    agreement = [np.corrcoef(v.ravel(), whole.ravel())[0, 1] if v.std() > 0 else -1.0 for v in volumes]
    chosen = 1 + int(np.argmax(agreement))
    kept = rows[rows["rlnClassNumber"] == chosen]
    made = options.work / "averages" / "found_RELION"
    made.mkdir(parents=True, exist_ok=True)
    starfile.write({"optics": blocks["optics"], "particles": kept}, made / "particles.star", overwrite=True)
    for place in [*names, *(p.name for p in folder.glob("wedge_*.mrc"))]:
        if not (made / place).exists():
            (made / place).symlink_to((folder / place).resolve())
    print(f"RELION's classes hold {[int((rows['rlnClassNumber'] == k).sum()) for k in (1, 2)]}, taken: {chosen}")
    return resolved("found, RELION", made, names, density, options)


def count_right(rows: pd.DataFrame, truth: Tables, options: argparse.Namespace) -> int:
    """How many of the rows of RELION's table are at true particles."""
    right = 0
    for name, true in truth.items():
        own = rows[rows["rlnMicrographName"] == name]
        xyz = own[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy(float)
        xyz = xyz - own[[f"rlnOrigin{axis}Angst" for axis in "XYZ"]].to_numpy(float) / options.voxel_size
        right += int(is_right(Coordinates.from_arrays(xyz, options.voxel_size, name), true).sum())
    return right


def report(rows: Sequence[Row], sets: dict[str, Tables], names: Sequence[str], options: argparse.Namespace) -> None:
    with open(options.work / "averaging.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows({name: getattr(row, name) for name in Row.__dataclass_fields__} for row in rows)
    truth, oriented = sets["true, as it is"], sets["true, oriented"]
    shifts = [np.linalg.norm(oriented[n].xyz - truth[n].xyz, axis=1) * options.voxel_size for n in names]
    angles = [angle_errors(oriented[n], truth[n]) for n in names]
    print(f"\n{TARGET}, {options.species}, seed {options.seed}, {len(names)} tomograms at {options.voxel_size:g} A, "
          f"phases flipped, box {options.box}")  # fmt: skip
    print(f"true positions, oriented: centres {np.median(np.concatenate(shifts)):.1f} A off in the median, orientations "
          f"{np.median(np.concatenate(angles)):.1f} degrees, within 10 degrees {np.mean(np.concatenate(angles) < 10):.2f}")  # fmt: skip
    found = {row.name: row for row in rows}
    everything = found["found, all"]
    for way in ("found, own scores", "found, RELION"):
        row = found[way]
        false, left = everything.particles - everything.right, row.particles - row.right
        print(f"{way}: {1 - left / max(false, 1):.2f} of {false} false picks removed, "
              f"{1 - row.right / max(everything.right, 1):.2f} of {everything.right} right ones lost")  # fmt: skip
    print(f"\n{'particles':22}{'number':>10}{'right':>8}{'truth, A':>12}{'halves, A':>12}")


def angle_errors(oriented: Coordinates, truth: Coordinates) -> np.ndarray:
    """Degrees between found and true orientation, the nearest of those that the molecule's symmetry makes alike."""
    assert oriented.rotation is not None and truth.rotation is not None
    errors = []
    for turn in symmetry_turns():
        relative = np.einsum("nji,njk,kl->nil", oriented.rotation, truth.rotation, turn)
        cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return np.min(errors, axis=0)


def symmetry_turns() -> list[np.ndarray]:
    """Turns that map the molecule onto itself; its axis is found on the density, as no file says it."""
    from scipy import ndimage
    from scipy.spatial.transform import Rotation

    values = load_density(f"library:{TARGET}").values.astype(np.float64)
    places = np.argwhere(values > 0.2 * values.max()) - (np.array(values.shape) - 1) / 2
    weights = values[values > 0.2 * values.max()]
    xyz = places[:, ::-1]
    _, axes = np.linalg.eigh((xyz * weights[:, None]).T @ xyz)
    middle = (np.array(values.shape) - 1) / 2

    def alike(turn: np.ndarray) -> float:
        turned = ndimage.map_coordinates(values, (xyz @ turn.T)[:, ::-1].T + middle[:, None], order=1)
        return float(np.corrcoef(turned, weights)[0, 1])

    turns = [Rotation.from_rotvec(axes[:, i] * 2 * np.pi / FOLD).as_matrix() for i in range(3)]
    best = max(turns, key=alike)
    return [np.linalg.matrix_power(best, k) for k in range(FOLD)]


def run(command: str, *arguments: object) -> None:
    if code := tomotwin([command, *map(str, arguments)]):
        raise SystemExit(code)


def relion(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
