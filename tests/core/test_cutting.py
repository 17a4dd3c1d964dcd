"""Subtomograms: what is in the middle of a box, what RELION's table says of it, the wedge, and shell correlations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, read_all_coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation.resolution import density_in_box, shell_correlation
from tomotwin_core.simulation import Acquisition
from tomotwin_core.structures import load_density
from tomotwin_core.subtomograms.cutting import CutSettings, cut, missing_wedge
from tomotwin_core.subtomograms.templates import transfer
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc

BOX, SHAPE, PLAIN = 20, (40, 50, 60), {"invert": False, "normalise": False}
PLACES = np.array([[30.0, 25.0, 20.0], [20.3, 30.7, 15.5], [50.0, 40.0, 4.0], [1.0, 25.0, 20.0]])  # x, y, z


@pytest.fixture
def source(tmp_path: Path) -> TomogramSource:
    """A blob of two voxels' deviation at each place, 100 high, on a ground of 7."""
    z, y, x = np.indices(SHAPE)
    volume = np.full(SHAPE, 7.0)
    for place in PLACES:
        volume += 100 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2) / 8)
    write_mrc(tmp_path / "TS_1.mrc", volume, 5.0)
    return open_tomogram(tmp_path / "TS_1.mrc")


@pytest.fixture
def picks() -> Coordinates:
    rotation = Rotation.random(4, random_state=1).as_matrix()
    return Coordinates.from_arrays(PLACES, 5.0, "TS_1", SHAPE, "blob", [0.9, 0.8, 0.7, 0.6], 30.0, rotation)


def box(folder: Path, number: int) -> np.ndarray:
    source = open_tomogram(folder / "TS_1" / f"{number:06d}.mrc")
    assert source.voxel_size_A == 5.0 and source.shape == (BOX, BOX, BOX)
    return source.slab(0, BOX).astype(np.float64)


def test_a_box_has_its_particle_in_the_middle_and_what_is_beyond_the_tomogram_is_its_mean(
    source: TomogramSource, picks: Coordinates, tmp_path: Path
) -> None:
    done = cut([(source, picks)], tmp_path, CutSettings(BOX, **PLAIN))
    assert (done.written, done.left_out) == (3, 1)  # of the last one the particle itself is cut by the rim
    first, third = box(tmp_path, 1), box(tmp_path, 3)
    assert np.unravel_index(first.argmax(), first.shape) == (10, 10, 10) and first.max() == pytest.approx(107, abs=0.1)
    assert np.unravel_index(third.argmax(), third.shape) == (10, 10, 10)
    assert np.ptp(third[:6]) == pytest.approx(0, abs=1e-4)  # six planes below the tomogram
    assert not (tmp_path / "TS_1" / "000004.mrc").exists()


def test_centred_boxes_are_moved_by_parts_of_a_voxel(
    source: TomogramSource, picks: Coordinates, tmp_path: Path
) -> None:
    cut([(source, picks)], tmp_path, CutSettings(BOX, centre=True, **PLAIN))
    z, y, x = np.indices((BOX,) * 3) - 10
    blob = np.clip(box(tmp_path, 2) - 20, 0, None) * (z * z + y * y + x * x < 6**2)  # another reaches into the box
    np.testing.assert_allclose(ndimage.center_of_mass(blob), [10, 10, 10], atol=0.03)
    (table,) = read_all_coordinates(tmp_path / "particles.star", voxel_size_A=5.0)
    np.testing.assert_allclose(table.xyz, PLACES[:3], atol=1e-3)


def test_protein_turns_bright_and_the_background_gets_mean_0_and_deviation_1(
    source: TomogramSource, picks: Coordinates, tmp_path: Path
) -> None:
    cut([(source, picks)], tmp_path, CutSettings(BOX))
    turned = box(tmp_path, 1)
    z, y, x = np.indices(turned.shape) - 10
    outside = z * z + y * y + x * x > 3**2  # a diameter of 30 A is three voxels to each side
    assert turned[10, 10, 10] == turned.min() < 0  # the blobs were bright
    assert turned[outside].mean() == pytest.approx(0, abs=1e-4) and turned[outside].std() == pytest.approx(1, abs=1e-4)


def test_the_table_gives_back_places_and_orientations(
    source: TomogramSource, picks: Coordinates, tmp_path: Path
) -> None:
    cut([(source, picks)], tmp_path, CutSettings(BOX), made="by a test")
    (table,) = read_all_coordinates(tmp_path / "particles.star", voxel_size_A=5.0)
    np.testing.assert_allclose(table.xyz, PLACES[:3], atol=1e-3)
    assert table.rotation is not None and picks.rotation is not None
    np.testing.assert_allclose(table.rotation, picks.rotation[:3], atol=1e-5)
    text = (tmp_path / "particles.star").read_text()
    assert "rlnImageDimensionality" in text and "TS_1/000002.mrc" in text and f"wedge_{BOX}.mrc" in text


