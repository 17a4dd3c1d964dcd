"""The embedding field on disk: a Zarr group per tomogram.

    embeddings    float16 [z, y, x, 32], unit vectors
    particleness  float16 [z, y, x], logits
    attributes    what made it: tomogram, its voxel size and shape, contrast, model hash, stride, versions; how unusual it is

Element (i, j, k) belongs to voxel (2 i, 2 j, 2 k) of the tomogram at the model's voxel size, and so lies at 2 i * 10 A
from its first voxel's centre. float16 holds similarities to 5e-4; positions are never stored in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from tomotwin_core.embedding.dense import DenseEmbedder, Precision, even_part, grid_shape
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, provenance
from tomotwin_core.model import STRIDE, Model
from tomotwin_core.progress import progress
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, ModelTomogram, TomogramSource
from tomotwin_core.tomogram.contrast import tell_contrast
from tomotwin_core.tomogram.padding import tell_padding

_FORMAT = "tomotwin embedding field 1"
# Planes of a chunk: peaks are looked for plane by plane.
_CHUNK_PLANES = 16
# Of a tomogram's own statistics, from which on it is called unusual.
_NOTABLE_SHARE = 0.1
# Of a sample of embeddings, which are alike to the last bit where there was nothing to see.
_CHANCE_COPIES = 0.001


@dataclass(frozen=True)
class EmbeddingField:
    """An opened field. `attributes` are as written; arrays are read when asked for."""

    path: Path
    attributes: dict[str, Any]
    group: zarr.Group

    @property
    def tomogram(self) -> str:
        return str(self.attributes["tomogram"])

    @property
    def voxel_size_A(self) -> float:
        """Of the original tomogram."""
        return float(self.attributes["voxel_size_A"])

    @property
    def tomogram_shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the original tomogram."""
        z, y, x = self.attributes["shape"]
        return int(z), int(y), int(x)

    @property
    def model_hash(self) -> str:
        return str(self.attributes["model_hash"])

    @property
    def unusual(self) -> str:
        """In words, that the tomogram is unlike what the network was trained on; "" where it is not, or nobody looked."""
        share = float(self.attributes.get("statistics_share", 0.0))
        if share < _NOTABLE_SHARE:
            return ""
        return (
            f"unlike most of what the network was trained on (distance of statistics {self.attributes['statistics_distance']:.2f}), seen "
            f"with its own by {share:.0%}; look at its picks before you trust their threshold"
        )

    @property
    def spacing_A(self) -> float:
        """Distance between neighbouring embeddings."""
        return float(self.attributes["stride"]) * float(self.attributes["model_voxel_size_A"])

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Embeddings per axis (z, y, x)."""
        z, y, x, _ = self.group["embeddings"].shape  # type: ignore[union-attr]
        return int(z), int(y), int(x)

    def embeddings(self, z0: int, z1: int) -> np.ndarray:
        """float32 [z1 - z0, y, x, 32]."""
        return np.asarray(self.group["embeddings"][z0:z1]).astype(np.float32)  # type: ignore[index]

    def particleness(self, z0: int, z1: int) -> np.ndarray:
        """float32 [z1 - z0, y, x], logits."""
        return np.asarray(self.group["particleness"][z0:z1]).astype(np.float32)  # type: ignore[index]

    def slabs(self, thickness: int | None = None, halo: int = 0) -> Iterator[tuple[int, int, int, int]]:
        """(z0, z1, low, high): slabs of `thickness` planes (by default those of a chunk on disk), and the same with a
        halo, cut at the faces."""
        thickness = thickness or int(self.group["embeddings"].chunks[0])  # type: ignore[union-attr]
        for z0 in range(0, self.shape[0], thickness):
            z1 = min(z0 + thickness, self.shape[0])
            yield z0, z1, max(z0 - halo, 0), min(z1 + halo, self.shape[0])

    def sample(self, count: int = 20_000, seed: int = 0) -> np.ndarray:
        """About `count` embeddings (n, 32) from random places of up to twelve planes spread over the height."""
        depth, height, width = self.shape
        planes = np.unique(np.linspace(0, depth - 1, min(depth, 12)).round().astype(int))
        rng = np.random.default_rng(seed)
        each = min(-(-count // len(planes)), height * width)
        found = [
            self.embeddings(z, z + 1).reshape(height * width, -1)[rng.choice(height * width, each, replace=False)]
            for z in planes
        ]
        return self._of_specimen(np.concatenate(found))

    def _of_specimen(self, embeddings: np.ndarray) -> np.ndarray:
        """Those of embeddings (n, 32) that windows of padding alone did not give: these are all the same."""
        if not self.attributes.get("padding_share"):
            return embeddings
        _, which, counts = np.unique(embeddings, axis=0, return_inverse=True, return_counts=True)
        kept = counts[which.reshape(-1)] <= max(_CHANCE_COPIES * len(embeddings), 1)
        return embeddings[kept] if kept.any() else embeddings

    def at(self, xyz_vox: np.ndarray) -> np.ndarray:
        """Embeddings (n, 32) at positions (n, 3) x, y, z in original voxels: those of the nearest grid points."""
        grid = np.asarray(xyz_vox)[:, ::-1] * self.voxel_size_A / self.spacing_A
        index = np.clip(np.round(grid).astype(int), 0, np.array(self.shape) - 1)
        # As one selection: every chunk is read once, however many positions lie in it.
        array = self.group["embeddings"]
        z, y, x, number = np.broadcast_arrays(*index.T[:, :, None], np.arange(array.shape[-1]))  # type: ignore[union-attr]
        return np.asarray(array.vindex[z, y, x, number]).astype(np.float32)  # type: ignore[union-attr]


def embed_to_disk(
    source: TomogramSource,
    model: Model,
    out: Path,
    contrast: Literal["dark", "bright"] = "dark",
    device: str = "cpu",
    tile: int | None = None,
    precision: Precision = "auto",
) -> EmbeddingField:
    """Embed a tomogram into `out` (a folder NAME.zarr). What is already there, complete and made of the same tomogram
    by the same model, is kept, whatever its precision."""
    wanted: dict[str, Any] = {
        "format": _FORMAT,
        "tomogram": source.name,
        "source": str(source.path),
        "voxel_size_A": source.voxel_size_A,
        "shape": list(source.shape),
        "contrast": contrast,
        "model_hash": model.hash,
        "stride": STRIDE,
        "model_voxel_size_A": MODEL_VOXEL_SIZE_A,
        "source_modified": source.path.stat().st_mtime,
    }
    if out.exists():
        old = open_field(out)
        if all(old.attributes.get(k) == v for k, v in wanted.items()):
            print(f"{out}: already embedded with this model")
            return old
    source.check()
    volume = ModelTomogram(source, contrast=contrast)
    tell_padding(source.name, volume.specimen)
    tell_contrast(source.name, volume)
    embedder = DenseEmbedder(model.network, device, tile, precision)
    shape = grid_shape(volume.shape)
    chunk = _chunk(embedder.tile_shape(volume.shape))
    size = model.network.settings.embedding_size
    with atomic_path(out) as temporary:
        group = zarr.open_group(str(temporary), mode="w")
        group.attrs.update({**wanted, "precision": embedder.precision, **provenance()})
        embeddings = group.create_array(
            "embeddings", shape=(*shape, size), chunks=(*chunk, size), dtype="float16", compressors=None
        )
        particleness = group.create_array("particleness", shape=shape, chunks=chunk, dtype="float16", compressors=None)
        for where, e, p in progress(
            embedder.tiles(volume), total=embedder.n_tiles(volume.shape), desc=f"embedding {source.name}", unit="tiles"
        ):
            embeddings[where] = e.astype(np.float16)
            particleness[where] = p.astype(np.float16)
        group.attrs.update({"padding_share": round(volume.specimen.share, 4)})
        group.attrs.update({"statistics_distance": embedder.suited.distance, "statistics_share": embedder.suited.share})
    return open_field(out)


def open_field(path: Path | str) -> EmbeddingField:
    """Open a field; UserError if the folder is missing or something else."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such embedding; make it with `tomotwin embed`")
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = json.loads(json.dumps(dict(group.attrs)))
        if attributes["format"] != _FORMAT or "embeddings" not in group:
            raise KeyError("format")
    except Exception as error:  # zarr raises its own, KeyError, ValueError and OSError for what is not a group
        raise UserError(f"{path}: not an embedding; give a .zarr folder that `tomotwin embed` wrote") from error
    return EmbeddingField(path, attributes, group)


def _chunk(tile: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks are tiles cut into thinner layers, so that each is written once and none holds room for nothing."""
    return even_part(tile[0], _CHUNK_PLANES), *tile[1:]
