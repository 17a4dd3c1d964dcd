"""References: what a target looks like to the network.

A target is a set of prototypes (unit vectors of 32 numbers): one vector would be the average over all orientations,
several keep the views apart that the missing wedge makes different. A voxel's similarity to the target is its best
cosine over the prototypes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans

from tomotwin_core.checked import Diameter, Name, Number, NumberOrNaN, Schema, checked
from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model.checkpoint import header_of, read_safetensors, require_finite, require_shape, write_safetensors
from tomotwin_core.model.network import EMBEDDING_SIZE
from tomotwin_core.names import fault_of
from tomotwin_core.picking.discovery import Calibration
from tomotwin_core.structures.density import Density

_FORMAT = "tomotwin references 1"
# Towards a round scatter, so that directions seen in few examples are not blown up.
_SHRINKAGE = 0.1
# Voxels of a density along an axis.
_WIDEST_DENSITY = 512


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., d) brought to length 1; 0 stays 0."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9))


@dataclass(frozen=True)
class Space:
    """The frame in which embeddings are compared: centred on the background, made round within a species.

    `centre` (32,): the mean embedding of places without a particle. `matrix` (32, 32): the inverse square root of the
    scatter of one molecule's embeddings about their mean, pooled over molecules (Fisher 1936), so that what changes
    between two copies of one molecule counts little and what tells molecules apart counts much.
    """

    centre: np.ndarray
    matrix: np.ndarray

    @classmethod
    def plain(cls, size: int = 32) -> Space:
        """The embeddings as they are: cosine similarity of the network's own output."""
        return cls(np.zeros(size, np.float32), np.eye(size, dtype=np.float32))

    @classmethod
    def fitted(cls, embeddings: np.ndarray, species: np.ndarray, background: np.ndarray) -> Space:
        """From example embeddings (n, 32) with their species (n,), and background embeddings (m, 32)."""
        residuals = np.concatenate(
            [embeddings[species == s] - embeddings[species == s].mean(0) for s in np.unique(species)]
        )
        scatter = residuals.T @ residuals / max(len(residuals) - len(np.unique(species)), 1)
        size = len(scatter)
        scatter = (1 - _SHRINKAGE) * scatter + _SHRINKAGE * np.trace(scatter) / size * np.eye(size)
        values, vectors = np.linalg.eigh(scatter)
        values = np.maximum(values, 1e-8)  # of unit vectors: examples that do not scatter at all (a constant field)
        return cls(background.mean(0).astype(np.float32), (vectors / np.sqrt(values)).astype(np.float32))

    def transform(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings (..., 32) -> unit vectors in this frame."""
        return unit((embeddings - self.centre) @ self.matrix)


@dataclass(frozen=True)
class Target:
    """prototypes (k, 32) float32, unit vectors of the set's space; diameter_A; threshold: the proposed one, NaN where none could be
    calibrated; origin: what it was made from; calibration: how scores of right and wrong peaks are spread, where known; density:
    the molecule, where it is known, with which picks are verified; decoy: where the density is an average out of tomograms, one of
    other places, made alike."""

    name: str
    prototypes: np.ndarray
    diameter_A: float
    threshold: float = float("nan")
    origin: str = ""
    calibration: Calibration | None = None
    density: Density | None = None
    decoy: Density | None = None


class _DensityHeader(Schema):
    voxel_size_A: Annotated[Number, Field(gt=0, le=100)]
    sigma_A: Annotated[Number, Field(ge=0, le=100)]
    told_diameter_A: Diameter | None = None


class _TargetHeader(Schema):
    name: Name
    diameter_A: Diameter
    threshold: NumberOrNaN
    origin: str
    prevalence: Annotated[Number, Field(ge=0, le=1)] | None = None
    floating: bool = False
    density: _DensityHeader | None = None
    decoy: _DensityHeader | None = None


class _Header(Schema):
    format: Literal["tomotwin references 1"]
    model_hash: str
    targets: list[_TargetHeader]  # none where a clustering found no species
    made_by: dict[str, Any] = {}


@dataclass(frozen=True)
class ReferenceSet:
    """Targets in competition, made with one model.

    background (k, 32) float32: unit vectors of the set's space, what places without a particle look like; may be empty.
    """

    targets: tuple[Target, ...]
    model_hash: str
    made_by: dict[str, Any] = field(default_factory=dict)
    space: Space = field(default_factory=Space.plain)
    background: np.ndarray = field(default_factory=lambda: np.empty((0, EMBEDDING_SIZE), np.float32))

    @property
    def names(self) -> list[str]:
        return [t.name for t in self.targets]

    @property
    def densities(self) -> dict[str, Density]:
        """Of the targets that have one, by name."""
        return {t.name: t.density for t in self.targets if t.density is not None}

    @property
    def decoys(self) -> dict[str, Density]:
        """Of the targets whose density is an average out of tomograms, by name."""
        return {t.name: t.decoy for t in self.targets if t.decoy is not None}

    def similarity(self, embeddings: np.ndarray, background: bool = False) -> np.ndarray:
        """Embeddings (..., 32) -> best cosine per target (..., n_targets), float32; with `background` one more, last, that
        of the background."""
        flat = np.asarray(embeddings, np.float32).reshape(-1, embeddings.shape[-1])
        moved = flat @ self.space.matrix - self.space.centre @ self.space.matrix
        norm = np.sqrt(np.einsum("ij,ij->i", moved, moved))
        moved /= np.maximum(norm, 1e-9)[:, None]
        groups = [t.prototypes for t in self.targets]
        if background and len(self.background):
            groups.append(self.background)
        cosines = moved @ np.concatenate(groups).astype(np.float32).T
        starts = np.cumsum([0] + [len(g) for g in groups[:-1]])
        return np.maximum.reduceat(cosines, starts, axis=1).reshape(*embeddings.shape[:-1], len(groups))

    def save(self, path: Path | str) -> None:
        """One safetensors file: prototypes and density per target, the rest as JSON in its metadata."""
        header = {
            "format": _FORMAT,
            "model_hash": self.model_hash,
            "targets": [
                {
                    "name": t.name,
                    "diameter_A": t.diameter_A,
                    "threshold": t.threshold,
                    "origin": t.origin,
                    "prevalence": t.calibration.prevalence if t.calibration else None,
                    "floating": bool(t.calibration and t.calibration.floating),
                    "density": _told(t.density) if t.density else None,
                    "decoy": _told(t.decoy) if t.decoy else None,
                }
                for t in self.targets
            ],
            "made_by": {**provenance(), **self.made_by},
        }
        tensors = {
            f"prototypes.{i}": torch.from_numpy(np.ascontiguousarray(t.prototypes)) for i, t in enumerate(self.targets)
        }
        tensors |= {
            "space.centre": torch.from_numpy(self.space.centre),
            "space.matrix": torch.from_numpy(self.space.matrix),
            "background": torch.from_numpy(np.ascontiguousarray(self.background)),
        }
        for i, target in enumerate(self.targets):
            if target.calibration:
                both = np.stack([target.calibration.right, target.calibration.wrong])
                tensors[f"calibration.{i}"] = torch.from_numpy(both)
            for what, density in (("density", target.density), ("decoy", target.decoy)):
                if density:
                    # Da per voxel, a few hundred at most: half precision holds them to 5e-4.
                    tensors[f"{what}.{i}"] = torch.from_numpy(density.values.astype(np.float16))
        write_safetensors(Path(path), tensors, {"references": json.dumps(header)})


def _density(
    tensors: dict[str, torch.Tensor], key: str, told: _DensityHeader, name: str, path: Path
) -> Density:
    hint = "make one with `tomotwin reference`"
    values = require_shape(tensors, key, (None, None, None), path, hint).numpy().astype(np.float32)
    if max(values.shape) > _WIDEST_DENSITY or values.max(initial=0.0) <= 0:
        raise UserError(f"{path}: the density of {name} is none; {hint}")
    return Density(values, told.voxel_size_A, told.sigma_A, told_diameter_A=told.told_diameter_A)


def _told(density: Density) -> dict[str, float | None]:
    return {
        "voxel_size_A": density.voxel_size_A,
        "sigma_A": density.sigma_A,
        "told_diameter_A": density.told_diameter_A,
    }


def load_references(path: Path | str) -> ReferenceSet:
    """Read a reference file; UserError if it is not one."""
    path = Path(path)
    tensors, metadata = read_safetensors(path, "a references")
    hint = "make one with `tomotwin reference`"
    header = header_of(metadata, "references", path, "a references file", hint)
    sure = checked(_Header, header, path, "a references file", hint)
    names = [t.name for t in sure.targets]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two of its targets have one name ({', '.join(names[:5])}); {hint}")
    require_finite({k: v for k, v in tensors.items() if not k.startswith("calibration.")}, path, hint)
    size = len(require_shape(tensors, "space.centre", (None,), path, hint))
    matrix = require_shape(tensors, "space.matrix", (size, None), path, hint)
    frame = matrix.shape[1]
    targets = []
    for i, t in enumerate(sure.targets):
        calibration = None
        if f"calibration.{i}" in tensors:
            right, wrong = require_shape(tensors, f"calibration.{i}", (2, None), path, hint).numpy()
            calibration = Calibration(right, wrong, 0.0 if t.prevalence is None else t.prevalence, t.floating)
        prototypes = require_shape(tensors, f"prototypes.{i}", (None, frame), path, hint).numpy()
        if not len(prototypes):
            raise UserError(f"{path}: {t.name} has no prototypes; {hint}")
        density, decoy = (
            _density(tensors, f"{what}.{i}", told, t.name, path) if told else None
            for what, told in (("density", t.density), ("decoy", t.decoy))
        )
        targets.append(Target(t.name, prototypes, t.diameter_A, t.threshold, t.origin, calibration, density, decoy))
    space = Space(tensors["space.centre"].numpy(), matrix.numpy())
    # Files of the first release have no background.
    background = space.matrix[:0]
    if "background" in tensors:
        background = require_shape(tensors, "background", (None, frame), path, hint).numpy()
    return ReferenceSet(tuple(targets), sure.model_hash, sure.made_by, space, background)


def prototypes_of(embeddings: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Cluster example unit vectors (n, 32) into at most `count` unit prototypes (spherical k-means); at least six
    examples stand behind each."""
    count = max(min(count, len(embeddings) // 6), 1)
    if count == 1:
        centres = embeddings.mean(0, keepdims=True)
    else:
        centres = KMeans(count, n_init=4, random_state=seed).fit(embeddings).cluster_centers_
    return (centres / np.linalg.norm(centres, axis=1, keepdims=True)).astype(np.float32)


def background_prototypes(embeddings: np.ndarray, seed: int = 0, count: int = 8) -> np.ndarray:
    """What places without a particle look like: the same, of unit vectors (n, 32) at such places."""
    return prototypes_of(embeddings, count, seed)


def require_same_model(references: ReferenceSet, model_hash: str, what: str) -> None:
    """Embeddings of two models cannot be compared."""
    if references.model_hash != model_hash:
        raise UserError(
            f"{what} was made with another model ({model_hash}) than the references ({references.model_hash}); make both with one model"
        )


def unique_names(names: Sequence[str]) -> None:
    """Targets are told apart by name, and files are named after them."""
    for name in names:
        if fault_of(name) or name.startswith("."):
            raise UserError(f"{name!a} cannot be a target's name; give it as NAME=FILE without slashes")
        if list(names).count(name) > 1:
            raise UserError(f"two targets are called {name!r}; name them apart as NAME=FILE")
