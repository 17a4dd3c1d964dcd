"""What clustering works on: the candidates of one or many tomograms in one frame of comparison, and keeping that on disk.

A scene knows the tomograms, their candidates, the space in which these are compared (the atlas's, or without an atlas the
tomograms' own whitened one), a map of two dimensions for the eye, and a sample of everything there is, from which
references need to know what the background looks like. It is written beside the clusters, so that a selection or another
look needs neither the embeddings nor the map again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from tomotwin_core.checked import Name, Schema, Shape3, VoxelSize, checked
from tomotwin_core.clustering.candidates import Candidates
from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model.checkpoint import header_of, read_safetensors, require_finite, require_shape, write_safetensors
from tomotwin_core.picking.references import Space

FILE = "embeddings.safetensors"
_FORMAT = "tomotwin candidates 2"
_COLUMNS = ("tomogram", "xyz", "xyz_A", "embedding", "features", "particleness", "salience", "diameter_A")


@dataclass(frozen=True)
class TomogramInfo:
    """A tomogram of the scene. file: where its voxels are, if known.  embedding: its field.  shape: (z, y, x)."""

    name: str
    file: str | None
    embedding: str
    voxel_size_A: float
    shape: tuple[int, int, int]
    contrast: str = "dark"


class _Info(Schema):
    name: Name
    file: str | None
    embedding: str
    voxel_size_A: VoxelSize
    shape: Shape3
    contrast: Literal["dark", "bright"] = "dark"


class _Header(Schema):
    format: Literal["tomotwin candidates 2"]
    model_hash: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    tomograms: Annotated[list[_Info], Field(min_length=1)]


@dataclass(frozen=True)
class Scene:
    """ids (n,): the candidates' lasting numbers.  map (n, 2): for the eye.  space: for references, centred on `everything`,
    embeddings (m, 32) from all over the tomograms.  frame (97, d), origin (d,): bring features into the frame for
    clustering, about the middle of what molecules look like there."""

    tomograms: tuple[TomogramInfo, ...]
    candidates: Candidates
    ids: np.ndarray
    map: np.ndarray
    space: Space
    frame: np.ndarray
    origin: np.ndarray
    everything: np.ndarray
    model_hash: str
    seed: int

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def vectors(self) -> np.ndarray:
        """Candidates in the frame (n, d), not of unit length."""
        return self.vectors_of(np.arange(len(self)))

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """Some candidates in the frame (m, d): of many the few of a group."""
        return np.asarray(self.candidates.features[rows] @ self.frame - self.origin)

    @property
    def volume_um3(self) -> np.ndarray:
        """Of each tomogram."""
        return np.array([np.prod(t.shape) * t.voxel_size_A**3 * 1e-12 for t in self.tomograms])

    def select(self, which: np.ndarray) -> Scene:
        """The scene with these candidates alone; their numbers stay."""
        return replace(self, candidates=self.candidates.select(which), ids=self.ids[which], map=self.map[which])

    def rows(self, ids: Any) -> np.ndarray:
        """Rows of candidates by number; UserError for a number that is none."""
        wanted = np.asarray(ids, int).reshape(-1)
        order = np.argsort(self.ids)
        at = np.searchsorted(self.ids[order], wanted)
        at = np.minimum(at, max(len(order) - 1, 0))
        missing = wanted[self.ids[order][at] != wanted] if len(order) else wanted
        if len(missing):
            raise UserError(f"candidate {missing[0]}: there is no candidate of that number; the column tomotwinId has them")
        return np.asarray(order[at])

    def save(self, folder: Path) -> None:
        """As FILE in the folder."""
        header = {
            "format": _FORMAT,
            "model_hash": self.model_hash,
            "seed": self.seed,
            "tomograms": [asdict(t) for t in self.tomograms],
            "made_by": provenance(),
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self.candidates, name))) for name in _COLUMNS}
        tensors |= {
            "ids": torch.from_numpy(self.ids.astype(np.int64)),
            "map": torch.from_numpy(self.map.astype(np.float32)),
            "space.centre": torch.from_numpy(np.ascontiguousarray(self.space.centre, np.float32)),
            "space.matrix": torch.from_numpy(np.ascontiguousarray(self.space.matrix, np.float32)),
            "frame": torch.from_numpy(np.ascontiguousarray(self.frame, np.float32)),
            "origin": torch.from_numpy(np.ascontiguousarray(self.origin, np.float32)),
            "everything": torch.from_numpy(self.everything.astype(np.float16)),
        }
        write_safetensors(folder / FILE, tensors, {"candidates": json.dumps(header)})


def load_scene(folder: Path) -> Scene:
    """What an earlier call left in its folder; UserError where there is nothing of the kind."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: holds no {FILE}; give the folder that an earlier `tomotwin cluster` wrote")
    tensors, metadata = read_safetensors(path, "a candidates")
    what, hint = "what `tomotwin cluster` writes", "run it again"
    sure = checked(_Header, header_of(metadata, "candidates", path, what, hint), path, what, hint)
    require_finite({k: v for k, v in tensors.items() if k != "diameter_A"}, path, hint)
    _require_sizes(tensors, len(sure.tomograms), path, hint)
    tomograms = tuple(TomogramInfo(**t.model_dump()) for t in sure.tomograms)
    columns = {name: tensors[name].numpy() for name in _COLUMNS}
    return Scene(
        tomograms,
        Candidates(tuple(t.name for t in tomograms), **columns),
        tensors["ids"].numpy(),
        tensors["map"].numpy(),
        Space(tensors["space.centre"].numpy(), tensors["space.matrix"].numpy()),
        tensors["frame"].numpy(),
        tensors["origin"].numpy(),
        tensors["everything"].numpy().astype(np.float32),
        sure.model_hash,
        sure.seed,
    )


def _require_sizes(tensors: dict[str, torch.Tensor], tomograms: int, path: Path, hint: str) -> None:
    """UserError where the columns are not of the same candidates, or do not go into the frame."""
    count = len(require_shape(tensors, "xyz", (None, 3), path, hint))
    features = require_shape(tensors, "features", (count, None), path, hint).shape[1]
    space = len(require_shape(tensors, "space.centre", (None,), path, hint))
    require_shape(tensors, "space.matrix", (space, None), path, hint)
    frame = require_shape(tensors, "frame", (features, None), path, hint).shape[1]
    expected: dict[str, tuple[int | None, ...]] = {
        "xyz_A": (count, 3), "embedding": (count, space), "particleness": (count,), "salience": (count,), "diameter_A": (count,),
        "map": (count, 2), "origin": (frame,), "everything": (None, space),
    }  # fmt: skip
    for name, shape in expected.items():
        require_shape(tensors, name, shape, path, hint)
    for name in ("ids", "tomogram"):
        whole = tensors.get(name)
        if whole is None or whole.shape != (count,) or whole.is_floating_point() or (count and int(whole.min()) < 0):
            raise UserError(f"{path}: {name} is missing or of another size: {hint}")
    if count and (int(tensors["tomogram"].max()) >= tomograms or len(tensors["ids"].unique()) < count):
        raise UserError(f"{path}: its candidates are of no tomogram, or two have one number: {hint}")
