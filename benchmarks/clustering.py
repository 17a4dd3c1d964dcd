"""De novo picking on simulated tomograms of molecules that the released model never saw: what clusters are worth.

  species   three tomograms of ten species, 40 copies each, 40 kDa to 3 MDa, with a vesicle, a membrane and gold: the best
            cluster of each species, its purity and completeness; `parted` are those with both at least 0.7. Beside it what
            the same candidates would give if the middles of all species were known (nearest middle, each candidate without
            itself; junk by 40 k-means middles): where that fails too, the embeddings do not tell the species apart. Then F1
            of the picks that follow, fully automatic, and of references from five true positions (which do not count).
  copies    1a7j at 150, 50, 20 and 10 copies among nine other species of 20 copies each
  together  the four tomograms of `copies` in one call, which have the same species, as tomograms of one sample do; and the first two
            and all three of `species`, which have none in common
  sample    the ten species of each of the three tomograms of deal 9 in three tomograms of their own: each by itself, and in one
            call, two and all three
  repeat    the first one again with the same seed
  nothing   an empty tomogram (noise and ice with one molecule), pure noise, one species alone, a thousand gold beads
  filaments two tomograms with actin and microtubules among ten small species: which candidates on them are called so
  scale     synthetic embeddings of 512 x 512 x 200 voxels at 10 A, in a process of its own: one tomogram, and ten that
            share one field (their candidates are clustered jointly); and where `full` has been run, its tomograms under ten names
  full      the tomograms of `benchmarks/accuracy.py --full`, simulated there into the same --work: 512 x 512 x 200 voxels, eleven
            or twelve species of about 110 copies

Truth names clusters and judges them, nothing else. Everything is kept in --work.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import mrcfile
import numpy as np
from accuracy import some_of_each, without
from clustering_scale import scale  # noqa: F401 (a part, called by its name)
from scipy.ndimage import distance_transform_edt
from sklearn.cluster import KMeans

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.clustering.output import CLUSTERS, REFERENCES
from tomotwin_core.clustering.scene import Scene, load_scene
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.evaluation import evaluate, match, tolerance_A
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import write_mrc

PARTS = ("species", "copies", "together", "sample", "repeat", "nothing", "filaments", "scale", "full")
ENOUGH, DEAL, FULL_SEED = 0.7, 6, 105
SAMPLE_DEAL, SAMPLE_SEED = 9, 7000
SHAPE, SMALL = (100, 240, 240), (90, 220, 220)
COPIES, THREE = (150, 50, 20, 10), (1, 2, 3)
# A candidate lies on a filament within so many voxels of it: of a microtubule's wall, so that its lumen is its own.
ON_FILAMENT_VOX = {"actin": 5, "microtubule": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1], help="(default: all but full)")
    parser.add_argument("--model", default="released")
    parser.add_argument("--seed", type=int, default=1, help="of the clustering (default: 1)")
    parser.add_argument("--deal", type=int, default=DEAL, help="of the molecules into the tomograms of `species` (default: 6)")
    parser.add_argument("--no-picks", action="store_true", help="clusters alone")
    options = parser.parse_args()
    for part in options.parts:
        print(f"\n== {part}, clustering seed {options.seed}")
        globals()[part](options)


def groups(deal: int) -> list[list[str]]:
    """Thirty of the molecules held out, evenly over their masses, dealt into three tomograms."""
    library = load_library()
    ids = sorted(library.ids("heldout"), key=lambda i: library.entries[i].mass_kDa)
    chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, 30).round().astype(int)]
    rng, dealt = np.random.default_rng(deal), [[], [], []]  # type: ignore[var-annotated]
    for low in range(0, 30, 3):
        for group, name in zip(dealt, rng.permutation(chosen[low : low + 3]), strict=True):
            group.append(str(name))
    return dealt


def prefix_of(deal: int) -> str:
    """Of the names of a deal's tomograms."""
    return "ten" if deal == DEAL else f"ten{deal}"


