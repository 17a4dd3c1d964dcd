"""The command line: help that answers, one sentence and exit code 2 for bad input with nothing left behind, and what commands say."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
from planted import FieldMaker, tiny_network

from tomotwin_core.cli.main import COMMANDS, main
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.model import save_model
from tomotwin_core.model.checkpoint import weights_hash
from tomotwin_core.picking import ReferenceSet, Target, load_references
from tomotwin_core.structures import load_density
from tomotwin_core.tomogram import write_mrc

Errors = Callable[..., str]


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Errors:
    """Run a command that must fail; return its one sentence."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("tomotwin: error: "), lines
        left = [p for p in tmp_path.rglob("*") if p not in before and not p.is_dir()]
        assert left == [], "nothing is left behind"
        return lines[0]

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with good and bad input."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(20, 22, 24)).astype(np.float32)
    write_mrc(folder / "good.mrc", volume, 10.0)
    write_mrc(folder / "constant.mrc", np.full_like(volume, 3), 10.0)
    write_mrc(folder / "no_size.mrc", volume, 0.0)
    with_nan = volume.copy()
    with_nan[17, 3, 3] = np.nan
    write_mrc(folder / "nan.mrc", with_nan, 10.0)
    (folder / "truncated.mrc").write_bytes((folder / "good.mrc").read_bytes()[:9000])
    (folder / "text.mrc").write_text("this is text\n" * 200)
    (folder / "short.mrc").write_text("short")
    with mrcfile.new(folder / "image.mrc") as image:
        image.set_data(volume[0])
        image.voxel_size = 10.0
    huge = np.pad(np.ones((44, 44, 44), np.float32), 4)
    write_mrc(folder / "huge.mrc", huge, 10.0)
    (folder / "empty").mkdir()
    (folder / "text.safetensors").write_text("no weights")
    (folder / "text.star").write_text("no star\n")
    (folder / "text.cif").write_text("no structure\n")
    (folder / "good.coords").write_text("5 5 5\n")
    network = tiny_network()
    save_model(folder / "model.safetensors", network, {})
    target = Target("a", np.eye(32, dtype=np.float32)[:1], 150.0)
    ReferenceSet((target,), weights_hash(network)).save(folder / "refs.safetensors")
    ReferenceSet((target,), "another").save(folder / "other_refs.safetensors")
    return folder


def test_help_answers_at_once_and_without_torch() -> None:
    script = (
        "import sys\nfrom tomotwin_core.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'scipy', 'zarr'} & set(sys.modules), 'help needs none of them'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(COMMANDS) <= {line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"usage: tomotwin {name}" in text
    assert len(text.split("\n\n")[1]) > 30, "it says what it does"


def test_a_command_run_as_a_program_tells_bad_input_in_one_line(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "tomotwin_core.cli.main", "embed", "missing.mrc", "--out", str(tmp_path / "out")]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("tomotwin: error: missing.mrc") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.mrc", "does not exist"),
        ("empty", "not a file"),
        ("text.mrc", "not an MRC file"),
        ("short.mrc", "not an MRC file"),
        ("truncated.mrc", "truncated"),
        ("image.mrc", "image"),
        ("constant.mrc", "every voxel"),
        ("nan.mrc", "NaN"),
        ("no_size.mrc", "--voxel-size"),
    ],
)
def test_tomograms_that_cannot_be_embedded_are_told(files: Path, error: Errors, name: str, words: str) -> None:
    model = files / "model.safetensors"
    sentence = error("embed", files / name, "--out", files / "out", "--model", model, "--device", "cpu")
    assert words in sentence and name in sentence
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--voxel-size", 0], "voxel size 0"),
        (["--voxel-size", 100], "voxel size 100"),
        (["--model", "IN/text.safetensors"], "text.safetensors: not a model"),
        (["--model", "IN/missing.safetensors"], "missing.safetensors: no such file"),
        (["--model", "IN/refs.safetensors"], "not a tomotwin model"),
        (["--device", "cuda:77"], "cuda:77: not available"),
        (["--threads", -1], "--threads -1"),
        (["IN/../in/good.mrc"], "two tomograms"),
    ],
)
def test_options_of_embed_that_cannot_be_are_told(files: Path, error: Errors, options: list[str], words: str) -> None:
    given = [str(o).replace("IN", str(files)) for o in options]
    assert words in error("embed", files / "good.mrc", *given, "--out", files / "out")


