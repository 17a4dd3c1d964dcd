"""Planted surfaces, beads and film are found; masks and ranges are obeyed to the voxel."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.cli.main import main
from tomotwin_core.errors import UserError
from tomotwin_core.regions import Region, RegionSettings, find_region, find_slab
from tomotwin_core.regions.exclusion import find_carbon, find_dark_blobs
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc

VOXEL_A = 20.0
Volume = NDArray[np.float32]


def noise(shape: tuple[int, int, int], seed: int = 0) -> Volume:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_specimen(shape: tuple[int, int, int], bottom: np.ndarray, top: np.ndarray, seed: int = 0) -> Volume:
    """Noise everywhere, and blobs of 100 A in one of twenty voxels' neighbourhoods between two surfaces [y, x]."""
    rng = np.random.default_rng(seed + 100)
    z = np.arange(shape[0])[:, None, None]
    centres = (rng.random(shape) < 0.02) & (z >= bottom) & (z <= top)
    return noise(shape, seed) - 25 * ndimage.gaussian_filter(centres.astype(np.float32), 1.5)


def plane(shape: tuple[int, int, int], middle: float, dy: float, dx: float) -> np.ndarray:
    y, x = np.indices(shape[1:])
    return middle + dy * (y / (shape[1] - 1) - 0.5) + dx * (x / (shape[2] - 1) - 0.5)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (20, -8), (-10, 25)])
def test_the_surfaces_of_a_tilted_specimen_are_found(dy: float, dx: float) -> None:
    shape = (70, 130, 120)
    bottom, top = plane(shape, 24, dy, dx), plane(shape, 46, dy, dx)
    slab = find_slab(with_specimen(shape, bottom, top), VOXEL_A)
    assert slab is not None
    y, x = np.indices(shape[1:]) * VOXEL_A
    low, high = slab.surfaces_A(y, x)
    # Less the margin of 40 A that is left for what sticks out.
    assert np.abs(low / VOXEL_A + 2 - bottom).max() < 3.5 and np.abs(high / VOXEL_A - 2 - top).max() < 3.5


def test_a_specimen_that_fills_the_tomogram_has_no_surfaces() -> None:
    shape = (40, 100, 100)
    everywhere = with_specimen(shape, np.full(shape[1:], -1), np.full(shape[1:], 41))
    assert find_slab(everywhere, VOXEL_A) is None
    assert find_slab(noise(shape), VOXEL_A) is None
    assert find_slab(np.zeros(shape, np.float32), VOXEL_A) is None


def test_ice_contamination_on_one_place_does_not_lift_the_surface() -> None:
    shape = (70, 130, 120)
    bottom, top = np.full(shape[1:], 15.0), np.full(shape[1:], 35.0)
    top[:30, :30] = 60
    slab = find_slab(with_specimen(shape, bottom, top), VOXEL_A)
    assert slab is not None
    assert abs(float(slab.surfaces_A(np.array(1300.0), np.array(1200.0))[1]) / VOXEL_A - 37) < 3.5


def test_gold_and_its_surroundings_are_taken_out_and_molecules_are_not() -> None:
    shape = (40, 90, 90)
    volume = with_specimen(shape, np.full(shape[1:], 5), np.full(shape[1:], 35))
    z, y, x = np.indices(shape)
    beads = [(20, 30, 40), (12, 70, 10)]
    for bead in beads:
        volume -= 60 * (((z - bead[0]) ** 2 + (y - bead[1]) ** 2 + (x - bead[2]) ** 2) < 2.5**2)
    found = find_dark_blobs(-volume, VOXEL_A, halo_A=100)
    distance = np.min([np.sqrt((z - b[0]) ** 2 + (y - b[1]) ** 2 + (x - b[2]) ** 2) for b in beads], axis=0)
    assert found[distance < 6].all() and not found[distance > 10].any()
    assert not find_dark_blobs(volume, VOXEL_A).any(), "of the other contrast"
    assert not find_dark_blobs(np.zeros(shape, np.float32), VOXEL_A).any()