def species(options: argparse.Namespace) -> None:
    parted, f1, first = 0, [], np.zeros(2, int)  # type: ignore[var-annotated]
    prefix = prefix_of(options.deal)
    for index, group in enumerate(groups(options.deal)):
        name = f"{prefix}_{index + 1:02d}"
        made_of(options, group, prefix, 100 * options.deal + index, index + 1)
        out = clustered(options, [name], name)
        truth = read_truth(options, name)
        table = best_clusters(out, [truth])
        known = known_middles(out, truth, options)
        picks = {} if options.no_picks else picked(options, name, out, truth, table)
        print(f"\n{name}: {verdict(out)}")
        print(f"{'species':10}{'kDa':>7}{'true':>6}  {'cluster':12}{'kind':10}{'purity':>7}{'compl.':>7}  {'known middles':>14}"
              f"{'F1 de novo':>12}{'F1 five examples':>18}")  # fmt: skip
        for species_, mass in by_mass(group):
            good = is_parted(table[species_])
            parted += good
            ours, theirs = picks.get(species_, (float("nan"),) * 2)
            f1 += [(ours, theirs)] if good and species_ in picks else []
            middle = "{:.2f} {:.2f}".format(*known[species_])
            print(f"{row_of(species_, mass, truth, table[species_])} {middle:>14}{ours:12.2f}{theirs:18.2f}")
        first += first_good(out, table)
        print(f"with known middles {sum(min(v) >= ENOUGH for v in known.values())} of {len(group)} would be parted")
    print(f"\n{parted} of 30 species parted (*)")
    print("of the first five proposals of each tomogram {} part a species; if the largest and most compact came first, {}".format(*first))
    if f1:
        print("median F1 of these: de novo {:.2f}, from five examples {:.2f}".format(*np.nanmedian(f1, axis=0)))


def full(options: argparse.Namespace) -> None:
    folder, parted, count = options.work / f"heldout_full_seed{FULL_SEED}", 0, 0
    if not folder.is_dir():
        raise SystemExit(f"{folder}: run `python benchmarks/accuracy.py --group heldout --full --seed {FULL_SEED}` with the same --work")
    for truth_file in sorted(folder.glob("*_truth.star")):
        name = truth_file.stem.removesuffix("_truth")
        run("embed", folder / f"{name}.mrc", "--out", options.work / "emb", "--model", options.model)
        out, truth = clustered(options, [name], name), read_coordinates(truth_file)
        table = best_clusters(out, [truth])
        print(f"\n{name}: {verdict(out)}")
        for species_, mass in by_mass(list(table)):
            parted, count = parted + is_parted(table[species_]), count + 1
            print(row_of(species_, mass, truth, table[species_]))
    print(f"\n{parted} of {count} species parted (*)")


def copies(options: argparse.Namespace) -> None:
    others = {g: 20 for g in groups(DEAL)[0] if g != "1a7j"}
    print(f"{'copies':>7}{'true':>6}  {'cluster':12}{'kind':10}{'purity':>7}{'compl.':>7}")
    for count in COPIES:
        made(options, f"copies{count}", {"1a7j": count, **others}, SMALL, 660 + count, 1, "--vesicles", 1, "--gold", 4)
        name = f"copies{count}_01"
        out, truth = clustered(options, [name], name), read_truth(options, name)
        cluster, kind, purity, completeness = best_clusters(out, [truth])["1a7j"]
        true = int((truth.label == "1a7j").sum())
        print(f"{count:7d}{true:6d}  {cluster:12}{kind:10}{purity:7.2f}{completeness:7.2f}")


def together(options: argparse.Namespace) -> None:
    prefix = prefix_of(options.deal)
    three = [f"{prefix}_{number:02d}" for number in THREE]
    apart_and_joint(options, "one_sample", [f"copies{count}_01" for count in COPIES])
    apart_and_joint(options, f"two_{prefix}", three[:2])
    apart_and_joint(options, f"three_{prefix}", three)


def sample(options: argparse.Namespace) -> None:
    for index, group in enumerate(groups(SAMPLE_DEAL)):
        prefix = f"sample{index + 1}"
        for number in THREE:
            made_of(options, group, prefix, SAMPLE_SEED + 10 * index + number, number)
        for some in (*combinations(THREE, 2), THREE):
            apart_and_joint(options, "_".join(map(str, (prefix, *some))), [f"{prefix}_{number:02d}" for number in some])