def test_references_that_cannot_be_made_are_told(files: Path, error: Errors, make_field: FieldMaker) -> None:
    make_field(np.ones((5, 5, 5, 32), np.float32), model_hash="another")
    zarr = files.parent / "tomo.zarr"
    model = ["--model", files / "model.safetensors"]
    for arguments, words in (
        ([files / "huge.mrc"], "wider than the network's window"),
        ([files / "empty"], "holds no map"),
        ([files / "missing.mrc"], "no such file"),
        ([files / "nowhere"], "no such file"),
        ([files / "text.mrc"], "not an MRC file"),
        ([files / "constant.mrc"], "constant"),
        ([files / "text.cif"], "cannot be read"),
        (["library:nope"], "library:nope"),
        ([files / "huge.mrc", "--voxel-size", 0], "voxel size 0"),
        ([files / "huge.mrc", f"huge={files / 'good.mrc'}"], "two targets"),
        ([f"x={files / 'empty'}"], "without NAME="),
        ([files / "good.coords"], "--embedding"),
        ([files / "good.coords", "--embedding", files / "empty"], "not an embedding"),
        ([files / "good.coords", "--embedding", zarr], "--diameter"),
        ([files / "text.star", "--embedding", zarr, "--diameter", 100], "not a STAR file"),
        (["library:1dzl", "--tilt-step", 0], "step"),
        (["library:1dzl", "--defocus", 5, 2], "--defocus"),
        (["library:1dzl", "--seed", -1], "--seed"),
        (["library:1dzl", "--diameter", 5], "--diameter"),
    ):
        assert words in error("reference", *arguments, "--out", files / "out.safetensors", *model), arguments


def test_bad_input_of_the_later_steps_is_told(files: Path, error: Errors, make_field: FieldMaker) -> None:
    make_field(np.ones((5, 5, 5, 32), np.float32), model_hash=load_references(files / "refs.safetensors").model_hash)
    zarr, out = files.parent / "tomo.zarr", files / "out"
    good = ["--references", files / "refs.safetensors", "--out", out]
    for command in ("map", "locate"):
        assert "missing.zarr" in error(command, files / "missing.zarr", *good)
        assert "not an embedding" in error(command, files / "empty", *good)
        assert "model.safetensors" in error(command, zarr, "--references", files / "model.safetensors", "--out", out)
        assert "another model" in error(command, zarr, "--references", files / "other_refs.safetensors", "--out", out)
        assert "two inputs" in error(command, zarr, zarr, *good)
    assert "--min-score" in error("locate", zarr, *good, "--min-score", 2)
    assert "--separation" in error("locate", zarr, *good, "--separation", 0)
    table = Coordinates.from_arrays([[1, 2, 3]], 10.0, "tomo", label="a", score=0.5)
    write_coordinates(files / "peaks.star", table)
    assert "does not exist" in error("pick", files / "missing.star", "--out", out)
    assert "not a STAR file" in error("pick", files / "text.star", "--out", out)
    assert "--threshold high" in error("pick", files / "peaks.star", "--out", out, "--threshold", "high")
    assert "within -1 to 1" in error("pick", files / "peaks.star", "--out", out, "--threshold", 7)
    assert "two peaks files" in error("pick", files / "peaks.star", files / "peaks.star", "--out", out)
    assert "relion4" in error("pick", files / "peaks.star", "--out", out, "--format", "relion5")
    assert "missing.star" in error("evaluate", files / "peaks.star", "--truth", files / "missing.star")
    assert "--picture" in error("evaluate", files / "peaks.star", "--truth", files / "peaks.star", "--picture", "x.png")
    for name in ("missing.mrc", "text.mrc", "text.star", "empty", "text.safetensors"):
        assert name in error("info", files / name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--species", "nope"], "nope: no such file"),
        (["--species", ","], "--species"),
        (["--tomograms", 0], "--tomograms"),
        (["--voxel-size", 0], "voxel size 0"),
        (["--shape", 4, 4, 4], "shape 4 4 4"),
        (["--tilt-min", 60, "--tilt-max", -60], "tilts"),
        (["--dose", 0], "dose"),
        (["--defocus", 0, 3], "--defocus"),
        (["--thickness", 0], "thickness 0"),
        (["--thickness", -50], "thickness -50"),
        (["--vesicles", -1], "vesicles -1"),
        (["--seed", -1], "--seed -1"),
        (["--species", "1dzl,1dzl=0"], "copies 0 of 1dzl"),
        (["--species", "1dzl,library:1dzl"], "two species are called 1dzl"),
        (["--prefix", "a/b"], "--prefix 'a/b'"),
        (["--first", 0], "--first 0"),
        (["--set", "tilts.scheme=spiral"], "--set tilts.scheme=spiral"),
        (["--set", "microscope.dqr=1"], "did you mean dqe?"),
        (["--set", "gold"], "TABLE.NAME=VALUE"),
        (["IN/missing.toml"], "missing.toml: no such file"),
        (["IN/text.star"], "text.star: not a TOML file"),
    ],
)
def test_simulations_that_cannot_be_are_told(files: Path, error: Errors, options: list[object], words: str) -> None:
    given = [str(o).replace("IN", str(files)) for o in options]
    assert words in error("simulate", "--out", files / "out", "--species", "1dzl", *given)


