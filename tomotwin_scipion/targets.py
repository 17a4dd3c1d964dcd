"""What is looked for: the targets of a picking run, from whatever Scipion objects the user gave.

A target becomes one source of ``tomotwin reference`` and one group id (from 1 on) of the coordinates. The list
is kept as a JSON file beside the picks, so that every step, the summary and a later *Continue* agree on it.
"""

import csv
import json
import os
import re
import struct
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np
from pwem.objects import AtomStruct, SetOfAtomStructs, SetOfVolumes, Volume
from pyworkflow.utils import makePath
from tomo.objects import Coordinate3D, SetOfAverageSubTomograms, SetOfCoordinates3D, SetOfSubTomograms

from .convert import DIAMETER_ATTRIBUTE, known_diameter, target_name, write_positions, write_reference_volume
from .enabled import enabled_items, groups_of, ts_ids

EXAMPLES = "examples"
"""Name of the target that example positions make."""

SUBTOMOGRAMS = "subtomograms:"
"""In front of a folder of subtomograms where the engine wants a source."""

DATABASES = ("pdb", "emdb", "library")
"""Prefixes with which the engine fetches a target by its identifier."""

GROUPS_FILE = "groups.csv"
"""Table in the extra folder of a run that says which target each group id of its coordinates is."""

MOST_SUBTOMOGRAMS = 200
"""Of a set of subtomograms no more are taken for a reference, evenly spread over it."""


class Target(NamedTuple):
    """One target: group id in the coordinates, name in the engine's files, and the source it is made from."""

    group: int
    name: str
    source: str


class Measured(NamedTuple):
    """What the engine found about a target when it made its references."""

    diameter: float  # A
    threshold: float  # similarity that it proposes; NaN where it could not find one


# ------------------------------ maps, models, subtomograms ------------------------------
def iter_references(pointers: Iterable[Any]) -> Iterable[Any]:
    """What is behind a multi-pointer parameter, in the user's order: volumes and atomic models, whose sets are opened,
    and sets of subtomograms as they are."""
    for pointer in pointers:
        reference = pointer.get()
        isMany = isinstance(reference, (SetOfVolumes, SetOfAtomStructs)) and not is_cut_out(reference)
        if isMany:
            for item in enabled_items(reference):
                yield item.clone()
        elif reference is not None:
            yield reference


def is_cut_out(reference: Any) -> bool:
    """Whether it is a set of subtomograms, which are examples of one particle; averages of them are maps."""
    return isinstance(reference, SetOfSubTomograms) and not isinstance(reference, SetOfAverageSubTomograms)


def prepare_targets(references: Iterable[Any], folder: str) -> List[Target]:
    """Name the references and bring each to files the engine reads, under `folder`.

    Volumes become MRC files with the right voxel size in the header; atomic models are taken where they are.
    """
    targets: List[Target] = []
    for reference in references:
        name = target_name(_called(reference), {target.name for target in targets})
        if isinstance(reference, AtomStruct):
            source = reference.getFileName()
        elif is_cut_out(reference):
            source = SUBTOMOGRAMS + _write_subtomograms(reference, os.path.join(folder, name))
        elif isinstance(reference, Volume):
            source = os.path.join(folder, name + ".mrc")
            write_reference_volume(reference, source)
        else:
            raise TypeError(f"A {reference.getClassName()} cannot be a reference.")
        targets.append(Target(len(targets) + 1, name, source))
    return targets


def _called(reference: Any) -> str:
    return "subtomograms" if is_cut_out(reference) else reference.getFileName()


def names_of_targets(protocol: Any) -> List[str]:
    """Names of the targets that a form of *reference picking* asks for, as they will be called."""
    called = [_called(reference) for reference in iter_references(protocol.inputReferences)]
    called += [source.partition(":")[2] for source in parse_identifiers(protocol.identifiers.get())]
    for pointer in protocol.inputExamples:
        called += [name for name, _ in kinds_of(pointer.get(), protocol.examplesByGroup.get())]
    names: List[str] = []
    for one in called:
        names.append(target_name(one, names))
    return names


def _write_subtomograms(subtomograms: SetOfSubTomograms, folder: str) -> str:
    makePath(folder)
    chosen = set(np.linspace(0, subtomograms.getSize() - 1, MOST_SUBTOMOGRAMS).round().astype(int).tolist())
    for number, item in enumerate(enabled_items(subtomograms)):
        if number in chosen:
            write_reference_volume(item, os.path.join(folder, f"{number:06d}.mrc"))
    return folder