def test_film_at_the_rim_is_found_and_a_gradient_of_grey_is_not_film() -> None:
    shape = (30, 100, 110)
    volume = with_specimen(shape, np.full(shape[1:], 5), np.full(shape[1:], 25))
    _, y, x = np.indices(shape)
    assert not find_carbon(-volume, VOXEL_A).any()
    assert not find_carbon(-(volume + x / 20).astype(np.float32), VOXEL_A).any()
    film = (x[0] + 10 * np.sin(y[0] / 15)) < 35
    volume[8:16] -= 4 * film
    found = find_carbon(-volume, VOXEL_A)
    assert (found & film).sum() / (found | film).sum() > 0.85
    volume[8:16] += 4 * film
    middle = (x[0] - 55) ** 2 + (y[0] - 50) ** 2 < 20**2
    volume[8:16] -= 4 * middle
    assert not find_carbon(-volume, VOXEL_A).any(), "what does not reach the rim is no film"


def source_of(tmp_path: Path, shape: tuple[int, int, int] = (12, 14, 16), voxel_A: float = 8.0) -> TomogramSource:
    write_mrc(tmp_path / "tomo.mrc", noise(shape), voxel_A)
    return open_tomogram(tmp_path / "tomo.mrc")


def test_positions_and_mask_volume_tell_the_same(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    mask = np.zeros(source.shape, np.int8)
    mask[2:9, 3:, :] = 5
    write_mrc(tmp_path / "mask.mrc", mask, 1.0)  # software that edits masks leaves their voxel size wrong
    region = find_region(source, RegionSettings(mask=tmp_path / "mask.mrc", z_range=(4, 11)))
    expected = (mask != 0) & (np.arange(12) >= 4)[:, None, None]
    everywhere = np.argwhere(np.ones(source.shape, bool))
    np.testing.assert_array_equal(region.contains(everywhere[:, ::-1]), expected.ravel())
    region.write_mask(tmp_path / "out.mrc")
    written = open_tomogram(tmp_path / "out.mrc")
    assert written.voxel_size_A == pytest.approx(8.0)
    np.testing.assert_array_equal(written.slab(0, 12) != 0, expected)
    assert region.share() == pytest.approx(expected.mean(), abs=0.02)


def test_what_was_found_on_the_coarse_grid_is_looked_up_in_the_tomograms_voxels() -> None:
    excluded = np.zeros((6, 6, 6), bool)
    excluded[3, 2, 1] = True
    region = Region((12, 12, 12), 10.0, excluded=excluded)
    outside = np.argwhere(~np.stack([region.plane(z) for z in range(12)]))
    assert len(outside) and (np.abs(outside * 10.0 - np.array([60, 40, 20])) <= 10).all()
    assert region.contains(np.array([[2, 4, 6], [9, 4, 6]])).tolist() == [False, True]


def test_regions_that_cannot_be_are_told(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    write_mrc(tmp_path / "small.mrc", np.ones((12, 14, 15), np.int8), 8.0)
    write_mrc(tmp_path / "empty.mrc", np.zeros((12, 14, 16), np.int8), 8.0)
    (tmp_path / "masks").mkdir()
    for settings, words in (
        (RegionSettings(mask=tmp_path / "small.mrc"), "own shape"),
        (RegionSettings(mask=tmp_path / "empty.mrc"), "0 everywhere"),
        (RegionSettings(mask=tmp_path / "masks"), "tomo_mask.mrc"),
        (RegionSettings(z_range=(5, 12)), "planes 0 to 11"),
        (RegionSettings(z_range=(7, 5)), "--z-range 7 5"),
    ):
        with pytest.raises(UserError, match=words):
            find_region(source, settings)


def test_the_command_writes_the_specimen_as_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = (60, 110, 110)
    volume = with_specimen(shape, np.full(shape[1:], 20), np.full(shape[1:], 40))
    write_mrc(tmp_path / "tomo.mrc", volume, VOXEL_A)
    assert main(["mask", str(tmp_path / "tomo.mrc"), "--out", str(tmp_path / "mask.mrc")]) == 0
    assert "is searched" in capsys.readouterr().out
    mask = open_tomogram(tmp_path / "mask.mrc").slab(0, 60)
    assert mask[25:36].mean() > 0.95 and mask[:14].mean() < 0.05 and mask[47:].mean() < 0.05
    assert main(["mask", str(tmp_path / "tomo.mrc"), "--out", str(tmp_path / "m.mrc"), "--z-range", "3", "90"]) == 2
    assert not (tmp_path / "m.mrc").exists()
