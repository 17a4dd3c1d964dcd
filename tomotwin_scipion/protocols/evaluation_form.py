"""What *evaluate picks* asks, and the checks of what is filled in."""

from typing import Any, Dict, List, Optional, Set

from pyworkflow.protocol import LEVEL_ADVANCED, params
from tomo.objects import SetOfCoordinates3D

from ..compared import Kinds, candidates_of, compared_kinds, diameters_of, has_scores, listed, parse_pairs
from ..enabled import ts_ids

BY_DISTANCE, BY_BOXES = range(2)
KIND_BY_KIND, TOGETHER = range(2)
WITH_TRUTH, EVERY_COMMON = range(2)

LEAST_TOLERANCE_A = 20


# ------------------------------ form ------------------------------
def define_evaluation_params(form: Any) -> None:
    """Add the section *Input*."""
    form.addSection(label="Input")
    form.addParam(
        "inputPicks",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        important=True,
        label="Picks",
        help="What is to be judged: coordinates of any protocol, in tomograms of any binning.",
    )
    form.addParam(
        "inputTruth",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        important=True,
        label="True positions",
        help="Where particles really are: those of the protocol *simulate tomograms*, or positions picked by hand or "
        "confirmed by classification. Tomograms are matched by tsId, and may be of another binning. What is not in "
        "this set counts as false: annotate whole tomograms, or mask both sets alike.",
    )
    form.addParam(
        "criterion",
        params.EnumParam,
        choices=["distance", "box overlap"],
        default=BY_DISTANCE,
        display=params.EnumParam.DISPLAY_HLIST,
        label="A pick is right by",
        help="*distance*: its centre is close enough to a true one.\n*box overlap*: cubes of the particle's diameter around "
        "both overlap by more than a share of their union (IoU), as in the TomoTwin paper.\n"
        "Each particle counts for one pick only, and pairs are chosen so that as many picks as possible are right.",
    )
    form.addParam(
        "tolerance",
        params.FloatParam,
        default=0.25,
        condition=f"criterion == {BY_DISTANCE}",
        label="Largest distance (share of the diameter)",
        help=f"0.25 is half the particle's radius; {LEAST_TOLERANCE_A} Å are always allowed. Try 0.5 for positions that were "
        "picked by hand.",
    )
    form.addParam(
        "minIou",
        params.FloatParam,
        default=0.6,
        condition=f"criterion == {BY_BOXES}",
        label="Smallest overlap (IoU)",
        help="Boxes must overlap by more than this share of their union. 0.6 is the TomoTwin paper's.",
    )
    form.addParam(
        "diameter",
        params.FloatParam,
        default=0,
        label="Particle diameter (Å)",
        help="0 takes for each kind what the run behind the true positions says, or that behind the picks, else their box "
        "size. A number holds for all kinds.",
    )
    form.addParam(
        "kinds",
        params.EnumParam,
        choices=["kind by kind", "all as one kind"],
        default=KIND_BY_KIND,
        display=params.EnumParam.DISPLAY_HLIST,
        label="Compare",
        help="*kind by kind*: a pick is right only where a particle of the same kind is. Kinds are the targets of a run of "
        "this software, else the group ids, as group_1, group_2. Where both sets have a single kind it is the same, "
        "whatever it is called.\n*all as one kind*: any pick at any particle is right.",
    )
    form.addParam(
        "pairs",
        params.StringParam,
        default="",
        condition=f"kinds == {KIND_BY_KIND}",
        label="Same kinds",
        help="Where kinds are called differently in the two sets: the name in the picks = the name in the truth, separated "
        "by commas, as in _1abc = ribosome, group_2 = proteasome_. Others are the same where their names are.",
    )
    form.addParam(
        "tomograms",
        params.EnumParam,
        choices=["with true positions", "all that both sets know"],
        default=WITH_TRUTH,
        expertLevel=LEVEL_ADVANCED,
        label="Tomograms",
        help="*with true positions*: tomograms in which nothing is marked are taken as not looked at, and left out.\n"
        "*all that both sets know*: such tomograms are taken as empty, and all picks in them as false.",
    )
    form.addParam(
        "useCandidates",
        params.BooleanParam,
        default=True,
        expertLevel=LEVEL_ADVANCED,
        label="Look below the threshold?",
        help="Runs of *reference picking* list fainter candidates than they pick. With *Yes* the curves and the best F1 "
        "take those in, so that a threshold that was too high shows; else they begin at the threshold.",
    )


# ------------------------------ what follows from it ------------------------------
def chosen_kinds(protocol: Any) -> Kinds:
    """Labels of picks and truth; ValueError for pairs that are none."""
    picks, truth = protocol.inputPicks.get(), protocol.inputTruth.get()
    return compared_kinds(picks, truth, parse_pairs(protocol.pairs.get()), protocol.kinds == TOGETHER)


