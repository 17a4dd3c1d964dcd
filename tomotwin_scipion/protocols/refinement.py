"""References refitted to picks that a person accepted and rejected: the part of the form, its checks, the engine's words.

What was decided is told by two sets of coordinates: the picks of a run, and what stayed of them after someone threw out
the wrong ones (the window of *Analyze Results* makes such a set, any other program may). What is missing in the second
was rejected; what is only there was added by hand.

Scipion links every pointer of a new form to the selected run, those that may be empty too. So pointers are no wish: a
switch is, and without it the two sets count as not given.
"""

import os
from typing import Any, Dict, Iterable, List, Optional

from pyworkflow.protocol import LEVEL_ADVANCED, params
from tomo.objects import SetOfCoordinates3D

from ..convert import write_positions
from ..enabled import enabled_items, groups_of, ts_ids
from ..objects import SetOfTomogramEmbeddings
from ..targets import diameters_by_group, groups_file, names_of_targets, read_groups

REFERENCES_FILE = "references.safetensors"
TARGETS_FILE = "targets.json"


def define_refinement_params(form: Any) -> None:
    """Add the section *Refinement* to a form."""
    form.addSection(label="Refinement")
    form.addParam(
        "refine",
        params.BooleanParam,
        default=False,
        label="Refine with accepted picks?",
        help="*Yes* refits the references to the picks of an earlier run that you keep and that you threw out, in seconds. With "
        "*No* the two sets below are not used, even where Scipion has filled them in by itself.",
    )
    form.addParam(
        "acceptedPicks",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        allowsNull=True,
        condition="refine",
        label="Accepted picks",
        help="The picks of an earlier run that you keep, as *Analyze Results* of that run makes them "
        "(_filtered3DCoordinates_), or any other program. 5 accepted and 5 rejected picks of a target already help; 20 are "
        "better. The same groups must stand for the same targets.",
    )
    form.addParam(
        "allPicks",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        allowsNull=True,
        condition="refine",
        label="Chosen out of",
        help="The picks out of which those were chosen (_output3DCoordinates_ of the same run): what is missing above was "
        "rejected. Where no target is named on the page Input, those of that run are refitted and looked for.",
    )
    form.addParam(
        "refinementPrior",
        params.FloatParam,
        default=4.0,
        condition="refine",
        expertLevel=LEVEL_ADVANCED,
        label="Weight of the old reference",
        help="As how many examples the reference as it was counts. Larger keeps nearer to it; 1 to 20.",
    )


def accepted_picks(protocol: Any) -> Optional[SetOfCoordinates3D]:
    """What was kept, where the references are to be refitted."""
    return protocol.acceptedPicks.get() if protocol.refine else None


def all_picks(protocol: Any) -> Optional[SetOfCoordinates3D]:
    """What it was chosen out of, where the references are to be refitted."""
    return protocol.allPicks.get() if protocol.refine else None


def validate_refinement_params(protocol: Any, tsIds: Iterable[str], namesTargets: bool) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    if not protocol.refine:
        return []
    accepted, picks = accepted_picks(protocol), all_picks(protocol)
    if accepted is None or picks is None:
        return ["Refinement: give both the accepted picks and those out of which they were chosen, or say No to it."]
    if accepted.getFileName() == picks.getFileName():
        return [
            "Refinement: the accepted picks and those out of which they were chosen are one and the same set; give as accepted "
            "what Analyze Results made of them."
        ]
    errors = []
    if not 0 < protocol.refinementPrior.get() <= 1000:
        errors.append("Weight of the old reference: it is a number of examples, larger than 0 and at most 1000.")
    if not _shared(picks, tsIds):
        errors.append("Refinement: none of the picks is in one of the embedded tomograms (tsIds differ).")
    strange = _validate_groups(accepted, picks)
    if strange:
        return errors + strange
    if namesTargets:
        errors += _validate_targets(protocol, picks)
    elif not os.path.exists(_of_run(picks, REFERENCES_FILE)):
        errors.append(
            "Refinement: the picks come from no run of reference picking whose targets could be taken; name the targets on "
            "the page Input."
        )
    return errors


def _validate_groups(accepted: SetOfCoordinates3D, picks: SetOfCoordinates3D) -> List[str]:
    """A sentence where a group of the accepted picks is another target than the same group of all picks, or none."""
    names, other = (read_groups(groups_file(one))[0] for one in (picks, accepted))
    for group in sorted(_groups(accepted)):
        if len(names) > 1 and group not in names:
            return [f"Accepted picks: their group {group} is no group of the picks out of which they were chosen."]
        if names and group in other and other[group] != names.get(group):
            found = f"{names[group]} there" if group in names else "none there"
            return [
                f"Accepted picks: their group {group} is {other[group]}, and {found} where they were chosen; give the two sets "
                "of one run."
            ]
    return []


def _validate_targets(protocol: Any, picks: SetOfCoordinates3D) -> List[str]:
    """A sentence where the picks are of targets that the form does not name."""
    named = names_of_targets(protocol)
    names = read_groups(groups_file(picks))[0]
    present = {names[group] for group in _groups(picks) if group in names}
    missing = sorted(present - set(named))
    if missing:
        return [
            f"Refinement: the picks are of {', '.join(missing)}, and the page Input names {', '.join(named)}; name the same "
            "targets, or none to take those of the picks."
        ]
    if not names and len(named) > 1:
        return [
            f"Refinement: the picks do not say of which target they are, and the page Input names {len(named)}; name one target."
        ]
    return []


def run_of_picks(picks: SetOfCoordinates3D) -> List[str]:
    """Files of the run that made the picks: references, and the list of targets."""
    return [_of_run(picks, REFERENCES_FILE), _of_run(picks, TARGETS_FILE)]


def refine_args(protocol: Any, embeddings: SetOfTomogramEmbeddings, folder: str) -> List[Any]:
    """Words of ``tomotwin refine``, but for the references; the positions are written under `folder`."""
    accepted, picks = protocol.acceptedPicks.get(), protocol.allPicks.get()
    zarrs = {item.getTsId(): item.getFileName() for item in enabled_items(embeddings)}
    tsIds = _shared(picks, set(zarrs) & set(ts_ids(accepted.getPrecedents())))
    names, diameters = read_groups(groups_file(picks))[0], diameters_by_group(picks)
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
    if not protocol.refine:
        return []
    found = [(one.getFileName(), one.getSize()) for one in (protocol.acceptedPicks.get(), protocol.allPicks.get())]
    return [*found, protocol.refinementPrior.get()]


def _groups(coordinates: SetOfCoordinates3D) -> set:
    return set(groups_of(coordinates))


def _shared(coordinates: SetOfCoordinates3D, tsIds: Iterable[str]) -> List[str]:
    return sorted(set(ts_ids(coordinates)) & set(tsIds))


def _of_run(coordinates: SetOfCoordinates3D, name: str) -> str:
    return os.path.join(os.path.dirname(groups_file(coordinates)), name)