def test_tomograms_of_two_voxel_sizes_and_odd_boxes_are_refused(
    source: TomogramSource, picks: Coordinates, tmp_path: Path
) -> None:
    write_mrc(tmp_path / "other.mrc", np.zeros(SHAPE), 6.0)
    with pytest.raises(UserError, match="voxels of 5, 6 A"):
        cut([(source, picks), (open_tomogram(tmp_path / "other.mrc"), picks)], tmp_path, CutSettings(BOX))
    with pytest.raises(UserError, match="an even number"):
        CutSettings(21)
    with pytest.raises(UserError, match="no pick whose particle"):
        cut([(source, picks.select([3]))], tmp_path, CutSettings(BOX))


@pytest.mark.parametrize(("low", "high"), [(-60.0, 60.0), (-35.0, 62.0)])
def test_the_wedge_is_what_a_simulated_tilt_series_has_measured(low: float, high: float) -> None:
    n = 32
    acquisition = Acquisition(tilt_min_deg=low, tilt_max_deg=high, tilt_step_deg=1.0, defocus_um=1.0)
    spectrum = np.abs(transfer(n, 10.0, acquisition, "cpu").numpy())
    whole = np.fft.fftshift(np.abs(np.fft.fftn(np.fft.irfftn(spectrum, s=(n,) * 3))))
    wedge = missing_wedge(n, low, high)
    z, y, x = np.indices(wedge.shape) - n // 2
    radius = np.sqrt(z * z + y * y + x * x)
    # Along a shell on which the CTF is strong; at the wedge's rim and at Nyquist both are in between.
    shell = (radius > 7) & (radius < 12) & (np.abs(x) + np.abs(z) > 3)
    inside, missing = whole[shell & (wedge > 0.95)], whole[shell & (wedge < 0.05)]
    assert np.median(missing) < 0.1 * np.median(inside)
    assert (inside > 3 * np.median(missing)).mean() > 0.95


def test_the_command_takes_one_target_and_a_least_correlation(
    source: TomogramSource, picks: Coordinates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = replace(picks, correlation=np.array([0.5, 0.1, 0.4, 0.9], np.float32), label=np.array(["a", "a", "b", "b"]))
    write_coordinates(tmp_path / "picks.star", known)
    out = tmp_path / "boxes"
    call = ["extract", str(tmp_path / "picks.star"), "--tomograms", str(source.path), "--out", str(out), "--box", "20"]
    assert main(call) == 2 and "name one of them with --target" in capsys.readouterr().err
    assert main([*call, "--target", "a", "--min-correlation", "0.3"]) == 0
    assert "1 subtomograms" in capsys.readouterr().out
    assert [path.name for path in sorted((out / "TS_1").iterdir())] == ["000001.mrc"]
    write_coordinates(tmp_path / "picks.star", replace(picks, correlation=None))
    assert main([*call, "--min-correlation", "0.3"]) == 2 and "orient" in capsys.readouterr().err


def test_a_volume_agrees_with_itself_at_all_frequencies_and_noise_with_noise_at_none() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 32, 32, 32))
    same = shell_correlation(one, one, 5.0)
    np.testing.assert_allclose(same.correlation, 1, atol=1e-9)
    assert same.resolution_A(0.5) == pytest.approx(10.0)  # Nyquist
    assert np.abs(shell_correlation(one, other, 5.0).correlation[4:]).max() < 0.15
    assert shell_correlation(one, -one, 5.0).resolution_A(0.5) == np.inf


def test_resolution_is_where_noise_overtakes_the_signal() -> None:
    rng = np.random.default_rng(1)
    n, size_A, limit_A = 48, 4.0, 16.0
    frequency = np.fft.fftfreq(n, size_A)
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2)
    signal = rng.normal(size=(n, n, n))
    # Amplitude of the noise over that of the signal: 1 at the limit, where a correlation with the signal is 0.71.
    noise = np.fft.ifftn(np.fft.fftn(rng.normal(size=(n, n, n))) * (radius * limit_A) ** 4).real
    fsc = shell_correlation(signal + noise, signal, size_A)
    assert fsc.resolution_A(1 / np.sqrt(2)) == pytest.approx(limit_A, rel=0.04)


def test_the_true_density_lies_in_the_middle_of_its_box() -> None:
    volume = density_in_box(load_density("library:1aon"), 44, 6.0)
    np.testing.assert_allclose(ndimage.center_of_mass(np.clip(volume, 0, None)), [22, 22, 22], atol=0.05)
