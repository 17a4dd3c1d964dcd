"""Picks are turned as the planted molecules lie and come to their centres, in a simulated tomogram with noise and wedge."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from test_template_matching import ACQUISITION, PLACES, molecule, turned

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.subtomograms.orienting import (
    OrientingSettings,
    orient,
    orient_with_background,
    suggested_correlation,
)
from tomotwin_core.subtomograms.symmetry import cyclic_turns
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc

SETTINGS = OrientingSettings(step_deg=25.0, finest_deg=4.0, shift_A=20.0, low_pass_A=35.0)
OFF = np.array([[1.3, -0.8, 0.4], [-1.0, 1.0, -1.4], [0.2, 1.5, 1.0], [0.9, -1.2, -0.7]])


@pytest.fixture(scope="module")
def rotations() -> NDArray[np.float64]:
    return np.asarray(Rotation.random(len(PLACES), random_state=3).as_matrix())


@pytest.fixture(scope="module")
def source(rotations: NDArray[np.float64], tmp_path_factory: pytest.TempPathFactory) -> TomogramSource:
    sample = np.zeros((34, 56, 56), np.float32)
    for (x, y, z), rotation in zip(PLACES, rotations, strict=True):
        values = turned(molecule(), rotation)
        half = values.shape[0] // 2
        sample[z - half : z + half + 1, y - half : y + half + 1, x - half : x + half + 1] += values
    series = take_tilt_series(torch.from_numpy(sample), 10.0, ACQUISITION, torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("orienting") / "TS_01.mrc"
    write_mrc(path, reconstruct(series, ACQUISITION).numpy(), 10.0)
    return open_tomogram(path)


@pytest.fixture(scope="module")
def picks() -> Coordinates:
    scores = [0.9, 0.95, 0.8, 0.85]
    return Coordinates.from_arrays(PLACES + OFF, 10.0, "TS_01", (34, 56, 56), "arms", scores, 170.0, fdr=0.1)


@pytest.fixture(scope="module")
def found(source: TomogramSource, picks: Coordinates) -> Coordinates:
    return orient(source, picks, molecule(), ACQUISITION, SETTINGS)


def test_orientations_and_centres_are_those_planted(found: Coordinates, rotations: NDArray[np.float64]) -> None:
    assert found.rotation is not None and found.correlation is not None
    angles = np.degrees(Rotation.from_matrix(found.rotation.transpose(0, 2, 1) @ rotations).magnitude())
    assert angles.max() < 8
    assert np.linalg.norm(found.xyz - PLACES, axis=1).max() < 0.5  # voxels, of picks two off
    assert found.correlation.min() > 0.5


def test_order_and_what_is_known_of_the_picks_stay(found: Coordinates, picks: Coordinates) -> None:
    assert found.score.tolist() == picks.score.tolist() and found.fdr is not None and set(found.label) == {"arms"}


def test_places_of_nothing_correlate_less_than_is_suggested(source: TomogramSource, picks: Coordinates) -> None:
    two = picks.select([0, 2])
    oriented, nothing = orient_with_background(source, two, molecule(), ACQUISITION, SETTINGS, 8, avoid=picks)
    assert len(nothing) == 8 and oriented.correlation is not None
    assert nothing.max() < suggested_correlation(nothing, oriented.correlation) < oriented.correlation.min()


def test_the_suggested_correlation_is_above_chance_and_half_of_the_best() -> None:
    nothing = [0.2, 0.21, 0.19, 0.2, 0.22, 0.18, 0.9]  # one particle that was missed
    assert suggested_correlation(nothing, [0.3] * 10) == pytest.approx(0.2 + 4 * 1.4826 * 0.01)
    assert suggested_correlation(nothing, [0.8] * 10) == pytest.approx(0.4)
    assert np.isnan(suggested_correlation([], []))


def test_bright_protein_and_several_threads_give_the_same(
    source: TomogramSource,
    picks: Coordinates,
    found: Coordinates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_mrc(tmp_path / "TS_01.mrc", -source.slab(0, 34), 10.0)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    settings = replace(SETTINGS, contrast="bright")
    bright = orient(open_tomogram(tmp_path / "TS_01.mrc"), picks.select([1, 3]), molecule(), ACQUISITION, settings)
    torch.set_num_threads(threads)
    assert bright.correlation is not None and found.correlation is not None
    np.testing.assert_allclose(bright.correlation, found.correlation[[1, 3]], atol=1e-4)
    np.testing.assert_allclose(bright.xyz, found.xyz[[1, 3]], atol=1e-2)


def test_a_pick_outside_the_tomogram_and_settings_without_sense_are_refused(
    source: TomogramSource, picks: Coordinates
) -> None:
    outside = replace(picks, xyz=picks.xyz + 500.0)
    with pytest.raises(UserError, match="lies outside of it"):
        orient(source, outside, molecule(), ACQUISITION, SETTINGS)
    with pytest.raises(UserError, match="low_pass_A = 1000"):
        OrientingSettings(low_pass_A=1000)


def test_the_command_orients_labelled_picks_and_keeps_what_is_finished(
    source: TomogramSource, picks: Coordinates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mrc(tmp_path / "arms.mrc", np.pad(molecule().values, 4), 5.0)
    other = replace(picks.select([0]), label=np.array(["other"]))
    write_coordinates(tmp_path / "picks.star", Coordinates.concatenate([picks.select([1]), other, picks.select([3])]))
    call = ["orient", str(tmp_path / "picks.star"), "--tomograms", str(source.path), "--reference"]
    call += [
        f"arms={tmp_path / 'arms.mrc'}",
        "--out",
        str(tmp_path),
        "--step",
        "25",
        "--finest",
        "4",
        "--low-pass",
        "35",
    ]
    call += ["--tilt-step", "5", "--dose", "150", "--defocus", "3", "3", "--background", "4", "--summary"]
    call += [str(tmp_path / "summary.csv")]
    assert main(call) == 0
    assert "1 picks of other targets left out" in capsys.readouterr().out
    written = read_coordinates(tmp_path / "TS_01_oriented.star")
    assert written.correlation is not None and written.rotation is not None
    np.testing.assert_allclose(written.xyz, PLACES[[1, 3]], atol=0.6)
    assert (tmp_path / "summary.csv").read_text().splitlines()[1].startswith("TS_01,arms,2,0.")
    assert main(call) == 0
    assert "oriented already" in capsys.readouterr().out
    assert main([*call[:4], str(tmp_path / "none.mrc"), *call[4:]]) == 2
    call[call.index("--reference") + 1] = "unknown=library:1aon"
    assert main(call) == 2
    assert "there are no picks of unknown" in capsys.readouterr().err


def test_the_axis_of_a_molecule_is_found_on_its_density() -> None:
    from tomotwin_core.structures import load_density

    density = load_density("library:1aon")  # GroEL/GroES: seven copies about an axis
    turns = cyclic_turns(density, 7)
    np.testing.assert_allclose(turns[0], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(turns[1] @ turns[6], np.eye(3), atol=1e-9)
    assert np.degrees(Rotation.from_matrix(turns[1]).magnitude()) == pytest.approx(360 / 7)
