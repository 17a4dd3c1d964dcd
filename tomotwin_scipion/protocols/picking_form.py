"""What *reference picking* asks: targets and threshold, and the checks of what is filled in."""

import os
from typing import Any, List, Set

from pwem.objects import Volume
from pyworkflow.protocol import LEVEL_ADVANCED, params
from tomo.objects import SetOfTomograms, Tomogram

from ..constants import BOX_ROOM, MODEL_VOXEL_SIZE_A, MODEL_WINDOW_VOXELS
from ..convert import plain_path
from ..enabled import ts_ids
from ..targets import MOST_SUBTOMOGRAMS, is_cut_out, iter_references, parse_identifiers
from .refinement import accepted_picks

THRESHOLD_PROPOSED, THRESHOLD_NUMBER, THRESHOLD_FDR = range(3)

WINDOW_A = MODEL_WINDOW_VOXELS * MODEL_VOXEL_SIZE_A
SMALLEST_BOX_A = 160.0
"""The engine takes no smaller subtomograms: they do not show a particle's surroundings."""


# ------------------------------ form ------------------------------
def define_target_params(form: Any) -> None:
    """Add what is looked for, to the section *Input*."""
    form.addParam(
        "inputReferences",
        params.MultiPointerParam,
        pointerClass="Volume, SetOfVolumes, AtomStruct, SetOfAtomStructs, SetOfSubTomograms",
        allowsNull=True,
        important=True,
        label="References",
        help="What to look for: density maps (of any voxel size and box), sets of them, atomic models, or sets of "
        f"subtomograms, in any mixture. Each map or model becomes one group of the output, and so does each set of "
        f"subtomograms (of which {MOST_SUBTOMOGRAMS} at most are taken; they need the diameter below). Targets up to about "
        f"{WINDOW_A:.0f} Å across fit the network's window; of larger ones a distinctive part is a better reference.\n"
        "Similar particles are told apart best when they are all given as references.",
    )
    form.addParam(
        "identifiers",
        params.StringParam,
        default="",
        label="Identifiers",
        help="More targets by their identifier, separated by commas: _pdb:4v6x_ from the Protein Data Bank, _emdb:2660_ from "
        "the Electron Microscopy Data Bank (both need the internet), or _library:1dzl_ out of the program's own library "
        "(`tomotwin library list` shows what is in it).",
    )
    form.addParam(
        "inputExamples",
        params.MultiPointerParam,
        pointerClass="SetOfCoordinates3D",
        allowsNull=True,
        label="Example positions",
        help="Optional, instead of or beside the references: centres of the particle picked by hand in one or more of "
        "these tomograms, 5 to 20 of them. Each set makes one more target; sets that this software picked or simulated make "
        "one of each of their groups. Its diameter is the box size they were picked with, unless one is given below.",
    )
    form.addParam(
        "examplesByGroup",
        params.BooleanParam,
        default=False,
        expertLevel=LEVEL_ADVANCED,
        label="A target for each group of examples?",
        help="*Yes* where the group ids of other software's coordinates tell kinds of particles. They may tell other things, "
        "such as the vesicle that a particle sits on: then say *No*.",
    )
    form.addParam(
        "diameter",
        params.FloatParam,
        default=0,
        label="Particle diameter (Å)",
        help="Two picks of one target are never closer than this allows, and the box size of the output follows "
        "from it. 0 takes each target's own diameter, measured in its reference; a number holds for all targets. "
        "Subtomograms do not say how large the particle in them is: with them it is needed.",
    )


def define_verification_params(form: Any) -> None:
    """Add whether picks are verified, to the section *Input*."""
    form.addParam(
        "verify",
        params.BooleanParam,
        default=True,
        label="Verify the picks?",
        help="*Yes*: targets that have a density (maps, atomic models, identifiers) are matched in all orientations at the places "
        "that the embedding proposes and at those of a coarse matching, and compete on that. It holds on tomograms however they were "
        "treated (deconvolved, denoised, SIRT), and the picks come with orientations and finer centres; their score is then a "
        "correlation. Of targets given as three and more positions a template is averaged out of their tomograms, and used where "
        "two halves of the copies agree to 85 Å. It takes some minutes for each tomogram.\n"
        "*No*: by the similarity of embeddings alone. Subtomograms are always found by that.",
    )


