"""References refitted to picks that a person accepted and rejected: the part of the form, its checks, the engine's words.

What was decided is told by two sets of coordinates: the picks of a run, and what stayed of them after someone threw out
the wrong ones (the window of *Analyze Results* makes such a set, any other program may). What is missing in the second
was rejected; what is only there was added by hand.
"""

import os
from typing import Any, Dict, Iterable, List

from pyworkflow.protocol import LEVEL_ADVANCED, params
from tomo.objects import Coordinate3D, SetOfCoordinates3D

from ..convert import write_positions
from ..objects import SetOfTomogramEmbeddings
from ..targets import groups_file, read_groups

REFERENCES_FILE = "references.safetensors"
TARGETS_FILE = "targets.json"


def define_refinement_params(form: Any) -> None:
    """Add the section *Refinement* to a form."""
    form.addSection(label="Refinement")
    form.addParam(
        "acceptedPicks",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        allowsNull=True,
        label="Accepted picks",
        help="Optional: the picks of an earlier run that you keep, as *Analyze Results* of that run makes them "
        "(_filtered3DCoordinates_), or any other program. The references are refitted to them, in seconds. 5 accepted "
        "and 5 rejected picks of a target already help; 20 are better. The same groups must stand for the same targets.",
    )
    form.addParam(
        "allPicks",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        allowsNull=True,
        label="Chosen out of",
        help="The picks out of which those were chosen (_output3DCoordinates_ of the same run): what is missing above was "
        "rejected. Where no target is named on the page Input, those of that run are refitted and looked for.",
    )
    form.addParam(
        "refinementPrior",
        params.FloatParam,
        default=4.0,
        expertLevel=LEVEL_ADVANCED,
        label="Weight of the old reference",
        help="As how many examples the reference as it was counts. Larger keeps nearer to it; 1 to 20.",
    )


def validate_refinement_params(protocol: Any, tsIds: Iterable[str], namesTargets: bool) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    accepted, picks = protocol.acceptedPicks.get(), protocol.allPicks.get()
    if accepted is None and picks is None:
        return []
    if accepted is None or picks is None:
        return ["Refinement: give both the accepted picks and those out of which they were chosen, or none."]
    errors = []
    if not 0 < protocol.refinementPrior.get() <= 1000:
        errors.append("Weight of the old reference: it is a number of examples, larger than 0 and at most 1000.")
    if not _shared(picks, tsIds):
        errors.append("Refinement: none of the picks is in one of the embedded tomograms (tsIds differ).")
    names = read_groups(groups_file(picks))[0]
    unknown = _groups(accepted) - set(names)
    if len(names) > 1 and unknown:
        errors.append(
            f"Accepted picks: their group {min(unknown)} is no group of the picks out of which they were chosen."
        )
    if not namesTargets and not os.path.exists(_of_run(picks, REFERENCES_FILE)):
        errors.append(
            "Refinement: the picks come from no run of reference picking whose targets could be taken; name the targets on "
            "the page Input."
        )
    return errors


def run_of_picks(picks: SetOfCoordinates3D) -> List[str]:
    """Files of the run that made the picks: references, and the list of targets."""
    return [_of_run(picks, REFERENCES_FILE), _of_run(picks, TARGETS_FILE)]


def refine_args(protocol: Any, embeddings: SetOfTomogramEmbeddings, folder: str) -> List[Any]:
    """Words of ``tomotwin refine``, but for the references; the positions are written under `folder`."""
    accepted, picks = protocol.acceptedPicks.get(), protocol.allPicks.get()
    zarrs = {item.getTsId(): item.getFileName() for item in embeddings.iterItems()}
    tsIds = _shared(picks, set(zarrs) & set(accepted.getPrecedents().getTSIds()))
    names, diameters = read_groups(groups_file(picks))
    labels: Dict[str, Any] = {"picks": names or None, "corrected": names or None}
    if len(names) == 1:  # whatever group another program gave them
        (name,) = names.values()
        labels = {"picks": names, "corrected": {group: name for group in _groups(accepted)}}
    args: List[Any] = [zarrs[tsId] for tsId in tsIds]
    for option, coordinates in (("picks", picks), ("corrected", accepted)):
        path = os.path.join(folder, option + ".star")
        write_positions(coordinates, path, embeddings.getSamplingRate(), tsIds, labels[option], diameters)
        args += ["--" + option, path]
    return args + ["--prior", f"{protocol.refinementPrior.get():g}"]


def refinement_settings(protocol: Any) -> List[Any]:
    """Everything the refinement depends on."""
    sets = [protocol.acceptedPicks.get(), protocol.allPicks.get()]
    found = [None if one is None else (one.getFileName(), one.getSize()) for one in sets]
    return found + [protocol.refinementPrior.get()]


def _groups(coordinates: SetOfCoordinates3D) -> set:
    return set(coordinates.getUniqueValues(Coordinate3D.GROUP_ID_ATTR))


def _shared(coordinates: SetOfCoordinates3D, tsIds: Iterable[str]) -> List[str]:
    return sorted(set(coordinates.getTSIds()) & set(tsIds))


def _of_run(coordinates: SetOfCoordinates3D, name: str) -> str:
    return os.path.join(os.path.dirname(groups_file(coordinates)), name)
