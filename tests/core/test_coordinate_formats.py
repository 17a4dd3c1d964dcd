"""Positions in the formats of other programs, written and read, and read by programs that are not ours."""

import json
import struct
from pathlib import Path

import dynamotable
import imodmodel
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray
from planted import FieldMaker
from scipy.spatial.transform import Rotation

from tomotwin_core.coordinates import (
    FORMATS,
    Coordinates,
    read_all_coordinates,
    read_coordinates,
    relion_angles_from_rotation,
    write_coordinates,
    write_folder,
)
from tomotwin_core.coordinates.table import ACCEPTED, REJECTED, UNDECIDED
from tomotwin_core.errors import UserError
from tomotwin_core.picking import ReferenceSettings
from tomotwin_core.picking.collect import collect_references
from tomotwin_core.picking.from_positions import references_from_positions
from tomotwin_core.simulation import Acquisition

SHAPE = (100, 95, 91)  # z, y, x
SIZE_A = 8.13


def table(n: int = 30, tomogram: str = "TS_01", labels: tuple[str, ...] = ("ribosome",), seed: int = 0) -> Coordinates:
    rng = np.random.default_rng(seed)
    return Coordinates.from_arrays(
        rng.uniform(0, 90, (n, 3)),
        SIZE_A,
        tomogram,
        SHAPE,
        label=np.array([labels[i % len(labels)] for i in range(n)], np.str_),
        score=np.where(np.arange(n) == 3, np.nan, rng.random(n)),
        diameter_A=np.where(np.arange(n) == 4, np.nan, rng.choice([110.5, 250], n)),
        rotation=Rotation.random(n + 1, random_state=seed).as_matrix()[:n],
    )


def in_order(coords: Coordinates) -> Coordinates:
    return coords.select(np.lexsort(coords.xyz.T))


@pytest.mark.parametrize(
    ("format", "ending", "keeps"),
    [
        ("cbox", ".cbox", {"shape", "diameter"}),
        ("dynamo", ".tbl", {"rotation"}),
        ("copick", ".json", {"shape", "diameter", "rotation"}),
        ("imod", ".mod", {"shape", "diameter"}),
    ],
)
@pytest.mark.parametrize("n", [0, 1, 30])
def test_what_a_format_has_a_place_for_comes_back(
    tmp_path: Path, format: str, ending: str, keeps: set[str], n: int
) -> None:
    coords = in_order(table(n))
    write_coordinates(tmp_path / f"a{ending}", coords, format)
    back = in_order(read_coordinates(tmp_path / f"a{ending}", voxel_size_A=None if n or format != "dynamo" else SIZE_A))
    assert back.tomogram == "TS_01" and back.voxel_size_A == pytest.approx(SIZE_A, rel=1e-6)
    assert back.shape == (SHAPE if "shape" in keeps else None)
    np.testing.assert_allclose(back.xyz, coords.xyz, atol=2e-5)
    np.testing.assert_allclose(back.score, coords.score, rtol=1e-6)
    np.testing.assert_array_equal(back.label, coords.label)
    if "diameter" in keeps:
        np.testing.assert_allclose(back.diameter_A, coords.diameter_A, rtol=1e-5)
    if "rotation" in keeps and n:
        assert back.rotation is not None and coords.rotation is not None
        np.testing.assert_allclose(back.rotation, coords.rotation, atol=1e-6)
    else:
        assert back.rotation is None
    assert all(not entry.name.startswith(".") for entry in tmp_path.iterdir())


# ------------------------------ crYOLO ------------------------------


