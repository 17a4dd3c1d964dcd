"""Positions: the table, every frame, every file format."""

from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from tomotwin_core.coordinates import (
    FORMATS,
    Coordinates,
    centred_A_from_voxels,
    grid_from_voxels,
    read_all_coordinates,
    read_coordinates,
    relion_angles_from_rotation,
    rescaled,
    rotation_from_relion_angles,
    voxels_from_centred_A,
    voxels_from_grid,
    write_coordinates,
)
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import resample

SHAPE = (100, 95, 91)  # z, y, x, odd and even


def table(n: int = 40, tomogram: str = "TS_01", seed: int = 0, rotated: bool = True) -> Coordinates:
    rng = np.random.default_rng(seed)
    return Coordinates.from_arrays(
        rng.uniform(0, 90, (n, 3)),
        8.13,
        tomogram,
        SHAPE,
        label=np.where(rng.random(n) < 0.5, "1bxn", "5mrc"),
        score=rng.random(n),
        diameter_A=rng.choice([110.5, 250], n),
        rotation=Rotation.random(n + 1, random_state=seed).as_matrix()[:n] if rotated else None,
    )


def assert_same(a: Coordinates, b: Coordinates, position: float = 1e-5) -> None:
    assert (a.tomogram, a.shape) == (b.tomogram, b.shape)
    assert a.voxel_size_A == pytest.approx(b.voxel_size_A, rel=1e-6)
    assert a.xyz.dtype == b.xyz.dtype == np.float64
    np.testing.assert_allclose(a.xyz, b.xyz, atol=position)
    np.testing.assert_array_equal(a.label, b.label)
    np.testing.assert_allclose(a.score, b.score, rtol=1e-6)
    np.testing.assert_allclose(a.diameter_A, b.diameter_A, rtol=1e-5)


# ------------------------------ the table ------------------------------


def test_one_label_score_and_diameter_stand_for_all_and_what_is_unknown_is_nan() -> None:
    coords = Coordinates.from_arrays([[1, 2, 3], [4, 5, 6]], 10, label="ribosome", diameter_A=250)
    assert coords.label.tolist() == ["ribosome", "ribosome"] and coords.diameter_A.tolist() == [250, 250]
    assert np.isnan(coords.score).all() and coords.rotation is None and len(coords) == 2
    assert len(Coordinates.from_arrays([], 10)) == 0


def test_positions_are_float64_also_when_they_come_as_float16_and_nothing_else_passes() -> None:
    coords = Coordinates.from_arrays(np.array([[1000.5, 2, 3]], np.float32), 10)
    assert coords.xyz.dtype == np.float64
    half = coords.xyz.astype(np.float16)
    with pytest.raises(ValueError, match="float64"):
        Coordinates(half, 10, None, "", coords.label, coords.score, coords.diameter_A)  # type: ignore[arg-type]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        Coordinates.from_arrays([[1, 2, 3]], 10, score=[1, 2])


def test_selecting_keeps_the_columns_together() -> None:
    coords = table()
    choices: list[ArrayLike] = [coords.score > 0.5, np.argsort(-coords.score)[:5], [3, 1], []]
    for which in choices:
        chosen = coords.select(which)
        index = np.arange(len(coords))[np.asarray(which, dtype=None if np.size(which) else int)]
        np.testing.assert_array_equal(chosen.xyz, coords.xyz[index])
        np.testing.assert_array_equal(chosen.label, coords.label[index])
        np.testing.assert_array_equal(chosen.score, coords.score[index])
        assert chosen.rotation is not None and coords.rotation is not None
        np.testing.assert_array_equal(chosen.rotation, coords.rotation[index])


def test_a_table_splits_by_label_and_joins_again() -> None:
    coords = table()
    parts = coords.by_label()
    assert list(parts) == ["1bxn", "5mrc"]
    joined = Coordinates.concatenate(list(parts.values()))
    order = np.argsort(coords.label, kind="stable")
    assert_same(joined, coords.select(order), 0)
    with pytest.raises(ValueError, match="TS_02"):
        Coordinates.concatenate([coords, table(tomogram="TS_02")])


