"""Tilt series on disk: what other software reads from the files is what was simulated."""

from pathlib import Path

import mdocfile
import mrcfile
import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import iradon

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.dataset import simulate_dataset
from tomotwin_core.simulation.series_files import series_paths, write_tilt_series
from tomotwin_core.simulation.settings import DataSet, Experiment
from tomotwin_core.structures import density_from_points
from tomotwin_core.tomogram import open_tomogram


def planted(acquisition: Acquisition) -> np.ndarray:
    """Images [tilt, y, x] that can be told apart."""
    images = np.random.default_rng(0).normal(size=(len(acquisition.tilts_deg), 20, 30)).astype(np.float32)
    return images + np.arange(len(images), dtype=np.float32)[:, None, None]


@pytest.mark.parametrize("scheme", ["dose-symmetric", "bidirectional", "continuous"])
def test_the_description_tells_tilts_exposures_and_their_order(tmp_path: Path, scheme: str) -> None:
    taken = Acquisition(tilt_step_deg=20.0, scheme=scheme, dose_e_per_A2=70.0, missing_tilts_deg=(20.0,))  # type: ignore[arg-type]
    images = planted(taken)
    write_tilt_series(tmp_path, "cell_01", images, 8.5, taken)
    described = mdocfile.read(tmp_path / "cell_01.st.mdoc")
    np.testing.assert_allclose(described["TiltAngle"], [-60, -40, -20, 0, 40, 60])
    np.testing.assert_allclose(described["TiltAngle"], np.loadtxt(tmp_path / "cell_01.rawtlt"))
    assert set(described["PixelSpacing"]) == {8.5} and set(described["Voltage"]) == {300.0}
    assert {str(name) for name in described["ImageFile"]} == {"cell_01.st"}
    assert set(described["ImageSize"]) == {(30, 20)}
    np.testing.assert_allclose(described["ExposureDose"], 10.0)
    order = {"dose-symmetric": [0, 20, -20, 40, -40, 60, -60], "bidirectional": [0, 20, 40, 60, -20, -40, -60]}
    exposed = order.get(scheme, [-60, -40, -20, 0, 20, 40, 60])
    prior = {tilt: 10.0 * i for i, tilt in enumerate(exposed)}
    np.testing.assert_allclose(described["PriorRecordDose"], [prior[t] for t in described["TiltAngle"]], atol=1e-3)
    by_time = described.sort_values("DateTime")["TiltAngle"].tolist()
    assert by_time == [t for t in exposed if t != 20], "the missing tilt took its dose and its time"
    np.testing.assert_allclose(described["Defocus"], -3.5)
    stack, angles, description = series_paths(tmp_path, "cell_01")
    assert sorted(tmp_path.iterdir()) == sorted([stack, angles, description])


def test_the_stack_holds_the_images_as_a_stack_of_their_pixel_size(tmp_path: Path) -> None:
    taken = Acquisition(tilt_step_deg=20.0)
    images = planted(taken)
    write_tilt_series(tmp_path, "s", images, 8.5, taken)
    with mrcfile.open(tmp_path / "s.st") as mrc:
        assert np.array_equal(mrc.data, images) and mrc.is_image_stack()
        assert (float(mrc.voxel_size.x), float(mrc.voxel_size.y)) == (8.5, 8.5)
    with pytest.raises(ValueError, match="6 images of 7 tilts"):
        write_tilt_series(tmp_path, "s", images[:6], 8.5, taken)


def test_another_back_projection_of_the_files_gives_the_same_tomogram(tmp_path: Path) -> None:
    """scikit-image's filtered back-projection, slice by slice, with the angles of the .rawtlt file.

    It interpolates in real space, which damps what is near the Nyquist frequency: what is compared is blurred by a voxel.
    """
    points = np.random.default_rng(1).normal(0, 15, (300, 3))
    ball = density_from_points(points, np.full(300, 1000.0), 5.0)
    sample = SampleSettings((24, 48, 64), 10.0, 200.0, {"ball": 12})
    acquisition = Acquisition(tilt_step_deg=3.0, shift_error_A=0.0, tilt_error_deg=0.0, rotation_error_deg=0.0)
    wanted = Experiment({"ball": 12}, sample, acquisition, dataset=DataSet(tomograms=1, tilt_series=True))
    (path,) = simulate_dataset(tmp_path, {"ball": ball}, wanted)
    ours = open_tomogram(path).slab(0, 24)
    tilts = np.loadtxt(tmp_path / "tomo_01.rawtlt")
    with mrcfile.open(tmp_path / "tomo_01.st") as mrc:
        # A column (-z) of their slice is turned the other way round: the angle changes sign.
        planes = [iradon(mrc.data[:, y].T, -tilts, output_size=64, circle=False) for y in range(48)]
        mirrored = [iradon(mrc.data[:, y].T, tilts, output_size=64, circle=False) for y in range(48)]
    middle = (slice(4, -4), slice(4, -4), slice(12, -12))

    def agreement(slices: list[np.ndarray]) -> float:
        theirs = np.stack(slices, axis=1)[32 - 12 : 32 + 12]
        smooth = [ndimage.gaussian_filter(v, 1.0)[middle].ravel() for v in (ours, theirs)]
        return float(np.corrcoef(*smooth)[0, 1])

    assert agreement(planes) > 0.95
    assert agreement(mirrored) < 0.6, "the handedness is in the angles' sign"