def define_threshold_params(form: Any, rates: bool = True) -> None:
    """Add what becomes a pick, and how picks are written, to the current section; `rates`: whether there are expected
    false-discovery rates, from which a threshold can be taken."""
    choices = ["proposed", "fixed value"] + ["expected FDR"] * rates
    form.addParam(
        "thresholdMode",
        params.EnumParam,
        choices=choices,
        default=THRESHOLD_PROPOSED,
        display=params.EnumParam.DISPLAY_HLIST,
        label="Threshold",
        help="Lowest similarity of a pick with its target.\n"
        "*proposed*: "
        + (
            "in each tomogram the one with the best balance of missed and false picks that is to be expected.\n"
            "*expected FDR*: the lowest at which no more than a share that you name is expected to be false.\n"
            if rates
            else "for each cluster the one that parts its members best from all other candidates.\n"
        )
        + "*fixed value*: one number for all targets and tomograms.\n"
        "Changing only this and continuing the run is quick: the search is not repeated. Thresholds can be moved afterwards, "
        "too: *Analyze Results* opens a window for that.",
    )
    form.addParam(
        "threshold",
        params.FloatParam,
        default=0.9,
        condition=f"thresholdMode == {THRESHOLD_NUMBER}",
        label="Lowest similarity (0 to 1)",
        help="The same for all targets. Lower gives more picks and more false ones; try 0.4 to 0.9.",
    )
    if rates:
        _define_rate_params(form)
        form.addParam(
            "outputEach",
            params.BooleanParam,
            default=False,
            label="An output for each target?",
            help="*Yes* makes a set of coordinates of each target, with a box of its own size, beside that of all: extraction "
            "takes whole sets.",
        )
    form.addParam(
        "boxSize",
        params.IntParam,
        default=0,
        expertLevel=LEVEL_ADVANCED,
        label="Box size (voxels)",
        help="Box size written to the output, in voxels of the tomograms; it changes no pick. "
        f"0 takes {BOX_ROOM:g} times the largest target's diameter, for extraction.",
    )
    form.addParam(
        "writeMaps",
        params.BooleanParam,
        default=False,
        expertLevel=LEVEL_ADVANCED,
        label="Write similarity maps?",
        help="Writes the similarity with each target as an MRC volume to the run's extra folder, for looking at.",
    )


def _define_rate_params(form: Any) -> None:
    form.addParam(
        "fdr",
        params.FloatParam,
        default=0.1,
        condition=f"thresholdMode == {THRESHOLD_FDR}",
        label="False picks (share, 0 to 1)",
        help="False-discovery rate: the share of the picks that may be false, as expected from simulated tomograms and from "
        "the scores of the tomogram itself. 0.05 for clean picks; 0.3 where classification follows.",
    )
    form.addParam(
        "calibrateExamples",
        params.BooleanParam,
        default=True,
        expertLevel=LEVEL_ADVANCED,
        label="Calibrate examples by simulation?",
        help="Compares example positions and subtomograms with many simulated molecules, from which the expected "
        "false-discovery rates come. *No* makes references of examples alone within a second, without such rates.",
    )


# ------------------------------ checks ------------------------------
def validate_picking(protocol: Any, tsIds: Set[str]) -> List[str]:
    """Sentences about targets and threshold that cannot be in these tomograms; an empty list when all is well."""
    errors = _validate_references(protocol) + _validate_examples(protocol, tsIds)
    if not names_targets(protocol) and accepted_picks(protocol) is None:
        errors.append("Name something to look for: references, identifiers, example positions, or several of them.")
    errors += validate_threshold(protocol)
    if protocol.thresholdMode == THRESHOLD_FDR:
        errors += _validate_rate(protocol)
    diameter = protocol.diameter.get()
    if diameter < 0:
        errors.append("Particle diameter: it cannot be negative; 0 means: from the reference.")
    elif diameter and not 10 <= diameter <= 2000:
        errors.append("Particle diameter: give it in Å, within 10 and 2000, or 0.")
    return errors


