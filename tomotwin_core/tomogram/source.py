"""A tomogram on disk: opened lazily, checked for everything that is commonly wrong with one, and written.

In: MRC files (``.mrc .rec .map .st``, also gzipped) of integers or floats in either byte order, or TIFF volumes.
Out: `TomogramSource`, whose `slab` reads only the planes asked for, as float32 [z, y, x].

The MRC header is read here rather than by mrcfile, because mrcfile refuses or warns about headers that other software
writes every day (no map stamp, IMOD's unsigned bytes) and does not look whether the file is complete before mapping it.
The format: Cheng et al., J. Struct. Biol. 192, 146 (2015); IMOD's bytes: https://bio3d.colorado.edu/imod/doc/mrc_format.txt
"""

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from tomotwin_core import __version__
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.names import require_name
from tomotwin_core.remarks import remark
from tomotwin_core.tomogram.stored import planes_of, require_whole

VOXEL_SIZE_RANGE_A = (1.0, 45.0)

_HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_ENDINGS = (".mrc", ".rec", ".map", ".st", ".tif", ".tiff")
_IMOD_STAMP = 1146047817
_CHECK_PLANES = 16
# Grey values whose squares float32 still holds.
_MOST = 1e18
# Thinner than this along an axis is a tomogram of nothing, A.
_THINNEST_A = 50.0


class Voxels(Protocol):
    """Anything that gives planes of a volume: a file, its resampled form, its normalised form."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def voxel_size_A(self) -> float: ...

    def slab(self, z0: int, z1: int) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class TomogramSource:
    """A tomogram in its own voxels; nothing is read until `slab` asks for it.

    Attributes
    ----------
    path : Path
    name : str
        The file's name without ``.mrc``, ``.rec``, ``.gz`` and the like; serves as the tilt series identifier (tsId).
    shape : tuple of int
        (z, y, x) in voxels.
    voxel_size_A : float
    dtype : numpy.dtype
        As stored; `slab` always gives float32.
    """

    path: Path
    name: str
    shape: tuple[int, int, int]
    voxel_size_A: float
    dtype: np.dtype[Any]
    _data: NDArray[Any] = field(repr=False, compare=False)

    @property
    def voxels(self) -> NDArray[Any]:
        """All voxels [z, y, x] as stored, mapped from the file: what is not indexed is not read. Not checked for NaN."""
        require_whole(self.path, self._data)
        return self._data

    def slab(self, z0: int, z1: int) -> NDArray[np.float32]:
        """Planes z0 up to, not including, z1 as float32 [z, y, x]; a `UserError` when they hold NaN or infinity."""
        with np.errstate(over="ignore"):
            slab = np.array(planes_of(self.path, self._data, z0, z1), dtype=np.float32, order="C")
        # One sum finds any NaN or infinity at a fraction of the memory of isfinite; float64 so that it cannot overflow.
        with np.errstate(invalid="ignore"):
            total = float(slab.sum(dtype=np.float64))
        if not math.isfinite(total):
            raise UserError(
                f"{self.path} has NaN or infinite voxels: replace them (for example with the mean) "
                "or reconstruct the tomogram again."
            )
        return slab

    def check(self) -> None:
        """Read everything once, slab by slab; a `UserError` when voxels are NaN, infinite, absurd or all the same."""
        first: float | None = None
        for z0 in range(0, self.shape[0], _CHECK_PLANES):
            slab = self._computable(self.slab(z0, z0 + _CHECK_PLANES))
            if first is None:
                first = float(slab.flat[0])
            if bool(np.any(slab != np.float32(first))):
                break
        else:
            raise UserError(
                f"{self.path} is empty: every voxel has the value {first:g}; check how the tomogram was reconstructed."
            )
        for z1 in range(z0 + _CHECK_PLANES, self.shape[0], _CHECK_PLANES):
            self._computable(self.slab(z1, z1 + _CHECK_PLANES))
        thinnest = min(range(3), key=lambda axis: self.shape[axis])
        if self.shape[thinnest] * self.voxel_size_A < _THINNEST_A:
            remark(
                f"{self.path} is {self.shape[thinnest]} voxels ({self.shape[thinnest] * self.voxel_size_A:.0f} A) along "
                f"{'zyx'[thinnest]}, less than a molecule: is it a whole tomogram?"
            )

    def _computable(self, slab: NDArray[np.float32]) -> NDArray[np.float32]:
        """The slab; UserError where its values are so large that their squares are infinite."""
        most = max(float(slab.max()), -float(slab.min()))
        if most > _MOST:
            raise UserError(
                f"{self.path} has voxels of {most:.3g}, which cannot be computed with: replace them (for example with the mean) "
                "or reconstruct the tomogram again."
            )
        return slab


def open_tomogram(
    path: str | os.PathLike[str], voxel_size_A: float | None = None, finest_A: float = VOXEL_SIZE_RANGE_A[0]
) -> TomogramSource:
    """Open a tomogram or density map without reading its voxels.

    Parameters
    ----------
    path : path
        An MRC volume (``.mrc .rec .map .st``, possibly with ``.gz``, which is read whole), or a TIFF volume.
    voxel_size_A : float, optional
        Voxel size in Angstrom, over what the header says. Needed for TIFF and where the header says 0 or 1.
    finest_A : float
        The finest voxel size taken; density maps are finer than any tomogram.

    Raises
    ------
    UserError
        When the file is missing, no MRC, truncated, 2D, complex-valued, or its voxel size is missing, different along
        the axes or outside 1 to 45 A. NaN and constant volumes are found by `TomogramSource.slab` and ``.check``.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(f"{file} does not exist: check the path of the tomogram.")
    if not file.is_file():
        raise UserError(f"{file} is not a file: give a tomogram in MRC format.")
    if file.suffix.lower() in (".tif", ".tiff"):
        data, header_size = _read_tiff(file), None
    else:
        data, header_size = _map_mrc(file)
    if data.ndim == 4 and min(data.shape) > 1:
        raise UserError(
            f"{file} is a stack of {data.shape[0]} volumes or of colours: give one tomogram of grey values."
        )
    if data.ndim != 3 or min(data.shape) < 2:
        shown = " x ".join(str(n) for n in data.shape[::-1])
        raise UserError(f"{file} is not a volume but an image ({shown} voxels): give a reconstructed 3D tomogram.")
    z, y, x = data.shape
    return TomogramSource(
        path=file,
        name=require_name(tomogram_name(file), file, "the file's name"),
        shape=(z, y, x),
        voxel_size_A=_settled_voxel_size(file, header_size, voxel_size_A, finest_A),
        dtype=data.dtype,
        _data=data,
    )


