"""The tables of positions that the Scipion plugin writes say a tomogram's voxel size and not its shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from tomotwin_core.coordinates import read_all_coordinates
from tomotwin_core.errors import UserError
from tomotwin_view.star import write_tables

PLACES = (["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"], [["a", 1.0, 2.0, 3.0]])


def test_a_voxel_size_without_a_shape_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "places.star"
    write_tables(
        str(path), {"tomotwin_tomograms": (["rlnTomoName", "tomotwinVoxelSizeAngst"], [["a", 8.0]]), "particles": PLACES}
    )
    (table,) = read_all_coordinates(path)
    assert (table.tomogram, table.voxel_size_A) == ("a", 8.0)
    assert table.xyz.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("sides", [["Z"], ["Y"], ["X", "Y"], ["Z", "Y"], ["Z", "X"]])
def test_half_a_shape_is_refused(tmp_path: Path, sides: list[str]) -> None:
    path = tmp_path / "places.star"
    labels = ["rlnTomoName", "tomotwinVoxelSizeAngst", *(f"tomotwinTomogramSize{side}" for side in sides)]
    write_tables(str(path), {"tomotwin_tomograms": (labels, [["a", 8.0, *([10] * len(sides))]]), "particles": PLACES})
    with pytest.raises(UserError, match="lacks the column tomotwinTomogramSize"):
        read_all_coordinates(path)
