"""What the real engine simulates, as Scipion's own protocols and the neighbours' extraction read it.

Orientations and positions are asked of the voxels: particles that are cut out of a tomogram without noise, where and as a
coordinate says, must show the molecule, and not its mirror image.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import TOMOTWIN
from scipy.ndimage import gaussian_filter, map_coordinates
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import TiltSeries
from tomo.protocols import ProtImportTomograms, ProtImportTs

from tomotwin_scipion.protocols import ProtTwinSimulateTomograms

VOXEL_SIZE_A = 10.0
SIZE = (110, 100, 48)  # x, y, z
TILTS = np.arange(-64, 65, 4.0)
DOSE = 93.0

pytestmark = [
    pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here"),
    pytest.mark.usefixtures("real_engine"),
]


@pytest.fixture(scope="module")
def simulated(project: Any, launch: Any) -> Any:
    protocol = project.newProtocol(
        ProtTwinSimulateTomograms,
        molecules="4v6x = 8, 1dzl = 2",
        numberOfTomograms=1,
        voxelSize=VOXEL_SIZE_A,
        sizeX=SIZE[0],
        sizeY=SIZE[1],
        sizeZ=SIZE[2],
        tiltMin=-64.0,
        tiltMax=64.0,
        tiltStep=4.0,
        dose=DOSE,
        defocusMin=1.5,
        defocusMax=1.6,
        ctfCorrected=True,
        gold=2,
        writeNoiseFree=True,
        writeLabels=True,
        numberOfThreads=1,
        binThreads=1,
    )
    return launch(protocol)


def folder_of(simulated: Any) -> str:
    return os.path.abspath(simulated._getExtraPath("tomo_01"))


# ------------------------------ positions and orientations ------------------------------
def cut_out(volume: np.ndarray, coordinate: Any, matrix: np.ndarray, side: int) -> np.ndarray:
    """A particle [z, y, x] turned back to its reference: f(r) = f'(M^-1 r), f' being the tomogram about the position."""
    axis = np.arange(side) - (side - 1) / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    reference = np.stack([x, y, z]).reshape(3, -1)
    places = np.linalg.inv(matrix[:3, :3]) @ reference + np.array(coordinate.getPosition(BOTTOM_LEFT_CORNER))[:, None]
    return map_coordinates(volume, places[::-1], order=1, mode="nearest").reshape(z.shape)


def test_particles_cut_out_and_turned_back_show_the_molecule_and_not_its_mirror_image(simulated: Any) -> None:
    with mrcfile.open(simulated.NoiseFreeTomograms.getFirstItem().getFileName()) as file:
        tomogram = -file.data  # protein is dark
    with mrcfile.open(simulated.References.getFirstItem().getFileName()) as file:
        reference = gaussian_filter(file.data, 0.5)
    side = len(reference)
    ball = np.linalg.norm(np.indices(reference.shape) - (side - 1) / 2, axis=0) < 14

    def likeness(particle: np.ndarray, molecule: np.ndarray) -> float:
        return float(np.corrcoef(particle[ball], molecule[ball])[0, 1])

    right, mirrored, transposed = [], [], []
    for item in simulated.output3DCoordinates.iterCoordinates():
        position = np.array(item.getPosition(BOTTOM_LEFT_CORNER))
        if item.getGroupId() == 1 and (position > 14).all() and (position < np.array(SIZE) - 14).all():
            particle = cut_out(tomogram, item, item.getMatrix(), side)
            right.append(likeness(particle, reference))
            mirrored.append(max(likeness(particle, np.flip(reference, axis)) for axis in range(3)))
            transposed.append(likeness(cut_out(tomogram, item, item.getMatrix().T, side), reference))
    assert len(right) >= 2
    assert min(right) > 0.55  # measured: 0.63 to 0.70, 0.28 at most, 0.17 at most
    assert max(mirrored) < 0.4
    assert max(transposed) < 0.4


def test_a_particle_lies_at_its_coordinate_in_the_label_volume(simulated: Any) -> None:
    with mrcfile.open(simulated.Labels.getFirstItem().getFileName()) as file:
        labels = file.data
    for item in simulated.output3DCoordinates.iterCoordinates():
        if item.getGroupId() == 1:  # the other one is hollow
            x, y, z = np.round(item.getPosition(BOTTOM_LEFT_CORNER)).astype(int)
            assert (labels[z - 3 : z + 4, y - 3 : y + 4, x - 3 : x + 4] == 1).mean() > 0.5


# ------------------------------ the files, imported ------------------------------
@pytest.fixture
def without_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """ProtImportTs of scipion-em-tomo 3.12.4 reads its set over one connection while it writes it over another: with
    Scipion's default journal it then waits for itself for a thousand seconds."""
    monkeypatch.setenv("SQLITE_JOURNAL_MODE", "WAL")


