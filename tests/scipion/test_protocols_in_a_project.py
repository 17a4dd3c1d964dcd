"""The protocols in a real Scipion project on disk, from import to coordinates, with a stand-in for the engine."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPE, VOXEL_SIZE_A, planted_tomogram, point, write_mrc
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import Pointer
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.protocols import ProtImportTomograms

from tomotwin_scipion.protocols import ProtTwinEmbedTomograms, ProtTwinReferencePicking

# Particles by tsId as Scipion makes it out of the file name, with the reference each belongs to.
PLANTED = {
    "first": {(5, 7, 11): 1, (60, 40, 20): 2, (33, 3, 29): 1},
    "TS_2_nd": {(69, 49, 0): 2, (1, 2, 3): 2},
}
FILE_NAMES = {"first": "first.mrc", "TS_2_nd": "2-nd.mrc"}


@pytest.fixture(scope="module")
def tomograms(project: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tomograms")
    for tsId, particles in PLANTED.items():
        write_mrc(folder / FILE_NAMES[tsId], planted_tomogram(particles), voxel_size=1.0)  # a header that is wrong
    return launch(
        project.newProtocol(
            ProtImportTomograms, filesPath=str(folder), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A, step=3.0
        )
    )


@pytest.fixture(scope="module")
def references(project: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("references")
    write_mrc(folder / "1abc.mrc", np.ones((8, 8, 8)), voxel_size=5.0)
    write_mrc(folder / "2 def.mrc", np.ones((9, 9, 9)), voxel_size=1.0)  # Scipion is told 5 A for both
    return launch(project.newProtocol(ProtImportVolumes, filesPath=str(folder), filesPattern="*.mrc", samplingRate=5.0))


@pytest.fixture(scope="module")
def embedded(project: Any, launch: Any, tomograms: Any) -> Any:
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1)
    point(protocol.inputTomograms, tomograms, "Tomograms")
    return launch(protocol)


@pytest.fixture(scope="module")
def picked(project: Any, launch: Any, embedded: Any, references: Any) -> Any:
    protocol = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=3)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.inputReferences.append(Pointer(references, extended="outputVolumes"))
    return launch(protocol)


def positions(coordinates: Any) -> dict[str, dict[tuple, int]]:
    """Group by position (x, y, z) by tsId, as a consumer of the coordinates reads them."""
    found: dict[str, dict[tuple, int]] = {}
    for coordinate in coordinates.iterCoordinates():
        position = tuple(round(value, 3) for value in coordinate.getPosition(BOTTOM_LEFT_CORNER))
        found.setdefault(coordinate.getTomoId(), {})[position] = coordinate.getGroupId()
    return found


def test_embeddings_know_their_tomogram_by_tsid(embedded: Any) -> None:
    items = {item.getTsId(): item.clone() for item in embedded.Embeddings.iterItems()}
    assert sorted(items) == sorted(PLANTED)
    for tsId, item in items.items():
        assert item.getFileName() == f"{embedded._getExtraPath()}/{tsId}.zarr"
        assert item.getSamplingRate() == VOXEL_SIZE_A
        assert os.path.isdir(item.getFileName())
    tomograms = embedded.Embeddings.getTomograms()
    assert sorted(tomograms.getTSIds()) == sorted(PLANTED)
    assert tomograms.getDimensions() == SHAPE[::-1]
    assert "*2* of 2" in embedded._summary()[0]


def test_planted_particles_come_back_at_their_voxel_in_scipions_frame_with_their_group(picked: Any) -> None:
    assert positions(picked.output3DCoordinates) == PLANTED


def test_coordinates_carry_score_matrix_tsid_and_a_box_of_the_diameter(picked: Any) -> None:
    coordinates = picked.output3DCoordinates
    assert coordinates.getSamplingRate() == VOXEL_SIZE_A
    assert coordinates.getBoxSize() == 20  # 1.5 times 100 A at 8 A a voxel, rounded up to even
    scores = sorted(coordinate.getScore() for coordinate in coordinates.iterCoordinates())
    np.testing.assert_allclose(scores, [0.97, 0.98, 0.98, 0.99, 0.99])
    for coordinate in coordinates.iterCoordinates():
        np.testing.assert_array_equal(coordinate.getMatrix(), np.eye(4))
        assert coordinate.getVolume().getTsId() == coordinate.getTomoId()


def test_summary_and_a_table_say_which_group_is_which_reference(picked: Any) -> None:
    with open(picked._getExtraPath("groups.csv"), newline="") as file:
        rows = [tuple(row.values())[:5] for row in csv.DictReader(file)]
    assert rows == [("1", "1abc", "100", "0.500", "2"), ("2", "2_def", "100", "0.500", "3")]
    text = "\n".join(picked._summary())
    assert "*5 picks* in 2 tomograms" in text and "threshold: proposed" in text
    assert "*1*  1abc,  100 Å,  0.500,  2 picks,  FDR 20 %" in text  # the fake's rates are 0 and 0.2: at the last pick
    assert "TS_2_nd:  2 picks (2_def 2),  FDR 10 %" in text
    assert "false-discovery rate is 0.14" in picked._methods()[0]  # 2 x 0.2 and 3 x 0.1 of 5


def test_references_reach_the_engine_with_scipions_voxel_size(picked: Any) -> None:
    import mrcfile

    for name in ("1abc", "2_def"):
        with mrcfile.open(picked._getExtraPath("references", name + ".mrc"), header_only=True) as file:
            assert file.voxel_size.x == pytest.approx(5.0)


def test_the_engine_is_told_voxel_size_contrast_and_the_tomograms_acquisition(
    project: Any, launch: Any, tomograms: Any, references: Any, calls: Any
) -> None:
    embedding = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1, contrast=1, useGpu=False)
    point(embedding.inputTomograms, tomograms, "Tomograms")
    embedding = launch(embedding)
    picking = project.newProtocol(
        ProtTwinReferencePicking, numberOfThreads=1, diameter=150, thresholdMode=1, threshold=0.985, dose=90
    )
    point(picking.inputEmbeddings, embedding, "Embeddings")
    picking.inputReferences.append(Pointer(references, extended="outputVolumes"))
    picking = launch(picking)

    lines = [" ".join(call) for call in calls()]
    embeds = [line for line in lines if line.startswith("embed ")]
    assert len(embeds) == 2
    assert all("--voxel-size 8 --contrast bright --device cpu" in line for line in embeds)
    (reference,) = (line for line in lines if line.startswith("reference "))
    assert "--tilt-min -60 --tilt-max 60 --tilt-step 3 --dose 90" in reference
    assert "--diameter 150" in reference and "--model released" in reference
    assert "--voltage 300" in reference and "--subtomogram-contrast dark" in reference
    assert all("--threshold 0.985" in line for line in lines if line.startswith("pick "))
    assert picking.output3DCoordinates.getSize() == 2
    assert picking.output3DCoordinates.getBoxSize() == 30

    # Continue with another threshold: picks again, searches not again, and leaves nothing double.
    before = len(lines)
    picking.threshold.set(0.5)
    picking.runMode.set(0)
    picking = launch(picking)
    assert [call[0] for call in calls()[before:]] == ["pick", "pick"]
    assert positions(picking.output3DCoordinates) == PLANTED


def test_a_failing_tomogram_is_left_out_named_and_tried_again_by_continue(
    project: Any, launch: Any, tmp_path: Path, calls: Any
) -> None:
    write_mrc(tmp_path / "good.mrc", planted_tomogram({(5, 7, 11): 1}), VOXEL_SIZE_A)
    write_mrc(tmp_path / "bad.mrc", planted_tomogram({}), VOXEL_SIZE_A)
    imported = launch(
        project.newProtocol(
            ProtImportTomograms, filesPath=str(tmp_path), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A
        )
    )
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=2)
    point(protocol.inputTomograms, imported, "Tomograms")
    protocol = launch(protocol)
    assert protocol.Embeddings.getTSIds() == ["good"]
    assert any("bad" in line for line in protocol._summary())

    write_mrc(tmp_path / "bad.mrc", planted_tomogram({(1, 1, 1): 1}), VOXEL_SIZE_A)
    before = len(calls())
    protocol.runMode.set(0)
    protocol = launch(protocol)
    assert [Path(call[1]).name for call in calls()[before:]] == ["bad.mrc"]
    assert sorted(protocol.Embeddings.getTSIds()) == ["bad", "good"]
    assert protocol.Embeddings.getSize() == 2
    assert not any("bad" in line for line in protocol._summary())


def test_finding_nothing_is_said_and_not_passed_on(project: Any, launch: Any, embedded: Any, references: Any) -> None:
    protocol = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=0.999)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.inputReferences.append(Pointer(references, extended="outputVolumes"))
    protocol = launch(protocol, expect="failed")
    assert "No particle was found above the threshold" in protocol.getErrorMessage()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"thresholdMode": 1, "threshold": 2.0}, "a similarity is a number from -1 to 1"),
        ({"thresholdMode": 2, "fdr": 1.0}, "False picks: it is a share"),
        ({"identifiers": "4v6x"}, "'4v6x' names no molecule"),
        ({"zFirst": 3}, "give both the first and the last"),
        ({"zFirst": 9, "zLast": 3}, "with the smaller number first"),
        ({"zFirst": 0, "zLast": 30}, "has planes 0 to 29"),
        ({"diameter": 5.0}, "within 10 and 2000"),
        ({"diameter": -1.0}, "cannot be negative"),
        ({"tiltMin": 60.0, "tiltMax": -60.0}, "the first must be smaller than the last"),
        ({"tiltStep": 0.0}, "the step must be larger than 0"),
        ({"dose": -3.0}, "Total dose"),
        ({"defocusMin": 3.0}, "both ends of the range"),
        ({"defocusMin": 3.0, "defocusMax": 2.0}, "with the smaller number first"),
        ({"gpuList": ""}, "GPU IDs is empty"),
    ],
)
def test_a_number_that_cannot_be_is_said_in_one_sentence_before_the_run(
    project: Any, embedded: Any, references: Any, values: dict, sentence: str
) -> None:
    protocol = project.newProtocol(ProtTwinReferencePicking, **values)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.inputReferences.append(Pointer(references, extended="outputVolumes"))
    (error,) = protocol.validate()
    assert sentence in error


def test_a_run_without_a_target_or_with_tomograms_as_references_is_refused(
    project: Any, embedded: Any, tomograms: Any
) -> None:
    protocol = project.newProtocol(ProtTwinReferencePicking)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    (error,) = protocol.validate()
    assert "Name something to look for" in error
    protocol.inputReferences.append(Pointer(tomograms, extended="Tomograms"))
    (error,) = protocol.validate()
    assert "a tomogram cannot be a reference" in error


def test_a_model_file_that_is_not_there_and_tomograms_too_coarse_are_refused(
    project: Any, launch: Any, tomograms: Any, tmp_path: Path
) -> None:
    protocol = project.newProtocol(ProtTwinEmbedTomograms, modelFrom=2, modelFile="/nowhere/model.safetensors")
    point(protocol.inputTomograms, tomograms, "Tomograms")
    (error,) = protocol.validate()
    assert "there is no file /nowhere/model.safetensors" in error
    write_mrc(tmp_path / "coarse.mrc", planted_tomogram({(1, 1, 1): 1}), 50.0)
    coarse = launch(
        project.newProtocol(ProtImportTomograms, filesPath=str(tmp_path), filesPattern="*.mrc", samplingRate=50.0)
    )
    protocol = project.newProtocol(ProtTwinEmbedTomograms)
    point(protocol.inputTomograms, coarse, "Tomograms")
    (error,) = protocol.validate()
    assert "sampling rate is 50.0" in error
    assert "coarser than the model's" in protocol.warnings()[0]
