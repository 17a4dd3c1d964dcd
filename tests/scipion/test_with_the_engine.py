"""The plugin with the real engine and the released weights, on a small simulated tomogram; about two minutes.

What is asked holds for any weights: the place where an example was taken is the most similar place to it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOMOTWIN, point
from pyworkflow.object import Pointer
from test_streaming_and_continue import kill, resumed, start, wait_until
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.protocols import ProtImportCoordinates3D, ProtImportTomograms

from tomotwin_scipion.protocols import ProtTwinEmbedTomograms, ProtTwinReferencePicking
from tomotwin_view.star import read_table

VOXEL_SIZE_A = 13.0
GRID_A = 20.0  # distance of two embeddings

pytestmark = [
    pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here"),
    pytest.mark.usefixtures("real_engine"),
]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    call = [TOMOTWIN, "simulate", "--out", str(folder), "--tomograms", "1", "--species", "4v6x,1dzl", "--references"]
    call += ["--voxel-size", str(VOXEL_SIZE_A), "--shape", "50", "80", "90", "--copies", "6", "--tilt-step", "6"]
    subprocess.run(call, check=True)
    return folder


@pytest.fixture(scope="module")
def embedded(project: Any, launch: Any, simulated: Path) -> Any:
    imported = launch(
        project.newProtocol(
            ProtImportTomograms, filesPath=str(simulated), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A, step=6.0
        )
    )
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1, binThreads=2)
    point(protocol.inputTomograms, imported, "Tomograms")
    return launch(protocol)


def test_a_place_given_as_the_example_is_the_best_pick_within_half_the_grid_in_scipions_frame(
    project: Any, launch: Any, embedded: Any, simulated: Path, tmp_path: Path
) -> None:
    rows = read_table(str(simulated / "tomo_01_truth.star"), "particles")
    truth = np.array([[float(row["rlnCoordinate" + axis]) for axis in "XYZ"] for row in rows])
    middle = np.array([90, 80, 50]) / 2
    x, y, z = truth[np.abs(truth - middle).max(axis=1).argmin()]
    # Twice, as Scipion's import cannot read a file of one line.
    (tmp_path / "tomo_01.txt").write_text(f"{x:.0f} {y:.0f} {z:.0f}\n" * 2)
    # Scipion's own import, so that both the way in and the way out of its frame are tested.
    importing = project.newProtocol(
        ProtImportCoordinates3D, filesPath=str(tmp_path), filesPattern="*.txt", importFrom=1, boxSize=20
    )
    importing.importTomograms.copy(embedded.inputTomograms)
    examples = launch(importing)

    picking = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=0.5)
    point(picking.inputEmbeddings, embedded, "Embeddings")
    picking.inputExamples.append(Pointer(examples, extended="outputCoordinates"))
    picking = launch(picking)
    coordinates = picking.output3DCoordinates
    best = max((item.clone() for item in coordinates.iterCoordinates()), key=lambda item: item.getScore())
    best.setVolume(coordinates.getPrecedents().getFirstItem())
    offset_A = np.subtract(best.getPosition(BOTTOM_LEFT_CORNER), np.round([x, y, z])) * VOXEL_SIZE_A
    assert np.abs(offset_A).max() <= GRID_A / 2 + 0.01
    assert best.getScore() > 0.99
    assert coordinates.getBoxSize() == 30  # the examples' box is their diameter, and more room is wanted for averaging


def test_maps_and_scipions_coordinates_agree_with_the_engines_own_picks(
    project: Any, launch: Any, embedded: Any, simulated: Path
) -> None:
    from pwem.protocols import ProtImportVolumes

    maps = launch(
        project.newProtocol(
            ProtImportVolumes, filesPath=str(simulated / "references"), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A
        )
    )
    picking = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=-1)
    point(picking.inputEmbeddings, embedded, "Embeddings")
    picking.inputReferences.append(Pointer(maps, extended="outputVolumes"))
    picking = launch(picking)
    rows = read_table(picking._getPicksFile("tomo_01"), "particles")
    names = {target.name: target.group for target in picking._getTargets()}
    assert names == {"1dzl": 1, "4v6x": 2}
    engines = [(*(float(row["rlnCoordinate" + axis]) for axis in "XYZ"), names[row["tomotwinLabel"]]) for row in rows]
    scipions = [
        (*item.getPosition(BOTTOM_LEFT_CORNER), item.getGroupId())
        for item in picking.output3DCoordinates.iterCoordinates()
    ]
    assert len(engines) > 0
    np.testing.assert_allclose(sorted(scipions), sorted(engines), atol=1e-3)


def test_an_embedding_that_was_killed_leaves_no_half_file_and_continue_makes_the_same_as_if_nothing_had_been(
    project: Any, launch: Any, embedded: Any
) -> None:
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1, binThreads=1)
    protocol.inputTomograms.copy(embedded.inputTomograms)
    start(project, protocol)
    extra = Path(protocol._getExtraPath())
    wait_until(lambda: list(extra.glob(".part-*-tomo_01.zarr")), every_s=0.05)
    protocol = kill(project, protocol)
    assert list(extra.glob(".part-*")) and not list(extra.glob("tomo_01.zarr"))
    protocol = launch(resumed(protocol))
    assert not list(extra.glob(".part-*"))
    whole, redone = (Path(run._getExtraPath("tomo_01.zarr")) for run in (embedded, protocol))
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.suffix != ".json")
    assert len(names) >= 2, "chunks of embeddings and of particleness"
    for name in names:  # they are float16, and not compressed
        first, second = (np.frombuffer((folder / name).read_bytes(), np.float16) for folder in (whole, redone))
        np.testing.assert_allclose(second.astype(float), first.astype(float), atol=0.01, rtol=0.01)
