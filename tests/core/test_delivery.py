"""What users do to a tomogram before they pick it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.delivery import Delivery, deconvolved, deliver, eight_bit, random_delivery

TAKEN = Acquisition(defocus_um=4.0)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(5.0, 2.0, (40, 60, 80)).astype(np.float32)


def _radial_power(volume: np.ndarray, low: float, high: float) -> float:
    """Mean power between two frequencies, in cycles per voxel."""
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")))
    power = np.abs(np.fft.fftn(volume)) ** 2 / volume.size
    return float(power[(radius > low) & (radius <= high)].mean())


def test_nothing_is_done_by_default(noise: np.ndarray) -> None:
    delivered, voxel_A = deliver(noise, 10.0, Delivery(), TAKEN)
    assert voxel_A == 10.0
    np.testing.assert_array_equal(delivered, noise)


def test_binning_and_upsampling_keep_the_frame_and_lose_the_detail(noise: np.ndarray) -> None:
    noise[20, 30, 40] += 2000.0
    delivered, voxel_A = deliver(noise, 10.0, Delivery(binned_to_A=20.0, delivered_at_A=10.0), TAKEN)
    assert voxel_A == 10.0
    assert np.unravel_index(delivered.argmax(), delivered.shape) == (20, 30, 40)
    assert _radial_power(delivered, 0.40, 0.5) < 0.01 * _radial_power(delivered, 0.05, 0.2)
    binned, voxel_A = deliver(noise, 10.0, Delivery(binned_to_A=20.0), TAKEN)
    assert voxel_A == 20.0
    assert np.unravel_index(binned.argmax(), binned.shape) == (10, 15, 20)


def test_deconvolution_lifts_low_frequencies_and_keeps_the_sign_of_the_contrast() -> None:
    rng = np.random.default_rng(1)
    blob = np.zeros((48, 48, 48), np.float32)
    blob[24, 24, 24] = -300.0
    volume = ndimage.gaussian_filter(blob, 3) + rng.normal(0, 1.0, blob.shape).astype(np.float32)
    restored = deconvolved(volume, 10.0, TAKEN, strength=1.0)
    assert ndimage.gaussian_filter(restored, 2)[24, 24, 24] < -5 * ndimage.gaussian_filter(restored, 2).std()
    before = _radial_power(volume, 0.02, 0.08) / _radial_power(volume, 0.3, 0.5)
    after = _radial_power(restored, 0.02, 0.08) / _radial_power(restored, 0.3, 0.5)
    assert after > 5 * before


def test_deconvolution_turns_a_band_of_reversed_contrast_over_unless_phases_were_flipped_already() -> None:
    # 6 um at 10 A: the CTF has changed its sign between its first two zeros, about 1/34 and 1/24 A.
    taken = replace(TAKEN, defocus_um=6.0)
    frequency = 0.345  # cycles per voxel, 1/29 A
    wave = np.broadcast_to(np.cos(2 * np.pi * frequency * np.arange(80)), (16, 16, 80)).astype(np.float32)
    turned = deconvolved(wave, 10.0, taken, 1.0)
    kept = deconvolved(wave, 10.0, replace(taken, ctf_corrected=True), 1.0)
    middle = (8, 8, slice(10, 70))
    assert np.corrcoef(wave[middle], turned[middle])[0, 1] < -0.9
    assert np.corrcoef(wave[middle], kept[middle])[0, 1] > 0.9


def test_denoising_flattens_noise_and_keeps_a_particle() -> None:
    rng = np.random.default_rng(2)
    volume = rng.normal(0, 1, (32, 48, 48)).astype(np.float32)
    volume[12:20, 20:28, 20:28] -= 4.0
    delivered, _ = deliver(volume, 10.0, Delivery(denoising=0.6), TAKEN)
    flat = np.ones(volume.shape, bool)
    flat[10:22, 18:30, 18:30] = False
    contrast_before = -volume[14:18, 22:26, 22:26].mean() / volume[flat].std()
    contrast_after = -delivered[14:18, 22:26, 22:26].mean() / delivered[flat].std()
    assert contrast_after > 2 * contrast_before


def test_local_contrast_evens_out_a_gradient(noise: np.ndarray) -> None:
    uneven = noise * np.linspace(1, 5, 80, dtype=np.float32)
    delivered, _ = deliver(uneven, 10.0, Delivery(local_contrast_A=200.0), TAKEN)
    assert uneven[..., -20:].std() > 2.5 * uneven[..., :20].std()
    assert delivered[..., -20:].std() == pytest.approx(delivered[..., :20].std(), rel=0.2)


def test_eight_bits_cut_off_the_tails_and_keep_the_rest(noise: np.ndarray) -> None:
    noise[0, 0, 0] = 1000.0
    grey = eight_bit(noise, 3.0)
    assert grey.dtype == np.int8
    assert grey[0, 0, 0] == 127
    assert np.corrcoef(grey.ravel()[1:], noise.ravel()[1:])[0, 1] > 0.99


def test_bright_contrast_is_the_negative(noise: np.ndarray) -> None:
    delivered, _ = deliver(noise, 10.0, Delivery(contrast="bright"), TAKEN)
    np.testing.assert_array_equal(delivered, -noise)


def test_a_slope_weighs_frequencies_by_their_power_and_keeps_the_mean(noise: np.ndarray) -> None:
    delivered, _ = deliver(noise + 3.0, 10.0, Delivery(spectral_slope=-1.0), TAKEN)
    assert delivered.mean() == pytest.approx(noise.mean() + 3.0, abs=1e-3)
    before, after = (np.abs(np.fft.fftn(v)) for v in (noise, delivered))
    gain = after[0, 0, 1:] / before[0, 0, 1:]
    n = noise.shape[2]
    # An eighth of a cycle per voxel against a fourth: twice the amplitude, but for the level part.
    assert gain[n // 8 - 1] / gain[n // 4 - 1] == pytest.approx(2.0, rel=0.01)


def test_random_deliveries_come_back_at_the_voxel_size_and_use_every_step() -> None:
    rng = np.random.default_rng(5)
    drawn = [random_delivery(rng) for _ in range(400)]
    assert {d.delivered_at_A for d in drawn} == {0.0, 10.0}
    for step in ("binned_to_A", "low_pass_A", "deconvolution", "denoising", "local_contrast_A"):
        share = np.mean([getattr(d, step) > 0 for d in drawn])
        assert 0.04 < share < 0.5, step
    slopes = np.array([d.spectral_slope for d in drawn])
    assert 0.4 < np.mean(slopes != 0) < 0.6 and slopes.min() < -1.2 and 0.2 < slopes.max() < 0.3
    assert 0.2 < np.mean([d.bits == 8 for d in drawn]) < 0.4
    assert max(d.binned_to_A for d in drawn) > 25


@pytest.mark.parametrize(
    "wrong", [{"binned_to_A": 80.0}, {"bits": 16}, {"denoising": -1.0}, {"spectral_slope": -3.0}, {"contrast": "grey"}, {"clip_deviations": 0.0}]
)
def test_a_wrong_setting_is_named(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Delivery(**wrong)
