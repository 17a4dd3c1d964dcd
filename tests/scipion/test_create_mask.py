"""Protocol *create mask* in a real Scipion project, with a stand-in for the engine; its masks in Scipion's own protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import SHAPE, VOXEL_SIZE_A, point, write_mrc
from pwem import Domain
from pyworkflow.object import Pointer
from pyworkflow.viewer import DESKTOP_TKINTER
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D, Tomogram, TomoMask
from tomo.protocols import ProtImportTomograms, ProtMaskCoordinates

from tomotwin_scipion.convert import Pick, new_coordinate
from tomotwin_scipion.protocols import ProtTwinCreateMask
from tomotwin_scipion.viewers import TwinMasksViewer

GOLD = (12, 34, 56)  # z, y, x
FIRST, LAST = 5, 20


@pytest.fixture(scope="module")
def imported(project: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tomograms")
    volume = np.random.default_rng(1).normal(size=SHAPE)
    volume[GOLD] = -9
    write_mrc(folder / "gold.mrc", volume, voxel_size=1.0)  # Scipion is told another voxel size
    write_mrc(folder / "no-gold.mrc", np.abs(volume), voxel_size=1.0)
    write_mrc(folder / "empty.mrc", np.zeros(SHAPE), voxel_size=1.0)
    return launch(
        project.newProtocol(
            ProtImportTomograms, filesPath=str(folder), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A, step=3.0
        )
    )


def new_mask(project: Any, imported: Any, **values: Any) -> Any:
    protocol = project.newProtocol(ProtTwinCreateMask, **{"numberOfThreads": 1, **values})
    point(protocol.inputTomograms, imported, "Tomograms")
    return protocol


@pytest.fixture(scope="module")
def masked(project: Any, launch: Any, imported: Any) -> Any:
    return launch(new_mask(project, imported, zFirst=FIRST, zLast=LAST, excludeCarbon=False, contrast=1))


def test_masks_are_scipions_own_by_tsid_and_hold_what_the_form_asked_for(masked: Any) -> None:
    masks = {item.getTsId(): item.clone() for item in masked.TomoMasks.iterItems()}
    assert sorted(masks) == ["gold", "no_gold"] and all(isinstance(item, TomoMask) for item in masks.values())
    expected = np.zeros(SHAPE, bool)
    expected[FIRST : LAST + 1] = True
    for tsId, item in masks.items():
        with mrcfile.open(item.getFileName()) as file:
            assert file.voxel_size.x == VOXEL_SIZE_A
            found = file.data != 0
        expected[GOLD] = tsId != "gold"
        np.testing.assert_array_equal(found, expected)
        assert item.getSamplingRate() == VOXEL_SIZE_A
        assert item.getTomogram().getDim() == SHAPE[::-1]
        assert item.getAcquisition().getStep() == 3.0


def test_the_summary_tells_how_much_is_left_and_which_tomogram_failed(masked: Any) -> None:
    text = "\n".join(masked._summary())
    assert "*2* of 3" in text and "no_gold:  53 %" in text  # 16 of 30 planes
    assert "empty: " in text
    assert "specimen between empty spaces, no gold" in masked._methods()[0]


def test_the_engine_is_told_voxel_size_contrast_and_region(
    project: Any, launch: Any, imported: Any, masked: Any, calls: Any
) -> None:
    further = new_mask(project, imported, autoSlab=False, excludeGold=False)
    point(further.inputMasks, masked, "TomoMasks")
    further.useMasks.set(True)
    assert "1 tomogram(s) have no mask" in further.warnings()[0]
    further = launch(further)
    lines = {Path(call[1]).stem: " ".join(call) for call in calls()}
    assert all(line.startswith("mask ") and "--voxel-size 8 --contrast dark" in line for line in lines.values())
    assert "masks/gold.mrc --exclude-carbon" in lines["gold"] and "--mask" not in lines["empty"]
    item = further.TomoMasks[{Tomogram.TS_ID_FIELD: "gold"}]
    with mrcfile.open(item.getFileName()) as file:  # what the mask that was given left out stays out
        assert file.data[GOLD] == 0 and file.data[FIRST - 1].max() == 0 and file.data[LAST].min() == 1


def test_scipions_own_protocol_takes_the_masks_and_leaves_out_coordinates_by_them(
    project: Any, launch: Any, imported: Any, masked: Any
) -> None:
    coordinates = SetOfCoordinates3D.create(imported._getPath(), suffix="planted")
    coordinates.setPrecedents(Pointer(imported, extended="Tomograms"))
    coordinates.setSamplingRate(VOXEL_SIZE_A)
    coordinates.setBoxSize(10)
    z, y, x = GOLD
    for tomogram in [item.clone() for item in imported.Tomograms.iterItems()]:
        for place in ((x, y, z), (x - 5, y, z), (x, y, LAST + 1)):
            coordinates.append(new_coordinate(tomogram, Pick(*place, "a", 0.9, 100.0), 1))
    coordinates.write()
    imported._defineOutputs(planted=coordinates)
    imported._store()
    protocol = project.newProtocol(ProtMaskCoordinates)
    point(protocol.inputCoordinates, imported, "planted")
    point(protocol.inputSegmentations, masked, "TomoMasks")
    protocol = launch(protocol)
    kept = [
        (item.getTomoId(), *item.getPosition(BOTTOM_LEFT_CORNER)) for item in protocol.Coordinates.iterCoordinates()
    ]
    assert sorted(kept) == [("gold", x - 5, y, z), ("no_gold", x - 5, y, z), ("no_gold", x, y, z)]


def test_a_region_of_nothing_and_masks_that_are_tomograms_are_refused(project: Any, imported: Any) -> None:
    protocol = new_mask(project, imported, autoSlab=False, excludeGold=False, excludeCarbon=False)
    (error,) = protocol.validate()
    assert "choose at least one thing" in error
    protocol.inputMasks.set(imported.Tomograms.getFirstItem().clone())
    protocol.useMasks.set(True)
    (error,) = protocol.validate()
    assert "this is a tomogram" in error


def test_the_viewer_tints_what_the_mask_leaves_out_on_the_slice_and_goes_through_the_tomograms(
    project: Any, masked: Any
) -> None:
    assert Domain.findViewers(masked, DESKTOP_TKINTER)[0] is TwinMasksViewer
    (view,) = TwinMasksViewer(project=project)._visualize(masked)
    view.sliders[2].set_val(GOLD[0])
    image, tint = view.axes[2].images
    assert image.get_array().shape == tint.get_array().shape[:2] == SHAPE[1:]
    covered = np.argwhere(tint.get_array()[..., 3] > 0)
    assert covered.tolist() == [list(GOLD[1:])]
    view.sliders[2].set_val(0)
    assert (view.axes[2].images[1].get_array()[..., 3] > 0).all()
    view.turn(1)
    assert "no_gold (2 of 2)" in view.figure._suptitle.get_text()
    view.sliders[2].set_val(GOLD[0])
    assert not (view.axes[2].images[1].get_array()[..., 3] > 0).any()
    view.close()
