"""Voxels of a file that may be cut while it is read: what is mapped of it and gone would end the process by a signal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.errors import UserError


def require_whole(path: Path, data: NDArray[Any]) -> None:
    """UserError where the file is shorter than what is mapped of it."""
    if isinstance(data, np.memmap) and path.stat().st_size < data.offset + data.nbytes:
        raise UserError(f"{path} was cut short while it was read: copy or download it again.")


def planes_of(path: Path, data: NDArray[Any], z0: int, z1: int) -> NDArray[Any]:
    """Planes z0 up to z1 [z, y, x] as stored: read from the file where it has them one after another, else as they are mapped."""
    require_whole(path, data)
    if not (isinstance(data, np.memmap) and data.flags.c_contiguous):
        return data[z0:z1]
    planes = max(min(z1, len(data)) - z0, 0)
    each = math.prod(data.shape[1:])
    read = np.fromfile(path, data.dtype, planes * each, offset=data.offset + z0 * each * data.itemsize)
    if read.size < planes * each:
        raise UserError(f"{path} was cut short while it was read: copy or download it again.")
    return read.reshape(planes, *data.shape[1:])