def test_the_middle_of_a_cbox_is_the_corner_plus_half_the_box_in_x_and_y_and_z_itself(tmp_path: Path) -> None:
    coords = table()
    write_coordinates(tmp_path / "a.cbox", coords, "cbox")
    blocks = starfile.read(tmp_path / "a.cbox")
    boxes = blocks["cryolo"]
    middle = np.stack((boxes.CoordinateX + boxes.Width / 2, boxes.CoordinateY + boxes.Height / 2, boxes.CoordinateZ), 1)
    np.testing.assert_allclose(middle, coords.xyz, atol=1e-5)
    assert blocks["global"]["cbox_format_version"] == 1.0
    made = blocks["tomotwin"]["tomotwinProvenance"]  # one word, which the box manager's reader needs
    assert " " not in made and json.loads(made)["software"] == "tomotwin 1.0.0"
    assert set(boxes.Width) == {round(110.5 / SIZE_A), round(250 / SIZE_A), round(370 / SIZE_A)}


def test_scipions_importer_finds_a_cbox_at_the_same_positions(tmp_path: Path) -> None:
    convert = pytest.importorskip("tomo.convert.convert", reason="needs scipion-em-tomo")
    coords = table()
    write_coordinates(tmp_path / "a.cbox", coords, "cbox")
    found: list[tuple[float, float, float]] = []
    reader = convert.EmTableCoordImport("cryolo", "CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height")
    reader.importCoordinates3D(str(tmp_path / "a.cbox"), lambda _, x, y, z: found.append((x, y, z)))
    np.testing.assert_allclose(found, coords.xyz, atol=1e-5)


def test_scipions_importer_finds_a_coords_file_at_the_same_positions(tmp_path: Path) -> None:
    convert = pytest.importorskip("tomo.convert.convert", reason="needs scipion-em-tomo")
    coords = table()
    write_coordinates(tmp_path / "a.txt", coords, "coords")
    found: list[tuple[float, float, float]] = []
    convert.TomoImport.importCoordinates3D(str(tmp_path / "a.txt"), lambda _, x, y, z: found.append((x, y, z)))
    np.testing.assert_allclose(found, coords.xyz, atol=1e-5)


def test_a_cbox_of_the_box_manager_is_read_with_the_voxel_size_given(tmp_path: Path) -> None:
    columns = "CoordinateX CoordinateY CoordinateZ Width Height Depth EstWidth EstHeight Confidence NumBoxes Angle"
    (tmp_path / "TS_07.cbox").write_text(
        "\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n"
        + "".join(f"_{name} #{i}\n" for i, name in enumerate(columns.split(), 1))
        + "10.0 20.0 33 8 8 8 <NA> <NA> 0.8 <NA> <NA>\n1.5 2.5 40 9 9 9 12.0 12.0 <NA> 3 <NA>\n"
        + "\n\ndata_cryolo_include\n\nloop_\n_slice_index #1\n33\n40\n\n"
    )
    coords = read_coordinates(tmp_path / "TS_07.cbox", voxel_size_A=10.0)
    np.testing.assert_allclose(coords.xyz, [[14, 24, 33], [6, 7, 40]])
    np.testing.assert_allclose(coords.diameter_A, [np.nan, 120])
    np.testing.assert_allclose(coords.score, [0.8, np.nan], rtol=1e-6)
    assert coords.tomogram == "TS_07"


# ------------------------------ Dynamo ------------------------------


def test_dynamotable_finds_positions_scores_and_tomograms(tmp_path: Path) -> None:
    tables = [table(5, "TS_03", seed=1), table(0, "TS_02"), table(7, "9", ("a", "70S ribosome"), seed=2)]
    write_coordinates(tmp_path / "a.tbl", tables, "dynamo")
    read = dynamotable.read(tmp_path / "a.tbl", tmp_path / "a.doc")
    assert read["tomo_file"].tolist() == ["TS_03.mrc"] * 5 + ["9.mrc"] * 7
    np.testing.assert_allclose(read[["x", "y", "z"]], np.concatenate([t.xyz for t in tables]), atol=1e-5)
    np.testing.assert_allclose(read["cc"], np.concatenate([t.score for t in tables]), rtol=1e-6)
    assert read["tag"].tolist() == list(range(1, 13)) and set(read["apix"]) == {SIZE_A}
    back = {t.tomogram: t for t in read_all_coordinates(tmp_path / "a.tbl")}
    assert back["9"].label.tolist() == tables[2].label.tolist()


