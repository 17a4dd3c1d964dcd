"""Reading and writing tomograms, and what can be wrong with them."""

import gzip
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import (
    open_tomogram,
    tomogram_name,
    write_mrc,
)

Volume = NDArray[np.float32]


# ------------------------------ reading and writing ------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("ending", [".mrc", ".rec", ".mrc.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, dtype: type, ending: str) -> None:
    volume: NDArray[Any] = np.random.default_rng(0).integers(0, 100, (7, 8, 9)).astype(dtype)
    write_mrc(tmp_path / "TS_01.mrc", volume, 13.48, ["made for a test"])
    path = tmp_path / f"TS_01{ending}"
    content = (tmp_path / "TS_01.mrc").read_bytes()
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    source = open_tomogram(path)
    assert (source.name, source.shape, source.dtype) == ("TS_01", (7, 8, 9), np.dtype(dtype))
    assert source.voxel_size_A == pytest.approx(13.48, rel=1e-6)
    np.testing.assert_array_equal(source.slab(2, 5), volume[2:5].astype(np.float32))
    assert source.slab(0, 7).dtype == np.float32
    source.check()


def test_a_written_volume_satisfies_the_mrc_standard_and_names_its_maker(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.eye(4)[None].repeat(3, 0), 10, ["similarity to ribosome"])
    assert mrcfile.validate(str(tmp_path / "a.mrc"))
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        assert mrc.get_labels() == ["tomotwin 1.0.0", "similarity to ribosome"]
        assert mrc.is_volume() and mrc.data.dtype == np.float32
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mrc"]


def test_a_file_of_the_other_byte_order_is_read(tmp_path: Path, noise: Volume) -> None:
    write_mrc(tmp_path / "little.mrc", noise, 8)
    raw = (tmp_path / "little.mrc").read_bytes()
    # Every field of the header but MAP, the stamp and the labels is a four-byte number, so all swap alike.
    words = np.frombuffer(raw, "<u4").copy()
    kept = list(range(52, 54)) + list(range(56, 256))
    swapped = words.byteswap()
    swapped[kept] = words[kept]
    (tmp_path / "big.mrc").write_bytes(swapped.tobytes())
    source = open_tomogram(tmp_path / "big.mrc")
    assert source.voxel_size_A == pytest.approx(8)
    np.testing.assert_array_equal(source.slab(0, len(noise)), noise)


def test_a_file_whose_sections_are_not_z_comes_out_as_z_y_x(tmp_path: Path, noise: Volume) -> None:
    write_mrc(tmp_path / "a.mrc", noise.transpose(1, 0, 2), 8)  # sections along y, rows along z
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    raw[64:76] = struct.pack("<3i", 1, 3, 2)
    (tmp_path / "a.mrc").write_bytes(raw)
    source = open_tomogram(tmp_path / "a.mrc")
    assert source.shape == noise.shape
    np.testing.assert_array_equal(source.slab(3, 9), noise[3:9])


def test_unsigned_bytes_of_imod_are_not_taken_for_negative(tmp_path: Path) -> None:
    volume = np.arange(0, 256, dtype=np.uint8).reshape(4, 8, 8)
    write_mrc(tmp_path / "a.rec", volume.view(np.int8), 8)
    raw = bytearray((tmp_path / "a.rec").read_bytes())
    raw[152:160] = struct.pack("<2i", 1146047817, 0)
    (tmp_path / "a.rec").write_bytes(raw)
    np.testing.assert_array_equal(open_tomogram(tmp_path / "a.rec").slab(0, 4), volume)


def _header(path: Path, offset: int, form: str, *values: float) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, offset, *values)
    path.write_bytes(raw)


