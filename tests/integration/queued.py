"""Protocols through a queue: queued.py ANSWER FOLDER

Embeds the tomograms of FOLDER twice, the whole protocol as one job and each command as a job of its own. One tomogram is
broken.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from projects import answer, launch, new_project, point, state
from pyworkflow.protocol import STATUS_FAILED, STATUS_FINISHED
from tomo.protocols import ProtImportTomograms

from tomotwin_scipion.protocols import ProtTwinEmbedTomograms

FOLDER, VOXEL_SIZE_A, LONGEST_S = Path(sys.argv[2]), 8.0, 300


def embedded(project: Any, tomograms: Any, for_jobs: str) -> dict[str, Any]:
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=3, binThreads=1)
    point(protocol.inputTomograms, tomograms, "Tomograms")
    protocol._useQueue.set(True)
    protocol.setQueueParams(("main", {"JOB_TIME": "1", "QUEUE_FOR_JOBS": for_jobs}))
    project.launchProtocol(protocol, wait=True, force=True)
    end = time.monotonic() + LONGEST_S
    while protocol.getStatus() not in (STATUS_FINISHED, STATUS_FAILED) and time.monotonic() < end:
        time.sleep(1)
        protocol = project.getProtocol(protocol.getObjId(), fromRuns=False)
        project._updateProtocol(protocol)
    protocol = state(project, protocol)
    return {
        "id": protocol.getObjId(),
        "tsIds": sorted(protocol.Embeddings.getTSIds()),
        "summary": protocol.summary(),
        "logs": [path.name for path in Path(protocol._getLogsPath()).iterdir()],
    }


def main() -> None:
    project = new_project("queue")
    tomograms = project.newProtocol(
        ProtImportTomograms, filesPath=str(FOLDER), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A
    )
    tomograms = launch(project, tomograms)
    answer({name: embedded(project, tomograms, letter) for name, letter in (("protocol", "N"), ("steps", "Y"))})


main()
