"""A tomogram whose contrast is the other one is told; one that shows nothing is not."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.tomogram import ModelTomogram, open_tomogram, write_mrc
from tomotwin_core.tomogram.contrast import skewness, tell_contrast

SHAPE = (40, 90, 90)


def crowd(seed: int, radius: float, noise: float) -> NDArray[np.float32]:
    """Balls, bright, in noise."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(SHAPE)
    seeds[tuple(rng.integers(0, SHAPE, (40, 3)).T)] = 1
    balls = (ndimage.distance_transform_edt(seeds == 0) < radius).astype(np.float32)
    return (balls + noise * ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.7)).astype(np.float32)


@pytest.mark.parametrize(("radius", "noise"), [(4, 0.5), (6, 1), (8, 2), (5, 3), (7, 0.2)])
@pytest.mark.parametrize("padding", [0, 12])
def test_a_contrast_that_is_the_other_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], radius: float, noise: float, padding: int
) -> None:
    volume = np.pad(crowd(int(radius), radius, noise) + 4, padding)
    write_mrc(tmp_path / "bright.mrc", volume, 10.0)
    source = open_tomogram(tmp_path / "bright.mrc")
    tell_contrast("right", ModelTomogram(source, contrast="bright"))
    assert capsys.readouterr().err == ""
    name = f"wrong {radius} {noise} {padding}"
    tell_contrast(name, ModelTomogram(source, contrast="dark"))
    assert f"{name} looks as if protein were bright in it and not dark" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [SHAPE, (8, 8, 8), (20, 30, 40), (2, 60, 60), (60, 20, 20)])
@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_noise_says_nothing_of_contrast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, int, int], contrast: str
) -> None:
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(1).normal(size=shape).astype(np.float32), 10.0)
    volume = ModelTomogram(open_tomogram(tmp_path / "a.mrc"), contrast=contrast)  # type: ignore[arg-type]
    assert abs(skewness(volume)[0]) < 5 * skewness(volume)[1]
    tell_contrast("noise", volume)
    assert capsys.readouterr().err == ""
