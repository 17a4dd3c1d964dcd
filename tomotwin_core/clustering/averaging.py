"""The average of a group's members, turned onto each other, so that a shape can be seen.

No reference: boxes of the best members are cut from the tomogram (brought to a coarse voxel, protein bright, each of mean 0
and length 1 under a sphere), and their plain sum is the first template. Then, three times, every box is compared with the
template in some hundred orientations spread evenly over all and in shifts of a voxel along each axis, and the boxes, turned
back by the best, make the next template, each without those farthest off. That is coarse (38 degrees, 16 A), knows nothing
of the missing wedge, and is meant to be looked at, not to be measured: noise aligned to a template resembles it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tomotwin_core.clustering.scene import Scene, TomogramInfo
from tomotwin_core.subtomograms.templates import uniform_rotations
from tomotwin_core.tomogram import Resampled, TomogramSource, open_tomogram

_VOXEL_A, _EDGE_A, _LEAST_EDGE = 16.0, 1.5, 12
_PLANES = 32
_ROUNDS, _STEP_DEG = 3, 37.8
_AT_ONCE = 64
_KEPT = 0.8
_SHIFTS = sorted(product((-1, 0, 1), repeat=3), key=lambda s: sum(map(abs, s)))


@dataclass(frozen=True)
class Averaged:
    """volume [edge, edge, edge]: the average, protein bright.  boxes (n, edge, edge, edge): the members', unturned, best
    first.  voxel_size_A.  agreement: mean correlation of the turned boxes with the average of the others."""

    volume: np.ndarray
    boxes: np.ndarray
    voxel_size_A: float
    agreement: float


def average_of(boxes: np.ndarray, voxel_size_A: float) -> Averaged:
    """Boxes (n, edge, edge, edge), protein bright, turned onto each other and averaged (see the module)."""
    mask = _sphere(boxes.shape[1])
    normal = _normalised(boxes, mask)
    moved = [np.stack([np.roll(box, shift, axis=(0, 1, 2)) for shift in _SHIFTS]) for box in normal]
    turns = Rotation.concatenate([Rotation.identity(1), Rotation.from_matrix(uniform_rotations(_STEP_DEG))])
    template = normal.mean(0)
    used, agreement = normal, 0.0
    for _ in range(_ROUNDS):
        # A turned template is compared with the box; the box then turns back.
        templates = _turned(template[None], turns, mask).reshape(len(turns), -1)
        found = [templates @ shifts.reshape(len(_SHIFTS), -1).T for shifts in moved]
        scores = np.array([score.max() for score in found])
        best = [np.unravel_index(int(score.argmax()), score.shape) for score in found]
        order = np.argsort(scores)[::-1][: max(round(_KEPT * len(scores)), 1)]
        chosen = np.array([moved[i][best[i][1]] for i in order])
        used, agreement = _turned(chosen, turns[[best[i][0] for i in order]].inv(), mask), float(scores[order].mean())
        template = _normalised(used.mean(0, keepdims=True), mask)[0]
    return Averaged((used.mean(0) * mask).astype(np.float32), normal, voxel_size_A, agreement)


def boxes_of(
    scene: Scene, groups: Mapping[str, tuple[np.ndarray, float]], most: int = 30
) -> dict[str, tuple[np.ndarray, float]]:
    """Boxes (n, edge, edge, edge) of groups' members, protein bright, and their voxel size.

    groups : name -> (rows of members, best first; diameter in A).  Members too near to a face are left out, and those of
    tomograms whose file is not known.
    """
    wanted: dict[int, list[tuple[str, int, np.ndarray, int]]] = {}
    edges = {n: max(int(_EDGE_A * d / _VOXEL_A) // 2 * 2 + 1, _LEAST_EDGE + 1) for n, (_, d) in groups.items()}
    opened = {t: source for t, info in enumerate(scene.tomograms) if (source := _opened(info)) is not None}
    for name, (rows, _) in groups.items():
        count = 0
        for rank, row in enumerate(rows):
            t = int(scene.candidates.tomogram[row])
            if t not in opened:
                continue
            middle = np.round(scene.candidates.xyz_A[row, ::-1] / opened[t].voxel_size_A).astype(int)
            half = edges[name] // 2
            if (middle < half).any() or (middle + half >= opened[t].shape).any():
                continue
            wanted.setdefault(t, []).append((name, rank, middle, half))
            count += 1
            if count >= most:
                break
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    size = _VOXEL_A
    for t, boxes in wanted.items():
        volume = opened[t]
        size = volume.voxel_size_A
        sign = 1.0 if scene.tomograms[t].contrast == "bright" else -1.0
        boxes.sort(key=lambda b: b[2][0])
        for low in range(0, volume.shape[0], _PLANES):
            here = [b for b in boxes if low <= b[2][0] < low + _PLANES]
            if not here:
                continue
            first = min(int(b[2][0]) - b[3] for b in here)
            slab = volume.slab(first, max(int(b[2][0]) + b[3] + 1 for b in here))
            for name, rank, (z, y, x), half in here:
                box = slab[z - first - half : z - first + half + 1, y - half : y + half + 1, x - half : x + half + 1]
                found.setdefault(name, []).append((rank, sign * box))
    return {n: (np.array([b for _, b in sorted(f, key=lambda pair: pair[0])]), size) for n, f in found.items()}


def _opened(info: TomogramInfo) -> Resampled | None:
    from pathlib import Path

    if info.file is None or not Path(info.file).is_file():
        return None
    source: TomogramSource = open_tomogram(info.file, info.voxel_size_A)
    return Resampled(source, max(_VOXEL_A, source.voxel_size_A))


def _sphere(edge: int) -> np.ndarray:
    middle = (edge - 1) / 2
    distance = np.sqrt(((np.indices((edge,) * 3) - middle) ** 2).sum(0))
    return np.asarray(1 / (1 + np.exp(2 * (distance - middle + 0.5))), np.float32)


def _normalised(boxes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Boxes (n, edge, edge, edge), each of mean 0 and length 1 under the mask."""
    means = (boxes * mask).sum((1, 2, 3), keepdims=True) / mask.sum()
    out = (boxes - means) * mask
    return np.asarray(out / np.maximum(np.sqrt((out**2).sum((1, 2, 3), keepdims=True)), 1e-9), np.float32)


def _turned(boxes: np.ndarray, rotations: Rotation, mask: np.ndarray) -> np.ndarray:
    """Boxes (n, edge, edge, edge), or the one that there is, each turned about its middle by its rotation, normalised."""
    middle = (mask.shape[0] - 1) / 2
    steps = torch.from_numpy((np.indices(mask.shape).reshape(3, -1).T - middle).astype(np.float32)) / middle
    volumes = torch.tensor(boxes, dtype=torch.float32).expand(len(rotations), *mask.shape)[:, None]
    out = []
    for low in range(0, len(rotations), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        matrices = torch.from_numpy(rotations[part].as_matrix().astype(np.float32))
        # torch names places x first.
        grid = (steps @ matrices.transpose(1, 2)).flip(-1).reshape(-1, *mask.shape, 3)
        out.append(torch.nn.functional.grid_sample(volumes[part], grid, align_corners=True)[:, 0].numpy())
    return _normalised(np.concatenate(out), mask)
