"""The network: 37 x 37 x 37 voxels -> a unit vector of 32 numbers and a particleness, in two forms that agree.

    block 1   5^3 convolution, stride 2      37 -> 17
    block 2   3^3 convolution                17 -> 15
    block 3   3^3 convolution                15 -> 13      (up to here: the trunk, shared by all windows that overlap)
    pooling   3^3 maximum, stride 2          13 ->  6
    block 4   3^3 convolution                 6 ->  4
    block 5   3^3 convolution                 4 ->  2
    head      2^3 convolution, then 1^3       2 ->  1      -> 32 + 1 numbers

No convolution pads and nothing inside depends on statistics of the window, so the window form (one vector per window)
and the dense form (a vector at every second voxel of a volume) are the same function. The middle of the window, voxel
18 of 0..36, is a voxel: an embedding belongs to a voxel, not to a corner between eight. In the dense form the pooling
keeps stride 1 and what follows it is evaluated on the eight phases of the pooled grid ("fragments": Giusti et al.
2013, "Fast image scanning with deep max-pooling convolutional neural networks"), dense convolutions all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional

WINDOW = 37
HALF_WINDOW = WINDOW // 2
STRIDE = 2
EMBEDDING_SIZE = 32
# Side of the pooled window, in pooled positions two trunk positions apart.
_POOLED_SIDE = 6


@dataclass(frozen=True)
class NetworkSettings:
    """The network's size. Training that starts from given weights takes theirs, widened where others than the default ones
    are given here and wider.

    widths : channels of the five blocks.
    head : channels of the head.
    embedding_size : numbers of an embedding.
    own_statistics : share that a tomogram's own statistics have in the normalisation of the first three blocks when it is embedded,
    0 to 1; the rest is what training has seen on average.
    usual_within : distance (model/statistics.py) from what training has seen within which a tomogram is a usual one and its own
    statistics count for nothing, up to the whole share at four times that; 0 where they always count.
    """

    widths: tuple[int, int, int, int, int] = (24, 32, 48, 96, 128)
    head: int = 192
    embedding_size: int = EMBEDDING_SIZE
    own_statistics: float = 0.5
    usual_within: float = 0.025

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class EmbeddingNetwork(nn.Module):
    """See the module's docstring. Input: (batch, 1, 37, 37, 37) float32, locally normalised, protein bright."""

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or NetworkSettings()
        w = self.settings.widths
        self.trunk = nn.Sequential(_block(1, w[0], 5, stride=STRIDE), _block(w[0], w[1], 3), _block(w[1], w[2], 3))
        self.late = nn.Sequential(_block(w[2], w[3], 3), _block(w[3], w[4], 3), _block(w[4], self.settings.head, 2))
        self.head = nn.Sequential(
            _block(self.settings.head, self.settings.head, 1),
            nn.Conv3d(self.settings.head, self.settings.embedding_size + 1, 1),
        )

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Window form: (n, 1, 37, 37, 37) -> embeddings (n, 32) of unit length and particleness logits (n,)."""
        pooled = functional.max_pool3d(self.trunk(windows), 3, 2)
        return split_output(self.head(self.late(pooled)).flatten(1))

    def dense_pooled(self, volume: torch.Tensor) -> torch.Tensor:
        """Trunk and stride-1 pooling of (1, 1, Z, Y, X): what all windows share, (1, c, (Z-15)//2, ...)."""
        return _pooled(self.trunk(volume.to(_dtype(self.trunk))))

    def dense(self, volume: torch.Tensor) -> torch.Tensor:
        """Dense form: (1, 1, Z, Y, X) -> (33, nz, ny, nx) raw outputs, n = (side - 37) // 2 + 1, output i belongs to
        voxel 2 i + 18."""
        pooled = self.dense_pooled(volume)
        counts = [(side - WINDOW) // STRIDE + 1 for side in volume.shape[2:]]
        even = [c + c % 2 for c in counts]
        sides = [e // 2 - 1 + _POOLED_SIDE for e in even]
        # Phase (a, b, c) is every second pooled position; all phases padded to one size make one batch.
        pooled = functional.pad(
            pooled,
            [p for s, n in zip(reversed(sides), reversed(pooled.shape[2:]), strict=True) for p in (0, 2 * s - n)],
        )
        channels = pooled.shape[1]
        phases = pooled.reshape(channels, sides[0], 2, sides[1], 2, sides[2], 2).permute(2, 4, 6, 0, 1, 3, 5)
        phases = phases.reshape(8, channels, *sides).contiguous(memory_format=torch.channels_last_3d)
        late = self.late(phases)
        nz, ny, nx = late.shape[2:]
        # Each position a window of its own: 1^3 convolutions of volumes are slow on a single thread.
        rows = late.permute(0, 2, 3, 4, 1).reshape(-1, late.shape[1], 1, 1, 1).to(_dtype(self.head))
        out = self.head(rows).reshape(2, 2, 2, nz, ny, nx, -1)
        dense = out.permute(6, 3, 0, 4, 1, 5, 2).reshape(-1, 2 * nz, 2 * ny, 2 * nx)
        return dense[:, : counts[0], : counts[1], : counts[2]]

    def windows_of(self, pooled: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """Cut windows out of `dense_pooled` output: corners (n, 3) z, y, x in trunk positions (voxel / 2) -> (n, c,
        6, 6, 6)."""
        depth, height, width = pooled.shape[2:]
        step = 2 * torch.arange(_POOLED_SIDE, device=pooled.device)
        z, y, x = (corners[:, i, None] + step for i in range(3))
        index = (z[:, :, None, None] * height + y[:, None, :, None]) * width + x[:, None, None, :]
        # Not pooled[0]: its gradient would come in another memory order, and be copied at a fifth of a step's time.
        rows = pooled.permute(0, 2, 3, 4, 1).reshape(depth * height * width, -1)
        gathered = rows.index_select(0, index.reshape(-1))
        return gathered.reshape(len(corners), _POOLED_SIDE, _POOLED_SIDE, _POOLED_SIDE, -1).permute(0, 4, 1, 2, 3)

    def embed_pooled(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rest of the window form, from pooled windows (n, c, 6, 6, 6)."""
        return split_output(self.head(self.late(windows)).flatten(1))

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def _dtype(part: nn.Module) -> torch.dtype:
    return next(part.parameters()).dtype


def _pooled(volume: torch.Tensor) -> torch.Tensor:
    """3^3 maximum of stride 1 of (1, c, z, y, x)."""
    if torch.is_grad_enabled():
        return functional.max_pool3d(volume, 3, 1)
    # Axis by axis: twice as fast, and its gradient many times as slow.
    for axis in (2, 3, 4):
        n = volume.shape[axis] - 2
        first, second, third = (volume.narrow(axis, start, n) for start in range(3))
        volume = torch.maximum(torch.maximum(first, second), third)
    return volume


def split_output(raw: torch.Tensor, dim: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw outputs -> (unit embeddings, particleness logits) along the channel axis."""
    size = raw.shape[dim] - 1
    return functional.normalize(raw.narrow(dim, 0, size), dim=dim), raw.select(dim, size)


def folded(network: EmbeddingNetwork, half: bool = False) -> EmbeddingNetwork:
    """A copy for inference: batch norms folded into the convolutions before them, channels last, no gradients.

    half : for the dense form alone, with all but the head in bfloat16; the head's outputs are what is compared.
    """
    clone = copy.deepcopy(network).eval()
    for module in list(clone.modules()):
        if not (isinstance(module, nn.Sequential) and len(module) == 3):
            continue
        convolution, norm = module[0], module[1]
        if isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
            module[0] = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
            module[1] = nn.Identity()
    for parameter in clone.parameters():
        parameter.requires_grad_(False)
    if half:
        clone.trunk.to(torch.bfloat16)
        clone.late.to(torch.bfloat16)
    return channels_last(clone)


def channels_last(network: EmbeddingNetwork) -> EmbeddingNetwork:
    """Weights in the memory order in which 3D convolutions are fastest (a third on CPU)."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def dense_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Embeddings per axis of a volume that is embedded without padding."""
    return tuple((side - WINDOW) // STRIDE + 1 for side in shape)


def _block(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(n_in, n_out, kernel, stride=stride, bias=False),
        nn.BatchNorm3d(n_out),
        nn.LeakyReLU(0.1, inplace=True),
    )