def _grey(mean: float, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).normal(mean, 30, (12, 20, 20)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("mean", [128, 100, 200, 60, 230])
@pytest.mark.parametrize("said", [(0, 255, 128), (0, -1, -2), (0, 0, 0), (float("nan"), 0, 0)])
def test_bytes_of_0_to_255_are_known_by_their_header_or_by_their_values(
    tmp_path: Path, mean: float, said: tuple[float, float, float]
) -> None:
    volume = _grey(mean, int(mean))
    write_mrc(tmp_path / "a.mrc", volume.view(np.int8), 8)
    _header(tmp_path / "a.mrc", 76, "<3f", *said)
    found = open_tomogram(tmp_path / "a.mrc").slab(0, 12)
    # Where nobody says and all are above 127, a sign moves all of them by the same.
    assert len(np.unique(found - volume)) == 1


@pytest.mark.parametrize("mean", [-60, -20, 0, 30, 70])
@pytest.mark.parametrize("said", [None, (0, -1, -2), (0, 0, 0)])
def test_bytes_with_a_sign_keep_it(tmp_path: Path, mean: float, said: tuple[float, float, float] | None) -> None:
    volume = np.random.default_rng(0).normal(mean, 25, (12, 20, 20)).clip(-128, 127).astype(np.int8)
    write_mrc(tmp_path / "a.mrc", volume, 8)
    if said:
        _header(tmp_path / "a.mrc", 76, "<3f", *said)
    np.testing.assert_array_equal(open_tomogram(tmp_path / "a.mrc").slab(0, 12), volume)


def test_words_whose_header_contradicts_their_mode_are_read_as_it_says(tmp_path: Path) -> None:
    unsigned = (200 * _grey(128, 0).astype(np.uint16)).astype(np.uint16)
    write_mrc(tmp_path / "a.mrc", unsigned.view(np.int16), 8)
    _header(tmp_path / "a.mrc", 76, "<3f", 0, 51000, 25600)
    np.testing.assert_array_equal(open_tomogram(tmp_path / "a.mrc").slab(0, 12), unsigned)
    signed = (unsigned.astype(np.int32) - 25600).astype(np.int16)
    write_mrc(tmp_path / "b.mrc", signed.view(np.uint16), 8)
    _header(tmp_path / "b.mrc", 76, "<3f", -25600, 25400, 0)
    np.testing.assert_array_equal(open_tomogram(tmp_path / "b.mrc").slab(0, 12), signed)


@pytest.mark.parametrize(("group", "planes"), [(401, 3), (401, 6), (405, 4), (630, 1), (402, 2)])
def test_a_stack_of_volumes_is_no_tomogram(tmp_path: Path, noise: Volume, group: int, planes: int) -> None:
    write_mrc(tmp_path / "a.mrc", noise[:12], 8)
    _header(tmp_path / "a.mrc", 88, "<i", group)
    _header(tmp_path / "a.mrc", 36, "<i", planes)
    with pytest.raises(UserError, match=f"is a stack of {12 // planes} volumes of {planes} planes: give one tomogram"):
        open_tomogram(tmp_path / "a.mrc", 8.0)


def test_a_stack_of_images_and_a_tomogram_of_two_planes_are_told(
    tmp_path: Path, noise: Volume, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mrc(tmp_path / "a.mrc", noise, 8)
    _header(tmp_path / "a.mrc", 88, "<i", 0)  # an image group alone says nothing: many write it
    open_tomogram(tmp_path / "a.mrc").check()
    assert capsys.readouterr().err == ""
    _header(tmp_path / "a.mrc", 36, "<i", 1)
    open_tomogram(tmp_path / "a.mrc", 8.0)
    assert "a stack of 45 images, such as a tilt series: is it a reconstructed tomogram?" in capsys.readouterr().err
    for number, (volume, axis) in enumerate(((noise[:2], "z"), (noise[:, :3], "y"), (noise[:, :, :6], "x"))):
        write_mrc(tmp_path / f"{number}.mrc", volume, 8)
        open_tomogram(tmp_path / f"{number}.mrc").check()
        assert f"A) along {axis}, less than a molecule" in capsys.readouterr().err


def test_a_tiff_of_colours_is_told(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 8, 9, 3), np.uint8))
    with pytest.raises(UserError, match="a stack of 6 volumes or of colours: give one tomogram of grey values"):
        open_tomogram(tmp_path / "a.tif", 8.0)


def test_an_extended_header_is_passed_over(tmp_path: Path, noise: Volume) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(noise)
        mrc.set_extended_header(np.full(999, 7, np.int8))
        mrc.voxel_size = 8
    np.testing.assert_array_equal(open_tomogram(tmp_path / "a.mrc").slab(0, 3), noise[:3])


