"""Whether all of an embedding is there, and whether it is as large as its tomogram says: asked before anything is read.

Zarr takes a chunk that is missing for one of zeros, and believes any shape. Here every chunk must be a file, and of the right
length where it is not compressed; what is asked for by the arrays' shapes must fit the tomogram's.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from tomotwin_core.embedding.dense import grid_shape
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import resampled_shape

ARRAYS = ("embeddings", "particleness")
# Grid points by which field and tomogram may differ: half a voxel here and there, rounded.
_TOLERANCE = 2
_MOST_NUMBERS = 4096
_MOST_CHUNKS = 1_000_000
_CRC_BYTES = 4


class IncompleteField(UserError):
    """Part of an embedding is missing."""


def require_fitting(
    path: Path, group: zarr.Group, shape: tuple[int, int, int], voxel_size_A: float, stride: int, model_voxel_size_A: float
) -> None:
    """UserError where the arrays are none of an embedding of a tomogram with that shape (z, y, x)."""
    arrays = [_array(path, group, name) for name in ARRAYS]
    expected = grid_shape(resampled_shape(shape, voxel_size_A, model_voxel_size_A)) if stride == 2 else None
    embeddings, particleness = (a.shape for a in arrays)
    fits = len(embeddings) == 4 and embeddings[:3] == particleness and 0 < embeddings[3] <= _MOST_NUMBERS
    fits = fits and min(particleness) > 0 and all(np.issubdtype(a.dtype, np.floating) for a in arrays)
    if fits and expected is not None:
        fits = max(abs(a - b) for a, b in zip(particleness, expected, strict=True)) <= _TOLERANCE
    if not fits:
        raise UserError(
            f"{path}: its arrays of {_by(embeddings)} and {_by(particleness)} are no embedding of a tomogram of {_by(shape)} "
            f"voxels of {voxel_size_A:g} A; embed the tomogram again"
        )


def require_whole(path: Path, group: zarr.Group) -> None:
    """IncompleteField where a chunk is missing, or not of its length."""
    for name in ARRAYS:
        array = _array(path, group, name)
        length = _chunk_bytes(array)
        counts = [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]
        total = math.prod(counts)
        places = itertools.product(*map(range, counts)) if total < _MOST_CHUNKS else ()
        missing = total - sum(_is_chunk(path / name / array.metadata.encode_chunk_key(at), length) for at in places)
        if missing:
            raise IncompleteField(f"{path}: {missing} of {total} parts of its {name} are missing; embed the tomogram again")


def is_half(path: Path) -> bool:
    """Whether a folder holds nothing but parts of an embedding."""
    return path.is_dir() and {p.name for p in path.iterdir()} <= {*ARRAYS, "zarr.json"}


def _array(path: Path, group: zarr.Group, name: str) -> zarr.Array[Any]:
    try:
        array = group[name]
    except MemoryError:
        raise
    except Exception as error:  # zarr raises whatever it likes on a description that is none
        raise IncompleteField(f"{path}: its {name} are missing or cannot be read; embed the tomogram again") from error
    if not isinstance(array, zarr.Array) or not all(0 < c < 2**31 for c in array.chunks):
        raise IncompleteField(f"{path}: its {name} are no array; embed the tomogram again")
    return array


def _chunk_bytes(array: zarr.Array[Any]) -> int | None:
    """Length of a chunk's file; None where it depends on what is in it."""
    kinds = [type(codec) for codec in getattr(array.metadata, "codecs", (None,))]
    if kinds not in ([BytesCodec], [BytesCodec, Crc32cCodec]):
        return None
    return math.prod(array.chunks) * array.dtype.itemsize + _CRC_BYTES * (len(kinds) - 1)


def _is_chunk(file: Path, length: int | None) -> bool:
    try:
        known = os.stat(file)
    except OSError:
        return False
    return stat.S_ISREG(known.st_mode) and (known.st_size == length if length is not None else known.st_size > 0)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
