"""What *cluster picking* asks: which clusters are picked, how they are found, and the checks of what is filled in."""

import os
from typing import Any, List

from pyworkflow.protocol import LEVEL_ADVANCED, params

from tomotwin_view.cluster_files import SELECTION_FILE, read_selection

from ..clusters import parse_clusters

ALL_SPECIES, NAMED, IN_WINDOW, FROM_FILE = range(4)
LARGEST_SALIENCE = 20


# ------------------------------ form ------------------------------
def define_cluster_params(form: Any) -> None:
    """Add which clusters are picked, and how they are found, to the section *Input*."""
    form.addParam(
        "chosen",
        params.EnumParam,
        choices=["all species proposed", "those named here", "those chosen in the window", "those of a file"],
        default=ALL_SPECIES,
        label="Clusters to pick",
        help="*all species proposed*: everything that recurs in the tomograms and looks like a macromolecule; what looks like "
        "membrane, filament, gold, ice, an edge or a part of a larger particle is listed and not picked.\n"
        "*those named here*: by the names in the summary of an earlier start of this run.\n"
        "*those chosen in the window*: *Analyze Results* opens it; name, merge, discard and draw clusters there and save.\n"
        "*those of a file*: such a choice out of another run or from `tomotwin view`, for the same tomograms.\n"
        "Begin with the first, look at what there is, then change this and *Continue*: clusters are not looked for again, "
        "and the outputs of what was picked before stay.",
    )
    form.addParam(
        "named",
        params.StringParam,
        default="",
        condition=f"chosen == {NAMED}",
        label="Names",
        help="Names of clusters, separated by commas. *+* merges, *as* gives a name:\n"
        "_cluster_01, cluster_03+cluster_05 as ribosome_\n"
        "Clusters of other kinds than species can be named, too, and rare species (see below) as rare_01 and so on.",
    )
    form.addParam(
        "selectionFile",
        params.FileParam,
        default="",
        condition=f"chosen == {FROM_FILE}",
        label="Selection file",
        help=f"A {SELECTION_FILE} that the window has saved, or one written by hand: "
        '{"version": 1, "clusters": [{"name": "ribosome", "from": ["cluster_01"], "add": [], "remove": []}]}',
    )
    form.addParam(
        "leftovers",
        params.BooleanParam,
        default=False,
        condition=f"chosen in [{ALL_SPECIES}, {NAMED}]",
        label="Look again at what is left over?",
        help="*Yes* clusters all places that no cluster took by themselves. Rare species show up so that the large clusters "
        "had hidden; they are called rare_01 and so on. Expect more false clusters among them, too.",
    )


def define_finding_params(form: Any) -> None:
    """Add the section *Clustering*."""
    form.addSection(label="Clustering")
    form.addParam(
        "fewest",
        params.IntParam,
        default=6,
        label="Fewest members",
        help="A cluster has at least so many particles, in all tomograms together. Try 10 to 20 where many small clusters "
        "are proposed that are none, and 4 where a species has only a few copies.",
    )
    form.addParam(
        "salience",
        params.FloatParam,
        default=3.0,
        expertLevel=LEVEL_ADVANCED,
        label="Salience of a place (deviations)",
        help="A place is looked at if what is there stands out of the tomogram by so many robust standard deviations, or if "
        "it is a particle to the network. Lower, such as 2, looks at more places and takes longer.",
    )
    form.addParam(
        "library",
        params.BooleanParam,
        default=True,
        expertLevel=LEVEL_ADVANCED,
        label="Compare with the library?",
        help="*Yes* takes from simulated tomograms of the program's library how alike copies of one molecule look to the network, what "
        "membranes, gold and ice look like, and what each cluster looks most like. This comes with the released model; with any "
        "other, and for tomograms of voxels above 12 Å, it is made once, within some minutes to an hour. *No* goes without it: clusters are poorer, and have no names.",
    )
    form.addParam(
        "seed",
        params.IntParam,
        default=1,
        expertLevel=LEVEL_ADVANCED,
        label="Seed",
        help="Of everything that is drawn at random. With the same seed and the same tomograms the clusters are the same.",
    )


# ------------------------------ checks ------------------------------
def validate_clusters(protocol: Any, windowsFile: str) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well. `windowsFile` is where the window saves."""
    errors = []
    if protocol.chosen == NAMED:
        try:
            parse_clusters(protocol.named.get())
        except ValueError as error:
            errors.append(f"Names: {str(error).rstrip('.')}.")
    if protocol.chosen == IN_WINDOW and not os.path.exists(windowsFile):
        errors.append(
            "Clusters to pick: nothing was chosen in the window yet. Pick all species first, choose with Analyze "
            "Results, then change this and continue."
        )
    if protocol.chosen == FROM_FILE:
        errors += _validate_file(protocol.selectionFile.get() or "")
    if protocol.fewest.get() < 3:
        errors.append("Fewest members: a cluster has at least 3.")
    if not 0 < protocol.salience.get() <= LARGEST_SALIENCE:
        errors.append(f"Salience: it is a number of deviations, larger than 0 and at most {LARGEST_SALIENCE}.")
    return errors


def _validate_file(path: str) -> List[str]:
    if not os.path.isfile(path):
        return [f"Selection file: there is no file {path or 'given'}."]
    try:
        chosen = read_selection(path)
    except (OSError, ValueError) as error:
        return [f"Selection file: {error}"]
    return [] if chosen else [f"Selection file: {path} chooses no cluster."]