# ------------------------------ identifiers ------------------------------
def parse_identifiers(text: str) -> List[str]:
    """The sources of a text such as ``pdb:4v6x, emdb:2660``, separated by commas, spaces or new lines.

    Raises
    ------
    ValueError
        For a word that does not begin with the name of a database.
    """
    words = [word for word in re.split(r"[,;\s]+", text or "") if word]
    for word in words:
        database, _, identifier = word.partition(":")
        if database not in DATABASES or not re.fullmatch(r"[\w-]+", identifier, flags=re.ASCII):
            known = ", ".join(name + ":" for name in DATABASES)
            raise ValueError(f"'{word}' names no molecule: write one of {known} and its identifier, such as pdb:4v6x.")
    return words


def add_identifiers(text: str, targets: List[Target]) -> None:
    """Make a target of every identifier of a text."""
    for source in parse_identifiers(text):
        name = target_name(source.partition(":")[2], {target.name for target in targets})
        targets.append(Target(len(targets) + 1, name, source))


# ------------------------------ example positions ------------------------------
def add_examples(
    sets: Iterable[SetOfCoordinates3D],
    targets: List[Target],
    folder: str,
    samplingRate: float,
    tsIds: Iterable[str],
    byGroup: bool = False,
    diameter: float = 0.0,
) -> List[str]:
    """Make targets of example positions: one of each set, or one of each of its groups where the run that made the set
    says which target a group is, or `byGroup` asks for it.

    Their files list the positions in voxels of `samplingRate` (A) in the tomograms `tsIds`, with a `diameter` (A) where one
    is given, else with that which the set's own run measured, else with the box size.

    Returns
    -------
    The tomograms that have some.
    """
    wanted, used = set(tsIds), set()
    for coordinates in sets:
        here = sorted(set(ts_ids(coordinates)) & wanted)
        used.update(here)
        diameters = diameters_by_group(coordinates)
        if diameter:
            diameters = dict.fromkeys(groups_of(coordinates), diameter)
        for called, group in kinds_of(coordinates, byGroup):
            name = target_name(called, {target.name for target in targets})
            path = os.path.join(folder, name + ".star")
            labels = None if group is None else {group: name}
            write_positions(coordinates, path, samplingRate, here, labels, diameters)
            targets.append(Target(len(targets) + 1, name, path))
    return sorted(used)


def kinds_of(coordinates: SetOfCoordinates3D, byGroup: bool) -> List[Tuple[str, Optional[int]]]:
    """Name and group of each kind of particle in a set; a single kind has no group."""
    names = read_groups(groups_file(coordinates))[0]
    groups = groups_of(coordinates)
    if names or (byGroup and len(groups) > 1):
        return [(names.get(group, f"group_{group}"), group) for group in groups]
    return [(EXAMPLES, None)]


def groups_file(coordinates: SetOfCoordinates3D) -> str:
    """Where the run that made the coordinates says what their groups are, if it is one of this plugin."""
    return os.path.join(os.path.dirname(coordinates.getFileName()), "extra", GROUPS_FILE)


def read_groups(path: str) -> Tuple[Dict[int, str], Dict[int, float]]:
    """Names and diameters (A) of a run's targets by group id; nothing where there is no such file."""
    if not os.path.exists(path):
        return {}, {}
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = {int(row["group_id"]): row["target"] for row in rows}
    return names, {int(row["group_id"]): float(row["diameter_A"]) for row in rows}


def diameters_by_group(coordinates: SetOfCoordinates3D) -> Dict[int, float]:
    """Diameters (A) of the particles by group id, as the run that made the coordinates says, else as they do themselves; nothing
    where neither knows."""
    found = read_groups(groups_file(coordinates))[1]
    if found or not any(known_diameter(item) for item in coordinates.iterItems(limit=1)):
        return found
    for group in groups_of(coordinates):
        own = f"{Coordinate3D.GROUP_ID_ATTR}={group}"
        found[group] = float(np.median(coordinates.getUniqueValues(DIAMETER_ATTRIBUTE, where=own)))
    return found


# ------------------------------ the list of targets ------------------------------
def write_targets(targets: Iterable[Target], path: str) -> None:
    """Keep the targets beside the picks."""
    with open(path + ".tmp", "w") as file:
        json.dump([target._asdict() for target in targets], file, indent=1)
    os.replace(path + ".tmp", path)


def read_targets(path: str) -> List[Target]:
    """Targets as `write_targets` left them."""
    with open(path) as file:
        return [Target(**entry) for entry in json.load(file)]


def read_measured(path: str) -> Dict[str, Measured]:
    """Diameter and proposed threshold by target, out of the header of the engine's references file."""
    entries = json.loads(read_metadata(path)["references"])["targets"]
    return {entry["name"]: Measured(entry["diameter_A"], entry["threshold"]) for entry in entries}


def read_metadata(path: str) -> Dict[str, str]:
    """The texts in the header of a safetensors file.

    Such a file begins with the length of its header (8 bytes, little endian) and the header as JSON, whose
    ``__metadata__`` is free text; no library is needed to read that.
    """
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length).decode())["__metadata__"]
