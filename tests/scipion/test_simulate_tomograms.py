"""Protocol *simulate tomograms* in a real Scipion project, with a stand-in for the engine."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import point, write_mrc
from fake_simulate import DOSE_PER_TILT, planted, turned
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import Pointer
from scipy.spatial.transform import Rotation
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import TiltSeries, Tomogram

from tomotwin_scipion.protocols import ProtTwinEmbedTomograms, ProtTwinReferencePicking, ProtTwinSimulateTomograms
from tomotwin_scipion.protocols.simulation_settings import settings_text

SMALL = {"sizeX": 60, "sizeY": 40, "sizeZ": 20, "voxelSize": 9.0, "numberOfThreads": 1}
WEDGE = {"tiltMin": -48.0, "tiltMax": 51.0, "tiltStep": 3.0}


@pytest.fixture(scope="module")
def molecules(project: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("molecules")
    write_mrc(folder / "my map.mrc", np.ones((8, 8, 8)), voxel_size=1.0)  # Scipion is told 5 A
    write_mrc(folder / "other.mrc", np.ones((8, 8, 8)), voxel_size=1.0)
    return launch(project.newProtocol(ProtImportVolumes, filesPath=str(folder), filesPattern="*.mrc", samplingRate=5.0))


@pytest.fixture(scope="module")
def simulated(project: Any, launch: Any, molecules: Any) -> Any:
    protocol = project.newProtocol(
        ProtTwinSimulateTomograms,
        molecules="4v6x = 7,\n1dzl",
        writeNoiseFree=True,
        writeLabels=True,
        **{**SMALL, **WEDGE, "numberOfThreads": 3},
    )
    protocol.inputMolecules.append(Pointer(molecules, extended="outputVolumes"))
    return launch(protocol)


def test_the_truth_comes_as_coordinates_of_the_output_tomograms_with_a_group_for_each_molecule(simulated: Any) -> None:
    coordinates = simulated.output3DCoordinates
    assert coordinates.getSize() == 8 and coordinates.getSamplingRate() == 9.0
    assert coordinates.getPrecedents().getObjId() == simulated.Tomograms.getObjId()
    for item in coordinates.iterCoordinates():
        number = int(item.getTomoId()[-2:])
        assert item.getPosition(BOTTOM_LEFT_CORNER) == pytest.approx(planted(item.getGroupId(), number))
        # The matrix takes the particle back to the reference; RELION's angles the reference into the particle.
        expected = Rotation.from_euler("ZYZ", turned(item.getGroupId()), degrees=True).as_matrix()
        np.testing.assert_allclose(item.getMatrix()[:3, :3], expected, atol=1e-6)
        np.testing.assert_array_equal(item.getMatrix()[:, 3], [0, 0, 0, 1])
        assert item.getScore() == 1.0
    assert coordinates.getBoxSize() == 18  # 1.5 times 104 A at 9 A a voxel
    with open(simulated._getExtraPath("groups.csv"), newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    names = ["4v6x", "1dzl", "my_map", "other"]
    assert rows == [(str(k), name, str(100 + k), "2") for k, name in enumerate(names, start=1)]
    text = "\n".join(simulated._summary())
    assert "*2 tomograms* of 60 × 40 × 20 voxels, 9 Å/voxel, with *8 particles*" in text
    assert "*3*  my_map,  103 Å,  2" in text
    assert "21 to 22 % of the ice are taken, 101 to 102 g/L" in text


def test_tomograms_know_their_acquisition_and_lie_about_their_middle(simulated: Any) -> None:
    tomograms = simulated.Tomograms
    assert sorted(tomograms.getTSIds()) == ["tomo_01", "tomo_02"]
    assert tomograms.getDimensions() == (60, 40, 20) and tomograms.getSamplingRate() == 9.0
    for tomogram in tomograms.iterItems():
        acquisition = tomogram.getAcquisition()
        assert (acquisition.getAngleMin(), acquisition.getAngleMax(), acquisition.getStep()) == (-48, 51, 3)
        assert acquisition.getAccumDose() == pytest.approx(34 * DOSE_PER_TILT)
        assert (acquisition.getVoltage(), acquisition.getSphericalAberration()) == (300, 2.7)
        assert tomogram.getShiftsFromOrigin() == pytest.approx((-270, -180, -90))


def test_the_tilt_series_is_aligned_and_its_images_know_angle_order_and_dose(simulated: Any) -> None:
    output = simulated.TiltSeries
    assert output.hasAlignment() and not output.interpolated() and output.getSize() == 2
    assert output.getSamplingRate() == 9.0 and output.getAnglesCount() == 34
    series = output[{TiltSeries.TS_ID_FIELD: "tomo_02"}]
    assert series.hasAlignment() and series.getAcquisition().getTiltAxisAngle() == 0
    assert tuple(series.getFirstItem().getDim()[:2]) == (60, 40)
    images = [image.clone() for image in series.iterItems()]
    np.testing.assert_allclose([image.getTiltAngle() for image in images], np.arange(-48, 52, 3))
    assert [image.getIndex() for image in images] == list(range(1, 35))
    for image in images:
        np.testing.assert_array_equal(image.getTransform().getMatrix(), np.eye(3))
    by_order = sorted(images, key=lambda image: image.getAcquisitionOrder())
    assert [image.getTiltAngle() for image in by_order[:3]] == [0, 3, -3]
    for order, image in enumerate(by_order, start=1):
        assert image.getAcquisitionOrder() == order
        assert image.getAcquisition().getAccumDose() == pytest.approx(order * DOSE_PER_TILT)
        assert image.getAcquisition().getDoseInitial() == pytest.approx((order - 1) * DOSE_PER_TILT)


def test_noise_free_tomograms_labels_and_maps_are_outputs_where_asked_for(simulated: Any) -> None:
    noise_free = simulated.NoiseFreeTomograms[{Tomogram.TS_ID_FIELD: "tomo_01"}]
    assert noise_free.getFileName().endswith("tomo_01/tomo_01_noisefree.mrc")
    labels = simulated.Labels[{Tomogram.TS_ID_FIELD: "tomo_02"}]
    assert labels.getVolName().endswith("tomo_02/tomo_02.mrc")
    names = [Path(volume.getFileName()).stem for volume in simulated.References.iterItems()]
    assert names == ["4v6x", "1dzl", "my_map", "other"]
    assert simulated.References.getSamplingRate() == 9.0


def test_the_forms_numbers_reach_the_engine_as_a_settings_file(simulated: Any) -> None:
    settings = tomllib.loads(Path(simulated._getExtraPath("experiment.toml")).read_text())
    folder = simulated._getExtraPath("molecules")
    maps = {f"{folder}/my_map.mrc": 30, f"{folder}/other.mrc": 30}
    assert settings["species"] == {"4v6x": 7, "1dzl": 30, **maps}
    assert settings["sample"]["shape"] == [20, 40, 60] and settings["sample"]["voxel_size_A"] == 9.0
    assert "thickness_A" not in settings["sample"]
    assert settings["tilts"]["tilt_min_deg"] == -48.0 and settings["tilts"]["scheme"] == "dose-symmetric"
    assert settings["microscope"]["defocus_um"] == [2.5, 5.0]


def test_continuing_with_more_tomograms_makes_only_those_and_a_failed_one_is_tried_again(
    project: Any, launch: Any, calls: Any
) -> None:
    protocol = project.newProtocol(ProtTwinSimulateTomograms, molecules="4v6x", prefix="broken", **SMALL)
    protocol = launch(protocol)
    assert protocol.Tomograms.getTSIds() == ["broken_01"]
    assert any("broken_02" in line for line in protocol._summary())
    protocol.Tomograms.close()  # the output is made anew, and this process would go on with the old file

    Path(protocol._getExtraPath("mended")).touch()
    before = len(calls())
    protocol.numberOfTomograms.set(3)
    protocol.runMode.set(0)
    protocol = launch(protocol)
    made = [call[call.index("--first") + 1] for call in calls()[before:]]
    assert sorted(made) == ["2", "3"]
    assert sorted(protocol.Tomograms.getTSIds()) == ["broken_01", "broken_02", "broken_03"]
    assert sorted(protocol.output3DCoordinates.getTSIds()) == ["broken_01", "broken_02", "broken_03"]
    assert not any("failed" in line for line in protocol._summary())


def test_with_everything_drawn_only_molecules_size_and_voxel_size_are_passed_on(project: Any) -> None:
    protocol = project.newProtocol(ProtTwinSimulateTomograms, molecules="1abc", drawEverything=True, dose=-1.0, **SMALL)
    assert protocol.validate() == []
    assert tomllib.loads(settings_text(protocol, [])) == {
        "species": {"1abc": 30},
        "sample": {"voxel_size_A": 9.0, "occupied": 0.35, "shape": [20, 40, 60]},
        "random": {"draw": True},
    }


def test_maps_and_tomograms_go_on_into_picking(project: Any, launch: Any, simulated: Any) -> None:
    embedding = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1)
    point(embedding.inputTomograms, simulated, "Tomograms")
    embedding = launch(embedding)
    picking = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=1)
    point(picking.inputEmbeddings, embedding, "Embeddings")
    picking.inputReferences.append(Pointer(simulated, extended="References"))
    picking = launch(picking)

    def places(coordinates: Any) -> set:
        return {
            (item.getTomoId(), item.getGroupId(), *np.round(item.getPosition(BOTTOM_LEFT_CORNER), 2))
            for item in coordinates.iterCoordinates()
        }

    assert places(picking.output3DCoordinates) == places(simulated.output3DCoordinates)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"molecules": ""}, "name at least one"),
        ({"molecules": "4v6x = many"}, "'many' is not a number of copies"),
        ({"molecules": "4v6x, /nowhere/a.pdb"}, "there is no file /nowhere/a.pdb"),
        ({"molecules": "4v6x, pdb:4v6x"}, "two are called 4v6x"),
        ({"numberOfTomograms": 0}, "make at least one"),
        ({"voxelSize": 0.5}, "Voxel size"),
        ({"sizeZ": 8}, "each side must have"),
        ({"thickness": 5000.0}, "Thickness of the ice"),
        ({"gold": -1}, "Gold beads: it cannot be negative"),
        ({"tiltMin": 60.0, "tiltMax": -60.0}, "the first must be smaller"),
        ({"tiltStep": 0.0}, "the step must lie within"),
        ({"dose": 0.0}, "Total dose"),
        ({"defocusMin": 4.0, "defocusMax": 2.0}, "with the smaller number first"),
        ({"missingTilts": "3, x"}, "Missing tilts: give angles"),
        ({"missingTilts": "2 3", "tiltStep": 2.0}, "3 is none of the tilts -60 to 60 by 2"),
        ({"prefix": "2-nd"}, "Names begin with"),
        ({"settingsFrom": 1}, "there is no file given"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence_before_the_run(project: Any, values: dict, sentence: str) -> None:
    protocol = project.newProtocol(ProtTwinSimulateTomograms, **values)
    (error,) = protocol.validate()
    assert sentence in error
