"""Our coordinates in the hands of others: EMAN, Dynamo, RELION, and Scipion's own export, re-extraction and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import Run, require_engine, require_neighbours
from scipy.spatial.transform import Rotation

VOXEL_SIZE_A, SHAPE = 8.0, (30, 50, 70)
# x, y, z and RELION's angles by tsId; parts of voxels, so that rounding shows.
PICKS = {
    "first": [((5.25, 7.0, 11.5), (10.0, 20.0, 30.0)), ((60.0, 40.75, 20.0), (-75.0, 110.0, 5.0))],
    "TS_2nd": [((34.5, 3.0, 29.0), (0.0, 90.0, 0.0)), ((20.0, 30.0, 10.25), (123.0, 45.0, -67.0))],
}
MASKED = {"first": [0], "TS_2nd": [1]}  # those in the half of small x


@pytest.fixture(scope="module")
def said(in_scipion: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    require_engine()
    require_neighbours()
    from tomotwin_core.coordinates import Coordinates, rotation_from_relion_angles, write_coordinates

    folder = tmp_path_factory.mktemp("chain")
    for sub in ("tomograms", "binned", "masks"):
        (folder / sub).mkdir()
    half = np.zeros(SHAPE, np.float32)
    half[:, :, :32] = 1
    for tsId, picks in PICKS.items():
        write(folder / "tomograms" / f"{tsId}.mrc", np.zeros(SHAPE, np.float32), VOXEL_SIZE_A)
        write(folder / "binned" / f"{tsId}.mrc", np.zeros([n // 2 for n in SHAPE], np.float32), 2 * VOXEL_SIZE_A)
        write(folder / "masks" / f"{tsId}.mrc", half, VOXEL_SIZE_A)
        xyz, angles = zip(*picks, strict=True)
        rotation = rotation_from_relion_angles(angles)
        table = Coordinates.from_arrays(xyz, VOXEL_SIZE_A, tsId, SHAPE, "gro", 0.9, 190.0, rotation)
        write_coordinates(folder / f"{tsId}_picks.star", table)
    return in_scipion("chain.py", folder, neighbours=True)


def write(path: Path, volume: np.ndarray, voxel_size_A: float) -> None:
    with mrcfile.new(path) as file:
        file.set_data(volume)
        file.voxel_size = voxel_size_A


def positions(said: dict[str, list]) -> dict[str, list]:
    return {tsId: [row[:3] for row in rows] for tsId, rows in said.items()}


TRUE = {tsId: [list(xyz) for xyz, _ in picks] for tsId, picks in PICKS.items()}


def test_our_coordinates_have_the_engines_positions_and_relions_angles(said: Any) -> None:
    assert {t: np.round(p, 4).tolist() for t, p in positions(said["ours"]).items()} == TRUE


@pytest.mark.parametrize("name", ["eman", "dynamo"])
def test_extraction_of_others_takes_our_coordinates_where_they_are(said: Any, name: str) -> None:
    # What they miss may be their own programs alone, never anything of the coordinates.
    assert not [error for error in said[f"{name}_errors"] if "oordinate" in error or "tsId" in error]
    for tsId, rows in said[name].items():
        np.testing.assert_allclose([row[:3] for row in rows], TRUE[tsId], atol=0.006)


def test_dynamo_gets_the_particles_orientations(said: Any) -> None:
    for tsId, rows in said["dynamo_angles"].items():
        for (tdrot, tilt, narot), (_, relion) in zip(rows, PICKS[tsId], strict=True):
            # Both are the particle turned back to its reference: Rz(narot) Rx(tilt) Rz(tdrot), Rz(rot) Ry(tilt) Rz(psi).
            dynamos = Rotation.from_euler("zxz", [tdrot, tilt, narot], degrees=True).as_matrix()
            relions = Rotation.from_euler("ZYZ", relion, degrees=True).as_matrix()
            np.testing.assert_allclose(dynamos, relions, atol=1e-3)


@pytest.mark.parametrize("source", ["relion", "export_relion"])
def test_relions_star_file_holds_our_positions_and_angles(said: Any, source: str) -> None:
    from tomotwin_core.coordinates import read_all_coordinates, rotation_from_relion_angles

    path = said[source] if isinstance(said[source], str) else said[source][0]
    tables = {t.tomogram: t for t in read_all_coordinates(path, voxel_size_A=VOXEL_SIZE_A)}
    assert set(tables) == set(PICKS)
    for tsId, table in tables.items():
        np.testing.assert_allclose(table.xyz, TRUE[tsId], atol=1e-3)
        expected = rotation_from_relion_angles([angles for _, angles in PICKS[tsId]])
        np.testing.assert_allclose(table.rotation, expected, atol=1e-4)


def test_scipions_export_writes_every_format_there_is(said: Any) -> None:
    assert {"txt", "relion", "eman", "dynamo"} <= set(said["formats"])
    for tsId, path in zip(sorted(PICKS), sorted(said["export_txt"]), strict=True):
        found = np.loadtxt(path)
        assert any(np.array_equal(found, np.array(TRUE[t]).astype(int)) for t in PICKS), tsId
    assert len(said["export_eman"]) == 2
    columns = np.concatenate([np.loadtxt(path)[:, 23:26] for path in said["export_dynamo"]])
    every = np.concatenate([TRUE[tsId] for tsId in PICKS])
    np.testing.assert_allclose(np.sort(columns, axis=0), np.sort(every, axis=0), atol=1e-3)


def test_coordinates_move_to_another_binning_within_half_a_voxel_and_keep_group_and_orientation(said: Any) -> None:
    assert said["moved_voxel_size"] == 2 * VOXEL_SIZE_A
    for tsId, rows in said["moved"].items():
        for row, ours in zip(rows, said["ours"][tsId], strict=True):
            # Scipion counts from the middle of the tomogram, which at another binning may be half a voxel off.
            assert np.abs(np.array(row[:3]) - np.array(ours[:3]) / 2).max() <= 0.5 + 1e-6
            assert row[3] == ours[3]
            np.testing.assert_allclose(row[4], ours[4], atol=1e-6)


def test_a_mask_keeps_what_lies_in_it(said: Any) -> None:
    kept = {t: np.round(p, 4).tolist() for t, p in positions(said["masked"]).items()}
    assert kept == {tsId: [TRUE[tsId][i] for i in which] for tsId, which in MASKED.items()}