def tomogram_name(path: str | os.PathLike[str]) -> str:
    """The name a tomogram goes by: its file name without ``.gz`` and without its format's ending."""
    name = Path(path).name
    if name.lower().endswith(".gz"):
        name = name[:-3]
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def write_mrc(
    path: str | os.PathLike[str], volume: NDArray[Any], voxel_size_A: float, labels: Sequence[str] = ()
) -> None:
    """Write a volume [z, y, x] as MRC, with its voxel size (A) and what made it; an existing file is replaced.

    int8, int16, uint16 and float16 stay as they are, everything else becomes float32. `labels` are up to nine lines of
    80 characters after the one that names this software.
    """
    data = np.asarray(volume)
    if data.ndim != 3:
        raise ValueError(f"an MRC volume has three axes, this array has the shape {data.shape}")
    if data.dtype not in (np.int8, np.int16, np.uint16, np.float16, np.float32):
        data = data.astype(np.float32)
    with atomic_path(path) as temporary, mrcfile.new(str(temporary)) as mrc:
        mrc.set_data(data)
        mrc.set_volume()
        mrc.voxel_size = voxel_size_A
        for number, line in enumerate([f"tomotwin {__version__}", *labels][:10]):
            mrc.header.label[number] = line.encode("ascii", "replace")[:80]
            mrc.header.nlabl = number + 1


