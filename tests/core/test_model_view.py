"""A tomogram as the network sees it: rescaled and normalised."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from tomotwin_core.tomogram import (
    ModelTomogram,
    Resampled,
    local_std_floor,
    normalise_local,
    open_tomogram,
    resample,
    resampled_shape,
    resampled_slabs,
    write_mrc,
)

Volume = NDArray[np.float32]


def planted(
    shape: tuple[int, int, int], voxel_size_A: float, centre_xyz_A: tuple[float, ...], sigma_A: float
) -> Volume:
    """A Gaussian particle whose centre lies at a physical place, voxel i being at i * voxel size."""
    z, y, x = (np.arange(n) * voxel_size_A for n in shape)
    cx, cy, cz = centre_xyz_A
    parts = [np.exp(-((axis - c) ** 2) / (2 * sigma_A**2)) for axis, c in ((z, cz), (y, cy), (x, cx))]
    return np.einsum("z,y,x->zyx", *parts).astype(np.float32)


def centre_of_mass_xyz(volume: Volume) -> NDArray[np.float64]:
    weights = np.clip(volume.astype(np.float64), 0.05 * volume.max(), None) - 0.05 * volume.max()
    grids = np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij")
    return np.array([(grid * weights).sum() / weights.sum() for grid in grids[::-1]])


# ------------------------------ rescaling ------------------------------


@pytest.mark.parametrize("voxel_size_A", [1.7, 4.4, 8.0, 10.0, 13.3, 31.0, 45.0])
@pytest.mark.parametrize("where", ["middle", "rim"])
def test_a_planted_particle_is_found_again_after_rescaling(voxel_size_A: float, where: str) -> None:
    extent_A = 420.0 if voxel_size_A < 5 else 900.0
    shape = tuple(int(extent_A / voxel_size_A) + extra for extra in (1, 3, 2))
    sigma = max(22.0, 1.1 * voxel_size_A)
    centre = np.array([0.437, 0.561, 0.489]) * extent_A if where == "middle" else np.array([3.4, 0.52, 3.2]) * sigma
    if where == "rim":
        centre[1] = 0.52 * extent_A
    small = planted((shape[0], shape[1], shape[2]), voxel_size_A, tuple(centre), sigma)
    found = centre_of_mass_xyz(resample(small, voxel_size_A, 10.0))
    np.testing.assert_allclose(found, centre / 10.0, atol=0.03)


@pytest.mark.parametrize("voxel_size_A", [8.0, 13.3, 31.0])
def test_many_planted_particles_are_found_in_noise_within_a_third_of_a_voxel(voxel_size_A: float) -> None:
    rng = np.random.default_rng(5)
    n = int(1200 / voxel_size_A) + 1
    sigma = max(30.0, 1.1 * voxel_size_A)
    centres = np.array([[x, y, z] for x in (300, 900) for y in (300, 900) for z in (300, 900)]) + rng.uniform(
        -40, 40, (8, 3)
    )
    volume: Volume = np.sum([planted((n, n, n), voxel_size_A, tuple(c), sigma) for c in centres], axis=0)
    scaled = resample(volume + rng.normal(0, 0.02, (n, n, n)).astype(np.float32), voxel_size_A, 10.0)
    for centre in centres / 10.0:
        corner = np.round(centre).astype(int) - 10
        x, y, z = corner
        box = scaled[z : z + 21, y : y + 21, x : x + 21]
        np.testing.assert_allclose(centre_of_mass_xyz(box) + corner, centre, atol=0.3)


@pytest.mark.parametrize("voxel_size_A", [4.0, 8.0, 13.3])
def test_grey_values_are_those_of_the_same_place(voxel_size_A: float) -> None:
    shape, centre, sigma = (130, 135, 140), (290.0, 265.0, 275.0), 45.0
    scaled = resample(planted(shape, voxel_size_A, centre, sigma), voxel_size_A, 10.0)
    expected = planted((scaled.shape[0], scaled.shape[1], scaled.shape[2]), 10.0, centre, sigma)
    np.testing.assert_allclose(scaled, expected, atol=0.015)


def test_what_lies_beyond_the_new_nyquist_is_removed_and_what_lies_well_below_stays() -> None:
    x = np.arange(200)
    for period_vox, kept in ((3.0, 0.0), (20.0, 1.0)):  # from 4 to 10 A: Nyquist is a period of 5 old voxels
        wave = np.broadcast_to(np.sin(2 * np.pi * x / period_vox), (12, 12, 200)).astype(np.float32)
        scaled = resample(wave, 4.0, 10.0)[2, 2, 8:-8]
        assert np.sqrt(2 * np.mean(scaled**2)) == pytest.approx(kept, abs=0.03)


@pytest.mark.parametrize("sizes", [(8.0, 10.0), (31.0, 10.0), (10.0, 10.0), (1.9, 10.0), (13.3, 7.7)])
def test_a_constant_stays_that_constant_to_the_very_edge(sizes: tuple[float, float]) -> None:
    scaled = resample(np.full((20, 31, 42), 7.5, np.float32), *sizes)
    np.testing.assert_allclose(scaled, 7.5, rtol=1e-6)
    assert scaled.shape == resampled_shape((20, 31, 42), *sizes)


@pytest.mark.parametrize(
    ("n", "v_in", "v_out", "expected"),
    [
        (11, 10.0, 10.0, 11),
        (11, 8.0, 10.0, 9),
        (12, 8.0, 10.0, 9),
        (2, 31.0, 10.0, 4),
        (101, 1.1, 10.0, 12),
        (1, 8.0, 10.0, 1),
    ],
)
def test_the_last_voxel_never_lies_beyond_the_original(n: int, v_in: float, v_out: float, expected: int) -> None:
    assert resampled_shape((n, n, n), v_in, v_out) == (expected,) * 3


@pytest.mark.parametrize("voxel_size_A", [4.7, 8.0, 10.0, 13.3, 31.0])
def test_slabs_of_any_height_join_to_the_whole(tmp_path: Path, voxel_size_A: float) -> None:
    volume = np.random.default_rng(2).normal(50, 3, (90, 41, 37)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", volume, voxel_size_A)
    source = open_tomogram(tmp_path / "a.mrc")
    whole = resample(volume, source.voxel_size_A, 10.0)
    for planes in (1, 7, 64, 1000):
        starts, slabs = zip(*resampled_slabs(source, 10.0, planes), strict=True)
        assert list(starts) == list(range(0, whole.shape[0], planes))
        np.testing.assert_allclose(np.concatenate(slabs), whole, atol=3e-5)
    resampled = Resampled(source)
    assert resampled.shape == whole.shape
    np.testing.assert_allclose(resampled.slab(3, 5), whole[3:5], atol=3e-5)


def test_a_slab_of_a_large_tomogram_needs_memory_for_the_slab_only(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-99, 99, (600, 96, 96), dtype=np.int8)
    write_mrc(tmp_path / "a.mrc", volume, 8.0)
    whole_bytes = 4 * volume.size
    del volume
    model = ModelTomogram(open_tomogram(tmp_path / "a.mrc"))
    tracemalloc.start()
    for z0 in range(0, model.shape[0], 32):
        model.slab(z0, z0 + 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < whole_bytes, f"{peak / 1e6:.0f} MB for a volume of {whole_bytes / 1e6:.0f} MB"


# ------------------------------ normalising ------------------------------


def _by_definition(volume: Volume, window: int) -> NDArray[np.float64]:
    """Mean and deviation over boxes of the volume, mirrored at its faces, the slow and obvious way."""
    data, half = volume.astype(np.float64), window // 2
    padded = np.pad(data, half, mode="symmetric")
    boxes = np.lib.stride_tricks.sliding_window_view(padded, (window,) * 3).reshape(*data.shape, -1)
    return (data - boxes.mean(-1)) / boxes.std(-1)


@pytest.mark.parametrize("shape", [(9, 10, 11), (3, 20, 4), (1, 6, 30), (2, 2, 2)])
@pytest.mark.parametrize("window", [3, 7])
def test_local_normalisation_is_its_definition_also_in_volumes_smaller_than_the_window(
    shape: tuple[int, int, int], window: int
) -> None:
    volume = np.random.default_rng(3).normal(1000, 2, shape).astype(np.float32)
    expected = np.clip(_by_definition(volume, window), -6, 6)
    np.testing.assert_allclose(normalise_local(volume, window, std_floor=0), expected, atol=2e-5)


def test_the_full_window_equals_scipys_box_filter(noise: Volume) -> None:
    data = noise.astype(np.float64)
    mean = uniform_filter(data, 37, mode="reflect")
    std = np.sqrt(uniform_filter(data**2, 37, mode="reflect") - mean**2)
    np.testing.assert_allclose(normalise_local(noise), np.clip((data - mean) / std, -6, 6), atol=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 1e4), (-1.0, 0.0), (1e-3, -2.0), (250.0, 3e3)])
def test_gain_and_offset_of_the_grey_levels_do_not_matter_but_the_sign(
    noise: Volume, gain: float, offset: float
) -> None:
    changed = (noise * gain + offset).astype(np.float32)
    np.testing.assert_allclose(normalise_local(changed), np.sign(gain) * normalise_local(noise), atol=2e-3)


def test_a_gradient_of_grey_level_is_taken_out(noise: Volume) -> None:
    tilted = noise + np.linspace(0, 300, noise.shape[2], dtype=np.float32)
    middle = normalise_local(tilted, 9)[:, :, 8:-8]
    assert np.abs(middle.mean(axis=(0, 1))).max() < 0.1


def test_constant_padding_is_not_blown_up_and_nothing_is_nan(noise: Volume) -> None:
    volume = np.pad(noise, ((60, 60), (0, 0), (0, 0)), constant_values=-500.0)
    volume[:50] += (
        np.random.default_rng(0).normal(0, 1e-3, volume[:50].shape).astype(np.float32)
    )  # rounding of a filter
    out = normalise_local(volume)
    assert np.isfinite(out).all()
    assert np.abs(out[:30]).max() < 0.01
    assert out[80:85].std() == pytest.approx(1, abs=0.1)


def test_hot_voxels_are_clipped_and_a_constant_volume_becomes_zero(noise: Volume) -> None:
    noise[20, 20, 20] = 1e7
    assert normalise_local(noise)[20, 20, 20] == 6
    assert (normalise_local(np.full((20, 20, 20), 5.0, np.float32)) == 0).all()


@pytest.mark.parametrize("padding", [0, 30])
def test_the_floor_is_a_tenth_of_the_usual_deviation(noise: Volume, padding: int) -> None:
    volume = np.pad(noise, ((padding, padding), (0, 0), (0, 0)))
    assert 0.4 < local_std_floor(volume) < (0.6 if not padding else 10)


@pytest.mark.parametrize("cut", [(0, 10), (13, 14), (20, 45), (0, 45), (90, 100)])
def test_a_slab_with_its_halo_is_normalised_as_the_whole(cut: tuple[int, int]) -> None:
    volume = np.random.default_rng(4).normal(200, 4, (100, 50, 44)).astype(np.float32)
    volume += np.linspace(0, 500, 100, dtype=np.float32)[:, None, None]
    floor = local_std_floor(volume)
    whole = normalise_local(volume)
    low, high = max(cut[0] - 18, 0), min(cut[1] + 18, 100)
    part = normalise_local(volume[low:high], std_floor=floor)[cut[0] - low : cut[1] - low]
    # At a cut that is not the volume's face, the halo's far planes are mirrored instead, but no wanted plane sees them.
    np.testing.assert_allclose(part, whole[cut[0] : cut[1]], atol=2e-6)


@pytest.mark.parametrize("voxel_size_A", [8.0, 31.0])
@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_the_model_sees_the_same_values_however_the_tomogram_is_cut(
    tmp_path: Path, voxel_size_A: float, contrast: str
) -> None:
    volume = np.random.default_rng(6).normal(20, 4, (int(900 / voxel_size_A), 19, 23)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", volume, voxel_size_A)
    source = open_tomogram(tmp_path / "a.mrc")
    sign = -1 if contrast == "dark" else 1
    whole = sign * normalise_local(resample(volume, source.voxel_size_A, 10.0))
    model = ModelTomogram(source, contrast)  # type: ignore[arg-type]
    assert model.shape == whole.shape
    for planes in (5, 37, 64):
        slabs = [model.slab(z, min(z + planes, len(whole))) for z in range(0, len(whole), planes)]
        np.testing.assert_allclose(np.concatenate(slabs), whole, atol=5e-5)


def test_an_even_window_is_refused(noise: Volume) -> None:
    with pytest.raises(ValueError, match="odd"):
        normalise_local(noise, 36)
