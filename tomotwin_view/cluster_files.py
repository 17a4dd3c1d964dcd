"""The folder of `tomotwin cluster` as a session, and what was chosen there as a file.

    candidates.star     one row for each candidate: where it is, its cluster, its place in the UMAP
    clusters.json       the clusters with their facts, best first, the tomograms, and in words what was found
    gallery/, averages/ pictures and maps, as clusters.json names them
    selection.json      what was chosen: {"version": 1, "clusters": [{"name", "from": [clusters], "add": [ids], "remove": [ids]}]}

`tomotwin cluster DIR --selection selection.json --out DIR2` makes references of what was chosen, and the form of the protocol
*cluster picking* takes such a file, too. A file written by hand may leave out "from", "add" and "remove" where they are empty.
"""

import json
import os
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .cluster_session import NO_CLUSTER, Candidates, ClustersSession, Proposal, checked_name
from .session_base import Tomogram
from .star import Row, read_table, replacing

CANDIDATES_FILE, CLUSTERS_FILE, SELECTION_FILE = "candidates.star", "clusters.json", "selection.json"
VERSION = 1

Opener = Callable[[str, Optional[str]], Optional[Callable[[], np.ndarray]]]
"""Gives for a tomogram's name and the path in clusters.json (None where none is known) what opens it, or None."""


def is_clusters_folder(path: str) -> bool:
    """Whether `tomotwin cluster` has written this folder."""
    return os.path.isfile(os.path.join(path, CLUSTERS_FILE))


def read_clusters(folder: str, opener: Opener) -> ClustersSession:
    """A session on the clusters in a folder.

    Raises
    ------
    OSError, ValueError
        Where a file is missing or is not what it should be; in one sentence.
    """
    path = os.path.join(folder, CLUSTERS_FILE)
    content = read_clusters_file(folder)
    try:
        tomograms = [_tomogram(name, facts, opener) for name, facts in content["tomograms"].items()]
        proposals = [Proposal(str(item["name"]), str(item["kind"]), item) for item in content["clusters"]]
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is not as `tomotwin cluster` writes it ({error!r}): run that again.") from error
    if not tomograms:
        raise ValueError(f"{path} names no tomogram: run `tomotwin cluster` again.")
    table = os.path.join(folder, CANDIDATES_FILE)
    rows = read_table(table, "particles")
    try:
        names = [tomogram.name for tomogram in tomograms]
        candidates = _candidates(rows, names, [proposal.name for proposal in proposals])
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{table} does not belong to {path} ({error!r}): run `tomotwin cluster` again.") from error
    session = ClustersSession(tomograms, candidates, proposals, str(content.get("verdict", "")))
    session.has_voxels = any(tomogram.open is not _missing for tomogram in tomograms)
    return session


def read_clusters_file(folder: str) -> Dict[str, Any]:
    """The content of clusters.json; ValueError where it is none."""
    path = os.path.join(folder, CLUSTERS_FILE)
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON file ({error}): run `tomotwin cluster` again.") from error
    if not isinstance(content, dict) or "clusters" not in content:
        raise ValueError(f"{path} lists no clusters: give a folder of `tomotwin cluster`.")
    return content


def read_selection(path: str) -> List[Dict[str, Any]]:
    """The clusters of a selection file, each with name, from, add and remove.

    Raises
    ------
    OSError, ValueError
        In one sentence.
    """
    with open(path, encoding="utf-8") as file:
        try:
            clusters = json.load(file)["clusters"]
            return [
                {
                    "name": checked_name(item["name"]),
                    "from": [str(name) for name in item.get("from", [])],
                    "add": [int(number) for number in item.get("add", [])],
                    "remove": [int(number) for number in item.get("remove", [])],
                }
                for item in clusters
            ]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{path} is no selection of clusters ({error!r}): give a file that the window has saved."
            ) from error


def write_selection(path: str, chosen: Sequence[Dict[str, Any]]) -> None:
    """Write what was chosen; an existing file is replaced.

    Raises
    ------
    ValueError
        Where nothing was.
    """
    if not chosen:
        raise ValueError("No cluster is marked to be picked: mark one in the list.")
    with replacing(path) as file:
        entries = ",\n  ".join(json.dumps(entry) for entry in chosen)
        file.write(f'{{"version": {VERSION}, "clusters": [\n  {entries}\n]}}\n')


def _tomogram(name: str, facts: Dict[str, Any], opener: Opener) -> Tomogram:
    z, y, x = facts["shape"]
    shape, opens = (int(z), int(y), int(x)), opener(name, facts.get("file"))
    return Tomogram(name, float(facts["voxel_size_A"]), shape, partial(_checked, opens, shape) if opens else _missing)


def _checked(opens: Callable[[], np.ndarray], shape: Tuple[int, int, int]) -> np.ndarray:
    """The voxels, if they are as many as those that were clustered: else every position would be a wrong one."""
    voxels = opens()
    if voxels.shape != shape:
        raise ValueError(f"it has {voxels.shape} voxels (z, y, x), and the tomogram that was clustered {shape}")
    return voxels


def _missing() -> np.ndarray:
    raise FileNotFoundError("its file is not there any more")


def _candidates(rows: List[Row], tomograms: List[str], clusters: List[str]) -> Candidates:
    def column(label: str) -> np.ndarray:
        return np.array([float(row[label]) for row in rows], dtype=float)

    def table(*labels: str) -> np.ndarray:
        return np.stack([column(label) for label in labels], axis=1)

    number = {name: i for i, name in enumerate(clusters)}
    number[NO_CLUSTER] = -1
    place = {name: i for i, name in enumerate(tomograms)}
    return Candidates(
        ids=np.array([int(row["tomotwinId"]) for row in rows], dtype=int),
        tomogram=np.array([place[row["rlnTomoName"]] for row in rows], dtype=int),
        xyz=table("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ").reshape(-1, 3),
        diameter_A=column("tomotwinDiameterAngst"),
        proposal=np.array([number[row["tomotwinCluster"]] for row in rows], dtype=int),
        probability=column("tomotwinProbability"),
        umap=table("tomotwinUmapX", "tomotwinUmapY").reshape(-1, 2),
    )
