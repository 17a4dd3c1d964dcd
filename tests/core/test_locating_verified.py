"""`tomotwin locate` with targets that have a density: verified by default, by similarity where it is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import tiny_network
from test_template_matching import ACQUISITION, PLACES, molecule
from test_template_matching import rotations as rotations
from test_template_matching import tomogram as tomogram

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.evaluation import match
from tomotwin_core.model import save_model
from tomotwin_core.model.checkpoint import load_model
from tomotwin_core.picking.references import ReferenceSet, Target, load_references
from tomotwin_core.tomogram import open_tomogram, write_mrc
from tomotwin_core.verification import verify
from tomotwin_core.verification.decoys import Decoy
from tomotwin_core.verification.locating import acquisition_of
from tomotwin_core.verification.matcher import Prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tomogram: NDArray[np.float32]) -> Path:
    """A tomogram with four molecules, embedded by a network that knows nothing, and references to the molecule and to nothing."""
    folder = tmp_path_factory.mktemp("verified")
    write_mrc(folder / "TS_01.mrc", tomogram, 10.0)
    save_model(folder / "tiny.safetensors", tiny_network(), {})
    model = load_model(folder / "tiny.safetensors")
    assert (
        main(["embed", str(folder / "TS_01.mrc"), "--model", str(folder / "tiny.safetensors"), "--out", str(folder)])
        == 0
    )
    rng = np.random.default_rng(1)
    prototypes = rng.normal(size=(2, 1, 32)).astype(np.float32)
    prototypes /= np.linalg.norm(prototypes, axis=-1, keepdims=True)
    targets = (
        Target("arms", prototypes[0], molecule().diameter_A, density=molecule()),
        Target("nowhere", prototypes[1], 90.0),
    )
    made_by = {"acquisition": {"tilt_step_deg": 5.0, "dose_e_per_A2": 150.0, "defocus_um": 3.0}}
    ReferenceSet(targets, model.hash, made_by).save(folder / "refs.safetensors")
    ReferenceSet(targets[:1], model.hash, made_by).save(folder / "one.safetensors")
    return folder


@pytest.fixture(autouse=True)
def few_decoys(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is enough here: that there are decoys, and which, is another test's."""
    from tomotwin_core.verification import decoys

    def one(targets: dict, seed: int = 1) -> dict:
        return {
            name: decoy
            for name, decoy in list(decoys.choose_decoys(targets, seed).items())[:1]
            if isinstance(decoy, Decoy)
        }

    monkeypatch.setattr("tomotwin_core.verification.verifying.choose_decoys", one)


def located(folder: Path, references: str, *options: str) -> Coordinates:
    out = folder / ("out" + "".join(options) + references)
    arguments = [str(folder / "TS_01.zarr"), "--references", str(folder / references), "--out", str(out), *options]
    assert main(["locate", *arguments]) == 0
    return read_coordinates(out / "TS_01_peaks.star")


def test_molecules_are_found_by_their_density_though_the_network_knows_nothing(folder: Path) -> None:
    peaks = located(folder, "one.safetensors")
    best = peaks.select(np.arange(len(PLACES)))
    assert len(match(best.xyz, PLACES, 1.0)[0]) == len(PLACES)
    assert best.rotation is not None and best.correlation is not None and best.correlation.min() > 0.7
    assert peaks.fdr is not None and np.isfinite(peaks.fdr).all()


def test_a_target_without_density_is_listed_by_similarity_but_not_where_a_verified_one_surely_is(folder: Path) -> None:
    peaks = located(folder, "refs.safetensors", "--min-score", "-1")
    assert set(peaks.label) == {"arms", "nowhere"} and peaks.rotation is not None
    other = peaks.select(peaks.label == "nowhere")
    assert peaks.fdr is not None
    sure = peaks.select((peaks.label == "arms") & (peaks.fdr <= 0.2))
    if len(sure):
        assert np.linalg.norm(other.xyz[:, None] - sure.xyz[None], axis=2).min() * 10 >= 0.5 * 90


def test_without_verification_it_is_the_similarity(folder: Path) -> None:
    peaks = located(folder, "one.safetensors", "--no-verification", "--min-score", "-1")
    assert peaks.rotation is None and peaks.correlation is None


def test_verified_or_not_are_two_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        str(folder / "TS_01.zarr"),
        "--references",
        str(folder / "one.safetensors"),
        "--out",
        str(folder / "both"),
    ]
    assert main(["locate", *arguments, "--no-verification"]) == 0
    assert main(["locate", *arguments]) == 0
    assert "located already" not in capsys.readouterr().out
    assert main(["locate", *arguments]) == 0
    assert "located already" in capsys.readouterr().out


