"""Volumes that change while they are read, hold absurd values or promise more than there is."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import open_tomogram, write_mrc


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    write_mrc(tmp_path / "v.mrc", np.random.default_rng(0).normal(size=(20, 22, 24)).astype(np.float32), 10.0)
    return tmp_path / "v.mrc"


@pytest.mark.parametrize("left", [0, 500, 1024, 5000, 1024 + 4 * 20 * 22 * 24 - 1])
def test_a_file_that_is_cut_after_it_was_opened_is_told_and_kills_nobody(volume: Path, left: int) -> None:
    source = open_tomogram(volume)
    os.truncate(volume, left)
    for look in (lambda: source.slab(0, 20), source.check, lambda: source.voxels[3:5]):
        with pytest.raises(UserError, match="v.mrc was cut short while it was read: copy or download it again"):
            look()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (1, 3, 2), (3, 1, 2)])
def test_planes_are_the_same_read_or_mapped_whatever_the_order_of_the_axes(volume: Path, order: tuple[int, int, int]) -> None:
    content = bytearray(volume.read_bytes())
    content[64:76] = struct.pack("<3i", *order)  # mapc, mapr, maps
    volume.write_bytes(content)
    source = open_tomogram(volume, 10.0)
    np.testing.assert_array_equal(source.slab(3, 9), np.asarray(source.voxels)[3:9])
    np.testing.assert_array_equal(source.slab(0, 99), np.asarray(source.voxels))


@pytest.mark.parametrize("value", [3e38, -3e38, 1e19, -2e18, 9e37])
def test_values_whose_squares_overflow_are_told(volume: Path, value: float) -> None:
    values = np.zeros((20, 22, 24), np.float32)
    values[17, 3, 4], values[2, 2, 2] = value, 1
    write_mrc(volume, values, 10.0)
    with pytest.raises(UserError, match="v.mrc has voxels of .*, which cannot be computed with"):
        open_tomogram(volume).check()


def test_no_more_is_unpacked_than_the_header_promises(volume: Path) -> None:
    packed = volume.with_name("v.mrc.gz")
    packed.write_bytes(gzip.compress(volume.read_bytes() + bytes(200_000_000), 1))
    import tracemalloc

    tracemalloc.start()
    source = open_tomogram(packed)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    np.testing.assert_array_equal(source.slab(0, 20), open_tomogram(volume).slab(0, 20))
