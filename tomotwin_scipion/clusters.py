"""Which clusters of `tomotwin cluster` are picked: out of the form's words, a file, or all species, and as targets.

Whatever says it becomes one file (selection.json, see tomotwin_view.cluster_files), of which the engine makes references; so
a choice made in a form, by hand or in the window is kept and repeated in the same way.
"""

import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from tomotwin_view.cluster_files import CANDIDATES_FILE, read_clusters, read_clusters_file, read_selection
from tomotwin_view.cluster_session import SPECIES, ClustersSession, checked_name
from tomotwin_view.star import read_table

from .targets import Target, read_measured

RARE = "rare"
"""Clusters found among the leftovers are called rare_01 and so on, the best first."""

Selection = List[Dict[str, Any]]


class Wanted(NamedTuple):
    """A cluster that is picked: its name, and those that it is made of."""

    name: str
    sources: Tuple[str, ...]


def parse_clusters(text: str) -> List[Wanted]:
    """The clusters of a text such as ``cluster_01, cluster_03+cluster_05 as ribosome``.

    Commas, semicolons or new lines part them, ``+`` joins clusters, ``as`` gives a name.

    Raises
    ------
    ValueError
        In one sentence.
    """
    wanted: List[Wanted] = []
    used: Dict[str, str] = {}
    for part in re.split(r"[,;\n]+", text or ""):
        words = re.split(r"\s+as\s+", part.strip(), maxsplit=1)
        if not words[0]:
            continue
        sources = tuple(checked_name(source) for source in words[0].split("+"))
        name = checked_name(words[1]) if len(words) > 1 else "-".join(sources)
        if name in [item.name for item in wanted]:
            raise ValueError(f"two of them are called {name}: give them different names")
        for source in sources:
            if source in used:
                raise ValueError(f"{source} is both in {used[source]} and in {name}: name it once")
            used[source] = name
        wanted.append(Wanted(name, sources))
    if not wanted:
        raise ValueError("name at least one, such as cluster_01")
    return wanted


def species_of(folder: str) -> List[str]:
    """Names of the clusters in a folder that are species, the best first."""
    return [item["name"] for item in read_clusters_file(folder)["clusters"] if item["kind"] == SPECIES]


def selection_of(folder: str, leftovers: Optional[str], wanted: Optional[Sequence[Wanted]]) -> Selection:
    """What is picked, as a selection file lists it.

    Parameters
    ----------
    folder
        Of `tomotwin cluster`.
    leftovers
        That in which its leftovers were clustered, if they were: their species are called rare_01 and so on.
    wanted
        What is picked; without it all species of both.

    Raises
    ------
    ValueError
        Where clusters are named that are not there; in one sentence.
    """
    session = _read(folder)
    rare = {} if leftovers is None else _rare(session, _read(leftovers))
    known = [proposal.name for proposal in session.proposals] + list(rare)
    if wanted is None:
        wanted = [Wanted(name, (name,)) for name in species_of(folder) + list(rare)]
    chosen = []
    for item in wanted:
        missing = [source for source in item.sources if source not in known]
        if missing:
            raise ValueError(f"there is no {missing[0]}, but {', '.join(known) or 'no cluster at all'}")
        add = sorted(number for source in item.sources for number in rare.get(source, []))
        sources = [source for source in item.sources if source not in rare]
        chosen.append({"name": item.name, "from": sources, "add": add, "remove": []})
    return chosen


def selection_of_file(path: str, folder: str) -> Selection:
    """What a selection file picks.

    Its numbers mean candidates: where those lie beside the file they must be those in `folder`.

    Raises
    ------
    OSError, ValueError
        In one sentence.
    """
    chosen = read_selection(path)
    beside = os.path.join(os.path.dirname(os.path.abspath(path)), CANDIDATES_FILE)
    if os.path.exists(beside) and not _are_same(beside, os.path.join(folder, CANDIDATES_FILE)):
        raise ValueError(f"{path} was made of other candidates than this run has: embed the same tomograms, or choose anew")
    return chosen


def targets_of(folder: str, references: str, groups: Dict[str, int]) -> List[Target]:
    """The targets in a file of references made of clusters, in the order of the clusters' rank; none without the file.

    A cluster keeps the group id that one of its name has had (`groups`), as outputs from then are still there. What a table of
    groups lists as source is the molecule of the library that looks most like the cluster, with its score.
    """
    if not os.path.exists(references):
        return []
    measured, groups = read_measured(references), dict(groups)
    targets = []
    for item in read_clusters_file(folder)["clusters"]:
        if item["name"] in measured:
            targets.append(Target(group_of(item["name"], groups), item["name"], _looks_like(item)))
    return targets


def group_of(name: str, groups: Dict[str, int]) -> int:
    """The group id of a cluster by its name; a new name gets the next one, which is put into `groups`."""
    return groups.setdefault(name, 1 + max(groups.values(), default=0))


def output_name(front: str, cluster: str, taken: Sequence[str]) -> str:
    """A name for the output of a cluster: a Python name that no other output has."""
    name = f"{front}_{re.sub(r'[^A-Za-z0-9_]', '_', cluster)}"
    wanted, number = name, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _read(folder: str) -> ClustersSession:
    return read_clusters(folder, lambda name, file: None)


def _rare(session: ClustersSession, leftovers: ClustersSession) -> Dict[str, List[int]]:
    """Candidates of `session` in each species found among its leftovers; found by their place."""
    before = len(session.entries)
    if not any(entry.picked for entry in leftovers.entries):
        return {}
    session.take_over(leftovers)
    found = {}
    for number in range(before, len(session.entries)):
        ids = session.candidates.ids[session.members(number)]
        found[f"{RARE}_{number - before + 1:02d}"] = sorted(ids.tolist())
    return found


def _are_same(first: str, second: str) -> bool:
    """Whether two tables hold the same candidates under the same numbers, in the same clusters."""
    labels = ("rlnTomoName", "tomotwinId", "tomotwinCluster")
    places = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
    tables = [read_table(path, "particles") for path in (first, second)]
    rows = [sorted([row[label] for label in labels] for row in table) for table in tables]
    if rows[0] != rows[1]:
        return False
    xyz = [{row["tomotwinId"]: [float(row[label]) for label in places] for row in table} for table in tables]
    return all(np.allclose(xyz[0][number], xyz[1][number], atol=0.01) for number in xyz[0])


def _looks_like(item: Dict[str, Any]) -> str:
    nearest = item.get("nearest") or []
    return f"most like {nearest[0]['name']} ({nearest[0]['score']:.2f})" if nearest else "cluster"
