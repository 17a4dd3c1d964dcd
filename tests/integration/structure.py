"""The whole way to a structure in Scipion: structure.py ANSWER DATA VOXEL_SIZE SPECIES

Imports the tomograms of `tomotwin simulate` in DATA, embeds them, picks SPECIES by its map, orients and cuts out
the picks, and averages them with RELION. Answers with positions, matrices and files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from projects import answer, launch, new_project, point
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import Pointer
from reliontomo.protocols import ProtRelionSubTomoReconstructAvg
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.protocols import ProtImportTomograms

from tomotwin_scipion.protocols import (
    ProtTwinEmbedTomograms,
    ProtTwinExtractSubtomograms,
    ProtTwinOrientPicks,
    ProtTwinReferencePicking,
)

DATA, VOXEL_SIZE_A = Path(sys.argv[2]), float(sys.argv[3])
SPECIES = sys.argv[4]


def places(coordinates: Any) -> list[dict[str, Any]]:
    found = []
    for item in coordinates.iterCoordinates():
        correlation = getattr(item, "_tomotwinCorrelation", None)
        found.append(
            {
                "tsId": item.getTomoId(),
                "xyz": [float(value) for value in item.getPosition(BOTTOM_LEFT_CORNER)],
                "matrix": item.getMatrix().tolist(),
                "group": int(item.getGroupId()),
                "score": float(item.getScore()),
                "correlation": None if correlation is None else float(correlation.get()),
            }
        )
    return found


def main() -> None:
    project = new_project("structure")
    acquisition = {"tiltAxisAngle": 0.0, "angleMin": -60.0, "angleMax": 60.0, "step": 4.0}
    tomograms = project.newProtocol(
        ProtImportTomograms, filesPath=str(DATA), filesPattern="tomo_??.mrc", samplingRate=VOXEL_SIZE_A, **acquisition
    )
    tomograms = launch(project, tomograms)
    maps = project.newProtocol(
        ProtImportVolumes, filesPath=str(DATA / "references"), filesPattern=f"{SPECIES}.mrc", samplingRate=VOXEL_SIZE_A
    )
    maps = launch(project, maps)

    embedding = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1, binThreads=1)
    point(embedding.inputTomograms, tomograms, "Tomograms")
    embedding = launch(project, embedding)

    # A rate at which many are false, and no verification that tells them before orienting does.
    picking = project.newProtocol(
        ProtTwinReferencePicking, numberOfThreads=1, binThreads=1, thresholdMode=2, fdr=0.3, verify=False
    )
    point(picking.inputEmbeddings, embedding, "Embeddings")
    picking.inputReferences.append(Pointer(maps, extended="outputVolume"))
    picking = launch(project, picking)
    (group,) = [target.group for target in picking._getTargets()]

    orienting = project.newProtocol(
        ProtTwinOrientPicks, numberOfThreads=1, binThreads=1, group=group, step=20.0, finest=4.0, lowPass=40.0
    )
    point(orienting.inputCoordinates, picking, "output3DCoordinates")
    point(orienting.inputReference, maps, "outputVolume")
    orienting = launch(project, orienting)
    everything = places(orienting.output3DCoordinates)

    orienting.keep.set(1)  # above the suggested; what was searched is not searched again
    kept = launch(project, orienting)
    cutting = project.newProtocol(ProtTwinExtractSubtomograms, numberOfThreads=1, boxSize=36)
    point(cutting.inputCoordinates, kept, "output3DCoordinates")
    cutting = launch(project, cutting)

    averaging = project.newProtocol(ProtRelionSubTomoReconstructAvg, extraParams="--ctf --3d_rot")
    point(averaging.inputSubtomos, cutting, "SubTomograms")
    averaging = launch(project, averaging)
    answer(
        {
            "picked": places(picking.output3DCoordinates),
            "group": group,
            "all": everything,
            "kept": places(kept.output3DCoordinates),
            "subtomograms": cutting.SubTomograms.getSize(),
            "summary": kept.summary() + cutting.summary(),
            "average": str(Path(averaging.average.getFileName().replace(":mrc", "")).resolve()),
            "average_voxel_size": averaging.average.getSamplingRate(),
            "stars": [str(p.resolve()) for p in Path(cutting._getExtraPath()).glob("*/particles.star")],
        }
    )


main()
