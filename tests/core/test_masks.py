"""Which voxels of a mask volume count, whatever program wrote it; and what is no mask."""

import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.regions import Region, RegionSettings, named_region

SHAPE = (24, 40, 60)
HALF = np.zeros(SHAPE, np.float32)
HALF[:, :, :30] = 1
BALL = (np.linalg.norm(np.indices(SHAPE).T - [12, 20, 30], axis=-1).T < 9).astype(np.float32)
RNG = np.random.default_rng(0)
SMOOTH = ndimage.gaussian_filter(HALF, 1.5)


def low_passed(volume: NDArray[Any], share: float) -> NDArray[Any]:
    """As a filter with a sharp edge leaves a mask: rings about every face."""
    transform = np.fft.fftn(volume)
    frequency = np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")
    return np.fft.ifftn(transform * (sum(f**2 for f in frequency) < (0.5 * share) ** 2)).real


def region(tmp_path: Path, volume: NDArray[Any], stamp: bytes = b"", size: tuple[float, ...] = ()) -> Region:
    path = tmp_path / "mask.mrc"
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(volume)
        mrc.voxel_size = 10
    raw = bytearray(path.read_bytes())
    if stamp:
        raw[152:160] = stamp
    if size:
        raw[76:88] = struct.pack("<3f", *size)
    path.write_bytes(raw)
    return named_region("t", SHAPE, 10.0, RegionSettings(path))


IMOD = struct.pack("<2i", 1146047817, 1)


@pytest.mark.parametrize(
    ("volume", "inside"),
    [
        (HALF, HALF),
        (BALL.astype(np.int8), BALL),
        ((255 * BALL).astype(np.uint16), BALL),
        (0.37 * HALF, HALF),
        ((7 * HALF).astype(np.int16), HALF),
        (np.ones(SHAPE, np.int8), np.ones(SHAPE)),
        ((HALF + 1e-7 * RNG.normal(size=SHAPE)).astype(np.float32), HALF),
        ((HALF + 0.01 * RNG.normal(size=SHAPE)).astype(np.float32), HALF),
        (SMOOTH.astype(np.float32), HALF),
        (SMOOTH.astype(np.float16), HALF),
        ((1000 * SMOOTH).astype(np.float32), HALF),
        ((254 * SMOOTH).astype(np.uint16), HALF),
        (low_passed(HALF, 0.7).astype(np.float32), HALF),
        (ndimage.gaussian_filter(BALL, 2.0), ndimage.gaussian_filter(BALL, 2.0) > 0.5),
        (np.clip(HALF * 0.97 + 0.02 * RNG.random(SHAPE), 0, 1).astype(np.float32), HALF),  # probabilities
        ((HALF * RNG.integers(1, 6, SHAPE)).astype(np.int16), HALF),  # a segmentation
        ((HALF * 3 + BALL * 2).astype(np.float32), HALF + BALL),
    ],
)  # fmt: skip
def test_what_a_mask_means_is_inside(tmp_path: Path, volume: NDArray[Any], inside: NDArray[Any]) -> None:
    found = region(tmp_path, volume)
    planes = np.stack([found.plane(z) for z in range(SHAPE[0])])
    assert (planes != (inside > 0)).mean() < 0.002
    places = RNG.uniform(0, [59, 39, 23], (50, 3))
    z, y, x = np.round(places[:, ::-1]).astype(int).T
    np.testing.assert_array_equal(found.contains(places), planes[z, y, x])


@pytest.mark.parametrize("stamp", [IMOD, b""])
@pytest.mark.parametrize(
    ("volume", "inside"),
    [
        (HALF - 128, HALF),
        (255 * HALF - 128, HALF),
        (BALL * 2 + HALF - 128, HALF + BALL),
        (np.round(255 * SMOOTH) - 128, HALF),
        (-HALF, HALF),  # bytes 0 and 255 read with a sign
    ],
)
def test_bytes_of_either_sign_are_what_their_writer_meant(
    tmp_path: Path, volume: NDArray[Any], inside: NDArray[Any], stamp: bytes
) -> None:
    found = region(tmp_path, volume.astype(np.int8), stamp, (0, 1, 0.5))
    planes = np.stack([found.plane(z) for z in range(SHAPE[0])])
    assert (planes != (inside > 0)).mean() < 0.002


def test_the_kind_and_the_share_of_a_mask_are_told(tmp_path: Path) -> None:
    assert "(0 and 1, 50% of the tomogram)" in region(tmp_path, HALF).described()
    assert (
        "(bytes of IMOD, 128 less than meant; 0 and 1, 50%"
        in region(tmp_path, (HALF - 128).astype(np.int8)).described()
    )
    assert "values from 0.5" in region(tmp_path, SMOOTH.astype(np.float32)).described()


@pytest.mark.parametrize(
    ("volume", "sentence"),
    [
        (np.zeros(SHAPE, np.float32), "is 0 everywhere"),
        (np.full(SHAPE, -128, np.int8), "is 0 everywhere"),
        (np.full(SHAPE, -3, np.float32), "is no mask"),
        ((HALF + 1).astype(np.float32), "holds the values 1 and 2 alone"),
        ((2 * HALF - 1).astype(np.int16), "holds the values -1 and 1 alone"),
        ((-HALF).astype(np.float32), "is no mask"),
        ((HALF - 2 * BALL).astype(np.int16), "is no mask"),
        (RNG.normal(size=SHAPE).astype(np.float32), "is no mask"),
        (RNG.normal(100, 20, SHAPE).clip(0, 255).astype(np.int16), "is no mask"),
        (RNG.normal(180, 20, SHAPE).astype(np.float32), "is no mask"),
        (RNG.normal(0, 30, SHAPE).clip(-128, 127).astype(np.int8), "is no mask"),
        ((HALF * RNG.normal(180, 25, SHAPE)).astype(np.float32), "is no mask"),  # a tomogram with padding
        (RNG.beta(2, 8, SHAPE).astype(np.float32), "is no mask"),  # scores
        (np.indices(SHAPE)[2].astype(np.float32) + 0.5, "is no mask"),  # a ramp
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused(tmp_path: Path, volume: NDArray[Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        region(tmp_path, volume)
    assert str(tmp_path / "mask.mrc") in str(caught.value)
