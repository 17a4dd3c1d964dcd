"""`tomotwin cluster` of the stand-in for the engine: particles of one kind are one cluster.

Kinds 1 to 5 are species, the k-th is cluster_0k; kind 6 is a membrane. Particles of kind 7 are in no cluster, but one of their
own once the leftovers are clustered. Diameters are `DIAMETER_A` and k more. Ids begin at 10, in the order of the tomograms.
A call with --fewest 99 finds nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mrcfile
import numpy as np
from fake_files import DIAMETER_A, write, write_header

FIRST_ID = 10
MEMBRANE, RARE = 6, 7
SHAPE, VOXEL_SIZE_A = (30, 50, 70), 8.0  # those of conftest.py
COLUMNS = (
    "rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "tomotwinId", "tomotwinCluster",
    "tomotwinProbability", "tomotwinParticleness", "tomotwinUmapX", "tomotwinUmapY", "tomotwinDiameterAngst",
)  # fmt: skip


def cluster(options: argparse.Namespace) -> None:
    first = Path(options.inputs[0])
    if (first / "clusters.json").exists():
        earlier = json.loads((first / "fake.json").read_text())
        rows = earlier["rows"]
        if options.leftover:
            rows = [row for row in rows if row["cluster"] == "none"]
            groups = {"cluster_01": [row for row in rows if row["kind"] == RARE]}
        else:
            groups = {}
            for entry in json.loads(Path(options.selection).read_text())["clusters"]:
                chosen = [row for row in rows if row["cluster"] in entry["from"] or row["id"] in entry["add"]]
                groups[entry["name"]] = [row for row in chosen if row["id"] not in entry["remove"]]
        tomograms = earlier["tomograms"]
    else:
        given = {Path(path).stem: str(Path(path).resolve()) for path in options.tomograms}
        tomograms = {Path(path).stem: given.get(Path(path).stem) for path in options.inputs}
        places = [
            (Path(path).stem, *particle)
            for path in options.inputs
            for particle in json.loads(Path(path, "fake.json").read_text())["particles"]
        ]
        rows = [dict(zip(("tomogram", "x", "y", "z", "kind"), place, strict=True)) for place in places]
        rows = [{**row, "id": FIRST_ID + number} for number, row in enumerate(rows)]
        kinds = sorted({row["kind"] for row in rows} - {RARE}) if options.fewest != 99 else []
        groups = {f"cluster_0{kind}": [row for row in rows if row["kind"] == kind] for kind in kinds}
    name_of = {row["id"]: name for name, members in groups.items() for row in members}
    rows = [{**row, "cluster": name_of.get(row["id"], "none")} for row in rows]

    out = Path(options.out)
    out.mkdir(parents=True)
    written = [[*[row[key] for key in ("tomogram", "x", "y", "z", "id", "cluster")], 0.9, 0.8, row["kind"], row["id"],
                DIAMETER_A + row["kind"]] for row in rows]  # fmt: skip
    write(out / "candidates.star", written, COLUMNS)
    clusters = [_described(name, members, bool(options.selection), out) for name, members in groups.items() if members]
    species = [item["name"] for item in clusters if item["kind"] == "species"]
    targets = [{"name": name, "diameter_A": DIAMETER_A + groups[name][0]["kind"], "threshold": 0.5} for name in species]
    kinds = {name: sorted({row["kind"] for row in groups[name]}) for name in species}
    write_header(out / "references.safetensors", "references", {"targets": targets, "kinds": kinds})
    (out / "fake.json").write_text(json.dumps({"rows": rows, "tomograms": tomograms}))
    shown = {
        name: {"file": file, "embedding": None, "voxel_size_A": VOXEL_SIZE_A, "shape": SHAPE} for name, file in tomograms.items()
    }
    verdict = f"{len(species)} species were found." if species else "Nothing recurs in these tomograms."
    content = {"version": 1, "made_by": {}, "tomograms": shown, "clusters": clusters, "verdict": verdict}
    (out / "clusters.json").write_text(json.dumps(content))


def _described(name: str, members: list[dict], chosen: bool, out: Path) -> dict:
    kind = members[0]["kind"]
    average = out / "averages" / f"{name}.mrc"
    average.parent.mkdir(exist_ok=True)
    with mrcfile.new(average) as file:
        file.set_data(np.full((8, 8, 8), kind, dtype=np.float32))
        file.voxel_size = 10.0
    return {
        "name": name, "kind": "membrane" if kind == MEMBRANE and not chosen else "species", "why": "planted",
        "count": len(members), "count_by_tomogram": {}, "certainty": 0.9, "density_per_um3": 1.0, "compactness": 0.9,
        "diameter_A": DIAMETER_A + kind, "nearest": [{"name": f"{kind}abc", "score": 0.8}],
        "members": [row["id"] for row in members], "medoids": [members[0]["id"]],
        "average": f"averages/{name}.mrc", "gallery": None,
    }  # fmt: skip
