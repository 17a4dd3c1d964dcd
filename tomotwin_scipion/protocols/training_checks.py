"""The checks of what is filled in in *train model*."""

import os
from collections import Counter
from typing import Any, List

from tomo.objects import SetOfCoordinates3D, SetOfTomograms, Tomogram

from ..enabled import enabled_items, ts_ids
from ..targets import is_cut_out, iter_references, kinds_of
from .model_choice import validate_model
from .positions_form import other_tomograms, validate_other_tomograms
from .training_form import (
    ADAPT,
    FEWEST_MOLECULES,
    FEWEST_POSITIONS,
    LIBRARY_FILE,
    LIBRARY_RELEASED,
    SIMULATED,
    TOMOGRAMS,
    more_settings,
)


def validate_training(protocol: Any) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    errors = _validate_molecules(protocol) if protocol.task == SIMULATED else _validate_positions(protocol)
    if protocol.task == ADAPT or protocol.fromModel:
        errors += validate_model(protocol)
    return errors + _validate_numbers(protocol)


def _validate_molecules(protocol: Any) -> List[str]:
    if protocol.molecules == LIBRARY_FILE:
        path = protocol.libraryFile.get() or ""
        return [] if os.path.isfile(path) else [f"Library file: there is no file {path or 'given'}."]
    if protocol.molecules == LIBRARY_RELEASED:
        return []
    given = [pointer.get() for pointer in protocol.inputMolecules]
    if any(molecule is None for molecule in given):
        return ["Structures and maps: one of them is not there yet."]
    if any(isinstance(molecule, (SetOfTomograms, Tomogram)) or is_cut_out(molecule) for molecule in given):
        return ["Structures and maps: tomograms and subtomograms are none; give maps or atomic models."]
    number = len(list(iter_references(protocol.inputMolecules)))
    if protocol.heldOut.get() < 0:
        return ["Held out: it cannot be negative."]
    if number - protocol.heldOut.get() < FEWEST_MOLECULES:
        return [
            f"Structures and maps: {number} are given; at least {FEWEST_MOLECULES} are needed beside those held out."
        ]
    return []


def _validate_positions(protocol: Any) -> List[str]:
    sets = [pointer.get() for pointer in protocol.inputCoordinates]
    if not sets:
        return ["Positions: give at least one set of coordinates."]
    if any(coordinates is None or coordinates.getPrecedents() is None for coordinates in sets):
        return ["Positions: one of the sets, or its tomograms, is not there."]
    errors = validate_other_tomograms(protocol)
    tomograms = other_tomograms(protocol)
    rates = {coordinates.getPrecedents().getSamplingRate() for coordinates in sets}
    if tomograms is None and len(rates) > 1:
        errors.append(
            "Positions: they were picked in tomograms of different voxel sizes; say in Tomograms which to take."
        )
    for coordinates in sets:
        if tomograms is not None and not set(ts_ids(coordinates)) & set(ts_ids(tomograms)):
            errors.append("Positions: some are in none of the tomograms (tsIds differ).")
        if protocol.task == ADAPT:
            errors += _validate_numbers_of(coordinates, protocol.byGroup.get())
        if not (protocol.diameter.get() or coordinates.getBoxSize()):
            errors.append("Particle diameter: the positions have no box size; give the diameter in Å.")
    if protocol.task == TOMOGRAMS and not 0 <= protocol.liveShare.get() <= 0.99:
        errors.append("Share of simulated tomograms: it lies within 0 and 0.99.")
    if protocol.diameter.get() < 0:
        errors.append("Particle diameter: it cannot be negative; 0 takes that of the positions.")
    return errors


def _validate_numbers_of(coordinates: SetOfCoordinates3D, byGroup: bool) -> List[str]:
    counts = Counter(item.getGroupId() for item in enabled_items(coordinates))
    kinds = kinds_of(coordinates, byGroup)
    numbers = {name: coordinates.getSize() if group is None else counts[group] for name, group in kinds}
    name = min(numbers, key=numbers.__getitem__)
    if numbers[name] >= FEWEST_POSITIONS:
        return []
    return [f"Positions: there are {numbers[name]} of {name}, and at least {FEWEST_POSITIONS} are needed."]


def _validate_numbers(protocol: Any) -> List[str]:
    errors = []
    if protocol.seed.get() < 0:
        errors.append("Seed: it cannot be negative.")
    if protocol.task == ADAPT:
        if protocol.adaptSteps.get() < 1:
            errors.append("Steps: at least 1.")
        if protocol.keep.get() < 0:
            errors.append("Weight of what it knew: it cannot be negative.")
        return errors
    path = protocol.settingsFile.get()
    if path and not os.path.isfile(path):
        errors.append(f"Settings file: there is no file {path}.")
    if protocol.steps.get() < 1:
        errors.append("Steps: at least 1.")
    if protocol.validateEvery.get() < 0 or protocol.workers.get() < 0:
        errors.append("Validation and simulating processes: they cannot be negative.")
    rate = protocol.learningRate.get()
    if rate is not None and not 0 < rate <= 1:
        errors.append("Learning rate: it is larger than 0 and at most 1.")
    if protocol.species.get() is not None and protocol.species.get() < 2:
        errors.append("Species in a step: at least 2, to be told apart.")
    for line in more_settings(protocol):
        if "=" not in line or "." not in line.partition("=")[0]:
            errors.append(f"More settings: '{line}' is not of the form table.name = value.")
    return errors