def _settled_voxel_size(
    file: Path, header: tuple[float, float, float] | None, given: float | None, low: float
) -> float:
    high = VOXEL_SIZE_RANGE_A[1]
    if given is not None:
        if not low <= given <= high:
            raise UserError(
                f"the voxel size {given:g} A given for {file} is outside {low:g} to {high:g} A: "
                "give it in Angstrom with --voxel-size."
            )
        return float(given)
    if header is None:
        raise UserError(f"{file} does not carry its voxel size: give it in Angstrom with --voxel-size.")
    if max(header) - min(header) > 0.01 * max(header):
        sizes = " x ".join(f"{size:g}" for size in header)
        raise UserError(
            f"{file} has different voxel sizes along its axes ({sizes} A): resample it, "
            "or give the one size that is right with --voxel-size."
        )
    size = sum(header) / 3
    # 0 and 1 are what software writes that does not know the size; 1 A is believed only when the user says so.
    if not math.isfinite(size) or size <= 0 or abs(size - 1) < 1e-4:
        raise UserError(
            f"{file} says its voxel size is {size:g} A, which usually means that it is unknown: "
            "give it in Angstrom with --voxel-size."
        )
    if not low <= size <= high:
        raise UserError(
            f"{file} says its voxel size is {size:g} A, outside {low:g} to {high:g} A: "
            "give the right one in Angstrom with --voxel-size."
        )
    return float(size)


def _map_mrc(file: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """The voxels of an MRC file as an array [z, y, x], mapped or (gzip) in memory, and its voxel size along x, y, z."""
    zipped = file.suffix.lower() == ".gz"
    try:
        if zipped:
            with gzip.open(file) as stream:
                head = stream.read(_HEADER_BYTES)
                try:
                    promised = _promised_bytes(file, head)
                except UserError:
                    stream.read(_HEADER_BYTES * _HEADER_BYTES)  # says whether that is all, or cut
                    raise
                # No more than its header promises: what is packed can be a thousand times as large.
                content = head + stream.read(max(promised - len(head), 0))
            size = len(content)
        else:
            with file.open("rb") as stream:
                head = stream.read(_HEADER_BYTES)
                if len(head) < _HEADER_BYTES:
                    stream.read(1)  # says whether that is all, or cut
            content, size = b"", file.stat().st_size
    except EOFError:
        raise UserError(f"{file} is truncated: copy or download it again.") from None
    except (gzip.BadGzipFile, zlib.error):
        raise UserError(f"{file} is not a gzip file: give an MRC file, or one that gzip packed.") from None
    except PermissionError:
        raise UserError(f"{file} cannot be read (permission denied): change its permissions.") from None
    header = _parse_header(file, head)
    dtype = _stored_dtype(file, header)
    _require_one_volume(file, header)
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    offset = _HEADER_BYTES + max(int(header["nsymbt"]), 0)
    needed = offset + math.prod(shape) * dtype.itemsize
    if size < needed:
        raise UserError(
            f"{file} is truncated: its header promises {needed} bytes and it has {size}; copy or download it again."
        )
    data: NDArray[Any]
    if zipped:
        data = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape)
    else:
        data = np.memmap(file, dtype, "r", offset, shape)
    if _sign_is_open(header):
        data = _of_either_sign(data)
    # Columns, rows and sections may be any of the three axes; almost always they are x, y and z.
    axes = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if sorted(axes) == [1, 2, 3]:
        data = data.transpose([axes.index(axis) for axis in (3, 2, 1)])
    return data, _header_voxel_size(header)


def _promised_bytes(file: Path, head: bytes) -> int:
    """Length of a file with such a header, in bytes."""
    header = _parse_header(file, head)
    sides = [int(header[name]) for name in ("nz", "ny", "nx")]
    return _HEADER_BYTES + max(int(header["nsymbt"]), 0) + math.prod(sides) * _stored_dtype(file, header).itemsize


def _parse_header(file: Path, head: bytes) -> np.void:
    """The header in whichever byte order makes sense of it; a `UserError` when neither does."""
    if len(head) == _HEADER_BYTES:
        for order in ("<", ">"):
            header = np.frombuffer(head, HEADER_DTYPE.newbyteorder(order), 1)[0]
            sides = [int(header[name]) for name in ("nx", "ny", "nz")]
            if 0 <= int(header["mode"]) <= 101 and all(0 < side < 100_000 for side in sides):
                return header  # type: ignore[no-any-return]
    raise UserError(f"{file} is not an MRC file: give a tomogram in MRC format.")