def apart_and_joint(options: argparse.Namespace, label: str, names: list[str]) -> None:
    """Print what tomograms part each by itself, and in one call."""
    truths = [read_truth(options, n) for n in names]
    joint = best_clusters(clustered(options, names, label), truths)
    apart = [best_clusters(clustered(options, [n], n), [t]) for n, t in zip(names, truths, strict=True)]
    print(f"{'species':10}" + "".join(f"{n:>14}" for n in names) + f"{'together':>14}   (purity, completeness)")
    for species_ in sorted(joint):
        columns = [table.get(species_) for table in (*apart, joint)]
        print(f"{species_:10}" + "".join("{:>14}".format("{:.2f} {:.2f}".format(*c[2:]) if c else "") for c in columns))
    counts = [sum(map(is_parted, table.values())) for table in apart]
    print(f"parted: {' + '.join(map(str, counts))} apart, {sum(map(is_parted, joint.values()))} of {len(joint)} together")


def repeat(options: argparse.Namespace) -> None:
    first = json.loads((clustered(options, ["ten_01"], "ten_01") / CLUSTERS).read_text())["clusters"]
    second = json.loads((clustered(options, ["ten_01"], "repeated", again=True) / CLUSTERS).read_text())["clusters"]
    same = [c["members"] for c in first] == [c["members"] for c in second]
    print(f"the same seed gives {'the same' if same else 'OTHER'} {len(first)} clusters")


def nothing(options: argparse.Namespace) -> None:
    made(options, "ice", {"1qvr": 1}, (90, 200, 200), 652, 1, "--set", "sample.occupied=0.00001")
    made(options, "single", {"1qvr": 60}, (90, 200, 200), 650, 1)
    made(options, "beads", {"1qvr": 1}, SMALL, 651, 1, "--gold", 1000)
    noise = options.work / "data" / "noise_01.mrc"
    if not noise.is_file():
        write_mrc(noise, np.random.default_rng(653).normal(size=(90, 200, 200)).astype(np.float32), 10.0)
    embedded(options, "noise_01")
    for what, name in (
        ("empty", "ice_01"),
        ("pure noise", "noise_01"),
        ("1qvr alone, 60 copies", "single_01"),
        ("gold", "beads_01"),
    ):
        out = clustered(options, [name], name)
        print(f"{what}: {verdict(out)}")
        content = json.loads((out / CLUSTERS).read_text())["clusters"]
        for c in content:
            if c["kind"] == "species":
                near = ", ".join(f"{n['name']} {n['score']:.2f}" for n in c["nearest"])
                print(f"    {c['name']}: {c['count']} members, like {near}")
        if name == "single_01":
            _, kind, purity, completeness = best_clusters(out, [read_truth(options, name)])["1qvr"]
            print(f"    1qvr: {kind}, purity {purity:.2f}, completeness {completeness:.2f}")


def filaments(options: argparse.Namespace) -> None:
    library, called, wrong = load_library(), Counter(), 0  # type: ignore[var-annotated]
    others = [g for g in groups(9)[0] if library.entries[g].mass_kDa < 1000]
    for number, tubes in ((1, 3), (2, 1)):
        name = f"filaments_{number:02d}"
        made(options, "filaments", {g: 25 for g in others}, SHAPE, 680 + number, number, "--vesicles", 1, "--gold", 6, "--labels",
             "--set", "sample.actin=3", "--set", f"sample.microtubules={tubes}")  # fmt: skip
        out = clustered(options, [name], name)
        scene, found = load_scene(out), json.loads((out / CLUSTERS).read_text())["clusters"]
        with (options.work / "data" / "labels.csv").open() as stream:
            numbers = {row["name"]: int(row["label"]) for row in csv.DictReader(stream)}
        labels, on = mrcfile.read(options.work / "data" / f"{name}_labels.mrc"), np.zeros(len(scene), bool)
        for kind, within in ON_FILAMENT_VOX.items():
            away = distance_transform_edt(labels != numbers[kind])
            on |= away[tuple(np.round(scene.candidates.xyz[:, ::-1]).astype(int).T)] <= within
        kinds = np.full(len(scene), "none", dtype=object)
        for c in found:
            rows = scene.rows(c["members"])
            kinds[rows] = c["kind"]
            wrong += c["kind"] in ("filament", "species") and (c["kind"] == "filament") != (on[rows].mean() >= 0.5)
        called.update(kinds[on])
        print(f"{name}: {verdict(out)}")
    kinds_ = ", ".join(f"{kind} {count}" for kind, count in called.most_common())
    print(f"{called.total()} candidates on filaments are in clusters called: {kinds_}")
    print(f"{wrong} clusters of filaments do not lie on filaments, or of species do")