def test_where_the_tomogram_is_gone_it_is_said_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = (folder / "TS_01.mrc").rename(folder / "hidden.mrc")
    try:
        arguments = [
            str(folder / "TS_01.zarr"),
            "--references",
            str(folder / "one.safetensors"),
            "--out",
            str(folder / "gone"),
        ]
        assert main(["locate", *arguments]) == 2
        told = capsys.readouterr().err
        assert "is not there" in told and "--no-verification" in told and "Traceback" not in told
        assert main(["locate", *arguments, "--no-verification"]) == 0
    finally:
        hidden.rename(folder / "TS_01.mrc")


def test_how_the_tomograms_were_taken_is_read_from_the_references() -> None:
    told = {
        "tilt_step_deg": 5.0,
        "dose_e_per_A2": 150.0,
        "defocus_um": 3.0,
        "missing_tilts_deg": [],
        "of another version": 1,
    }
    assert acquisition_of(ReferenceSet((), "m", {"acquisition": told})) == ACQUISITION
    assert acquisition_of(ReferenceSet((), "m", {})).dose_e_per_A2 > 0


def test_padding_is_no_specimen(tmp_path: Path, tomogram: NDArray[np.float32]) -> None:
    write_mrc(tmp_path / "plain.mrc", tomogram, 10.0)
    padded = np.zeros(tuple(n + 24 for n in tomogram.shape), np.float32)
    padded[12:-12, 12:-12, 12:-12] = tomogram + 40 * tomogram.std()
    write_mrc(tmp_path / "padded.mrc", padded, 10.0)
    plain, with_padding = (
        Prepared.of(open_tomogram(tmp_path / f"{n}.mrc"), "dark", 10.0, 30.0).volume for n in ("plain", "padded")
    )
    inner, cut = plain[5:-5, 5:-5, 5:-5].flatten(), with_padding[17:-17, 17:-17, 17:-17].flatten()
    assert float(np.corrcoef(inner.numpy(), cut.numpy())[0, 1]) > 0.995
    assert float(with_padding[:6].abs().max()) < 0.2 * float(with_padding.abs().max())


def examples_into(folder: Path, capsys: pytest.CaptureFixture[str], name: str, *options: str) -> str:
    table = Coordinates.from_arrays(PLACES.astype(float), 10.0, "TS_01", (34, 56, 56), "arms")
    write_coordinates(folder / "examples.star", table)
    arguments = [f"arms={folder / 'examples.star'}", "--embedding", folder / "TS_01.zarr", "--diameter", 178, "--no-simulation", *options]
    arguments += ["--model", folder / "tiny.safetensors", "--tilt-step", 5, "--dose", 150, "--defocus", 3, 3]
    assert main(["reference", *map(str, arguments), "--out", str(folder / name)]) == 0
    return capsys.readouterr().out


def test_positions_give_a_template_and_what_came_of_it_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomotwin_core.verification.from_examples._TRIED", 3)
    monkeypatch.setattr("tomotwin_core.verification.from_examples._STARTS", 1)
    monkeypatch.setattr("tomotwin_core.verification.from_examples._ROUNDS", 1)
    told = examples_into(folder, capsys, "learnt.safetensors")
    made = load_references(folder / "learnt.safetensors")
    what = made.made_by["templates"]["arms"]
    assert f"a template of {what['copies']} copies" in told and what["copies"] >= len(PLACES)
    assert ("picks are verified with it" in told) == bool(made.densities) == ("not enough" not in told)
    assert "template" not in examples_into(folder, capsys, "plain.safetensors", "--no-template")
    assert not load_references(folder / "plain.safetensors").densities


def test_a_density_out_of_the_tomogram_is_looked_for_where_similarity_is_high_and_scored_by_it_too(folder: Path) -> None:
    """The same molecule, once as a structure, found by coarse matching wherever it is, once as an average."""
    learnt = replace(molecule(), told_diameter_A=molecule().diameter_A)
    source = open_tomogram(folder / "TS_01.mrc")
    half = Coordinates.from_arrays(PLACES[:2].astype(float), 10.0, "TS_01", source.shape, "arms", [0.8, 0.6])
    peaks = verify(source, half, {"arms": learnt}, ACQUISITION)
    assert len(peaks) == 2 and len(match(peaks.xyz, PLACES[:2], 1.0)[0]) == 2
    assert peaks.correlation is not None
    order = np.argsort(np.linalg.norm(peaks.xyz - PLACES[0], axis=1))
    assert peaks.score[order[0]] > peaks.score[order[1]]
    everywhere = verify(source, half, {"arms": molecule()}, ACQUISITION)
    assert len(match(everywhere.select(np.arange(4)).xyz, PLACES, 1.0)[0]) == 4
