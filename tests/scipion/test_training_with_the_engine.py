"""Masks, regions, refinement, adapting and training with the real engine and the released weights, as small as they can be.

What is asked holds for any weights; about ten minutes on one core.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import TOMOTWIN, point, write_mrc
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import Pointer
from test_reference_picking import define, keep
from test_with_the_engine import VOXEL_SIZE_A, embedded, simulated  # noqa: F401
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D

from tomotwin_scipion.convert import new_coordinate, read_picks
from tomotwin_scipion.protocols import (
    ProtTwinCreateMask,
    ProtTwinEmbedTomograms,
    ProtTwinReferencePicking,
    ProtTwinTrainModel,
)
from tomotwin_scipion.trained import read_card, read_curves

pytestmark = [
    pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here"),
    pytest.mark.usefixtures("real_engine"),
]
QUICK = {"binThreads": 2, "steps": 2, "validateEvery": 0, "workers": 0}


@pytest.fixture(scope="module")
def masked(project: Any, launch: Any, embedded: Any) -> Any:  # noqa: F811
    protocol = project.newProtocol(ProtTwinCreateMask, numberOfThreads=1, zFirst=5, zLast=44)
    protocol.inputTomograms.copy(embedded.inputTomograms)
    return launch(protocol)


@pytest.fixture(scope="module")
def picked(project: Any, launch: Any, embedded: Any, masked: Any) -> Any:  # noqa: F811
    protocol = project.newProtocol(
        ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=-1, autoSlab=True, excludeGold=True,
        verify=False,
    )  # fmt: skip
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    point(protocol.inputMasks, masked, "TomoMasks")
    protocol.useMasks.set(True)
    protocol.identifiers.set("library:4v6x, library:1dzl")
    return launch(protocol)


def test_verified_picks_carry_their_orientations_and_stay_within_the_mask(
    project: Any, launch: Any, embedded: Any, masked: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=-1)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    point(protocol.inputMasks, masked, "TomoMasks")
    protocol.useMasks.set(True)
    protocol.identifiers.set("library:1dzl")
    protocol = launch(protocol)
    (mask,) = [item.clone() for item in masked.TomoMasks.iterItems()]
    with mrcfile.open(mask.getFileName()) as file:
        inside = file.data != 0
    matrices = []
    for item in protocol.output3DCoordinates.iterCoordinates():
        x, y, z = np.round(item.getPosition(BOTTOM_LEFT_CORNER)).astype(int)
        assert inside[z, y, x]
        matrices.append(item.getMatrix()[:3, :3])
    turned = np.array(matrices)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.tile(np.eye(3), (len(turned), 1, 1)), atol=1e-3)
    assert len(turned) and np.abs(turned - np.eye(3)).max() > 0.1


@pytest.fixture(scope="module")
def truth(embedded: Any, simulated: Path) -> Pointer:  # noqa: F811
    """What was simulated, coordinates with a group for each of the two molecules."""
    tomogram = embedded.Embeddings.getTomograms().getFirstItem().clone()
    output = SetOfCoordinates3D.create(embedded._getPath(), suffix="truth")
    output.setPrecedents(embedded.Embeddings.getTomograms(asPointer=True))
    output.setSamplingRate(VOXEL_SIZE_A)
    output.setBoxSize(20)
    for pick in read_picks(str(simulated / "tomo_01_truth.star")):
        output.append(new_coordinate(tomogram, pick._replace(score=1.0), 1 if pick.label == "4v6x" else 2))
    output.write()
    return define(embedded, "truth", output)


def test_a_mask_has_the_tomograms_shape_and_keeps_picks_within(masked: Any, picked: Any) -> None:
    (mask,) = [item.clone() for item in masked.TomoMasks.iterItems()]
    with mrcfile.open(mask.getFileName()) as file:
        inside = file.data != 0
        assert inside.shape == (50, 80, 90) and file.voxel_size.x == pytest.approx(VOXEL_SIZE_A)
    assert inside.any() and not inside[:5].any() and not inside[45:].any()
    assert f"tomo_01:  {100 * inside.mean():.0f} %" in "\n".join(masked._summary())
    for item in picked.output3DCoordinates.iterCoordinates():
        x, y, z = np.round(item.getPosition(BOTTOM_LEFT_CORNER)).astype(int)
        assert inside[z, y, x]


def test_picks_carry_the_rates_of_the_engines_table_and_the_summary_tells_them(picked: Any) -> None:
    rates = [pick.fdr for pick in read_picks(picked._getPicksFile("tomo_01"))]
    found = [item._tomotwinFDR.get() for item in picked.output3DCoordinates.iterCoordinates()]
    np.testing.assert_allclose(sorted(found), sorted(rates), atol=1e-4)
    assert min(found) >= 0 and max(found) <= 1 and max(found) > min(found)
    text = "\n".join(picked._summary())
    assert "4v6x" in text and "FDR not known" not in text


def test_rejected_picks_refit_the_references_so_that_they_score_less(
    project: Any, launch: Any, embedded: Any, picked: Any  # noqa: F811
) -> None:  # fmt: skip
    everything = [
        (item.getGroupId(), item.getScore(), *np.round(item.getPosition(BOTTOM_LEFT_CORNER)).astype(int))
        for item in picked.output3DCoordinates.iterCoordinates()
    ]
    # Of a particle in the outermost voxels half is missing, and where its hill has its top is chance.
    inner = [row for row in everything if all(0 < at < side - 1 for at, side in zip(row[2:], (90, 80, 50), strict=True))]
    best = [row[2:] for group in (1, 2) for row in sorted(row for row in inner if row[0] == group)[-5:]]
    good = keep(picked, "good", picked.output3DCoordinates, lambda tsId, *xyz: xyz in best)
    # What is decided by hand moves prototypes: it is seen in similarities.
    protocol = project.newProtocol(
        ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=-1, verify=False
    )
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.acceptedPicks.copy(good)
    protocol.refine.set(True)
    point(protocol.allPicks, picked, "output3DCoordinates")
    protocol = launch(protocol)
    assert [target.name for target in protocol._getTargets()] == ["4v6x", "1dzl"]
    # A refitted reference moves the top of a hill by a voxel here and there: the same pick is the nearest one of its group.
    after = [
        (item.getGroupId(), item.getScore(), *item.getPosition(BOTTOM_LEFT_CORNER))
        for item in protocol.output3DCoordinates.iterCoordinates()
    ]
    changes: dict[bool, list[float]] = {True: [], False: []}
    for group, score, *xyz in everything:
        away, new = min((float(np.linalg.norm(np.subtract(at, xyz))), s) for g, s, *at in after if g == group)
        if away < 2:
            changes[tuple(xyz) in best].append(new - score)
    assert len(changes[True]) == len(best)
    assert np.mean(changes[True]) > np.mean(changes[False])


def test_a_model_adapted_to_positions_embeds_tomograms(
    project: Any, launch: Any, embedded: Any, truth: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = project.newProtocol(ProtTwinTrainModel, task=0, adaptSteps=2, binThreads=2, allListed=True)
    protocol.inputCoordinates.append(truth)
    protocol = launch(protocol)
    card = read_card(protocol.Model.getPath())
    assert card["adapted"]["targets"] == {"examples": truth.get().getSize()}
    embedding = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1, binThreads=2, modelFrom=1)
    embedding.inputTomograms.copy(embedded.inputTomograms)
    point(embedding.inputModel, protocol, "Model")
    assert launch(embedding).Embeddings.getSize() == 1


def test_training_on_tomograms_goes_on_with_more_steps(project: Any, launch: Any, truth: Any) -> None:
    protocol = project.newProtocol(ProtTwinTrainModel, task=2, byGroup=True, allListed=True, liveShare=0.0, **QUICK)
    protocol.inputCoordinates.append(truth)
    protocol.moreSettings.set("stream.shape = [44, 48, 48]\ntraining.log_every = 1")
    protocol = launch(protocol)
    assert read_curves(protocol._getTrainingFolder()).steps == [1, 2]
    assert "from a trained model" in protocol._methods()[0]
    protocol.steps.set(3)
    protocol.runMode.set(0)
    protocol = launch(protocol)
    assert read_curves(protocol._getTrainingFolder()).steps == [1, 2, 3]
    assert read_card(protocol.Model.getPath())["training"]["species_trained"] == ["group_1", "group_2"]


def test_training_on_maps_of_the_project_simulates_them(project: Any, launch: Any, tmp_path: Path) -> None:
    z, y, x = np.indices((30, 30, 30)) - 15
    for number, size in enumerate((4, 6, 8, 10)):
        shell = np.sqrt((x / size) ** 2 + (y / (size - 1)) ** 2 + (z / (size + 2)) ** 2)
        write_mrc(tmp_path / f"shape{number}.mrc", np.exp(-((shell - 0.6) ** 2) / 0.1), voxel_size=1.0)
    maps = launch(
        project.newProtocol(ProtImportVolumes, filesPath=str(tmp_path), filesPattern="*.mrc", samplingRate=8.0)
    )
    protocol = project.newProtocol(ProtTwinTrainModel, task=1, molecules=1, fromModel=False, species=3, **QUICK)
    protocol.inputMolecules.append(Pointer(maps, extended="outputVolumes"))
    protocol.moreSettings.set("stream.shape = [44, 60, 60]\ntraining.log_every = 1")
    protocol = launch(protocol)
    assert read_curves(protocol._getTrainingFolder()).steps == [1, 2]
    trained = read_card(protocol.Model.getPath())["training"]["species_trained"]
    assert trained == [f"shape{number}" for number in range(4)]
