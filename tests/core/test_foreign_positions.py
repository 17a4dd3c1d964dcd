"""Positions as other programs write them: their frames, their scales, their names; what cannot be is refused or told."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_positions import CENTRED, CORNER, PLACES, SHAPE, SIZE_A, copick, optics, read, star, table
from scipy.spatial.transform import Rotation

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import (
    Coordinates,
    read_all_coordinates,
    read_coordinates,
    write_coordinates,
)
from tomotwin_core.coordinates.placed import placed_coordinates, tables_in
from tomotwin_core.coordinates.starblocks import blocks_of
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc

# ------------------------------ scales ------------------------------


def test_a_size_of_1_A_is_not_believed_where_positions_would_shrink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dynamo = table(tmp_path / "a.tbl", PLACES, 1.0)
    relion = star(tmp_path / "b.star", ["rlnTomoName", *CORNER], [["t", *p] for p in PLACES], optics(1))
    for path in (dynamo, relion):
        np.testing.assert_allclose(read(path).xyz, PLACES, atol=1e-3)
        assert f"{path} says" in capsys.readouterr().err
    # Tilt series of 1 A are rare and not impossible: then the positions fill the tomogram with it.
    relion = star(tmp_path / "c.star", ["rlnTomoName", *CORNER], [["t", *(10 * p)] for p in PLACES], optics(1))
    np.testing.assert_allclose(read(relion).xyz, PLACES, atol=1e-3)
    assert capsys.readouterr().err == ""


def test_a_dynamo_table_of_1_A_wants_the_voxel_size_where_nobody_says_it(tmp_path: Path) -> None:
    path = table(tmp_path / "a.tbl", PLACES, 1.0)
    with pytest.raises(UserError, match="does not say the voxel size"):
        read_coordinates(path)
    assert read_coordinates(path, voxel_size_A=1.0).voxel_size_A == 1.0


@pytest.mark.parametrize("size", [-1, -10, 1e-6, 4e7, "-inf"])
def test_a_voxel_size_that_cannot_be_is_passed_over_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: object
) -> None:
    path = star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [["t", *p] for p in PLACES], optics(size))
    if size == "-inf":
        assert read(path).voxel_size_A == SIZE_A
        return
    np.testing.assert_allclose(read(path).xyz, PLACES)
    assert "which cannot be: it is passed over" in capsys.readouterr().err
    if isinstance(size, int):
        np.testing.assert_allclose(read(table(tmp_path / "a.tbl", PLACES, float(size))).xyz, PLACES, rtol=1e-5)
        np.testing.assert_allclose(read(copick(tmp_path / "a.json", PLACES, size)).xyz, PLACES)


@pytest.mark.parametrize("factor", [0.1, 0.135, 0.25, 0.4, 0.5])
@pytest.mark.parametrize("about", ["corner", "middle"])
def test_positions_that_shrank_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, about: str
) -> None:
    middle = np.array(SHAPE[::-1]) / 2
    if about == "corner":
        path = star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [["t", *(factor * p)] for p in PLACES])
    else:
        rows = [["t", *(factor * SIZE_A * (p - middle))] for p in PLACES]
        path = star(tmp_path / "a.star", ["rlnTomoName", *CENTRED], rows)
    read(path)
    told = capsys.readouterr().err
    assert f"{path} has all 12 positions in a small part of the tomogram t" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "places",
    [
        PLACES,
        PLACES[:3],
        PLACES * [1, 1, 0.1] + [0, 0, 27],  # a thin slab
        PLACES * [0.5, 1, 1],  # one half of the plane
        np.array([[75.0, 60, 31]]),
    ],
)
def test_positions_that_fill_a_tomogram_are_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], places: NDArray[np.float64]
) -> None:
    if len(places) > 1:
        read(star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [["t", *p] for p in places]))
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["t.tomostar", "t.mrc.tomostar", "frames/t.tomostar"])
def test_warps_parts_of_the_size_are_multiplied_by_it(tmp_path: Path, name: str) -> None:
    rows = [[*(p / SHAPE[::-1]), name] for p in PLACES]
    path = star(tmp_path / "a.star", [*CORNER, "rlnMicrographName"], rows)
    (found,) = read_all_coordinates(path, "t", SIZE_A, SHAPE)
    np.testing.assert_allclose(found.xyz, PLACES)
    assert found.tomogram == "t"
    with pytest.raises(
        UserError, match="as parts of its size, as Warp does, which is not known: give the tomogram too"
    ):
        read_all_coordinates(path, "t", SIZE_A)


@pytest.mark.parametrize("ending", ["star", "coords", "tbl", "json", "txt"])
def test_parts_of_a_size_in_any_other_file_are_refused(tmp_path: Path, ending: str) -> None:
    parts, path = PLACES / SHAPE[::-1], tmp_path / f"a.{ending}"
    if ending == "star":
        star(path, ["rlnTomoName", *CORNER], [["t", *p] for p in parts])
    elif ending == "tbl":
        table(path, parts)
    elif ending == "json":
        copick(path, parts, 10.0)
    else:
        np.savetxt(path, parts)
    for shape in (SHAPE, None):
        with pytest.raises(UserError, match="between 0 and 1 alone"):
            read_coordinates(path, "t", SIZE_A, shape)


@pytest.mark.parametrize("shift", [500, -300, 149, 90.5, -70])
def test_positions_outside_are_told_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shift: float
) -> None:
    some = PLACES + np.where(np.arange(12) > 6, shift, 0)[:, None]
    read(star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [["t", *p] for p in some]))
    assert "5 of 12 positions outside the tomogram t" in capsys.readouterr().err
    with pytest.raises(UserError, match="most of its positions (outside|below 0, outside) the tomogram t"):
        read(star(tmp_path / "b.star", ["rlnTomoName", *CORNER], [["t", *(p + shift)] for p in PLACES]))


@pytest.mark.parametrize("size", [0.5, 2.5, 5.0, 20.0, 7.3])
def test_positions_in_other_voxels_than_the_tomograms_are_where_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: float
) -> None:
    inside = Coordinates.from_arrays(PLACES * SIZE_A / size, size, "t", label="a")
    paths = [table(tmp_path / "a.tbl", inside.xyz, size), copick(tmp_path / "a.json", PLACES, size)]
    paths += [star(tmp_path / "r.star", ["rlnTomoName", *CORNER], [["t", *p] for p in inside.xyz], optics(size))]
    for format, name in (("cbox", "a.cbox"), ("imod", "a.mod"), ("star", "a.star")):
        write_coordinates(tmp_path / name, inside, format)
        paths.append(tmp_path / name)
    for path in paths:
        found = read(path).xyz
        np.testing.assert_allclose(found[np.lexsort(found.T)], PLACES[np.lexsort(PLACES.T)], atol=2e-3)
    assert capsys.readouterr().err == ""


# ------------------------------ RELION's columns ------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_offsets_and_angles_are_those_of_the_subtomograms_frame(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sub, own, offset = rng.uniform(-170, 170, 3), rng.uniform(-170, 170, 3), rng.normal(0, 30, 3)
    frame, particle = (Rotation.from_euler("ZYZ", a, degrees=True).inv().as_matrix() for a in (sub, own))
    middle = np.array(SHAPE[::-1]) / 2
    names = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
    columns = ["rlnTomoName", *CENTRED, *(f"rlnOrigin{a}Angst" for a in "XYZ"), *names]
    rows = [["t", *((p - middle) * SIZE_A + frame @ offset), *offset, *sub] for p in PLACES]
    bare = read(star(tmp_path / "a.star", columns, rows))
    np.testing.assert_allclose(bare.xyz, PLACES, atol=1e-9)
    assert bare.rotation is not None
    np.testing.assert_allclose(bare.rotation, np.broadcast_to(frame, (12, 3, 3)), atol=1e-9)
    angles = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    turned = read(star(tmp_path / "b.star", [*columns, *angles], [[*row, *own] for row in rows]))
    assert turned.rotation is not None
    np.testing.assert_allclose(turned.rotation[0], frame @ particle, atol=1e-9)


@pytest.mark.parametrize(
    ("columns", "values", "moved"),
    [
        (["rlnOriginX", "rlnOriginY", "rlnOriginZ"], [2, -3, 1], [2, -3, 1]),  # RELION 3.0: pixels
        (["rlnOriginX", "rlnOriginY", "rlnOriginZ", "rlnMagnification", "rlnDetectorPixelSize"],
         [2, -3, 1, 10000, 5], [1, -1.5, 0.5]),  # of the particle's image, 5 A
        (["rlnOriginX", "rlnOriginY", "rlnOriginZ", "rlnMagnification", "rlnDetectorPixelSize"],
         [2, -3, 1, 0, 0], [2, -3, 1]),  # not known
        (["rlnOriginXAngst", "rlnOriginYAngst"], [20, -30], [2, -3, 0]),  # no z: none
        (["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst", "rlnOriginX", "rlnOriginY", "rlnOriginZ"],
         [20, -30, 10, 9, 9, 9], [2, -3, 1]),  # Angstrom first
    ],
)  # fmt: skip
def test_origins_of_relion_3_to_5_are_taken_off(
    tmp_path: Path, columns: list[str], values: list[float], moved: list[float]
) -> None:
    path = star(tmp_path / "a.star", ["rlnMicrographName", *CORNER, *columns], [["t.mrc", *p, *values] for p in PLACES])
    np.testing.assert_allclose(read(path).xyz, PLACES - moved)


def test_relion_5_believes_centred_coordinates_where_both_are_there(tmp_path: Path) -> None:
    middle = np.array(SHAPE[::-1]) / 2
    rows = [["t", *p, *((p - middle) * SIZE_A)] for p in PLACES]
    stale = [["t", *(p + 7), *((p - middle) * SIZE_A)] for p in PLACES]
    for n, these in enumerate((rows, stale)):
        path = star(tmp_path / f"{n}.star", ["rlnTomoName", *CORNER, *CENTRED], these)
        np.testing.assert_allclose(read(path).xyz, PLACES)
    np.testing.assert_allclose(read_coordinates(tmp_path / "0.star", voxel_size_A=SIZE_A).xyz, PLACES)


def test_every_optics_group_counts_in_its_own_pixels(tmp_path: Path) -> None:
    columns = ["rlnTomoName", *CORNER, "rlnOpticsGroup"]
    rows = [["a", *PLACES[0], 1], ["b", *(4 * PLACES[1]), 2]]
    one, two = read_all_coordinates(star(tmp_path / "a.star", columns, rows, optics(10, 2.5)))
    np.testing.assert_allclose([one.xyz[0], two.to_voxel_size(10).xyz[0]], PLACES[:2])
    for bad, sentence in (
        ([["a", *PLACES[0], 1], ["a", *PLACES[1], 2]], "several pixel sizes in the tomogram a"),
        ([["a", *PLACES[0], 3]], "the optics group 3, which data_optics lacks"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_all_coordinates(star(tmp_path / "b.star", columns, bad, optics(10, 2.5)))
    with pytest.raises(UserError, match="does not say which counts"):
        read_all_coordinates(star(tmp_path / "c.star", columns[:4], [["a", *PLACES[0]]], optics(10, 2.5)))


def test_relion_5_is_told_a_pixel_size_only_where_it_is_that_of_the_tilt_series(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "in.star", Coordinates.from_arrays(PLACES, SIZE_A, "t", SHAPE, "a", 0.5))
    for more, size in (([], None), (["--to-voxel-size", "1.35"], 1.35)):
        out = tmp_path / f"{size}.star"
        assert main(["convert", str(tmp_path / "in.star"), "--format", "relion5", "--out", str(out), *more]) == 0
        blocks = blocks_of(out)
        assert ("optics" in blocks) == ("rlnOpticsGroup" in blocks["particles"]) == (size is not None)
        if size is not None:
            assert float(blocks["optics"]["rlnTomoTiltSeriesPixelSize"][0]) == size
        centred = blocks["particles"][CENTRED].to_numpy().astype(float)
        np.testing.assert_allclose(centred, (PLACES - np.array(SHAPE[::-1]) / 2) * SIZE_A, atol=1e-3)
        np.testing.assert_allclose(read_coordinates(out).xyz, PLACES, atol=1e-4)


@pytest.mark.parametrize(
    ("columns", "values", "shape"),
    [
        (["tomotwinVoxelSizeAngst"], "10", None),
        (["tomotwinVoxelSizeAngst", *(f"tomotwinTomogramSize{a}" for a in "ZYX")], "10 60 120 150", SHAPE),
        (["tomotwinVoxelSizeAngst", *(f"tomotwinTomogramSize{a}" for a in "ZYX")], "10 0 0 0", None),
        (["tomotwinVoxelSizeAngst", *(f"tomotwinTomogramSize{a}" for a in "ZYX")], "10 inf 120 150", "cannot be"),
        (["tomotwinVoxelSizeAngst", *(f"tomotwinTomogramSize{a}" for a in "ZYX")], "nan 60 120 150", "cannot be"),
        (["tomotwinVoxelSizeAngst", *(f"tomotwinTomogramSize{a}" for a in "ZYX")], "-8 60 120 150", "cannot be"),
        (["tomotwinTomogramSizeZ"], "60", "lacks the column tomotwinVoxelSizeAngst"),
    ],
)
def test_sizes_of_a_file_of_ours_are_those_that_can_be(
    tmp_path: Path, columns: list[str], values: str, shape: object
) -> None:
    labels = "".join(f"_{name}\n" for name in ["rlnTomoName", *columns])
    before = f"\ndata_tomotwin_tomograms\n\nloop_\n{labels}t {values}\n\n"
    path = star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [["t", *p] for p in PLACES], before)
    if isinstance(shape, str):
        with pytest.raises(UserError, match=shape):
            read_coordinates(path)
        return
    found = read_coordinates(path)
    assert (found.voxel_size_A, found.shape) == (10.0, shape)


# ------------------------------ angles ------------------------------


@pytest.mark.parametrize("value", ["<NA>", "nan", "NaN", "None", "inf"])
def test_positions_whose_angles_are_not_all_known_are_read_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    columns = ["rlnTomoName", *CORNER, "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    rows = [["t", *p, *([value] * 3 if i == 3 else [1, 2, 3])] for i, p in enumerate(PLACES)]
    found = read(star(tmp_path / "a.star", columns, rows))
    assert found.rotation is None and "no angles for 1 of 12 positions" in capsys.readouterr().err
    np.testing.assert_allclose(found.xyz, PLACES)


def test_dynamo_and_copick_without_all_orientations_are_read_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(table(tmp_path / "a.tbl", PLACES, angles=np.nan)).rotation is None
    assert "no angles for 12 of 12" in capsys.readouterr().err
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    for number, (matrix, sentence) in enumerate(
        ((None, "no orientation for 1 of 12"), ((2 * turned).tolist(), "no rotations"), (turned.tolist(), ""))
    ):
        path = copick(tmp_path / f"{number}.json", PLACES, 10.0, transformation_=turned.tolist())
        picks = json.loads(path.read_text())
        picks["points"][4]["transformation_"] = matrix
        path.write_text(json.dumps(picks))
        found, told = read(path), capsys.readouterr().err
        assert (found.rotation is None) == bool(sentence) == bool(told) and sentence in told
        np.testing.assert_allclose(found.xyz, PLACES)


@pytest.mark.parametrize("format", ["relion4", "relion5"])
def test_angles_that_nobody_knows_are_told_where_relion_wants_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    name = f"TS_{format}"
    write_coordinates(tmp_path / "a.star", Coordinates.from_arrays(PLACES, SIZE_A, name, SHAPE), format)
    assert f"positions in {name} are not known: RELION's angles are written as 0 0 0" in capsys.readouterr().err
    turned = Coordinates.from_arrays(PLACES, SIZE_A, name, SHAPE, rotation=np.tile(np.eye(3), (12, 1, 1)))
    write_coordinates(tmp_path / "a.star", turned, format)
    assert capsys.readouterr().err == ""


# ------------------------------ in their tomograms ------------------------------


@pytest.fixture
def tomograms(tmp_path: Path) -> list[TomogramSource]:
    rng = np.random.default_rng(0)
    for name, shape, size in (("TS_1", (20, 30, 40), 10.0), ("TS_10", (24, 20, 50), 8.0)):
        write_mrc(tmp_path / f"{name}.mrc", rng.normal(size=shape).astype(np.float32), size)
    return [open_tomogram(tmp_path / f"{name}.mrc") for name in ("TS_1", "TS_10")]


def test_every_table_has_the_size_and_shape_of_its_own_tomogram(
    tmp_path: Path, tomograms: list[TomogramSource]
) -> None:
    rows = [["TS_1", 0, 0, 0], ["TS_10", 80, -40, 16], ["TS_7", 0, 0, 0]]
    path = star(tmp_path / "r5.star", ["rlnTomoName", *CENTRED], rows[:2])
    one, two = tables_in(path, tomograms)
    np.testing.assert_allclose([one.xyz[0], two.xyz[0]], [[20, 15, 10], [35, 5, 14]])
    assert (one.voxel_size_A, one.shape, two.voxel_size_A, two.shape) == (10, (20, 30, 40), 8, (24, 20, 50))
    write_coordinates(tmp_path / "o.star", [one, two, Coordinates.from_arrays(PLACES, 10.0, "TS_7", SHAPE)])
    found = placed_coordinates(tmp_path / "o.star", tomograms)
    assert [place.name if place else None for place, _ in found] == ["TS_1", "TS_10", None]
    with pytest.raises(UserError, match="has positions in TS_7, which none of the tomograms given is called"):
        tables_in(tmp_path / "o.star", tomograms)


@pytest.mark.parametrize("name", ["TS_1.coords", "TS_1_picks.coords", "TS_10.txt", "x_TS_10_a.coords", "other.coords"])
def test_a_file_without_names_belongs_to_the_tomogram_it_is_called_after(
    tmp_path: Path, tomograms: list[TomogramSource], name: str
) -> None:
    (tmp_path / name).write_text("10 12 5\n3 9 11\n30 2 17\n")
    if name.startswith("other"):
        with pytest.raises(UserError, match="does not say the voxel size"):
            tables_in(tmp_path / name, tomograms)
        (found,) = tables_in(tmp_path / name, tomograms[:1])
        assert found.tomogram == "TS_1"
        return
    (found,) = tables_in(tmp_path / name, tomograms)
    assert (found.tomogram, found.voxel_size_A) == (("TS_10", 8) if "TS_10" in name else ("TS_1", 10))
    assert found.xyz[0].tolist() == [10, 12, 5]


@pytest.mark.parametrize("given", [5.0, 8.0, 12.0, 9.5, 20.0])
def test_a_voxel_size_that_contradicts_the_file_is_told(
    tmp_path: Path, tomograms: list[TomogramSource], capsys: pytest.CaptureFixture[str], given: float
) -> None:
    write_coordinates(tmp_path / "a.star", Coordinates.from_arrays([[20, 12, 5]], 10.0, "TS_1", (20, 30, 40)))
    (found,) = tables_in(tmp_path / "a.star", tomograms, voxel_size_A=given)
    assert found.xyz.tolist() == [[20, 12, 5]]
    assert f"in voxels of 10 A, which counts: the {given:g} A given are passed over" in capsys.readouterr().err