def test_tables_in_other_voxels_are_joined_at_the_same_places() -> None:
    coords = table()
    joined = Coordinates.concatenate([coords, coords.to_voxel_size(10.0)])
    np.testing.assert_allclose(joined.xyz[: len(coords)], joined.xyz[len(coords) :])


# ------------------------------ frames ------------------------------


@pytest.mark.parametrize("voxel_size_A", [1.35, 8.13, 10.0, 13.3, 31.36])
def test_going_to_another_voxel_size_and_back_gives_the_same_positions_and_shape(voxel_size_A: float) -> None:
    coords = table()
    there = coords.to_voxel_size(voxel_size_A)
    back = there.to_voxel_size(coords.voxel_size_A, coords.shape)
    np.testing.assert_allclose(back.xyz, coords.xyz, atol=1e-10)
    assert back.shape == SHAPE


@pytest.mark.parametrize("voxel_size_A", [8.0, 13.3, 31.0])
def test_a_particle_planted_in_a_tomogram_is_where_the_table_says_after_rescaling_both(voxel_size_A: float) -> None:
    n = int(1000 / voxel_size_A)
    place = np.array([0.441, 0.532, 0.617]) * n
    z, y, x = np.ogrid[:n, :n, :n]
    sigma = max(25.0 / voxel_size_A, 1.1)
    distance2 = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
    scaled = resample(np.exp(-distance2 / (2 * sigma**2)).astype(np.float32), voxel_size_A, 10.0)
    x10, y10, z10 = Coordinates.from_arrays([place], voxel_size_A).to_voxel_size(10.0).xyz[0]
    peak = np.unravel_index(scaled.argmax(), scaled.shape)
    assert np.abs(np.subtract(peak, (z10, y10, x10))).max() <= 0.55  # the voxel it lies in


def test_voxel_zero_stays_where_it_is_at_every_voxel_size() -> None:
    np.testing.assert_array_equal(rescaled([[0, 0, 0]], 8, 10), [[0, 0, 0]])
    np.testing.assert_allclose(rescaled([[10, 20, 30]], 8, 10), [[8, 16, 24]])


def test_tile_offset_stride_and_crop_lead_back_to_the_same_voxel() -> None:
    grid = np.random.default_rng(0).integers(0, 50, (20, 3))
    voxels = voxels_from_grid(grid, stride=2, offset_xyz=(18, 19, 20))
    np.testing.assert_array_equal(voxels[0], grid[0] * 2 + [18, 19, 20])
    np.testing.assert_array_equal(grid_from_voxels(voxels, 2, (18, 19, 20)), grid)


def test_relion_5_counts_from_half_the_size_in_angstrom() -> None:
    # An axis of 91 voxels has its middle at 45.5, one of 100 at 50.
    np.testing.assert_allclose(centred_A_from_voxels([[45.5, 47.5, 50]], 8.0, SHAPE), [[0, 0, 0]])
    np.testing.assert_allclose(centred_A_from_voxels([[0, 0, 0]], 8.0, SHAPE), [[-364, -380, -400]])
    xyz = table().xyz
    np.testing.assert_allclose(voxels_from_centred_A(centred_A_from_voxels(xyz, 8.13, SHAPE), 8.13, SHAPE), xyz)


def relion_matrix(rot: float, tilt: float, psi: float) -> NDArray[np.float64]:
    """Element by element as RELION computes the matrix of its angles, which takes the reference into the particle."""
    a, b, g = np.radians([rot, tilt, psi])
    ca, sa, cb, sb, cg, sg = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(g), np.sin(g)
    cc, cs, sc, ss = cb * ca, cb * sa, sb * ca, sb * sa
    return np.array(
        [
            [cg * cc - sg * sa, cg * cs + sg * ca, -cg * sb],
            [-sg * cc - cg * sa, -sg * cs + cg * ca, sg * sb],
            [sc, ss, cb],
        ]
    )


def test_orientations_are_relions_own() -> None:
    angles = np.random.default_rng(0).uniform(-180, 180, (50, 3))
    expected = np.stack([relion_matrix(*row) for row in angles])
    np.testing.assert_allclose(rotation_from_relion_angles(angles), expected, atol=1e-12)


