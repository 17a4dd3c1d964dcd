"""What the molecules of the library, membranes, filaments and gold look like to one model, in tomograms of one detail.

An atlas holds

    space       in which copies of one molecule scatter alike in all directions (from the molecules trained on alone), for
                references; and the same for candidates with their surroundings, for clustering
    molecules   what each molecule looks like, for a guess at what a cluster is
    junk        what membranes, gold, filaments, the places between particles and the parts of large particles look like
    breadth     how wide groups have to be taken to come out as the molecules that they are

So what clustering takes for one species depends on the model and on no number in this package. atlas_making.py makes one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from tomotwin_core.checked import Number, Schema, Tuple, VoxelSize, checked
from tomotwin_core.clustering.grouping import Scatter
from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model.checkpoint import header_of, read_safetensors, require_finite, require_shape, write_safetensors
from tomotwin_core.model.network import EMBEDDING_SIZE

_FORMAT = "tomotwin atlas 5"
JUNK = ("membrane", "gold", "filament", "ice", "part")


class _Header(Schema):
    format: Literal["tomotwin atlas 5"]
    model_hash: str
    detail_A: VoxelSize
    names: Annotated[tuple[str, ...], Tuple, Field(min_length=len(JUNK))]
    breadth: Annotated[Number, Field(gt=0, lt=1e6)]


@dataclass(frozen=True)
class Atlas:
    """matrix (32, 32): of the space for references.  frame (97, 97): brings candidates' features into the one for clustering.
    breadth: how many times wider than copies of a molecule scatter groups are taken.

    features (n, 97): as of any candidates.  label (n,): which of `names` each is of; the first names are `JUNK`, then the
    molecules'.  detail_A: voxel size of the tomograms that it speaks for.
    """

    model_hash: str
    detail_A: float
    matrix: np.ndarray
    frame: np.ndarray
    breadth: float
    names: tuple[str, ...]
    features: np.ndarray
    label: np.ndarray

    @cached_property
    def vectors(self) -> np.ndarray:
        """Its examples (n, 97) in the frame."""
        return np.asarray(self.features @ self.frame)

    @cached_property
    def scatter(self) -> Scatter:
        """How molecules scatter in the frame, as wide as groups are taken."""
        known = self.label >= len(JUNK)
        scatter = Scatter.fitted(self.vectors[known], self.label[known])
        return replace(scatter, widths=self.breadth * scatter.widths)

    @cached_property
    def molecules(self) -> tuple[list[str], np.ndarray]:
        """Names of the molecules and their middles (m, 97) in the frame."""
        present = [k for k in range(len(JUNK), len(self.names)) if (self.label == k).any()]
        return [self.names[k] for k in present], np.array([self.vectors[self.label == k].mean(0) for k in present])

    def save(self, path: Path) -> None:
        """One safetensors file."""
        header = {
            "format": _FORMAT,
            "model_hash": self.model_hash,
            "detail_A": self.detail_A,
            "names": list(self.names),
            "breadth": self.breadth,
            "made_by": provenance(),
        }
        tensors = {
            "matrix": torch.from_numpy(np.ascontiguousarray(self.matrix, np.float32)),
            "frame": torch.from_numpy(np.ascontiguousarray(self.frame, np.float32)),
            "features": torch.from_numpy(self.features.astype(np.float16)),
            "label": torch.from_numpy(self.label.astype(np.int16)),
        }
        write_safetensors(path, tensors, {"atlas": json.dumps(header)})


def load_atlas(path: Path) -> Atlas:
    """Read an atlas; UserError if the file is none."""
    tensors, metadata = read_safetensors(path, "an atlas")
    hint = "leave --atlas out to have one made"
    sure = checked(_Header, header_of(metadata, "atlas", path, "an atlas", hint), path, "an atlas", hint)
    require_finite(tensors, path, hint)
    size = len(require_shape(tensors, "frame", (None, None), path, hint))
    require_shape(tensors, "matrix", (EMBEDDING_SIZE, EMBEDDING_SIZE), path, hint)
    require_shape(tensors, "frame", (size, size), path, hint)
    count = len(require_shape(tensors, "features", (None, size), path, hint))
    label = tensors.get("label")
    known = label is not None and label.shape == (count,) and not label.is_floating_point()
    if label is None or not known or not count or not 0 <= int(label.min()) <= int(label.max()) < len(sure.names):
        raise UserError(f"{path}: not an atlas (its labels are none of its examples); {hint}")
    return Atlas(
        sure.model_hash, sure.detail_A, tensors["matrix"].numpy(), tensors["frame"].numpy(), sure.breadth, sure.names,
        tensors["features"].numpy().astype(np.float32), label.numpy().astype(int),
    )  # fmt: skip
