"""The files of a clustering: a table of candidates, clusters with their facts, references, averages and pictures.

    candidates.star         every candidate with its cluster, place on the map and the like
    clusters.json           the ranked clusters, the tomograms, and in words what was found
    clusters.csv            the same as a table
    references.safetensors  a target for each species, for `tomotwin locate`
    embeddings.safetensors  the scene, for a selection or another look
    averages/ gallery/      of species, the first unsure ones and the first of each kind of junk, where the tomograms are at hand
    overview.png            the map, and the averages
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tomotwin_core.checked import Count, Name, Schema, Tuple, checked, read_json
from tomotwin_core.clustering.averaging import Averaged, average_of, boxes_of
from tomotwin_core.clustering.proposals import NONE, Proposal, verdict
from tomotwin_core.clustering.references import references_of
from tomotwin_core.clustering.scene import FILE, Scene
from tomotwin_core.coordinates import Coordinates
from tomotwin_core.coordinates.starblocks import append, head, loop, numbers, word
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, finish_replacing, is_half_replaced, provenance, replaced_results
from tomotwin_core.locks import alone_in
from tomotwin_core.progress import progress
from tomotwin_core.side_by_side import side_by_side
from tomotwin_core.tomogram import write_mrc

CLUSTERS, CANDIDATES, REFERENCES, TABLE = "clusters.json", "candidates.star", "references.safetensors", "clusters.csv"
OVERVIEW = "overview.png"
RESULTS = (CANDIDATES, TABLE, REFERENCES, FILE, "averages", "gallery", OVERVIEW)
"""All that is written beside clusters.json, which comes last: where it is, all is, and nothing else."""
_VERSION = 1
# Of each kind of junk, and of what may be a species, so many clusters are shown; there may be hundreds, and all are in the tables.
_SHOWN, _UNSURE_SHOWN = 12, 40


class _Cluster(Schema):
    name: Name
    members: Annotated[tuple[Count, ...], Tuple]


class _Written(Schema):
    clusters: list[_Cluster]
    verdict: str = ""


def write_clusters(
    out: Path,
    scene: Scene,
    proposals: Sequence[Proposal],
    probability: np.ndarray,
    pictures: bool = True,
    chosen: bool = False,
    **settings: Any,
) -> list[Proposal]:
    """Write all files into a folder, in place of those of an earlier clustering; returns the proposals with their pictures' names.

    probability (n,): of each candidate to belong to its cluster.  chosen: by the user, so that each becomes a reference, of
    whatever kind it looks; else those of species do.
    """
    averages = _averages(scene, proposals if chosen else shown(proposals)) if pictures else {}
    with replaced_results(out, CLUSTERS, RESULTS) as new:
        if averages:
            proposals = _write_averages(new, proposals, averages)
        said = verdict(scene, proposals)
        scene.save(new)
        references_of(scene, [p for p in proposals if chosen or p.kind == "species"]).save(new / REFERENCES)
        _write_candidates(new / CANDIDATES, scene, proposals, probability)
        _write_table(new / TABLE, proposals)
        if pictures:
            from tomotwin_core.clustering.pictures import overview

            overview(scene, proposals, averages, new / OVERVIEW, said)
        content = {
            "version": _VERSION,
            "made_by": provenance(**settings),
            "tomograms": {
                t.name: {"file": t.file, "embedding": t.embedding, "voxel_size_A": t.voxel_size_A, "shape": list(t.shape)}
                for t in scene.tomograms
            },
            "clusters": [p.as_dict() for p in proposals],
            "verdict": said,
        }
        (new / CLUSTERS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return list(proposals)


def _write_averages(folder: Path, proposals: Sequence[Proposal], averages: Mapping[str, Averaged]) -> list[Proposal]:
    """Averages and galleries; returns the proposals with their names."""
    from tomotwin_core.clustering.pictures import gallery

    written = []
    for p in proposals:
        if p.name in averages:
            p = replace(p, average=f"averages/{p.name}.mrc", gallery=f"gallery/{p.name}.png")
            write_mrc(folder / str(p.average), averages[p.name].volume, averages[p.name].voxel_size_A, [f"average of {p.name}"])
            gallery(averages[p.name], p, folder / str(p.gallery))
        written.append(p)
    return written


def settle(folder: Path) -> None:
    """Finish what a run left that was killed while it put new results in the place of old ones; UserError where one is at it."""
    if is_half_replaced(folder):
        with alone_in(folder):
            finish_replacing(folder, CLUSTERS, RESULTS)


def read_members(folder: Path) -> dict[str, list[int]]:
    """Members of the clusters in a folder by name; UserError where it holds none."""
    path = folder / CLUSTERS
    if not path.is_file():
        raise UserError(f"{folder}: holds no {CLUSTERS}; give the folder that an earlier `tomotwin cluster` wrote")
    return {c.name: list(c.members) for c in _content(path).clusters}


def _content(path: Path) -> _Written:
    hint = "run it again"
    return checked(_Written, read_json(path, "what `tomotwin cluster` writes", hint), path, "what `tomotwin cluster` writes", hint)


def shown(proposals: Sequence[Proposal]) -> list[Proposal]:
    """What people look at: species, the surest of what may be some, and the first of every kind of junk."""
    count: Counter[str] = Counter()
    out = []
    for p in proposals:
        count[p.kind] += 1
        if p.kind == "species" or count[p.kind] <= (_UNSURE_SHOWN if p.kind == "unsure" else _SHOWN):
            out.append(p)
    return out


def described(proposals: Sequence[Proposal]) -> str:
    """The proposals as a table for people, but for most of the junk and of what is unsure."""
    lines = [f"{'cluster':14}{'kind':10}{'sure':>6}{'count':>6}{'/um3':>9}{'compact':>9}{'size A':>8}  most like"]
    for p in shown(proposals):
        near = ", ".join(f"{n.name} {n.score:.2f}" for n in p.nearest)
        sure = "" if p.certainty is None else f"{p.certainty:.2f}"
        lines.append(
            f"{p.name:14}{p.kind:10}{sure:>6}{p.count:6d}{p.density_per_um3:9.0f}{p.compactness:9.2f}{p.diameter_A:8.0f}  {near}"
        )
    left = len(proposals) + 1 - len(lines)
    if left:
        lines.append(f"and {left} more, none of them called a species: {TABLE}")
    return "\n".join(lines)


def _averages(scene: Scene, proposals: Sequence[Proposal]) -> dict[str, Averaged]:
    groups = {p.name: (scene.rows(p.members), p.diameter_A) for p in proposals}
    boxes = {name: found for name, found in boxes_of(scene, groups).items() if len(found[0])}
    made = side_by_side(lambda found: average_of(*found), boxes.values())
    return dict(zip(boxes, progress(made, len(boxes), "averages", "clusters"), strict=True))


def _write_candidates(path: Path, scene: Scene, proposals: Sequence[Proposal], probability: np.ndarray) -> None:
    names = np.full(len(scene), NONE, dtype=object)
    diameter = np.array(scene.candidates.diameter_A, float)
    for p in proposals:
        rows = scene.rows(p.members)
        names[rows], diameter[rows] = p.name, p.diameter_A
    columns: dict[str, list[str]] = {}
    tables = []
    for t, info in enumerate(scene.tomograms):
        own = np.flatnonzero(scene.candidates.tomogram == t)
        xyz = scene.candidates.xyz[own]
        tables.append(Coordinates.from_arrays(xyz, info.voxel_size_A, info.name, info.shape))
        part = {"rlnTomoName": [word(info.name)] * len(own)}
        part |= numbers(["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"], xyz, ".5f")
        part["tomotwinLabel"] = [word(str(n)) for n in names[own]]
        part["tomotwinId"] = [str(int(i)) for i in scene.ids[own]]
        part["tomotwinCluster"] = part["tomotwinLabel"]
        values = np.stack(
            [
                probability[own],
                1 / (1 + np.exp(-np.clip(scene.candidates.particleness[own], -50, 50))),
                scene.map[own, 0],
                scene.map[own, 1],
                diameter[own],
            ],
            axis=1,
        )
        part |= numbers(
            ["tomotwinProbability", "tomotwinParticleness", "tomotwinUmapX", "tomotwinUmapY", "tomotwinDiameterAngst"], values, ".6g"
        )
        append(columns, part)
    text = head(tables, provenance(model_hash=scene.model_hash, seed=scene.seed)) + loop("particles", columns)
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def _write_table(path: Path, proposals: Sequence[Proposal]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(
            ["cluster", "kind", "certainty", "count", "density_per_um3", "compactness", "diameter_A", "nearest", "score", "why"]
        )
        for p in proposals:
            near = p.nearest[0] if p.nearest else None
            rows.writerow(
                [p.name, p.kind, p.certainty, p.count, p.density_per_um3, p.compactness, p.diameter_A, near and near.name,
                 near and near.score, p.why]
            )


def read_verdict(folder: Path) -> str:
    """What a clustering found, in words."""
    return _content(folder / CLUSTERS).verdict