def names_targets(protocol: Any) -> bool:
    """Whether the form names targets, rather than taking those of an earlier run for refinement."""
    identifiers = (protocol.identifiers.get() or "").strip()
    return bool(len(protocol.inputReferences) or identifiers or len(protocol.inputExamples))


def _validate_references(protocol: Any) -> List[str]:
    errors = []
    if any(pointer.get() is None for pointer in protocol.inputReferences):
        return ["References: one of them is not there yet."]
    paths = [item.getFileName() for item in iter_references(protocol.inputReferences) if not is_cut_out(item)]
    missing = [path for path in paths if not os.path.exists(plain_path(path))]
    if missing:
        errors.append(f"References: {len(missing)} file(s) are not there, the first is {missing[0]}.")
    for reference in [pointer.get() for pointer in protocol.inputReferences]:
        # Scipion offers these too, as they are kinds of volumes.
        if isinstance(reference, (SetOfTomograms, Tomogram)):
            errors.append("References: a tomogram cannot be a reference; give a map of the particle.")
        elif isinstance(reference, Volume) and not reference.getSamplingRate():
            errors.append(f"References: {reference.getFileName()} has no sampling rate.")
        elif is_cut_out(reference):
            box = min(reference.getDimensions()) * reference.getSamplingRate()
            if box < SMALLEST_BOX_A:
                errors.append(
                    f"References: the subtomograms are {box:.0f} Å wide, too small for the network to look at; cut out boxes "
                    f"of {WINDOW_A:.0f} Å or more."
                )
            if not protocol.diameter.get():
                errors.append("Particle diameter: subtomograms do not say how large the particle is; give it in Å.")
    try:
        parse_identifiers(protocol.identifiers.get())
    except ValueError as error:
        errors.append(f"Identifiers: {error}")
    return errors


def _validate_examples(protocol: Any, tsIds: Set[str]) -> List[str]:
    errors = []
    if any(pointer.get() is None for pointer in protocol.inputExamples):
        return ["Example positions: one of the sets is not there yet."]
    for examples in [pointer.get() for pointer in protocol.inputExamples]:
        if not set(ts_ids(examples)) & tsIds:
            errors.append("Example positions: none of them is in one of the embedded tomograms (tsIds differ).")
        elif not (protocol.diameter.get() or examples.getBoxSize()):
            errors.append("Particle diameter: the example positions have no box size; give the diameter in Å.")
    return errors


def validate_threshold(protocol: Any) -> List[str]:
    """Sentences about numbers of threshold and box that cannot be."""
    errors = []
    if protocol.thresholdMode == THRESHOLD_NUMBER and not -1 <= protocol.threshold.get() < 1:
        errors.append("Threshold: a similarity is a number from -1 to 1, and useful ones are from 0 to 1.")
    if protocol.boxSize.get() < 0:
        errors.append("Box size: it cannot be negative; 0 means: from the diameter.")
    return errors


def _validate_rate(protocol: Any) -> List[str]:
    errors = []
    if not 0 < protocol.fdr.get() < 1:
        errors.append("False picks: it is a share of all picks, larger than 0 and smaller than 1.")
    isSimulated = len(protocol.inputReferences) or (protocol.identifiers.get() or "").strip()
    if not protocol.calibrateExamples and len(protocol.inputExamples) and not isSimulated:
        errors.append(
            "Threshold: without calibration of the examples no FDR is known; say Yes to that, or choose another."
        )
    return errors


def warn_of_picking(protocol: Any) -> List[str]:
    """Sentences about what may be, but is seldom meant."""
    if protocol.diameter.get() > WINDOW_A:
        return [
            f"A particle of {protocol.diameter.get():g} Å does not fit the network's window of {WINDOW_A:g} Å: what is "
            "looked for is then the middle of it."
        ]
    return []
