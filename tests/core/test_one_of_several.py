"""One bad input of several is told and passed over; every position goes with its own tomogram; what a file is, is said."""

from pathlib import Path

import numpy as np
import pytest
from planted import FieldMaker, tiny_network

import tomotwin_core.evaluation.pictures as pictures
from tomotwin_core.cli.main import main
from tomotwin_core.cli.view import _tables
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.model import save_model
from tomotwin_core.picking.collect import _loaded, _placed
from tomotwin_core.picking.from_positions import references_from_positions
from tomotwin_core.tomogram import open_tomogram, write_mrc

SHAPE = (40, 44, 48)
PLACES = np.array([[20.0, 22, 18], [14, 30, 25], [33, 12, 20], [5, 40, 35]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tomograms of different size and voxel size."""
    rng = np.random.default_rng(0)
    write_mrc(tmp_path / "TS_1.mrc", rng.normal(size=SHAPE).astype(np.float32), 10.0)
    write_mrc(tmp_path / "TS_2.mrc", rng.normal(size=(30, 60, 50)).astype(np.float32), 8.0)
    return tmp_path


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("bad", ["nan", "text", "flat", "image", "missing"])
def test_a_tomogram_that_cannot_be_embedded_does_not_stop_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    volume = np.random.default_rng(1).normal(size=(20, 20, 20)).astype(np.float32)
    if bad == "nan":
        volume[3, 3, 3] = np.nan
    elif bad == "flat":
        volume[:] = 3
    if bad == "text":
        (folder / "TS_0.mrc").write_text("no tomogram")
    elif bad != "missing":
        write_mrc(folder / "TS_0.mrc", volume[: 1 if bad == "image" else 20], 10.0)
    save_model(folder / "m.safetensors", tiny_network(), {})
    inputs = [folder / f"TS_{i}.mrc" for i in (0, 1, 2)]
    assert run("embed", *inputs, "--model", folder / "m.safetensors", "--out", folder / "e") == 2
    told = capsys.readouterr().err
    assert "tomotwin: TS_0: " in told and "error: 1 of 3 could not be embedded (TS_0); see above" in told
    assert sorted(p.name for p in (folder / "e").iterdir()) == ["TS_1.zarr", "TS_2.zarr"]


def test_peaks_that_cannot_be_read_do_not_stop_the_picking_of_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("TS_1", "TS_2"):
        write_coordinates(folder / f"{name}.star", Coordinates.from_arrays(PLACES, 10.0, name, SHAPE, "a", 0.7, 150))
    (folder / "bad.star").write_text("no table")
    files = [folder / f"{name}.star" for name in ("TS_1", "bad", "TS_2")]
    assert run("pick", *files, "--threshold", "0.5", "--out", folder / "p") == 2
    assert "1 of 3 could not be picked" in capsys.readouterr().err
    assert sorted(p.name for p in (folder / "p").iterdir()) == ["TS_1_picks.star", "TS_2_picks.star"]


@pytest.mark.parametrize("bad", ["text.mrc", "missing.mrc", "missing.zarr", "folder", "empty.rec"])
def test_an_input_that_cannot_be_opened_does_not_stop_the_search_of_others(
    folder: Path, capsys: pytest.CaptureFixture[str], make_field: FieldMaker, bad: str
) -> None:
    embeddings = np.random.default_rng(0).normal(size=(8, 8, 8, 32))
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    field = make_field(embeddings, name="TS_5")
    places = Coordinates.from_arrays([[4.0, 6, 8], [2, 2, 2]], 10.0, "TS_5", field.tomogram_shape, "a", 0.5, 150)
    references_from_positions([(field, places)]).save(folder / "r.safetensors")
    if bad == "folder":
        (folder / bad).mkdir()
    elif not bad.startswith("missing"):
        (folder / bad).write_text("" if bad.startswith("empty") else "no tomogram")
    call = ["locate", "--references", folder / "r.safetensors", "--out", folder / "o", "--min-score", "-1"]
    if not bad.endswith(("zarr", "folder")):
        save_model(folder / "m.safetensors", tiny_network(), {})
        call += ["--model", folder / "m.safetensors"]
    assert run(*call, folder / bad, field.path) == 2
    assert "1 of 2 tomograms could not be searched" in capsys.readouterr().err
    assert [p.name for p in (folder / "o").iterdir()] == ["TS_5_peaks.star"]


def test_targets_that_cannot_serve_are_passed_over_and_a_single_one_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z, y, x = np.indices((50, 50, 50)) - 24.5
    write_mrc(folder / "wide.mrc", (x**2 + y**2 + z**2 < 22**2).astype(np.float32), 10.0)
    molecules = [("1eab", "library:1eab"), ("wide", str(folder / "wide.mrc")), ("none", "library:none")]
    kept, densities = _loaded(molecules, True, None, False)
    assert kept == molecules[:1] and list(densities) == ["1eab"]
    told = capsys.readouterr().err
    assert (
        "wide is passed over: wide: 453 A across" in told
        and "none is passed over: library:none: no such molecule" in told
    )
    with pytest.raises(UserError, match="wider than the network's window of 370 A"):
        _loaded(molecules[1:2], True, None, False)
    with pytest.raises(UserError, match=r"none of the 2 targets can serve as a reference \(wide, none\); see above"):
        _loaded(molecules[1:], True, None, False)


# ------------------------------ every position with its own tomogram ------------------------------


def test_the_window_shows_each_tomogram_with_its_own_size(folder: Path) -> None:
    sources = [open_tomogram(folder / f"TS_{i}.mrc") for i in (1, 2)]
    text = "\ndata_particles\n\nloop_\n_rlnTomoName #1\n" + "".join(f"_rlnCenteredCoordinate{a}Angst\n" for a in "XYZ")
    (folder / "r5.star").write_text(text + "TS_1 10 0 -20\nTS_2 16 8 -8\n")
    one, two = _tables([folder / "r5.star"], sources)
    np.testing.assert_allclose([one.xyz[0], two.xyz[0]], [[25, 22, 18], [27, 31, 14]])
    (folder / "TS_2_a.coords").write_text("3 4 5\n40 50 20\n")
    (bare,) = _tables([folder / "TS_2_a.coords"], sources)
    assert (bare.tomogram, bare.voxel_size_A, bare.shape) == ("TS_2", 8.0, (30, 60, 50))


def test_a_picture_is_drawn_of_the_picks_tomogram_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {n: Coordinates.from_arrays(PLACES[:3], 10.0, n, SHAPE, "a", 0.7, 150) for n in ("TS_1", "TS_9")}
    for what in ("picks", "truth"):
        write_coordinates(folder / f"{what}.star", list(tables.values()))
    call = [
        "evaluate",
        folder / "picks.star",
        "--truth",
        folder / "truth.star",
        "--picture",
        folder / "a.png",
        "--tomogram",
    ]
    drawn = []
    monkeypatch.setattr(pictures, "picks_picture", lambda *a, **k: drawn.append((a[1], a[3])))
    assert run(*call, folder / "TS_1.mrc") == 0
    assert [(p.tomogram, t.tomogram, len(p)) for p, t in drawn] == [("TS_1", "TS_1", 3)]
    assert run(*call, folder / "TS_2.mrc") == 2
    assert "there are no picks of TS_2, but of TS_1, TS_9; give one of these" in capsys.readouterr().err
    assert len(drawn) == 1


@pytest.mark.parametrize("ending", ["coords", "txt", "tbl", "json", "cbox", "mod"])
def test_boxes_are_cut_at_positions_of_every_format(folder: Path, ending: str) -> None:
    format = {"coords": "coords", "txt": "coords", "tbl": "dynamo", "json": "copick", "cbox": "cbox", "mod": "imod"}[
        ending
    ]
    path = folder / f"TS_1_picks.{ending}"
    write_coordinates(path, Coordinates.from_arrays(PLACES, 10.0, "TS_1", SHAPE, "", 0.5, 60), format)
    tomograms = [folder / f"TS_{i}.mrc" for i in (1, 2)]
    assert run("extract", path, "--tomograms", *tomograms, "--out", folder / "x", "--box", 16, "--diameter", 60) == 0
    cut = read_coordinates(folder / "x" / "particles.star", voxel_size_A=10.0)
    np.testing.assert_allclose(np.sort(cut.xyz[:, 0]), np.sort(PLACES[:, 0]), atol=0.51)


@pytest.mark.parametrize("name", ["TS_1.coords", "TS_1_a.txt", "TS_2_b.coords", "x.star", "y.tbl"])
def test_examples_have_the_voxels_of_the_embedding_they_lie_in(folder: Path, name: str) -> None:
    class Embedded:
        def __init__(self, tomogram: str, voxel_size_A: float, shape: tuple[int, int, int]) -> None:
            self.tomogram, self.voxel_size_A, self.tomogram_shape = tomogram, voxel_size_A, shape

    fields = {f.tomogram: f for f in (Embedded("TS_1", 10.0, SHAPE), Embedded("TS_2", 8.0, (30, 60, 50)))}
    if name.endswith("star"):
        rows = "".join(f"TS_2 {x} {y} {z}\n" for x, y, z in PLACES[:3])
        labels = "_rlnTomoName\n" + "".join(f"_rlnCoordinate{a}\n" for a in "XYZ")
        (folder / name).write_text(f"\ndata_particles\n\nloop_\n{labels}{rows}\n")
    elif name.endswith("tbl"):
        write_coordinates(folder / name, Coordinates.from_arrays(PLACES[:3], 0.0, "TS_2"), "dynamo")
    else:
        np.savetxt(folder / name, PLACES[:3])
    ((field, table),) = _placed(str(folder / name), fields)  # type: ignore[arg-type]
    assert field.tomogram == table.tomogram == ("TS_1" if name.startswith("TS_1") else "TS_2")
    assert table.voxel_size_A == field.voxel_size_A


@pytest.mark.parametrize("name", ["a.coords", "a.txt", "a.tbl", "a.star", "a.json"])
def test_a_file_without_positions_makes_no_reference(folder: Path, make_field: FieldMaker, name: str) -> None:
    field = make_field(np.ones((8, 8, 8, 32)) / 32**0.5, name="TS_1")
    none = Coordinates.from_arrays([], 10.0, "TS_1", field.tomogram_shape)
    format = {"tbl": "dynamo", "star": "star", "json": "copick"}.get(name.partition(".")[2], "coords")
    write_coordinates(folder / name, none, format)
    with pytest.raises(UserError, match="holds no positions; give a file with examples"):
        _placed(str(folder / name), {"TS_1": field})


# ------------------------------ what a file is ------------------------------


@pytest.mark.parametrize("ending", ["coords", "txt", "tbl", "mod", "json", "cbox", "star"])
def test_info_says_what_coordinates_are_and_whose_voxels(
    folder: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    format = {"coords": "coords", "txt": "coords", "tbl": "dynamo", "json": "copick", "cbox": "cbox", "mod": "imod"}
    path = folder / f"a.{ending}"
    write_coordinates(path, Coordinates.from_arrays(PLACES, 10.0, "a", SHAPE), format.get(ending, "star"))
    assert run("info", path) == 0
    said = capsys.readouterr().out
    assert "coordinates\n  a: 4 positions" in said
    assert ("at 10 A" in said) == (format.get(ending) != "coords")
    assert ("in voxels whose size it does not say" in said) == (format.get(ending) == "coords")