def images_of(output: Any) -> list[Any]:
    series = output[{TiltSeries.TS_ID_FIELD: "tomo_01"}]
    return [image.clone() for image in series.iterItems()]


def test_the_tilt_series_imports_by_its_mdoc_with_angles_doses_order_and_pixel_size(
    project: Any, launch: Any, simulated: Any, without_deadlock: None
) -> None:
    imported = launch(
        project.newProtocol(ProtImportTs, filesPath=folder_of(simulated), filesPattern="*.mdoc", magnification=None)
    )
    output = imported.outputTiltSeries
    assert output.getSamplingRate() == VOXEL_SIZE_A and output.getAcquisition().getVoltage() == 300
    theirs, ours = images_of(output), images_of(simulated.TiltSeries)
    np.testing.assert_allclose([image.getTiltAngle() for image in theirs], TILTS)
    by_order = sorted(theirs, key=lambda image: image.getAcquisitionOrder())
    assert [image.getTiltAngle() for image in by_order[:5]] == [0, 4, -4, 8, -8]
    per_image = DOSE / len(TILTS)
    np.testing.assert_allclose(
        [image.getAcquisition().getAccumDose() for image in by_order], per_image * np.arange(1, 34), rtol=1e-4
    )
    for one, other in zip(theirs, ours, strict=True):
        assert one.getAcquisitionOrder() == other.getAcquisitionOrder()
        assert one.getTiltAngle() == other.getTiltAngle()
        assert one.getAcquisition().getAccumDose() == pytest.approx(other.getAcquisition().getAccumDose(), rel=1e-4)
        assert one.getAcquisition().getDoseInitial() == pytest.approx(
            other.getAcquisition().getDoseInitial(), rel=1e-4, abs=1e-3
        )
        assert one.getIndex() == other.getIndex()
        assert one.getDim()[:2] == SIZE[:2]


def test_the_tilt_series_imports_by_its_rawtlt(
    project: Any, launch: Any, simulated: Any, without_deadlock: None
) -> None:
    imported = launch(
        project.newProtocol(
            ProtImportTs,
            filesPath=folder_of(simulated),
            filesPattern="{TS}.st",
            anglesFrom=2,  # a tlt file
            voltage=300.0,
            samplingRate=VOXEL_SIZE_A,
            dosePerFrame=DOSE / len(TILTS),
            tiltAxisAngle=0.0,
        )
    )
    images = images_of(imported.outputTiltSeries)
    np.testing.assert_allclose([image.getTiltAngle() for image in images], TILTS)
    assert imported.outputTiltSeries.getSamplingRate() == VOXEL_SIZE_A
    assert images[0].getDim()[:2] == SIZE[:2]


def test_the_tomogram_imports_as_the_output_has_it(project: Any, launch: Any, simulated: Any) -> None:
    with mrcfile.open(Path(folder_of(simulated), "tomo_01.mrc"), header_only=True) as file:
        samplingRate = float(file.voxel_size.x)
    imported = launch(
        project.newProtocol(
            ProtImportTomograms,
            filesPath=folder_of(simulated),
            filesPattern="*.mrc",
            exclusionWords="noisefree labels",
            samplingRate=samplingRate,
        )
    )
    (theirs,) = [tomogram.clone() for tomogram in imported.Tomograms.iterItems()]
    ours = simulated.Tomograms.getFirstItem()
    assert samplingRate == pytest.approx(VOXEL_SIZE_A)
    assert theirs.getTsId() == ours.getTsId() and theirs.getDim() == ours.getDim() == SIZE
    assert theirs.getShiftsFromOrigin() == pytest.approx(ours.getShiftsFromOrigin())


# ------------------------------ a settings file ------------------------------
def test_a_settings_file_of_the_engine_counts_in_place_of_the_form_and_continuing_keeps_what_is_there(
    project: Any, launch: Any, tmp_path: Path
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(
        "[species]\n1dzl = 2\n[sample]\nshape = [24, 40, 48]\nvoxel_size_A = 20.0\n[tilts]\ntilt_step_deg = 12.0\n"
        "missing_tilts_deg = [0.0]\n"
    )
    protocol = project.newProtocol(
        ProtTwinSimulateTomograms, settingsFrom=1, settingsFile=str(path), numberOfTomograms=1, numberOfThreads=1
    )
    protocol = launch(protocol)
    assert protocol.Tomograms.getDimensions() == (48, 40, 24) and protocol.Tomograms.getSamplingRate() == 20.0
    images = images_of(protocol.TiltSeries)
    assert [image.getTiltAngle() for image in images] == [-60, -48, -36, -24, -12, 12, 24, 36, 48, 60]
    first = min(images, key=lambda image: image.getAcquisitionOrder())
    assert first.getAcquisition().getDoseInitial() == pytest.approx(120 / 11, rel=1e-3)  # spent on the missing one
