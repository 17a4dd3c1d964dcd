"""The average of a group's members, turned onto each other, so that a shape can be seen.

No reference: boxes of the best members are cut from the tomogram (brought to a coarse voxel, protein bright, each of mean 0
and length 1 under a sphere), and their plain sum is the first template. Then, three times, every box is compared with the
template in some hundred orientations spread evenly over all and in shifts of a voxel along each axis, and the boxes, turned
back by the best, make the next template, each without those farthest off. That is coarse (30 degrees, 16 A), knows nothing
of the missing wedge, and is meant to be looked at, not to be measured: noise aligned to a template resembles it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.clustering.scene import Scene, TomogramInfo
from tomotwin_core.tomogram import Resampled, TomogramSource, open_tomogram

_VOXEL_A, _EDGE_A, _LEAST_EDGE = 16.0, 1.5, 12
_PLANES = 32
_ROUNDS, _STEP_DEG = 3, 30.0
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
    edge = boxes.shape[1]
    mask = _sphere(edge)
    normal = np.array([_normalised(box, mask) for box in boxes])
    turns = _rotations(_STEP_DEG)
    template = normal.mean(0)
    used, agreement = normal, 0.0
    for _ in range(_ROUNDS):
        # A turned template is compared with the box; the box then turns back.
        templates = np.array([_turned(template, r, mask) for r in turns]).reshape(len(turns), -1)
        aligned, scores = [], []
        for box in normal:
            moved = np.array([_shifted(box, shift) for shift in _SHIFTS]).reshape(len(_SHIFTS), -1)
            score = templates @ moved.T
            turn, shift = np.unravel_index(int(score.argmax()), score.shape)
            back = turns[turn].inv()
            aligned.append(_turned(moved[shift].reshape(box.shape), back, mask))
            scores.append(float(score.max()))
        order = np.argsort(scores)[::-1][: max(round(_KEPT * len(scores)), 1)]
        used, agreement = np.array(aligned)[order], float(np.mean(np.array(scores)[order]))
        template = _normalised(used.mean(0), mask)
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


def _normalised(box: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = (box - (box * mask).sum() / mask.sum()) * mask
    return np.asarray(out / max(float(np.linalg.norm(out)), 1e-9), np.float32)


def _turned(box: np.ndarray, rotation: Rotation, mask: np.ndarray) -> np.ndarray:
    middle = (np.array(box.shape) - 1) / 2
    matrix = rotation.as_matrix()
    turned = ndimage.affine_transform(box, matrix, middle - matrix @ middle, order=1)
    return _normalised(turned, mask)


def _shifted(box: np.ndarray, shift: Sequence[int]) -> np.ndarray:
    return np.roll(box, shift, axis=(0, 1, 2))


def _rotations(step_deg: float) -> Rotation:
    """Orientations about so far apart, evenly over all, none first."""
    count = round(8 * np.pi**2 / np.radians(step_deg) ** 3 / 2)
    # Super-Fibonacci spirals (Alexa 2022): low-discrepancy points on the unit quaternions.
    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(count) + 0.5
    r, big = np.sqrt(s / count), np.sqrt(1 - s / count)
    a, b = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    quaternions = np.stack([r * np.sin(a), r * np.cos(a), big * np.sin(b), big * np.cos(b)], 1)
    return Rotation.concatenate([Rotation.identity(1), Rotation.from_quat(quaternions)])
