"""Dense embedding: a tomogram in, an embedding at every second voxel of the model's grid out.

The volume is taken in planes, the planes in tiles; a tile brings 18 voxels more on each side than it has embeddings,
so any tiling gives the same answer. Beyond the tomogram's faces the normalised volume is zero, its mean, so that
particles at a face are embedded too. Memory is that of a slab and a tile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from tomotwin_core.model.network import HALF_WINDOW, STRIDE, EmbeddingNetwork, folded, split_output
from tomotwin_core.model.statistics import Suited, suited
from tomotwin_core.tomogram import ModelTomogram, Voxels

# Embeddings per side of a tile: small enough for a laptop's memory, large enough that the halo costs little.
TILE_CPU, TILE_GPU = 48, 80
# Pieces of a tomogram that its statistics are taken from (z, y, x in model voxels), like a training's mini-tomograms.
# How many at least and at most, in how many layers at most, and the steps of a sequence that covers a square evenly (Roberts' R2).
_PIECE, _PIECE_MARGIN, _PIECES, _LEVELS = (52, 136, 136), (16, 8, 8), (3, 9), 3
_EVEN_STEPS = (0.7548776662466927, 0.5698402909980532)
# Deviations that only gold and dirt reach, how many such voxels are many, and how far around them.
_EXTREME, _MANY_EXTREMES, _EXTREME_HALO_VOX = 5.0, 0.0015, 3
_DEVICES = re.compile(r"cpu|mps|(cuda|xpu)(:\d{1,3})?")
Precision = Literal["auto", "float32", "bfloat16"]
Tile = tuple[tuple[slice, slice, slice], np.ndarray, np.ndarray]


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes a GPU where there is one; UserError for a device that is not there."""
    from tomotwin_core.errors import UserError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if not _DEVICES.fullmatch(name):  # torch knows devices that hold no numbers (meta), and cpu:99
            raise RuntimeError
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name}: not available here; use --device auto or cpu") from error
    return device