def test_a_tiff_volume_is_read_when_its_voxel_size_is_given(tmp_path: Path, noise: Volume) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", noise)
    with pytest.raises(UserError, match="a.tif does not carry its voxel size: give it in Angstrom with --voxel-size"):
        open_tomogram(tmp_path / "a.tif")
    np.testing.assert_array_equal(open_tomogram(tmp_path / "a.tif", 10.52).slab(4, 6), noise[4:6])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("TS_01.mrc", "TS_01"),
        ("a/b/TS_01.MRC.gz", "TS_01"),
        ("x.y_10.00Apx.rec", "x.y_10.00Apx"),
        ("t.map", "t"),
        ("plain", "plain"),
    ],
)
def test_a_tomogram_is_named_by_its_file(file: str, name: str) -> None:
    assert tomogram_name(file) == name


# ------------------------------ bad input ------------------------------


def _text(path: Path) -> None:
    path.write_text("this is a list of things that is not a tomogram at all\n" * 40)


def _short(path: Path) -> None:
    path.write_bytes(b"\0" * 100)


def _zeros(path: Path) -> None:
    path.write_bytes(b"\0" * 5000)


def _truncated(path: Path) -> None:
    write_mrc(path, np.random.rand(9, 9, 9), 8)
    os.truncate(path, path.stat().st_size - 1)


def _image(path: Path) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.random.rand(64, 64).astype(np.float32))
        mrc.voxel_size = 8


def _complex(path: Path) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ones((8, 8, 8), np.complex64))
        mrc.voxel_size = 8


def _anisotropic(path: Path) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.random.rand(8, 8, 8).astype(np.float32))
        mrc.voxel_size = (8, 8, 12)


def _no_cells(path: Path) -> None:
    write_mrc(path, np.random.rand(8, 8, 8), 8)
    raw = bytearray(path.read_bytes())
    raw[28:52] = bytes(24)  # mx, my, mz and the cell
    path.write_bytes(raw)


def _sized(voxel_size_A: float):  # type: ignore[no-untyped-def]
    return lambda path: write_mrc(path, np.random.rand(8, 8, 8), voxel_size_A)


def _not_gzip(path: Path) -> None:
    _sized(8)(path)


def _cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(os.urandom(9000))[:4000])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("a.mrc", lambda path: None, "does not exist: check the path of the tomogram"),
        ("a.mrc", Path.mkdir, "is not a file: give a tomogram in MRC format"),
        ("a.mrc", _text, "is not an MRC file: give a tomogram in MRC format"),
        ("a.mrc", _short, "is not an MRC file: give a tomogram in MRC format"),
        ("a.mrc", _zeros, "is not an MRC file: give a tomogram in MRC format"),
        ("a.mrc", Path.touch, "is not an MRC file: give a tomogram in MRC format"),
        (
            "a.mrc",
            _truncated,
            r"is truncated: its header promises 3940 bytes and it has 3939; copy or download it again",
        ),
        ("a.mrc.gz", _not_gzip, "is not a gzip file: give an MRC file, or one that gzip packed"),
        ("a.mrc.gz", _cut_gzip, "is truncated: copy or download it again"),
        ("a.mrc", _image, r"is not a volume but an image \(64 x 64 x 1 voxels\): give a reconstructed 3D tomogram"),
        ("a.mrc", _complex, r"holds complex numbers \(a Fourier transform\), which is not a tomogram: give one stored"),
        ("a.mrc", _sized(0), "says its voxel size is 0 A, .* unknown: give it in Angstrom with --voxel-size"),
        ("a.mrc", _sized(1), "says its voxel size is 1 A, .* unknown: give it in Angstrom with --voxel-size"),
        ("a.mrc", _no_cells, "says its voxel size is 0 A, .* unknown: give it in Angstrom with --voxel-size"),
        ("a.mrc", _sized(0.8), "voxel size is 0.8 A, outside 1 to 45 A: give the right one .* with --voxel-size"),
        ("a.mrc", _sized(86), "voxel size is 86 A, outside 1 to 45 A: give the right one .* with --voxel-size"),
        ("a.mrc", _anisotropic, r"different voxel sizes along its axes \(8 x 8 x 12 A\): resample it, or give"),
        ("a.tif", _text, "is not a TIFF volume that can be read: convert it to MRC"),
    ],
)
def test_bad_input_is_one_sentence_with_file_problem_and_remedy(tmp_path: Path, name, make, sentence) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / name)
    with pytest.raises(UserError, match=sentence) as caught:
        open_tomogram(tmp_path / name)
    message = str(caught.value)
    assert str(tmp_path / name) in message and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("size", [0.0, 0.99, 45.1, -8.0, float("nan"), float("inf")])