def test_a_simulation_needs_a_place_or_writes_its_settings(files: Path, error: Errors) -> None:
    assert "--out" in error("simulate", "--species", "1dzl")
    assert main(["simulate", "--gold", "3", "--write-settings", str(files / "all.toml")]) == 0
    assert "\ngold = 3\n" in (files / "all.toml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", 0], "training.steps = 0"),
        (["--shape", 30, 60, 60], "stream.shape = 30 60 60"),
        (["--learning-rate", 0], "training.learning_rate = 0"),
        (["--library", "IN/missing.npz"], "no density library"),
        (["--from", "IN/text.safetensors"], "not a model"),
        (["--seed", -1], "training.seed = -1"),
    ],
)
def test_trainings_that_cannot_be_are_told(files: Path, error: Errors, options: list[object], words: str) -> None:
    given = [str(o).replace("IN", str(files)) for o in options]
    assert words in error("train", "--out", files / "out", "--steps", 1, *given)
    assert not (files / "out").exists()


def test_libraries_that_cannot_be_built_are_told(files: Path, error: Errors) -> None:
    out = files / "out.npz"
    assert "no such folder" in error("library", "build", files / "nowhere", "--out", out)
    assert "holds no" in error("library", "build", files / "empty", "--out", out)
    assert "--voxel-size" in error("library", "build", files / "empty", "--out", out, "--voxel-size", 0)
    assert ".npz" in error("library", "build", files / "empty", "--out", files / "out.zip")
    assert "missing.npz" in error("library", "list", "--library", files / "missing.npz")


def test_an_option_that_does_not_exist_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["embed"], ["embed", "x.mrc", "--out", "o", "--colour", "red"], ["emb", "x.mrc"], []):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
    assert "tomotwin" in capsys.readouterr().err


def test_from_a_tomogram_to_picks_and_their_score_by_commands(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 0
        return capsys.readouterr().out

    out, model = tmp_path / "out", files / "model.safetensors"
    said = run("embed", files / "good.mrc", "--out", out, "--model", model, "--threads", 1)
    assert "good.zarr: 10 x 11 x 12 embeddings, one every 20 A" in said
    places = [[4, 4, 4], [16, 16, 14]]
    table = Coordinates.from_arrays(places, 10.0, "good", (20, 22, 24), label=["a", "b"], diameter_A=80.0)
    write_coordinates(out / "two.star", table)
    said = run(
        "reference",
        out / "two.star",
        "--embedding",
        out / "good.zarr",
        "--out",
        out / "refs.safetensors",
        "--no-simulation",
    )
    assert load_references(out / "refs.safetensors").names == ["a", "b"], "each label is a target"
    run(
        "reference",
        f"both={out / 'two.star'}",
        "--embedding",
        out / "good.zarr",
        "--out",
        out / "both.safetensors",
        "--no-simulation",
    )
    assert load_references(out / "both.safetensors").names == ["both"]
    paths = run("map", out / "good.zarr", "--references", out / "refs.safetensors", "--out", out).split()
    assert [Path(p).name for p in paths] == ["good_a.mrc", "good_b.mrc"]
    run("locate", out / "good.zarr", "--references", out / "refs.safetensors", "--out", out, "--min-score", 0.9)
    run("pick", out / "good_peaks.star", "--threshold", 0.99, "--out", out)
    picks = read_coordinates(out / "good_picks.star")
    for place, label in zip(places, "ab", strict=True):
        own = picks.select(picks.label == label)
        assert np.abs(own.xyz - place).max(1).min() <= 1.0, "an example is most similar to itself"
    said = run("evaluate", out / "two.star", "--truth", out / "two.star", "--out", out / "scores.csv")
    assert "a" in said and (out / "scores.csv").read_text().count("\n") >= 3
    for name, words in (
        ("out/good.zarr", "embeddings of good"), ("out/refs.safetensors", "references for model"), ("out/two.star", "2 positions"),
        ("in/model.safetensors", "parameters"), ("in/good.mrc", "10 A per voxel"),
    ):  # fmt: skip
        assert words in run("info", tmp_path / name)
    assert "released model" in run("info")
    assert "1dzl" in run("library", "list")


def test_maps_of_dark_molecules_and_structures_make_references_side_by_side(files: Path, tmp_path: Path) -> None:
    grid = np.indices((24, 24, 24)) - 11.5
    ball = (np.linalg.norm(grid, axis=0) < 7).astype(np.float32)
    write_mrc(files / "dark.mrc", 5 - ball, 8.0)
    structure = gemmi.Structure()
    model, chain = gemmi.Model(1), gemmi.Chain("A")
    for i in range(5):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(i + 1))
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(3.8 * i, 0, 0)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    (files / "chain.pdb").write_text(structure.make_pdb_string())
    assert load_density(str(files / "dark.mrc"), dark_map=True).diameter_A == pytest.approx(112.0, rel=0.15)
    assert load_density(str(files / "chain.pdb"), dark_map=True).mass_kDa == pytest.approx(0.355, rel=0.02)
    assert load_density("library:1dzl", dark_map=True).mass_kDa > 100