def grid_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Embeddings per axis of a tomogram with `shape` model voxels: one at voxels 0, 2, 4 ..."""
    return tuple((side + STRIDE - 1) // STRIDE for side in shape)


def even_part(length: int, most: int) -> int:
    """The size of equal parts, `most` at the most, that cover `length` with next to nothing left over."""
    parts = -(-length // most)
    return -(-length // parts)


def chosen_precision(precision: Precision, device: torch.device) -> Precision:
    """What auto means: bfloat16 on processors with instructions for it (three times as fast with AMX, which Intel's have since
    Sapphire Rapids), else float32. Similarities differ by some thousandths."""
    if precision != "auto":
        return precision
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device.type == "cpu" and fast() else "float32"


class DenseEmbedder:
    """The network prepared for dense use on a device. precision: of all but the head; see `chosen_precision`."""

    def __init__(
        self,
        network: EmbeddingNetwork,
        device: torch.device | str = "cpu",
        tile: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.device = torch.device(device)
        self.precision = chosen_precision(precision, self.device)
        self._trained = network
        self.suited = Suited(network)
        self.network = self._prepared(network)
        self.tile = tile or (TILE_GPU if self.device.type == "cuda" else TILE_CPU)

    def _prepared(self, network: EmbeddingNetwork) -> EmbeddingNetwork:
        return folded(network, half=self.precision == "bfloat16").to(self.device)

    def suit(self, volume: Voxels | np.ndarray) -> None:
        """Take the statistics of a volume, as `tiles` does before it looks at one."""
        self.suited = suited(self._trained, sampled_pieces(volume), self.device, half=self.precision == "bfloat16")
        self.network = self._prepared(self.suited.network)

    def tile_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Embeddings per side (z, y, x) of the equal tiles that a tomogram of `shape` model voxels is cut into."""
        return tuple(even_part(side, self.tile) for side in grid_shape(shape))

    def n_tiles(self, shape: tuple[int, ...]) -> int:
        """How many tiles that makes."""
        return int(np.prod([-(-n // t) for n, t in zip(grid_shape(shape), self.tile_shape(shape))]))

    def tiles(self, volume: Voxels | np.ndarray) -> Iterator[Tile]:
        """Yield (where on the embedding grid [z, y, x], embeddings float32 [z, y, x, 32], particleness logits [z, y,
        x]) tile by tile.

        volume : normalised, protein bright, at the model's voxel size; an array [z, y, x] or planes on demand.
        """
        self.suit(volume)
        depth, height, width = grid_shape(volume.shape)
        deep, high, wide = self.tile_shape(volume.shape)
        for z in range(0, depth, deep):
            z1 = min(z + deep, depth)
            planes = _padded_planes(volume, z, z1)
            for y in range(0, height, high):
                y1 = min(y + high, height)
                for x in range(0, width, wide):
                    x1 = min(x + wide, width)
                    piece = planes[
                        :,
                        STRIDE * y : STRIDE * (y1 - 1) + 2 * HALF_WINDOW + 1,
                        STRIDE * x : STRIDE * (x1 - 1) + 2 * HALF_WINDOW + 1,
                    ]
                    embeddings, particleness = self.embed(piece)
                    yield (slice(z, z1), slice(y, y1), slice(x, x1)), embeddings, particleness

    @torch.inference_mode()
    def embed(self, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One piece [Z, Y, X] without padding -> embeddings [z, y, x, 32] and particleness [z, y, x]; z = (Z - 37) //
        2 + 1."""
        tensor = torch.from_numpy(np.ascontiguousarray(piece))[None, None].to(self.device)
        embeddings, particleness = split_output(self.network.dense(tensor), dim=0)
        return embeddings.permute(1, 2, 3, 0).cpu().numpy(), particleness.cpu().numpy()

    def whole(self, volume: Voxels | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All tiles put together in memory: for small volumes."""
        shape = grid_shape(volume.shape)
        embeddings = np.zeros((*shape, self.network.settings.embedding_size), np.float32)
        particleness = np.zeros(shape, np.float32)
        for where, e, p in self.tiles(volume):
            embeddings[where], particleness[where] = e, p
        return embeddings, particleness


def sampled_pieces(volume: Voxels | np.ndarray) -> Iterator[np.ndarray]:
    """Pieces spread evenly over a volume [z, y, x], of the size of a training's mini-tomograms and with the same margins of zeros,
    more of a larger volume, where its specimen is; those that are mostly padding are left out."""
    box = volume.specimen_box if isinstance(volume, ModelTomogram) else tuple((0, n) for n in volume.shape)
    (z0, z1), (y0, y1), (x0, x1) = box
    shape = (z1 - z0, y1 - y0, x1 - x0)
    free = [max(n - side, 0) for n, side in zip(shape, _PIECE, strict=True)]
    count = int(np.clip(np.prod(shape) / np.prod(_PIECE), *_PIECES))
    levels = int(np.clip(round(shape[0] / _PIECE[0]), 1, _LEVELS))
    for level in range(levels):
        z = z0 + round((level + 0.5) / levels * free[0])
        high = min(z + _PIECE[0], z1)
        planes = volume[z:high] if isinstance(volume, np.ndarray) else volume.slab(z, high)
        planes = planes[:, y0:y1, x0:x1]
        for index in range(level, count, levels):
            y, x = (round((step * (index + 1)) % 1.0 * room) for step, room in zip(_EVEN_STEPS, free[1:], strict=True))
            piece = planes[:, y : y + _PIECE[1], x : x + _PIECE[2]]
            if (piece != 0).mean() > 0.5:
                gold = np.abs(piece) > _EXTREME
                if (
                    gold.mean() > _MANY_EXTREMES
                ):  # or a tomogram full of beads would be seen as if they were its molecules
                    gold = ndimage.binary_dilation(gold, iterations=_EXTREME_HALO_VOX)
                    piece = np.where(gold, np.float32(0.0), piece)
                yield np.pad(piece, [(m, m) for m in _PIECE_MARGIN])


def _padded_planes(volume: Voxels | np.ndarray, z: int, z1: int) -> np.ndarray:
    """The planes that embeddings z..z1 need, zero beyond the faces; the in-plane margins added too."""
    low, high = STRIDE * z - HALF_WINDOW, STRIDE * (z1 - 1) + HALF_WINDOW + 1
    inside = max(low, 0), min(high, volume.shape[0])
    planes = volume[slice(*inside)] if isinstance(volume, np.ndarray) else volume.slab(*inside)
    margins = [(inside[0] - low, high - inside[1])]
    for side in volume.shape[1:]:
        last = STRIDE * ((side + STRIDE - 1) // STRIDE - 1)
        margins.append((HALF_WINDOW, last + HALF_WINDOW + 1 - side))
    return np.pad(planes, margins)