def test_dynamos_angles_turn_about_z_x_z(tmp_path: Path) -> None:
    # As scipion-em-dynamo (eulerAngles2matrix) and copick (dynamo_to_copick_transform) have it, written out.
    coords = table()
    write_coordinates(tmp_path / "a.tbl", coords, "dynamo")
    read = dynamotable.read(tmp_path / "a.tbl")
    for row, matrix in zip(np.radians(read[["tdrot", "tilt", "narot"]].to_numpy()), coords.rotation, strict=True):
        np.testing.assert_allclose(about_z(-row[0]) @ about_x(-row[1]) @ about_z(-row[2]), matrix, atol=1e-6)


def about_z(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def about_x(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def test_a_table_of_dynamo_is_read_with_its_shifts_and_its_complex_numbers(tmp_path: Path) -> None:
    row = ["0"] * 35
    row[3:6], row[9], row[19], row[23:26], row[27] = ["1.5", "-2", "0"], "0.3", "12", ["100", "200", "300"], "0.1+0.2i"
    (tmp_path / "a.tbl").write_text(" ".join(row) + "\n")
    coords = read_coordinates(tmp_path / "a.tbl", voxel_size_A=5.0)
    np.testing.assert_allclose(coords.xyz, [[101.5, 198, 300]])
    assert coords.tomogram == "12" and coords.rotation is None and coords.score[0] == np.float32(0.3)
    assert read_coordinates(tmp_path / "a.tbl", "TS_12", 5.0).tomogram == "TS_12"
    with pytest.raises(UserError, match="does not say the voxel size of its positions: give it in Angstrom"):
        read_coordinates(tmp_path / "a.tbl")


# ------------------------------ copick ------------------------------


def test_copick_finds_its_fields_and_angstrom(tmp_path: Path) -> None:
    coords = table(labels=("70S_ribosome, E. coli",))
    (path,) = write_folder(tmp_path, [coords], "copick", "_picks")
    # user, session and object are told apart by underscores, so none may be inside them
    assert path.relative_to(tmp_path) == Path("TS_01/Picks/tomotwin_0_70S-ribosome,-E.-coli.json")
    picks = json.loads(path.read_text())
    assert picks["pickable_object_name"] == "70S-ribosome,-E.-coli" and picks["run_name"] == "TS_01"
    assert picks["unit"] == "angstrom" and picks["voxel_spacing"] == SIZE_A and picks["trust_orientation"] is True
    assert (picks["user_id"], picks["session_id"]) == ("tomotwin", "0")
    point = picks["points"][7]
    location = [point["location"][axis] for axis in "xyz"]
    np.testing.assert_allclose(location, coords.xyz[7] * SIZE_A, atol=1e-3)
    matrix = np.array(point["transformation_"])
    assert coords.rotation is not None
    np.testing.assert_allclose(matrix[:3, :3], coords.rotation[7], atol=1e-7)
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
    assert not matrix[:3, 3].any() and picks["points"][3]["score"] is None
    assert read_coordinates(path).label[0] == "70S_ribosome, E. coli"


def test_a_copick_point_lies_at_its_location_plus_the_translation_of_its_matrix(tmp_path: Path) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = (5, -10, 20)
    point = {"location": {"x": 100, "y": 200, "z": 300}, "transformation_": matrix.tolist(), "score": 0.5}
    picks = {"pickable_object_name": "ribosome", "user_id": "me", "session_id": "1", "points": [point]}
    (tmp_path / "a.json").write_text(json.dumps(picks))
    coords = read_coordinates(tmp_path / "a.json", "TS_01", 10.0)
    np.testing.assert_allclose(coords.xyz, [[10.5, 19, 32]])
    assert coords.label.tolist() == ["ribosome"] and coords.rotation is None and coords.tomogram == "TS_01"


# ------------------------------ IMOD ------------------------------


def imod_points(path: Path) -> list[tuple[float, float, float]]:
    """All points of a model, found by IMOD's binary specification alone: CONT, four integers, x y z big-endian."""
    content, points, at = path.read_bytes(), [], 0
    while (at := content.find(b"CONT", at)) >= 0:
        (count,) = struct.unpack_from(">i", content, at + 4)
        points += [struct.unpack_from(">fff", content, at + 20 + 12 * i) for i in range(count)]
        at += 20 + 12 * count
    return points


def test_imod_finds_the_centre_of_the_first_voxel_at_a_half_in_x_and_y_and_at_zero_in_z(tmp_path: Path) -> None:
    coords = Coordinates.from_arrays([[0, 0, 0], [10, 20, 30.25]], 10, "TS_01", SHAPE, "a")
    write_coordinates(tmp_path / "a.mod", coords, "imod")
    expected = [[0.5, 0.5, 0], [10.5, 20.5, 30.25]]
    np.testing.assert_allclose(imod_points(tmp_path / "a.mod"), expected)
    np.testing.assert_allclose(imodmodel.read(tmp_path / "a.mod")[["x", "y", "z"]], expected)
    header = imodmodel.ImodModel.from_file(tmp_path / "a.mod").header
    assert header.flags.z_coordinates_start_from_negative_half
    assert (header.xmax, header.ymax, header.zmax) == (91, 95, 100)
    assert header.pixelsize == pytest.approx(1.0) and header.units == -9  # nanometres


def test_imod_finds_one_object_per_label_with_radii_and_scores(tmp_path: Path) -> None:
    coords = table(9, labels=("b", "a"))
    write_coordinates(tmp_path / "a.mod", coords, "imod")
    model = imodmodel.ImodModel.from_file(tmp_path / "a.mod")
    assert [o.header.name for o in model.objects] == ["a", "b"] and all(o.header.flags.scattered for o in model.objects)
    part = coords.by_label()["b"]
    sizes = [contour.point_sizes for contour in model.objects[1].contours]
    radii = [np.nan if size is None else size[0] for size in sizes]
    np.testing.assert_allclose(radii, part.diameter_A / SIZE_A / 2, rtol=1e-6)
    values = {item.index: item.value for item in model.objects[1].extra if item.type == 10}
    np.testing.assert_allclose([values.get(i, np.nan) for i in range(len(part))], part.score, rtol=1e-6)


def test_a_model_of_another_program_has_the_callers_voxels_unless_it_names_a_unit(tmp_path: Path) -> None:
    import pandas as pd

    points = pd.DataFrame({"x": [10.5, 1.5], "y": [20.5, 2.5], "z": [30.0, 3.0]})
    imodmodel.write(points, tmp_path / "TS_05.mod")
    coords = read_coordinates(tmp_path / "TS_05.mod", voxel_size_A=13.0, shape=SHAPE)
    np.testing.assert_allclose(coords.xyz, [[10, 20, 30], [1, 2, 3]])
    assert (coords.tomogram, coords.voxel_size_A, coords.shape) == ("TS_05", 13.0, SHAPE)
    with pytest.raises(UserError, match="does not say the voxel size of its positions: give it in Angstrom"):
        read_coordinates(tmp_path / "TS_05.mod")


def test_half_a_model_is_one_sentence_and_ends(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "a.mod", table(), "imod")
    whole = (tmp_path / "a.mod").read_bytes()
    for length in (2, 100, 300, 700, len(whole) - 5, len(whole) - 2):
        (tmp_path / "b.mod").write_bytes(whole[:length])
        with pytest.raises(UserError, match="is not an IMOD model that can be read"):
            read_coordinates(tmp_path / "b.mod", voxel_size_A=8)


# ------------------------------ all of them ------------------------------


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.cbox", "", "is not a STAR file"),
        ("a.cbox", "\ndata_cryolo\n\nloop_\n_CoordinateX #1\n_CoordinateY #2\n1 2\n", "has no boxes of a tomogram"),
        ("a.tbl", "1 2 3\n", "is not a Dynamo table: each line should be at least 26 numbers"),
        ("a.tbl", "a b c\n", "is not a Dynamo table"),
        ("a.tbl", " ".join(["1"] * 30) + "\n1 2\n", "is not a Dynamo table"),
        ("a.tbl", " ".join(["inf"] * 30) + "\n", "are no numbers in the columns 20 and 22"),
        ("a.json", "", "is not a file of copick's picks"),
        ("a.json", "[1, 2]", "is not a file of copick's picks"),
        ("a.json", '{"points": [{"location": {"x": 1}}]}', "is not a file of copick's picks"),
        ("a.json", '{"points": [], "unit": "pixel"}', "counts in pixel: give copick's picks in angstrom"),
        ("a.mod", "text", "is not an IMOD model"),
        ("a.mod", "IMODV1.2 text", "is not an IMOD model"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_all_coordinates(tmp_path / name, voxel_size_A=8.0, shape=SHAPE)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("format", "place"),
    [("cbox", "one target in one tomogram"), ("copick", "one target in one tomogram"), ("imod", "one tomogram")],
)
def test_what_does_not_fit_in_one_file_is_refused_and_spread_over_a_folder(
    tmp_path: Path, format: str, place: str
) -> None:
    tables = [table(6, "TS_01", ("a", "b")), table(4, "TS_02", ("a",))]
    ending = FORMATS[format].endings[0]
    with pytest.raises(UserError, match=f"has a place for the positions of {place} only"):
        write_coordinates(tmp_path / f"a{ending}", tables, format)
    assert list(tmp_path.iterdir()) == []
    written = write_folder(tmp_path, tables, format, "_picks")
    assert len(written) == (2 if format == "imod" else 3)
    read = [read_coordinates(path) for path in written]
    for wanted in tables:
        own = [t for t in read if t.tomogram == wanted.tomogram]
        found = in_order(Coordinates.concatenate(own))
        np.testing.assert_allclose(found.xyz, in_order(wanted).xyz, atol=2e-5)
        np.testing.assert_array_equal(found.label, in_order(wanted).label)


def test_what_a_person_rejected_is_left_out_where_the_format_could_not_say_so(tmp_path: Path) -> None:
    from dataclasses import replace

    coords = replace(table(3), accepted=np.array([ACCEPTED, REJECTED, UNDECIDED], np.int8))
    for format, expected in (("star", 3), ("relion5", 2), ("coords", 2), ("imod", 2)):
        (path,) = write_folder(tmp_path, [coords], format)
        assert len(read_coordinates(path, voxel_size_A=SIZE_A)) == expected


def test_orientations_are_the_same_in_every_format_that_has_them(tmp_path: Path) -> None:
    coords = table()
    assert coords.rotation is not None
    angles = relion_angles_from_rotation(coords.rotation)
    for format, name in (("relion4", "a.star"), ("dynamo", "a.tbl"), ("copick", "a.json")):
        write_coordinates(tmp_path / name, coords, format)
        back = read_coordinates(tmp_path / name)
        assert back.rotation is not None
        np.testing.assert_allclose(relion_angles_from_rotation(back.rotation), angles, atol=1e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_example_positions_of_every_format_make_the_same_reference(
    tmp_path: Path, make_field: FieldMaker, format: str
) -> None:
    embeddings = np.random.default_rng(0).normal(size=(12, 12, 12, 32)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    field = make_field(embeddings, name="TS_01")
    places = np.array([[4, 6, 8], [12, 14, 4], [18, 2, 20]])
    coords = Coordinates.from_arrays(places, 10.0, "TS_01", field.tomogram_shape, "ribosome", 0.5, 250)
    (path,) = write_folder(tmp_path, [coords], format)
    source, settings = ("ribosome", str(path)), ReferenceSettings()
    made = collect_references([source], [field.path], "", Acquisition(), settings, "cpu", 250, simulate=False)
    expected = references_from_positions([(field, coords)], name="ribosome")
    assert made.names == ["ribosome"]
    np.testing.assert_allclose(made.targets[0].prototypes, expected.targets[0].prototypes, atol=1e-5)
