"""Names that STAR reserves or quotes, and what is half a STAR file, half a list, half a model."""

import json
from pathlib import Path

import numpy as np
import pytest
from planted_positions import CORNER, PLACES, SHAPE, SIZE_A, copick, read, star, table

from tomotwin_core.coordinates import (
    Coordinates,
    read_all_coordinates,
    read_coordinates,
    write_coordinates,
    write_folder,
)
from tomotwin_core.errors import UserError
from tomotwin_view.star import read_table, split_values, word, write_tables

# ------------------------------ names, and what a STAR file is ------------------------------

NAMES = [
    "data_01", "DATA_x", "loop_", "loop_3", "save_a", "stop_", "global_x", "_a", "#1", "a#1", "$x", ";x", "[1]",
    "o'brien", 'he said "x"', 'both \'a"b kinds', "'", '"', "a b", "  ", "", "Tür 5°", "名前", "0042", "1e5", "nan", "<NA>",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_as_it_was_from_engine_and_plugin(tmp_path: Path, name: str) -> None:
    assert split_values(f"{word(name)}  1.5 {word(name)} # a comment") == [name, "1.5", name]
    for format in ("star", "relion4", "relion5"):
        coords = Coordinates.from_arrays(PLACES[:3], SIZE_A, name, SHAPE, label=name, score=0.5)
        write_coordinates(tmp_path / "a.star", coords, format)
        (found,) = read_all_coordinates(tmp_path / "a.star")
        assert (found.tomogram, set(found.label), len(found)) == (name, {name}, 3)
        assert [row["rlnTomoName"] for row in read_table(str(tmp_path / "a.star"), "particles")] == [name] * 3
    write_tables(str(tmp_path / "b.star"), {"particles": (["a", "b"], [[name, 1], ["x", name]]), "more": {"c": name}})
    assert read_table(str(tmp_path / "b.star"), "particles") == [{"a": name, "b": "1"}, {"a": "x", "b": name}]


@pytest.mark.parametrize("name", ["data_01", "_a", "o'brien", "loop_1", "save_5"])
def test_a_name_that_another_program_did_not_quote_is_a_row_all_the_same(tmp_path: Path, name: str) -> None:
    path = star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [[name, *p] for p in PLACES])
    (found,) = read_all_coordinates(path, voxel_size_A=SIZE_A)
    assert found.tomogram == name
    np.testing.assert_allclose(found.xyz, PLACES)


@pytest.mark.parametrize("format", ["coords", "cbox", "copick"])
@pytest.mark.parametrize(
    "labels", [("a b", "a-b"), ("x/y", "x y"), ("a\u2003b", "a b"), ("a\tb", "a-b"), ("p/q", "p-q")]
)
def test_two_targets_that_would_be_one_file_are_refused(tmp_path: Path, format: str, labels: tuple[str, str]) -> None:
    coords = Coordinates.from_arrays(PLACES, SIZE_A, "t", SHAPE, label=np.where(np.arange(12) % 2, *labels))
    with pytest.raises(
        UserError,
        match=f"would hold both t_{labels[0]} and t_{labels[1]}|would hold both t_{labels[1]} and t_{labels[0]}",
    ):
        write_folder(tmp_path, [coords], format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "label"), [("t" * 119, "a"), ("t", "a" * 64), ("ü" * 60, "a"), ("t", "名" * 22)])
def test_a_name_that_an_imod_model_would_cut_is_refused(tmp_path: Path, name: str, label: str) -> None:
    with pytest.raises(UserError, match="is too long a name for an IMOD model"):
        write_coordinates(tmp_path / "a.mod", Coordinates.from_arrays(PLACES, SIZE_A, name, SHAPE, label), "imod")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "' and \" x"])