def test_a_voxel_size_given_out_of_range_is_refused_and_zero_is_not_taken_for_none(tmp_path: Path, size: float) -> None:
    write_mrc(tmp_path / "a.mrc", np.random.rand(8, 8, 8), 8)
    with pytest.raises(UserError, match="given for .* is outside 1 to 45 A: give it in Angstrom with --voxel-size"):
        open_tomogram(tmp_path / "a.mrc", size)


def test_a_given_voxel_size_stands_over_the_header(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.random.rand(8, 8, 8), 0)
    assert open_tomogram(tmp_path / "a.mrc", 1.0).voxel_size_A == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_an_all_constant_volume_is_refused_by_check(tmp_path: Path, dtype: type) -> None:
    write_mrc(tmp_path / "a.mrc", np.full((40, 8, 8), 3, dtype), 8)
    with pytest.raises(UserError, match=r"a\.mrc is empty: every voxel has the value 3; check how"):
        open_tomogram(tmp_path / "a.mrc").check()


def test_one_voxel_that_differs_in_the_last_plane_passes_check(tmp_path: Path) -> None:
    volume = np.zeros((40, 8, 8), np.float32)
    volume[-1, -1, -1] = 1
    write_mrc(tmp_path / "a.mrc", volume, 8)
    open_tomogram(tmp_path / "a.mrc").check()


def _write_bad(path: Path, volume: Volume) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mrcfile and numpy complain about such values, as they should
        write_mrc(path, volume, 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("z", [0, 20, 39])
def test_a_single_nan_or_infinity_anywhere_is_refused(tmp_path: Path, bad: float, z: int) -> None:
    volume = np.random.rand(40, 8, 8).astype(np.float32)
    volume[z, 3, 3] = bad
    _write_bad(tmp_path / "a.mrc", volume)
    source = open_tomogram(tmp_path / "a.mrc")
    with pytest.raises(UserError, match=r"a\.mrc has NaN or infinite voxels: replace them"):
        source.check()
    with pytest.raises(UserError, match="NaN or infinite"):
        source.slab(z, z + 1)


def test_infinities_of_both_signs_do_not_cancel(tmp_path: Path) -> None:
    volume = np.random.rand(8, 8, 8).astype(np.float32)
    volume[0, 0, 0], volume[0, 0, 1] = np.inf, -np.inf
    _write_bad(tmp_path / "a.mrc", volume)
    with pytest.raises(UserError, match="NaN or infinite"):
        open_tomogram(tmp_path / "a.mrc").slab(0, 8)


def test_huge_but_finite_values_pass(tmp_path: Path) -> None:
    _write_bad(tmp_path / "a.mrc", np.full((8, 8, 8), 3e38, np.float32))
    assert open_tomogram(tmp_path / "a.mrc").slab(0, 8).max() == np.float32(3e38)


@pytest.mark.parametrize("largest", [3e38, -3e38, 1e31, -2e30, 1e35])
@pytest.mark.parametrize("z", [0, 39])
def test_values_whose_sums_overflow_are_refused_by_check(tmp_path: Path, largest: float, z: int) -> None:
    volume = np.random.rand(40, 8, 8).astype(np.float32)
    volume[z, 0, 0] = largest
    _write_bad(tmp_path / "a.mrc", volume)
    with pytest.raises(UserError, match="cannot be computed with: replace them"):
        open_tomogram(tmp_path / "a.mrc").check()
