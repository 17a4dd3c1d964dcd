"""Padding, corners left by a rotation and erased parts are no specimen: found, filled, and left out of statistics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.embedding.dense import sampled_pieces
from tomotwin_core.tomogram import (
    ModelTomogram,
    Specimen,
    TomogramSource,
    local_std_floor,
    normalise_local,
    open_tomogram,
    write_mrc,
)
from tomotwin_core.tomogram.padding import tell_padding

SHAPE = (30, 60, 70)
VOLUME = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 0.7).astype(np.float32)
VOLUME /= VOLUME.std()


def padded(volume: NDArray[Any], wide: tuple[int, int, int], value: float) -> NDArray[Any]:
    return np.pad(volume, [(n, n) for n in wide], constant_values=value)


def opened(tmp_path: Path, volume: NDArray[Any], size_A: float = 10.0) -> TomogramSource:
    write_mrc(tmp_path / "t.mrc", volume, size_A)
    return open_tomogram(tmp_path / "t.mrc")


def corners(shape: tuple[int, int], wide: int) -> NDArray[np.bool_]:
    y, x = np.indices(shape)
    return (y + x < wide) | ((shape[0] - 1 - y) + (shape[1] - 1 - x) < wide)


@pytest.mark.parametrize("wide", [(0, 10, 10), (10, 10, 10), (4, 3, 2), (0, 1, 0), (5, 0, 0)])
@pytest.mark.parametrize("value", [0.0, -7.0, 33.0])
def test_padding_about_a_tomogram_changes_next_to_nothing_in_it(
    tmp_path: Path, wide: tuple[int, int, int], value: float
) -> None:
    source = opened(tmp_path, padded(VOLUME + 5, wide, value))
    found = Specimen(source).slab_and_padding(0, source.shape[0])[1]
    expected = padded(np.zeros(SHAPE, bool), wide, True)
    assert found is not None
    np.testing.assert_array_equal(found, expected)
    seen = ModelTomogram(source).slab(0, source.shape[0])
    inside = tuple(slice(n, n + side) for n, side in zip(wide, SHAPE, strict=True))
    assert not seen[expected].any()
    plain = -normalise_local(VOLUME + 5)
    assert np.corrcoef(seen[inside].ravel(), plain.ravel())[0, 1] > 0.985
    assert seen[inside].std() == pytest.approx(plain.std(), rel=0.05)


def test_corners_and_erased_parts_are_found(tmp_path: Path) -> None:
    for value in (-30.0, 0.3):
        for area in (
            corners(SHAPE[1:], 40),
            (np.indices(SHAPE[1:]).T - [20, 33] < 16).all(-1).T & (np.indices(SHAPE[1:])[0] > 4),
        ):
            volume = VOLUME.copy()
            volume[:, area] = value
            found = Specimen(opened(tmp_path, volume)).slab_and_padding(0, SHAPE[0])[1]
            assert found is not None and found[0][~area].sum() == 0
            assert (found[0] == area).mean() > 0.99


@pytest.mark.parametrize("kind", ["float32", "int8", "few levels", "clipped", "smooth", "gold"])
def test_a_tomogram_without_padding_stays_as_it_is_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    volume: NDArray[Any] = VOLUME
    if kind == "int8":
        volume = np.round(30 * VOLUME).clip(-128, 127).astype(np.int8)
    elif kind == "few levels":
        volume = (7 * np.round(3 * ndimage.gaussian_filter(VOLUME, 1.0) / 0.3)).clip(-127, 127).astype(np.int8)
    elif kind == "clipped":
        volume = VOLUME.clip(-1.5, 1.5)
    elif kind == "smooth":
        volume = ndimage.gaussian_filter(VOLUME, 4)
    elif kind == "gold":
        volume = VOLUME.copy()
        volume[np.linalg.norm(np.indices(SHAPE).T - [15, 30, 30], axis=-1).T < 9] = VOLUME.min()
    source = opened(tmp_path, volume)
    specimen = Specimen(source)
    assert specimen.share == 0 and specimen.box == tuple((0, n) for n in SHAPE)
    slab, found = specimen.slab_and_padding(0, SHAPE[0])
    assert found is None
    np.testing.assert_array_equal(slab, source.slab(0, SHAPE[0]))
    expected = -normalise_local(source.slab(0, SHAPE[0]), std_floor=local_std_floor(source))
    np.testing.assert_array_equal(ModelTomogram(source).slab(0, SHAPE[0]), expected)


def test_slabs_of_a_padded_tomogram_are_those_of_the_whole(tmp_path: Path) -> None:
    seen = ModelTomogram(opened(tmp_path, padded(VOLUME + 20, (3, 12, 9), 0.0), 8.0))
    whole = seen.slab(0, seen.shape[0])
    parts = np.concatenate([seen.slab(z, min(z + 7, seen.shape[0])) for z in range(0, seen.shape[0], 7)])
    np.testing.assert_allclose(parts, whole, atol=2e-4)


@pytest.mark.parametrize("wide", [(0, 40, 40), (20, 0, 30), (10, 10, 10), (0, 100, 0), (0, 0, 3)])
def test_the_models_statistics_are_taken_where_the_specimen_is(tmp_path: Path, wide: tuple[int, int, int]) -> None:
    alone = list(sampled_pieces(ModelTomogram(opened(tmp_path, VOLUME + 4))))
    pieces = list(sampled_pieces(ModelTomogram(opened(tmp_path, padded(VOLUME + 4, wide, 0.0)))))
    assert [p.shape for p in pieces] == [p.shape for p in alone]
    for piece, own in zip(pieces, alone, strict=True):
        assert (piece != 0).mean() == pytest.approx((own != 0).mean(), abs=0.01)


def test_how_much_is_padding_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell_padding("plain", Specimen(opened(tmp_path, VOLUME)))
    assert capsys.readouterr().err == ""
    tell_padding("framed", Specimen(opened(tmp_path, padded(VOLUME, (0, 30, 0), 0.0))))
    assert "framed: about 50% of the tomogram are of one value" in capsys.readouterr().err
