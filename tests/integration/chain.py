"""Our coordinates in the protocols of others: chain.py ANSWER FOLDER

Tomograms of two binnings are imported, coordinates made of the engine's picks as our protocols make them, and given to the
extraction protocols of other plugins: created, wired, validated, and as far as they go without their programs run. Scipion's
own protocols that export, move and mask coordinates run in full.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from projects import answer, launch, new_project, point, state
from pyworkflow.object import Pointer
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D, SetOfTomoMasks, TomoMask
from tomo.protocols import ProtImportTomograms
from tomo.protocols.protocol_export_coords import ProtExportCoordinates3D
from tomo.protocols.protocol_extract_coordinates import ProtTomoExtractCoords
from tomo.protocols.protocol_mask_coordinates import ProtMaskCoordinates

from tomotwin_scipion.convert import new_coordinate, read_picks

FOLDER = Path(sys.argv[2])
VOXEL_SIZE_A, BOX = 8.0, 24


def imported(project: Any, folder: str, voxel_size_A: float) -> Any:
    protocol = project.newProtocol(
        ProtImportTomograms,
        filesPath=str(FOLDER / folder),
        filesPattern="*.mrc",
        samplingRate=voxel_size_A,
        tiltAxisAngle=0.0,
        angleMin=-60.0,
        angleMax=60.0,
        step=3.0,
    )
    return launch(project, protocol)


def define(protocol: Any, name: str, output: Any) -> Pointer:
    output.write()
    protocol._defineOutputs(**{name: output})
    protocol._store()
    return Pointer(protocol, extended=name)


def picks_of(tomograms: Any) -> Pointer:
    """The engine's picks as our protocols put them out."""
    output = SetOfCoordinates3D.create(tomograms._getPath(), suffix="Picks")
    output.setPrecedents(Pointer(tomograms, extended="Tomograms"))
    output.setSamplingRate(VOXEL_SIZE_A)
    output.setBoxSize(BOX)
    for tomogram in tomograms.Tomograms.iterItems(iterate=False):
        for group, pick in enumerate(read_picks(str(FOLDER / f"{tomogram.getTsId()}_picks.star")), start=1):
            output.append(new_coordinate(tomogram.clone(), pick, group))
    return define(tomograms, "Picks", output)


def mask_of(tomograms: Any) -> Pointer:
    output = SetOfTomoMasks.create(tomograms._getPath(), template="masks%s.sqlite")
    output.setSamplingRate(VOXEL_SIZE_A)
    for tomogram in tomograms.Tomograms.iterItems(iterate=False):
        mask = TomoMask()
        mask.copyInfo(tomogram)
        mask.setFileName(str(FOLDER / "masks" / f"{tomogram.getTsId()}.mrc"))
        mask.setVolName(tomogram.getFileName())
        output.append(mask)
    return define(tomograms, "Masks", output)


def places(coordinates: Any) -> dict[str, list]:
    found: dict[str, list] = {}
    for item in coordinates.iterCoordinates():
        place = [float(value) for value in item.getPosition(BOTTOM_LEFT_CORNER)]
        found.setdefault(item.getTomoId(), []).append([*place, int(item.getGroupId()), item.getMatrix().tolist()])
    return found


def wired(project: Any, kind: Any, name: str, coordinates: Pointer, **values: Any) -> Any:
    """A protocol of others with our coordinates in it, saved in the project as in the window."""
    protocol = project.newProtocol(kind, **values)
    pointer = getattr(protocol, name)
    pointer.copy(coordinates)
    project.saveProtocol(protocol)
    assert pointer.get().getSize() == coordinates.get().getSize()
    protocol.makePathsAndClean()
    return protocol


def rows(path: str) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in Path(path).read_text().splitlines()]


def main() -> None:
    # Only now, when Scipion has given all plugins their variables.
    from dynamo.protocols import DynamoExtraction
    from emantomo.protocols import EmanProtTomoExtraction
    from reliontomo.convert import writeSetOfCoordinates

    project = new_project("chain")
    tomograms, binned = imported(project, "tomograms", VOXEL_SIZE_A), imported(project, "binned", 2 * VOXEL_SIZE_A)
    picks = picks_of(tomograms)
    said: dict[str, Any] = {"ours": places(picks.get())}

    eman = wired(project, EmanProtTomoExtraction, "inputCoordinates", picks, boxSize=BOX)
    said["eman_errors"] = eman.validate()
    eman._initialize()
    dynamo = wired(project, DynamoExtraction, "inputCoords", picks, boxSize=BOX)
    said["dynamo_errors"] = dynamo.validate()
    dynamo._initialize()
    for name, protocol in (("eman", eman), ("dynamo", dynamo)):
        for tsId in said["ours"]:
            protocol.writeSetOfCoordinates3D(tsId)
        file = eman._getCoordsFile if name == "eman" else dynamo._getCoordsFileName
        said[name] = {tsId: rows(file(tsId)) for tsId in said["ours"]}
    said["dynamo_angles"] = {tsId: rows(dynamo._getAnglesFileName(tsId)) for tsId in said["ours"]}
    star = Path("relion.star")
    writeSetOfCoordinates(picks.get(), str(star), list(said["ours"]), sRate=VOXEL_SIZE_A, coordsScale=1)
    said["relion"] = str(star.resolve())

    exporting = project.newProtocol(ProtExportCoordinates3D)
    exporting.inputCoordinates.copy(picks)
    said["formats"] = exporting._getExportChoices()
    for number, name in enumerate(said["formats"]):
        exporting = project.newProtocol(ProtExportCoordinates3D, outputFormat=number)
        exporting.inputCoordinates.copy(picks)
        exporting = launch(project, exporting)
        said[f"export_{name}"] = [str(p.resolve()) for p in sorted(Path(exporting._getExportPath()).iterdir())]

    moving = project.newProtocol(ProtTomoExtractCoords)
    moving.inputSubTomos.copy(picks)
    point(moving.inputTomos, binned, "Tomograms")
    moving = launch(project, moving)
    ((_, moved),) = moving.iterOutputAttributes()
    said["moved"], said["moved_voxel_size"] = places(moved), moved.getSamplingRate()

    masking = project.newProtocol(ProtMaskCoordinates)
    masking.inputCoordinates.copy(picks)
    masking.inputSegmentations.copy(mask_of(tomograms))
    project.launchProtocol(masking, wait=True, force=True)
    said["masked"] = places(state(project, masking).Coordinates)
    answer(json.loads(json.dumps(said, default=np.ndarray.tolist)))


main()
