"""What *orient picks* and *extract subtomograms* refuse before a run, and how angles become matrices.

Both are run for real, with RELION after them, in tests/integration/test_structure.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPE, VOXEL_SIZE_A, write_mrc
from pwem.objects import Transform
from pyworkflow.object import Pointer
from tomo.objects import SetOfCoordinates3D, SetOfTomograms, Tomogram

from tomotwin_scipion.convert import Pick, new_coordinate, particle_angles, particle_matrix
from tomotwin_scipion.protocols import ProtTwinExtractSubtomograms, ProtTwinOrientPicks


@pytest.fixture
def picks(tmp_path: Path) -> SetOfCoordinates3D:
    """Picks of two groups in one tomogram, in boxes of 18 voxels."""
    write_mrc(tmp_path / "ts_1.mrc", np.zeros(SHAPE), VOXEL_SIZE_A)
    tomograms = SetOfTomograms(filename=str(tmp_path / "tomograms.sqlite"))
    tomograms.setSamplingRate(VOXEL_SIZE_A)
    tomogram = Tomogram()
    tomogram.setFileName(str(tmp_path / "ts_1.mrc"))
    tomogram.setSamplingRate(VOXEL_SIZE_A)
    tomogram.setTsId("ts_1")
    tomogram.setOrigin(Transform())
    tomograms.append(tomogram)
    tomograms.write()
    coordinates = SetOfCoordinates3D(filename=str(tmp_path / "picks.sqlite"))
    coordinates.setSamplingRate(VOXEL_SIZE_A)
    coordinates.setBoxSize(18)
    coordinates.setPrecedents(Pointer(tomograms))
    for group in (1, 2):
        pick = Pick(10.0 * group, 20.0, 15.0, "any", 0.9, 96.0)
        coordinates.append(new_coordinate(tomogram, pick, group))
    coordinates.write()
    return coordinates


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"moleculeFrom": 1, "identifier": "library:1aon"}, "have the groups 1, 2; name one of them"),
        ({"group": 3, "moleculeFrom": 1, "identifier": "library:1aon"}, "have no group 3"),
        ({"group": 1}, "choose a map or model, or have it taken by its identifier"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "1aon"}, "names no molecule"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon, pdb:4v6x"}, "one identifier"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon", "lowPass": 1.0}, "Resolution limit"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon", "shift": -1.0}, "Largest shift"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon", "finest": 20.0}, "Angular steps"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon", "keep": 2, "minCorrelation": 2.0}, "Lowest correlation"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon", "tiltMin": 10.0, "tiltMax": -10.0}, "Tilt angles"),
        ({"group": 1, "moleculeFrom": 1, "identifier": "pdb:1aon", "gpuList": ""}, "GPU IDs is empty"),
    ],
)
def test_orienting_refuses_what_cannot_be(project: Any, picks: Any, values: dict[str, Any], sentence: str) -> None:
    protocol = project.newProtocol(ProtTwinOrientPicks, **values)
    protocol.inputCoordinates.set(picks)
    (error,) = protocol.validate()
    assert sentence in error


def test_orienting_takes_a_group_and_an_identifier_and_warns_of_what_the_tomograms_do_not_show(
    project: Any, picks: Any
) -> None:
    protocol = project.newProtocol(ProtTwinOrientPicks, group=2, moleculeFrom=1, identifier="library:1aon", lowPass=12.0)
    protocol.inputCoordinates.set(picks)
    assert protocol.validate() == []
    (warning,) = protocol.warnings()
    assert "nothing finer than 16.0 Å" in warning
    assert protocol.summary() == ["Output is not ready yet."]


def test_boxes_are_those_of_the_picks_and_even(project: Any, picks: Any) -> None:
    protocol = project.newProtocol(ProtTwinExtractSubtomograms, group=1)
    protocol.inputCoordinates.set(picks)
    assert protocol.validate() == [] and protocol._getBoxSize() == 18
    protocol.boxSize.set(25)
    (error,) = protocol.validate()
    assert "25 voxels; give an even number" in error


@pytest.mark.parametrize("angles", [(10.0, 20.0, 30.0), (-75.0, 110.0, 5.0), (0.0, 90.0, 0.0)])
def test_angles_come_back_from_the_matrix(angles: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(particle_angles(particle_matrix(angles)), angles, atol=1e-6)
