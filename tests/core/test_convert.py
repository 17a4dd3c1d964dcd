"""`tomotwin convert`, and `pick --format`: from file to file at the same places."""

from pathlib import Path

import dynamotable
import imodmodel
import numpy as np
import pytest
import starfile

from tomotwin_core.cli.main import main
from tomotwin_core.cli.options import POSITION_FORMATS
from tomotwin_core.coordinates import FORMATS, Coordinates, read_all_coordinates, read_coordinates, write_coordinates
from tomotwin_core.tomogram import write_mrc

SHAPE = (20, 31, 24)


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    write_mrc(tmp_path / "TS_01.mrc", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), 8.0)
    write_mrc(tmp_path / "TS_02.mrc", np.random.default_rng(1).normal(size=(22, 30, 40)).astype(np.float32), 8.0)
    return tmp_path / "TS_01.mrc"


def picks(tomogram: str = "TS_01", n: int = 6) -> Coordinates:
    rng = np.random.default_rng(n)
    labels = np.where(np.arange(n) % 2, "a", "b")
    return Coordinates.from_arrays(rng.uniform(1, 18, (n, 3)), 8.0, tomogram, SHAPE, labels, rng.random(n), 150)


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["convert", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_command_line_offers_every_format() -> None:
    assert tuple(FORMATS) == POSITION_FORMATS


@pytest.mark.parametrize("format", POSITION_FORMATS)
def test_there_and_back_through_every_format_leaves_the_positions_where_they_were(
    tmp_path: Path, tomogram: Path, format: str
) -> None:
    coords = picks()
    write_coordinates(tmp_path / "in.star", coords)
    assert main(["convert", str(tmp_path / "in.star"), "--out", str(tmp_path / "there"), "--format", format]) == 0
    files = [str(p) for p in (tmp_path / "there").rglob("*") if p.is_file() and p.suffix != ".doc"]
    back = ["convert", *files, "--out", str(tmp_path / "back.star"), "--format", "star", "--tomogram", str(tomogram)]
    assert main(back) == 0
    found = read_coordinates(tmp_path / "back.star")
    assert (found.tomogram, found.shape, found.voxel_size_A) == ("TS_01", SHAPE, 8.0)
    order, expected = np.lexsort(found.xyz.T), np.lexsort(coords.xyz.T)
    np.testing.assert_allclose(found.xyz[order], coords.xyz[expected], atol=1e-4)
    if format != "coords":
        np.testing.assert_allclose(found.score[order], coords.score[expected], rtol=1e-6)
        np.testing.assert_array_equal(found.label[order], coords.label[expected])


def test_several_tomograms_go_into_one_file_or_a_folder_as_the_format_asks(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "in.star", [picks("TS_01", 6), picks("TS_02", 4)])
    assert main(["convert", str(tmp_path / "in.star"), "--out", str(tmp_path / "all.tbl"), "--format", "dynamo"]) == 0
    read = dynamotable.read(tmp_path / "all.tbl", tmp_path / "all.doc")
    assert read["tomo_file"].value_counts().to_dict() == {"TS_01.mrc": 6, "TS_02.mrc": 4}
    assert main(["convert", str(tmp_path / "in.star"), "--out", str(tmp_path / "models"), "--format", "imod"]) == 0
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["TS_01.mod", "TS_02.mod"]
    assert len(imodmodel.read(tmp_path / "models" / "TS_02.mod")) == 4


def test_files_of_one_tomogram_become_one_table_and_keep_their_labels(tmp_path: Path, tomogram: Path) -> None:
    (tmp_path / "TS_01_a.coords").write_text("1 2 3\n")
    parts = picks().by_label()
    write_coordinates(tmp_path / "b.cbox", parts["b"], "cbox")
    inputs = [str(tmp_path / "TS_01_a.coords"), str(tmp_path / "b.cbox")]
    out = tmp_path / "all.star"
    main(["convert", *inputs, "--out", str(out), "--format", "star", "--tomogram", str(tomogram), "--label", "new"])
    found = read_coordinates(out)
    assert sorted(found.label) == ["b", "b", "b", "new"]
    np.testing.assert_allclose(found.xyz[found.label == "new"], [[1, 2, 3]])


def test_another_voxel_size_and_the_tomograms_own(tmp_path: Path, tomogram: Path) -> None:
    (tmp_path / "TS_01.coords").write_text("40 60 20\n")
    source, out = str(tmp_path / "TS_01.coords"), tmp_path / "o.star"
    # Positions in voxels of 2 A come out in the tomogram's of 8 A, or in those asked for.
    main(["convert", source, "--out", str(out), "--format", "star", "--voxel-size", "2", "--tomogram", str(tomogram)])
    np.testing.assert_allclose(read_coordinates(out).xyz, [[10, 15, 5]])
    main(["convert", source, "--out", str(out), "--format", "relion4", "--voxel-size", "2", "--to-voxel-size", "1"])
    np.testing.assert_allclose(read_coordinates(out).xyz, [[80, 120, 40]])
    assert float(starfile.read(out)["optics"]["rlnTomoTiltSeriesPixelSize"].iloc[0]) == 1.0


def test_relion_5_of_several_tomograms_is_centred_on_each_of_them(tmp_path: Path, tomogram: Path) -> None:
    columns = ["rlnTomoName", *(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")]
    rows = ["TS_01 0 0 0", "TS_02 8 0 -16"]
    text = "\ndata_particles\n\nloop_\n" + "".join(f"_{c}\n" for c in columns) + "\n".join(rows) + "\n"
    (tmp_path / "r5.star").write_text(text)
    both = ["--tomogram", str(tomogram), str(tmp_path / "TS_02.mrc")]
    assert (
        main(["convert", str(tmp_path / "r5.star"), "--out", str(tmp_path / "o.star"), "--format", "star", *both]) == 0
    )
    one, two = read_all_coordinates(tmp_path / "o.star")
    np.testing.assert_allclose(one.xyz, [[12, 15.5, 10]])
    np.testing.assert_allclose(two.xyz, [[21, 15, 9]])


def test_what_cannot_be_converted_is_one_sentence(
    tmp_path: Path, tomogram: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.coords"
    bare.write_text("1 2 3\n")
    write_coordinates(tmp_path / "two.star", picks())
    write_coordinates(tmp_path / "other.star", [picks("TS_01"), picks("TS_09")])
    out = ["--out", tmp_path / "out", "--format"]
    assert "does not say the voxel size" in failure(capsys, bare, *out, "star")
    message = failure(capsys, bare, *out, "relion5", "--voxel-size", 8)
    assert "RELION 5's coordinates need the size of the tomogram bare" in message and "--tomogram" in message
    assert "within 0.1 to 45 A" in failure(capsys, bare, *out, "star", "--voxel-size", 8, "--to-voxel-size", 90)
    two = failure(capsys, tmp_path / "two.star", "--out", tmp_path / "o.cbox", "--format", "cbox")
    assert "one target in one tomogram only: write one file for each" in two
    others = ["--tomogram", tomogram, tmp_path / "TS_02.mrc"]
    assert "TS_09, which none of the tomograms given is called" in failure(
        capsys, tmp_path / "other.star", *out, "star", *others
    )
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_picks_of_several_targets_are_written_one_file_each_where_the_format_wants_it(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "peaks.star", picks())
    for format, names in (
        ("coords", ["TS_01_a_picks.coords", "TS_01_b_picks.coords"]),
        ("dynamo", ["TS_01_picks.doc", "TS_01_picks.tbl", "TS_01_picks_classes.doc"]),
    ):
        folder = tmp_path / format
        arguments = [str(tmp_path / "peaks.star"), "--out", str(folder), "--threshold", "-1", "--format", format]
        assert main(["pick", *arguments]) == 0
        assert sorted(p.name for p in folder.iterdir()) == names