def test_a_name_that_no_star_file_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="for which a STAR value has no place: choose another name"):
        write_coordinates(tmp_path / "a.star", Coordinates.from_arrays(PLACES, SIZE_A, name, SHAPE))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("twice", ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateZ", "tomotwinScore", "rlnAngleRot"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, twice: str) -> None:
    columns = ["rlnTomoName", *CORNER, "tomotwinScore", "rlnAngleRot", twice]
    path = star(tmp_path / "a.star", columns, [["t", *p, 0.5, 1, 1] for p in PLACES])
    with pytest.raises(UserError, match=f"line 11: the column _{twice} is there twice"):
        read_all_coordinates(path, voxel_size_A=SIZE_A)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data_a\n_x 1\n_x 2\n", "the column _x is there twice"),
        ("data_a\n_x 1\ndata_a\n_y 1\n", "the block data_a is there twice"),
        ("data_a\nloop_\n_x\n1\nloop_\n_y\n2\n", "a second table in one block"),
        ("data_a\n_x\n", "neither a label with its value"),
        ("data_tomotwin\n_v 1\ndata_a\nloop_\n_x\n_y\n1 2\n1 2", "is cut off in its last line"),
        ("\0\0data_a\n", "is no text"),
    ],
)
def test_what_is_half_a_star_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(UserError, match=r"is not a STAR file that can be read \(.*" + sentence):
        read_all_coordinates(tmp_path / "a.star")


def test_a_file_that_was_mended_is_read_anew(tmp_path: Path) -> None:
    path = star(tmp_path / "a.star", ["rlnTomoName", *CORNER], [["t", 1, 2]])
    with pytest.raises(UserError):
        read_all_coordinates(path, voxel_size_A=SIZE_A)
    star(path, ["rlnTomoName", *CORNER], [["t", 1, 2, 3]])
    assert read_coordinates(path, voxel_size_A=SIZE_A).xyz.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("ending", ["star", "tbl", "coords", "json", "cbox"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_umlauts_are_read_in_utf_8_and_without(tmp_path: Path, ending: str, encoding: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "star":
        star(path, ["rlnTomoName", *CORNER], [["Tür", *p] for p in PLACES])
    elif ending == "tbl":
        table(path, PLACES)
        (tmp_path / "a.doc").write_bytes("1 Tür.mrc\n".encode(encoding))
    elif ending == "coords":
        path.write_text("# Tür\n" + "".join(f"{x} {y} {z}\n" for x, y, z in PLACES))
    elif ending == "json":
        path.write_text(copick(path, PLACES, 10.0).read_text().replace('"t"', '"Tür"'))
    else:
        write_coordinates(path, Coordinates.from_arrays(PLACES, SIZE_A, "Tür", SHAPE), "cbox")
    path.write_bytes(path.read_text().encode(encoding))
    if ending == "tbl" and encoding == "utf-8-sig":
        return
    (found,) = read_all_coordinates(path, voxel_size_A=SIZE_A)
    assert found.tomogram == ("a" if ending == "coords" else "Tür")
    np.testing.assert_allclose(found.xyz, PLACES, rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"voxel_spacing": "10"},
        {"voxel_spacing": [10]},
        {"tomotwin": {"shape": "abc"}},
        {"tomotwin": {"shape": [1, 2]}},
        {"tomotwin": {"diameter_A": [1, 2]}},
        {"tomotwin": 5},
        {"points": [{"location": {"x": 1, "y": "a", "z": 3}}]},
    ],
)
def test_picks_of_copick_with_fields_of_another_kind_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = copick(tmp_path / "a.json", PLACES, 10.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="is not a file of copick's picks"):
        read(path)


@pytest.mark.parametrize("count", [2**31 - 1, 0, 5, 11, 13])
def test_a_model_with_other_contours_than_it_says_is_refused(tmp_path: Path, count: int) -> None:
    write_coordinates(tmp_path / "a.mod", Coordinates.from_arrays(PLACES, SIZE_A, "t", SHAPE, "a"), "imod")
    raw = bytearray((tmp_path / "a.mod").read_bytes())
    at = raw.find(b"OBJT") + 4 + 64 + 64
    assert int.from_bytes(raw[at : at + 4], "big") == 12
    raw[at : at + 4] = count.to_bytes(4, "big")
    (tmp_path / "a.mod").write_bytes(raw)
    with pytest.raises(UserError, match="is not an IMOD model that can be read"):
        read(tmp_path / "a.mod")


def test_a_line_of_everything_is_no_list_of_positions(tmp_path: Path) -> None:
    (tmp_path / "a.coords").write_text("1 2 3 " * 4000)
    with pytest.raises(UserError, match="is not a list of positions: line 1"):
        read(tmp_path / "a.coords")
