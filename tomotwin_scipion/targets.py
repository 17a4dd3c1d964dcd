"""What is looked for: the targets of a picking run, from whatever Scipion objects the user gave.

A target becomes one source of ``tomotwin reference`` and one group id (from 1 on) of the coordinates. The list
is kept as a JSON file beside the picks, so that every step, the summary and a later *Continue* agree on it.
"""

import json
import os
import struct
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

from pwem.objects import AtomStruct, SetOfAtomStructs, SetOfVolumes, Volume
from tomo.objects import SetOfCoordinates3D

from .convert import target_name, write_positions, write_reference_volume
from .objects import SetOfTomogramEmbeddings

EXAMPLES = "examples"
"""Name of the target that example positions make."""


class Target(NamedTuple):
    """One target: group id in the coordinates, name in the engine's files, and the file it is made from."""

    group: int
    name: str
    source: str


class Measured(NamedTuple):
    """What the engine found about a target when it made its references."""

    diameter: float  # A
    threshold: float  # similarity that it proposes; NaN where it could not find one


def iter_references(pointers: Iterable[Any]) -> Iterable[Any]:
    """Volumes and atomic models behind a multi-pointer parameter, sets opened, in the user's order."""
    for pointer in pointers:
        reference = pointer.get()
        if isinstance(reference, (SetOfVolumes, SetOfAtomStructs)):
            for item in reference.iterItems():
                yield item.clone()
        elif reference is not None:
            yield reference


def prepare_targets(references: Iterable[Any], folder: str) -> List[Target]:
    """Name the references and bring each to a file the engine reads, under `folder`.

    Volumes become MRC files with the right voxel size in the header; atomic models are taken where they are.
    """
    targets: List[Target] = []
    for reference in references:
        if isinstance(reference, AtomStruct):
            source = reference.getFileName()
            name = target_name(source, {target.name for target in targets})
        elif isinstance(reference, Volume):
            name = target_name(reference.getFileName(), {target.name for target in targets})
            source = os.path.join(folder, name + ".mrc")
            write_reference_volume(reference, source)
        else:
            raise TypeError(f"A {reference.getClassName()} cannot be a reference.")
        targets.append(Target(len(targets) + 1, name, source))
    return targets


def prepare_examples(
    coordinates: SetOfCoordinates3D,
    embeddings: SetOfTomogramEmbeddings,
    targets: Iterable[Target],
    folder: str,
) -> Tuple[Target, List[str]]:
    """Make one more target out of example positions.

    Returns
    -------
    The target, whose file lists the positions in voxels of the embedded tomograms, and the embeddings that have
    some.
    """
    known = list(targets)
    name = target_name(EXAMPLES, {target.name for target in known})
    path = os.path.join(folder, name + ".star")
    zarrs = {item.getTsId(): item.getFileName() for item in embeddings.iterItems()}
    tsIds = sorted(set(coordinates.getTSIds()) & set(zarrs))
    write_positions(coordinates, path, embeddings.getSamplingRate(), tsIds)
    return Target(len(known) + 1, name, path), [zarrs[tsId] for tsId in tsIds]


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
    """Diameter and proposed threshold by target, out of the header of the engine's references file.

    A safetensors file begins with the length of its header (8 bytes, little endian) and the header as JSON, whose
    ``__metadata__`` is free text; no library is needed to read that.
    """
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length).decode())
    entries = json.loads(header["__metadata__"]["references"])["targets"]
    return {entry["name"]: Measured(entry["diameter_A"], entry["threshold"]) for entry in entries}