def made(
    options: argparse.Namespace,
    prefix: str,
    counts: dict[str, int],
    shape: tuple[int, ...],
    seed: int,
    first: int,
    *more: object,
) -> None:
    """Simulate and embed PREFIX_FIRST, unless that is there."""
    listed = ",".join(f"{name}={count}" for name, count in counts.items())
    run("simulate", "--out", options.work / "data", "--prefix", prefix, "--tomograms", 1, "--first", first, "--species", listed,
        "--voxel-size", 10, "--shape", *shape, "--thickness", shape[0] * 8.5, "--dose", 150, "--defocus", 2, 5, "--seed", seed,
        *more)  # fmt: skip
    embedded(options, f"{prefix}_{first:02d}")


def made_of(options: argparse.Namespace, group: list[str], prefix: str, seed: int, number: int) -> None:
    """The tomogram of that number with forty copies of each molecule of a group, a vesicle, a membrane and gold."""
    made(options, prefix, {g: 40 for g in group}, SHAPE, seed, number, "--vesicles", 1, "--membranes", 1, "--gold", 6)


def embedded(options: argparse.Namespace, name: str) -> None:
    run("embed", options.work / "data" / f"{name}.mrc", "--out", options.work / "emb", "--model", options.model)


def clustered(options: argparse.Namespace, names: list[str], label: str, again: bool = False) -> Path:
    """The folder of `tomotwin cluster` on these tomograms."""
    out = options.work / f"clusters_seed{options.seed}" / label
    newest = max((options.work / "emb" / f"{n}.zarr" / "zarr.json").stat().st_mtime for n in names)
    if again or not (out / CLUSTERS).is_file() or (out / CLUSTERS).stat().st_mtime < newest:
        fields = [options.work / "emb" / f"{n}.zarr" for n in names]
        run("cluster", *fields, "--out", out, "--seed", options.seed, "--fast-map", "--no-pictures", "--model", options.model)
    return out


def read_truth(options: argparse.Namespace, name: str) -> Coordinates:
    return read_coordinates(options.work / "data" / f"{name}_truth.star")


def labelled(scene: Scene, truths: list[Coordinates]) -> np.ndarray:
    """The species of each candidate (n,), "" where there is none within its tolerance."""
    out = np.full(len(scene), "", dtype=object)
    for truth in truths:
        there = np.flatnonzero(scene.candidates.tomogram == [t.name for t in scene.tomograms].index(truth.tomogram))
        for name, own in truth.by_label().items():
            tolerance = tolerance_A(float(own.diameter_A[0])) / truth.voxel_size_A
            found, _ = match(scene.candidates.xyz[there], own.xyz, tolerance)
            out[there[found]] = name
    return out


def best_clusters(out: Path, truths: list[Coordinates]) -> dict[str, tuple[str, str, float, float]]:
    """Of each species the cluster with the best worse one of purity and completeness: name, kind and both. Completeness counts
    all particles there are."""
    scene = load_scene(out)
    is_of, found = labelled(scene, truths), json.loads((out / CLUSTERS).read_text())["clusters"]
    table = {}
    for name in sorted({str(n) for t in truths for n in np.unique(t.label)}):
        true = sum(int((t.label == name).sum()) for t in truths)
        best: tuple[str, str, float, float] = ("-", "-", 0.0, 0.0)
        for c in found:
            hits = int((is_of[scene.rows(c["members"])] == name).sum())
            one = c["name"], c["kind"], hits / c["count"], hits / true
            best = max(best, one, key=lambda b: min(b[2:]))
        table[name] = best
    return table


def first_good(out: Path, table: dict[str, tuple[str, str, float, float]], count: int = 5) -> np.ndarray:
    """How many of the first proposals part a species (2,): as they are ranked, and by members times compactness."""
    parting = {best[0] for best in table.values() if is_parted(best)}  # a species has one such cluster at most
    ranked = [c for c in json.loads((out / CLUSTERS).read_text())["clusters"] if c["kind"] == "species"]
    largest = sorted(ranked, key=lambda c: -c["count"] * c["compactness"])
    return np.array([sum(c["name"] in parting for c in order[:count]) for order in (ranked, largest)])