def chosen_diameters(protocol: Any, kinds: Kinds) -> Dict[str, float]:
    """Diameter of each label in A."""
    if protocol.diameter.get() > 0:
        return dict.fromkeys([*kinds.picks.values(), *kinds.truth.values()], float(protocol.diameter.get()))
    return diameters_of(protocol.inputPicks.get(), protocol.inputTruth.get(), kinds)


def chosen_tomograms(protocol: Any) -> List[str]:
    """Tomograms that are compared."""
    common = _known(protocol.inputPicks.get()) & _known(protocol.inputTruth.get())
    if protocol.tomograms == WITH_TRUTH:
        common &= set(ts_ids(protocol.inputTruth.get()))
    return sorted(common)


def chosen_candidates(protocol: Any, tsIds: List[str]) -> Optional[Dict[str, str]]:
    """Files of candidates by tsId where there is one of every tomogram and they are wanted."""
    files = candidates_of(protocol.inputPicks.get(), tsIds) if protocol.useCandidates else {}
    return files if files and set(files) == set(tsIds) else None


def rule_in_words(protocol: Any) -> str:
    """When a pick is right."""
    if protocol.criterion == BY_BOXES:
        return f"boxes of the particle's diameter overlap by more than {protocol.minIou.get():g} (IoU)"
    share = protocol.tolerance.get()
    return f"within {share:g} of the diameter from the particle's centre, {LEAST_TOLERANCE_A} Å at least"


def _known(coordinates: SetOfCoordinates3D) -> Set[str]:
    return set(ts_ids(coordinates.getPrecedents()))


# ------------------------------ checks ------------------------------
def validate_evaluation(protocol: Any) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    picks, truth = protocol.inputPicks.get(), protocol.inputTruth.get()
    errors = _validate_numbers(protocol)
    if picks.getFileName() == truth.getFileName():
        errors.append("Picks and true positions are one and the same set.")
    for name, coordinates in (("Picks", picks), ("True positions", truth)):
        if coordinates.getPrecedents() is None or not coordinates.getSamplingRate():
            errors.append(f"{name}: the set does not know its tomograms or their sampling rate.")
    if errors:
        return errors
    if not _known(picks) & _known(truth):
        return ["Picks and true positions have no tomogram in common (tsIds differ)."]
    tsIds = chosen_tomograms(protocol)
    if not tsIds or not set(tsIds) & set(ts_ids(truth)):
        return ["True positions: there is none in a tomogram of the picks."]
    try:
        kinds = chosen_kinds(protocol)
    except ValueError as error:
        return [f"Same kinds: {error}"]
    if not kinds.common:
        return [
            f"The picks are of {listed(kinds.picks.values())} and the truth is of {listed(kinds.truth.values())}: say which "
            "are the same in the field Same kinds, or compare all as one kind."
        ]
    unknown = kinds.common - set(chosen_diameters(protocol, kinds))
    if unknown and protocol.criterion == BY_BOXES:
        return [f"Particle diameter: that of {listed(unknown)} is not known, and boxes need it; give it in Å."]
    return []


def _validate_numbers(protocol: Any) -> List[str]:
    errors = []
    if protocol.criterion == BY_DISTANCE and not 0 < protocol.tolerance.get() <= 1:
        errors.append("Largest distance: it is a share of the diameter, larger than 0 and at most 1.")
    if protocol.criterion == BY_BOXES and not 0 < protocol.minIou.get() < 1:
        errors.append("Smallest overlap: it is a share, larger than 0 and smaller than 1.")
    diameter = protocol.diameter.get()
    if diameter < 0 or (diameter and not 10 <= diameter <= 2000):
        errors.append("Particle diameter: give it in Å, within 10 and 2000, or 0.")
    return errors


def warn_of_evaluation(protocol: Any) -> List[str]:
    """Sentences about what may be, but is seldom meant."""
    picks, truth = protocol.inputPicks.get(), protocol.inputTruth.get()
    warnings, tsIds = [], set(chosen_tomograms(protocol))
    empty, unseen = tsIds - set(ts_ids(picks)), set(ts_ids(truth)) - _known(picks)
    if empty:
        warnings.append(
            f"{len(empty)} tomogram(s) have no pick, so that all their particles are missed: {listed(empty)}."
        )
    if unseen:
        warnings.append(f"{len(unseen)} tomogram(s) of the truth are not among those of the picks: {listed(unseen)}.")
    kinds = chosen_kinds(protocol)
    strange = set(kinds.picks.values()) - set(kinds.truth.values())
    if strange:
        warnings.append(f"There are no true positions of {listed(strange)}: all picks of it are false.")
    if not has_scores(picks):
        warnings.append("The picks have no scores: there will be no curves and no best F1.")
    return warnings