@pytest.mark.parametrize("special", [(0, 0, 0), (30, 0, 40), (30, 180, 40), (0, 90, 0), (-170, 179.999999, 12)])
def test_every_orientation_survives_its_angles_also_at_the_poles(special: tuple[float, float, float]) -> None:
    matrices = np.concatenate([Rotation.random(200, random_state=1).as_matrix(), relion_matrix(*special)[None]])
    np.testing.assert_allclose(rotation_from_relion_angles(relion_angles_from_rotation(matrices)), matrices, atol=1e-7)


# ------------------------------ files ------------------------------


@pytest.mark.parametrize("format", ["star", "relion4", "relion5"])
@pytest.mark.parametrize("n", [0, 1, 40])
@pytest.mark.parametrize("tomogram", ["TS_01", "a tomogram's name", "0042", "1e5"])
def test_everything_comes_back_from_a_star_file(tmp_path: Path, format: str, n: int, tomogram: str) -> None:
    coords = table(n, tomogram.replace("'", ""))
    write_coordinates(tmp_path / "a.star", coords, format, seed=3, who='it\'s "us"')
    back = read_coordinates(tmp_path / "a.star")
    assert_same(back, coords)
    assert back.rotation is not None and coords.rotation is not None
    np.testing.assert_allclose(back.rotation, coords.rotation, atol=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.star"]


@pytest.mark.parametrize("format", ["star", "relion4", "relion5"])
def test_labels_that_look_like_numbers_or_hold_blanks_come_back_as_they_are(tmp_path: Path, format: str) -> None:
    labels = ["007", "1e5", "nan", "", "70S ribosome", "a#b"]
    coords = Coordinates.from_arrays(np.ones((6, 3)), 8, "t", SHAPE, labels, score=[1, np.nan, 0, -1, 1e-7, 0.5])
    write_coordinates(tmp_path / "a.star", coords, format)
    back = read_coordinates(tmp_path / "a.star")
    assert back.label.tolist() == labels
    np.testing.assert_allclose(back.score, coords.score, rtol=1e-6)
    assert np.isnan(back.diameter_A).all()


@pytest.mark.parametrize("format", ["star", "relion4", "relion5"])
def test_several_tomograms_share_a_file_also_when_one_has_no_pick(tmp_path: Path, format: str) -> None:
    tables = [table(5, "TS_03", 1, False), table(0, "TS_02", 2, False), table(7, "9", 3, False)]
    write_coordinates(tmp_path / "a.star", tables, format)
    for back, written in zip(read_all_coordinates(tmp_path / "a.star"), tables, strict=True):
        assert_same(back, written)
    assert_same(read_coordinates(tmp_path / "a.star", "9"), tables[2])
    with pytest.raises(UserError, match=r"has positions of 3 tomograms \(TS_03, TS_02, 9\): name the one"):
        read_coordinates(tmp_path / "a.star")
    with pytest.raises(UserError, match="has no positions of the tomogram TS_09 but of TS_03, TS_02, 9: give another"):
        read_coordinates(tmp_path / "a.star", "TS_09")


def test_without_orientations_our_file_has_no_angles_and_relions_has_zeros(tmp_path: Path) -> None:
    coords = table(3, rotated=False)
    write_coordinates(tmp_path / "a.star", coords)
    assert read_coordinates(tmp_path / "a.star").rotation is None
    write_coordinates(tmp_path / "b.star", coords, "relion4")
    particles = starfile.read(tmp_path / "b.star")["particles"]
    assert not particles[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy().any()


def test_relion_finds_its_columns_and_its_frame(tmp_path: Path) -> None:
    coords = table()
    write_coordinates(tmp_path / "4.star", coords, "relion4")
    write_coordinates(tmp_path / "5.star", coords, "relion5")
    four, five = starfile.read(tmp_path / "4.star"), starfile.read(tmp_path / "5.star")
    assert four["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [8.13]
    corner = four["particles"][["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]].to_numpy()
    np.testing.assert_allclose(corner, coords.xyz, atol=1e-5)
    np.testing.assert_allclose(four["particles"]["rlnAutopickFigureOfMerit"], coords.score, rtol=1e-6)
    centred = five["particles"][[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
    assert coords.shape is not None
    np.testing.assert_allclose(centred, (coords.xyz - np.array(coords.shape[::-1]) / 2) * 8.13, atol=1e-4)
    np.testing.assert_allclose(five["particles"]["rlnAutopickFigureOfMerit"], coords.score, rtol=1e-6)
    assert "rlnCoordinateX" not in five["particles"]


def test_a_file_says_what_made_it(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "a.star", table(), model="abc", threshold=0.7)
    made = starfile.read(tmp_path / "a.star")["tomotwin"]["tomotwinProvenance"]
    assert '"software": "tomotwin 1.0.0"' in made and '"threshold": 0.7' in made


def star(path: Path, columns: str, *rows: str, before: str = "") -> Path:
    path.write_text(
        f"{before}\ndata_particles\n\nloop_\n" + "".join(f"_{c}\n" for c in columns.split()) + "\n".join(rows) + "\n"
    )
    return path


def test_a_file_of_relion_4_is_read_in_the_tilt_series_pixels_with_its_shifts(tmp_path: Path) -> None:
    optics = "\ndata_optics\n\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n1 2.0\n\n"
    columns = "rlnTomoName rlnCoordinateX rlnCoordinateY rlnCoordinateZ rlnOriginXAngst rlnOriginYAngst rlnOriginZAngst"
    path = star(tmp_path / "a.star", columns, "TS_01 100 200 300 4 -6 0", "TS_02 1 2 3 0 0 0", before=optics)
    # The caller's tomogram has other voxels, and its shape in them must not be mistaken for that of the file's.
    coords = read_coordinates(path, "TS_01", voxel_size_A=8.0, shape=SHAPE)
    assert coords.voxel_size_A == 2.0 and coords.shape is None
    np.testing.assert_allclose(coords.xyz, [[98, 203, 300]])
    np.testing.assert_allclose(coords.to_voxel_size(8.0).xyz, [[24.5, 50.75, 75]])


def test_a_file_of_relion_3_names_its_tomogram_by_a_path(tmp_path: Path) -> None:
    columns = "rlnCoordinateX rlnCoordinateY rlnCoordinateZ rlnMicrographName"
    path = star(tmp_path / "a.star", columns, "1 2 3 tomograms/TS_01.mrc")
    assert read_coordinates(path, voxel_size_A=8).tomogram == "TS_01"


def test_a_bare_table_belongs_to_the_tomogram_and_voxels_that_the_caller_names(tmp_path: Path) -> None:
    path = star(tmp_path / "a.star", "rlnCoordinateX rlnCoordinateY rlnCoordinateZ", "1.5 2 3", "4 5 6")
    coords = read_coordinates(path, "TS_07", 8.0, SHAPE)
    assert (coords.tomogram, coords.voxel_size_A, coords.shape) == ("TS_07", 8.0, SHAPE)
    np.testing.assert_array_equal(coords.xyz, [[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]])


def test_a_file_of_relion_5_needs_the_tomogram_it_is_centred_on(tmp_path: Path) -> None:
    columns = "rlnTomoName rlnCenteredCoordinateXAngst rlnCenteredCoordinateYAngst rlnCenteredCoordinateZAngst"
    path = star(tmp_path / "a.star", columns, "TS_01 8.0 0 -16")
    np.testing.assert_allclose(read_coordinates(path, None, 8.0, SHAPE).xyz, [[46.5, 47.5, 48]])
    with pytest.raises(UserError, match="counts from the middle of the tomogram TS_01, whose size is not known: give"):
        read_coordinates(path, voxel_size_A=8.0)


def test_coords_files_hold_x_y_z(tmp_path: Path) -> None:
    coords = table().by_label()["1bxn"]
    write_coordinates(tmp_path / "TS_01.coords", coords, "coords")
    back = read_coordinates(tmp_path / "TS_01.coords", voxel_size_A=8.13, shape=SHAPE)
    np.testing.assert_allclose(back.xyz, coords.xyz, atol=1e-5)
    assert back.tomogram == "TS_01"
    (tmp_path / "b.txt").write_text("# x y z\n1, 2, 3\n\n4 5 6 0.7\n")
    np.testing.assert_array_equal(read_coordinates(tmp_path / "b.txt", "t", 8).xyz, [[1, 2, 3], [4, 5, 6]])


def test_a_coords_file_has_no_place_for_two_targets_or_two_tomograms(tmp_path: Path) -> None:
    one = table().by_label()["1bxn"]
    for tables in (table(), [one, table(tomogram="TS_02")]):
        with pytest.raises(UserError, match="one target in one tomogram only: write one file for each"):
            write_coordinates(tmp_path / "a.coords", tables, "coords")
    assert list(tmp_path.iterdir()) == []


XYZ = "rlnCoordinateX rlnCoordinateY rlnCoordinateZ"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.star", None, "does not exist: check the path of the coordinates file"),
        ("a.star", "", "is not a STAR file that can be read .*: give coordinates in STAR format"),
        ("a.star", "no star at all\n", "is not a STAR file that can be read .*: give coordinates in STAR format"),
        ("a.star", "\ndata_\n", "is not a STAR file that can be read|has no positions"),
        (
            "a.star",
            "\ndata_\nloop_\n_rlnImageName\na\n",
            "has no positions: its table needs the columns rlnCoordinateX",
        ),
        ("a.star", f"\ndata_\nloop_\n_{' _'.join(XYZ.split())}\n".replace(" ", "\n") + "1 2 nix\n", "no numbers"),
        ("a.star", f"\ndata_\nloop_\n_{' _'.join(XYZ.split())}\n".replace(" ", "\n") + "1 2 nan\n", "no numbers"),
        (
            "a.star",
            f"\ndata_\nloop_\n_{' _'.join(XYZ.split())}\n".replace(" ", "\n") + "1 2\n",
            "is not a STAR|no numbers",
        ),
        ("a.coords", "1 2 3\n1 2\n", "is not a list of positions: line 2 should be three numbers, x y z"),
        ("a.coords", "x y z\n", "is not a list of positions: line 1 should be three numbers, x y z"),
        ("a.coords", "1 2 inf\n", "has positions that are no numbers: correct or remove those lines"),
        (
            "a.box",
            "",
            "is not a coordinates file that can be read: give one that ends in .cbox, .coords, .json, .mod, .star, .tbl, .txt",
        ),
        (
            "a.coords",
            "900 2 3\n1 2 300\n5 5 5\n",
            r"most of its positions outside the tomogram a \(91 x 95 x 100 voxels",
        ),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_coordinates(path, voxel_size_A=8.0, shape=SHAPE)
    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message


def test_a_binary_file_named_star_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(UserError, match="is not a STAR file"):
        read_coordinates(tmp_path / "a.star")


@pytest.mark.parametrize("name", ["a.star", "a.coords"])
def test_positions_of_unknown_voxel_size_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.star":
        star(path, XYZ, "1 2 3")
    else:
        path.write_text("1 2 3\n")
    with pytest.raises(UserError, match="does not say the voxel size of its positions: give it in Angstrom"):
        read_coordinates(path)


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    coords = Coordinates.from_arrays([[1, 2, 3]], 8, "TS_01")
    with pytest.raises(
        UserError, match="there is no coordinate format box: choose one of star, relion4, relion5, coords, cbox, dynamo"
    ):
        write_coordinates(tmp_path / "a.box", coords, "box")
    with pytest.raises(
        UserError, match="need the size of the tomogram TS_01, which is not known: give it .*, or write the format star"
    ):
        write_coordinates(tmp_path / "a.star", coords, "relion5")
    with pytest.raises(UserError, match="need one voxel size, these tomograms differ"):
        write_coordinates(tmp_path / "a.star", [coords, coords.to_voxel_size(10)], "relion4")
    assert list(tmp_path.iterdir()) == []


def test_every_registered_format_has_an_ending() -> None:
    assert all(ending.startswith(".") for handler in FORMATS.values() for ending in handler.endings)