def is_parted(best: tuple[str, str, float, float]) -> bool:
    """Whether a species' best cluster is good enough in purity and completeness."""
    return min(best[2:]) >= ENOUGH


def row_of(species_: str, mass: float, truth: Coordinates, best: tuple[str, str, float, float]) -> str:
    """The row of a species and its best cluster, starred where it is parted."""
    cluster, kind, purity, completeness = best
    star = "*" if is_parted(best) else " "
    return (f"{species_:10}{mass:7.0f}{int((truth.label == species_).sum()):6d}  {cluster:12}{kind:10}{purity:7.2f}"
            f"{completeness:7.2f}{star}")  # fmt: skip


def known_middles(out: Path, truth: Coordinates, options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Purity and completeness if every candidate went to the nearest middle, those of the species being known."""
    scene = load_scene(out)
    vectors, is_of = scene.vectors, labelled(scene, [truth])
    names = np.unique(truth.label)
    junk = (
        KMeans(min(40, int((is_of == "").sum())), n_init=1, random_state=options.seed)
        .fit(vectors[is_of == ""])
        .cluster_centers_
    )
    distance = np.full((len(scene), len(names) + len(junk)), np.inf)
    for i, name in enumerate(names):
        own = is_of == name
        if own.sum() > 1:
            total, count = vectors[own].sum(0), own.sum()
            middle = np.where(own[:, None], (total - vectors) / (count - 1), total / count)
            distance[:, i] = ((vectors - middle) ** 2).sum(1)
    for i, middle in enumerate(junk):
        distance[:, len(names) + i] = ((vectors - middle) ** 2).sum(1)
    nearest, table = distance.argmin(1), {}
    for i, name in enumerate(names):
        hits = float((is_of[nearest == i] == name).sum())
        table[str(name)] = hits / max((nearest == i).sum(), 1), hits / (truth.label == name).sum()
    return table


def picked(
    options: argparse.Namespace,
    name: str,
    out: Path,
    truth: Coordinates,
    table: dict[str, tuple[str, str, float, float]],
) -> dict[str, tuple[float, float]]:
    """F1 of each species by its best cluster's reference, among all that are proposed, and from five positions."""
    field = options.work / "emb" / f"{name}.zarr"
    ours = located(field, out / REFERENCES, out / "picks")
    known = truth.select(some_of_each(truth, 5, np.random.default_rng(options.seed)))
    write_coordinates(out / "examples.star", known)
    run("reference", out / "examples.star", "--embedding", field, "--out", out / "five.safetensors", "--model", options.model)
    theirs = without(located(field, out / "five.safetensors", out / "five"), known)
    rest = truth.select(~np.isin(truth.xyz[:, 0] + 1e3 * truth.xyz[:, 1], known.xyz[:, 0] + 1e3 * known.xyz[:, 1]))
    scores = {s.label: s.f1 for s in evaluate(theirs, rest, labels=sorted(table))}
    found = {}
    for species_, (cluster, _, _, _) in table.items():
        own = ours.select(ours.label == cluster)
        renamed = Coordinates.from_arrays(own.xyz, own.voxel_size_A, truth.tomogram, truth.shape, label=species_)
        f1 = evaluate(renamed, truth, labels=[species_])[0].f1 if len(own) else 0.0
        found[species_] = (0.0 if np.isnan(f1) else f1, scores[species_])
    return found


def located(field: Path, references: Path, out: Path) -> Coordinates:
    run("locate", field, "--references", references, "--out", out)
    run("pick", out / f"{field.stem}_peaks.star", "--references", references, "--out", out)
    return read_coordinates(out / f"{field.stem}_picks.star")


def by_mass(names: list[str]) -> list[tuple[str, float]]:
    entries = load_library().entries
    return sorted(((n, entries[n].mass_kDa) for n in names), key=lambda pair: pair[1])


def verdict(out: Path) -> str:
    return str(json.loads((out / CLUSTERS).read_text())["verdict"])


def run(command: str, *arguments: object) -> None:
    code = tomotwin([command, *map(str, arguments)])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