def _stored_dtype(file: Path, header: np.void) -> np.dtype[Any]:
    mode = int(header["mode"])
    if mode not in _MODES:
        kind = "complex numbers (a Fourier transform)" if mode in (3, 4) else f"MRC mode {mode}"
        raise UserError(f"{file} holds {kind}, which is not a tomogram: give one stored as integers or real numbers.")
    big = header.dtype["mode"] == np.dtype(">i4")
    name = _MODES[mode]
    stamp, flags = _imod_stamp(header)
    if mode == 0 and stamp:
        # IMOD once wrote unsigned bytes; its stamp and the first bit of a flag say which.
        name = "i1" if flags & 1 else "u1"
    elif mode == 0 and _header_range(header)[1] > 127:
        name = "u1"
    elif mode == 1 and _header_range(header)[1] > 32767:
        name = "u2"
    elif mode == 6 and _header_range(header)[0] < 0:
        name = "i2"
    return np.dtype((">" if big else "<") + name)


def _imod_stamp(header: np.void) -> tuple[bool, int]:
    """Whether IMOD wrote the file, and its flags (bytes 152-159 of the file)."""
    big = header.dtype["mode"] == np.dtype(">i4")
    stamp, flags = np.frombuffer(header.tobytes(), ">i4" if big else "<i4", 2, 152)
    return int(stamp) == _IMOD_STAMP, int(flags)


def _header_range(header: np.void) -> tuple[float, float]:
    """Least and largest voxel, as far as the header says them: dmax < dmin stands for neither (Cheng et al. 2015)."""
    low, high = float(header["dmin"]), float(header["dmax"])
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else (0.0, 0.0)


def _sign_is_open(header: np.void) -> bool:
    """Whether nothing says if the bytes of a file have a sign: no stamp of IMOD, no least and largest voxel."""
    return int(header["mode"]) == 0 and not _imod_stamp(header)[0] and _header_range(header) == (0.0, 0.0)


def _of_either_sign(data: NDArray[Any]) -> NDArray[Any]:
    """Bytes with the sign that makes them a tomogram: taken wrongly, one heap of grey values becomes two far apart.

    Where all of them are one heap either way the two are 256 apart, which says nothing to anybody.
    """
    planes = np.linspace(0, len(data) - 1, min(len(data), _CHECK_PLANES)).round().astype(int)
    sample = np.ascontiguousarray(data[np.unique(planes)])
    signed, unsigned = (float(sample.view(kind).std(dtype=np.float64)) for kind in (np.int8, np.uint8))
    return data.view(np.uint8) if unsigned < signed else data


def _require_one_volume(file: Path, header: np.void) -> None:
    """A `UserError` for a stack of volumes, a remark for what says it is a stack of images (Cheng et al. 2015: ISPG, MZ)."""
    group, planes, of_one = int(header["ispg"]), int(header["nz"]), int(header["mz"])
    if 401 <= group <= 630 and 0 < of_one < planes:
        raise UserError(f"{file} is a stack of {planes // of_one} volumes of {of_one} planes: give one tomogram.")
    if group == 0 and of_one == 1 and planes > 1:
        remark(
            f"{file} says that it is a stack of {planes} images, such as a tilt series: is it a reconstructed tomogram?"
        )


def _header_voxel_size(header: np.void) -> tuple[float, float, float]:
    sizes = []
    for axis, count in (("x", "mx"), ("y", "my"), ("z", "mz")):
        cells = int(header[count])
        sizes.append(float(header["cella"][axis]) / cells if cells > 0 else 0.0)
    return sizes[0], sizes[1], sizes[2]


def _read_tiff(file: Path) -> NDArray[Any]:
    try:
        import tifffile
    except ImportError:
        raise UserError(f"{file} needs the package tifffile to be read: install it, or convert to MRC.") from None
    try:
        data = np.squeeze(np.asarray(tifffile.imread(file)))
    except (MemoryError, PermissionError):
        raise
    except Exception:  # tifffile raises whatever it likes on what is none, or half of one
        raise UserError(f"{file} is not a TIFF volume that can be read: convert it to MRC.") from None
    return data
