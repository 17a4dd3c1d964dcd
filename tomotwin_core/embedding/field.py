"""The embedding field on disk: a Zarr group per tomogram.

    embeddings    float16 [z, y, x, 32], unit vectors
    particleness  float16 [z, y, x], logits
    attributes    what made it: tomogram, its voxel size and shape, contrast, model hash, stride, versions; how unusual it is

Element (i, j, k) belongs to voxel (2 i, 2 j, 2 k) of the tomogram at the model's voxel size, and so lies at 2 i * 10 A
from its first voxel's centre. float16 holds similarities to 5e-4; positions are never stored in it.

A chunk that is missing would read as zeros, in which nothing is found: all chunks are written, each with its checksum, and
a field is opened only when all are there (`whole.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import Field
from zarr.codecs import Crc32cCodec

from tomotwin_core.checked import Name, Number, Schema, Shape3, VoxelSize, checked
from tomotwin_core.embedding.dense import DenseEmbedder, Precision, even_part, grid_shape
from tomotwin_core.embedding.whole import IncompleteField, is_half, require_fitting, require_whole
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, content_of, provenance
from tomotwin_core.locks import alone_at
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
# What is told of the tomogram's file, beside its content.
_OF_THE_FILE = ("source", "source_modified", "source_state", "source_content")
# Of a sample of embeddings, which are alike to the last bit where there was nothing to see.
_CHANCE_COPIES = 0.001


class _Attributes(Schema):
    format: Literal["tomotwin embedding field 1"]
    tomogram: Name
    voxel_size_A: VoxelSize
    shape: Shape3
    contrast: Literal["dark", "bright"] = "dark"
    model_hash: str
    stride: Annotated[int, Field(ge=1, le=64)]
    model_voxel_size_A: VoxelSize
    source: str = ""
    statistics_share: Annotated[Number, Field(ge=0, le=1)] = 0.0
    statistics_distance: Annotated[Number, Field(ge=0)] = 0.0
    padding_share: Annotated[Number, Field(ge=0, le=1)] = 0.0


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
    def contrast(self) -> Literal["dark", "bright"]:
        """Of protein in the tomogram."""
        return "bright" if self.attributes.get("contrast") == "bright" else "dark"

    @property
    def unusual(self) -> str:
        """In words, that the tomogram is unlike what the network was trained on; "" where it is not, or nobody looked."""
        share = float(self.attributes.get("statistics_share", 0.0))
        if share < _NOTABLE_SHARE:
            return ""
        return (
            f"unlike most of what the network was trained on (distance of statistics {self.attributes.get('statistics_distance', 0):.2f}), seen "
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

    @property
    def size(self) -> int:
        """Numbers of an embedding."""
        return int(self.group["embeddings"].shape[3])  # type: ignore[union-attr]

    def embeddings(self, z0: int, z1: int) -> np.ndarray:
        """float32 [z1 - z0, y, x, 32]."""
        return self._read(lambda: self.group["embeddings"][z0:z1])  # type: ignore[index]

    def particleness(self, z0: int, z1: int) -> np.ndarray:
        """float32 [z1 - z0, y, x], logits."""
        return self._read(lambda: self.group["particleness"][z0:z1])  # type: ignore[index]

    def _read(self, part: Callable[[], Any]) -> np.ndarray:
        """A part of an array as float32; UserError where it cannot be read, or holds what the network does not give."""
        try:
            values = np.asarray(part()).astype(np.float32)
        except MemoryError:
            raise
        except Exception as error:  # zarr and its codecs raise whatever they like on a chunk that is damaged or not there
            raise UserError(f"{self.path}: cannot be read ({str(error)[:100]}); embed {self.tomogram} again") from error
        with np.errstate(invalid="ignore"):
            total = float(values.sum(dtype=np.float64))
        if not math.isfinite(total):
            raise UserError(f"{self.path}: holds values that are no numbers; embed {self.tomogram} again")
        return values

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
        return self._read(lambda: array.vindex[z, y, x, number])  # type: ignore[union-attr]


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
    by the same model, is kept, whatever its precision; what is there in part is made again.

    UserError where another run writes there, or the tomogram's file changes while it is read.
    """
    path = source.path.resolve()
    wanted: dict[str, Any] = {
        "format": _FORMAT,
        "tomogram": source.name,
        "voxel_size_A": source.voxel_size_A,
        "shape": list(source.shape),
        "contrast": contrast,
        "model_hash": model.hash,
        "stride": STRIDE,
        "model_voxel_size_A": MODEL_VOXEL_SIZE_A,
    }
    with alone_at(out):
        if out.exists() and (old := _kept(out, wanted, path)) is not None:
            print(f"{out}: already embedded with this model")
            return old
        source.check()
        state = _state(path)
        of_the_file = dict(zip(_OF_THE_FILE, (str(path), path.stat().st_mtime, state, content_of(path)), strict=True))
        volume = ModelTomogram(source, contrast=contrast)
        tell_padding(source.name, volume.specimen)
        tell_contrast(source.name, volume)
        embedder = DenseEmbedder(model.network, device, tile, precision)
        with atomic_path(out) as temporary:
            _embed(temporary, volume, embedder, {**wanted, **of_the_file}, source.name)
            if _state(path) != state:
                raise UserError(f"{path}: has changed while it was read; embed it again when it is complete")
    return open_field(out)


def _embed(
    folder: Path, volume: ModelTomogram, embedder: DenseEmbedder, attributes: dict[str, Any], name: str
) -> None:
    """Write all arrays and attributes of a field into a new folder."""
    shape = grid_shape(volume.shape)
    chunk = _chunk(embedder.tile_shape(volume.shape))
    size = embedder.network.settings.embedding_size
    group = zarr.open_group(str(folder), mode="w")
    group.attrs.update({**attributes, "precision": embedder.precision, **provenance()})
    arrays = [
        group.create_array(
            key, shape=(*shape, *more), chunks=(*chunk, *more), dtype="float16", compressors=Crc32cCodec(),
            config={"write_empty_chunks": True},
        )
        for key, more in (("embeddings", (size,)), ("particleness", ()))
    ]  # fmt: skip
    for where, *values in progress(
        embedder.tiles(volume), total=embedder.n_tiles(volume.shape), desc=f"embedding {name}", unit="tiles"
    ):
        for array, part in zip(arrays, values, strict=True):
            array[where] = part.astype(np.float16)
    group.attrs.update({"padding_share": round(volume.specimen.share, 4)})
    group.attrs.update({"statistics_distance": embedder.suited.distance, "statistics_share": embedder.suited.share})
    # The folder may have been removed meanwhile: zarr makes what is missing for a chunk, and nobody would know.
    require_whole(folder, zarr.open_group(str(folder), mode="r"))


def open_field(path: Path | str) -> EmbeddingField:
    """Open a field; UserError if the folder is missing, something else, or not all of an embedding."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such embedding; make it with `tomotwin embed`")
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = json.loads(json.dumps(dict(group.attrs)))
        if attributes["format"] != _FORMAT:
            raise KeyError("format")
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # zarr raises its own, KeyError, ValueError and OSError for what is not a group
        raise UserError(f"{path}: not an embedding; give a .zarr folder that `tomotwin embed` wrote") from error
    sure = checked(_Attributes, attributes, path, "an embedding that can be used", "embed the tomogram again")
    require_fitting(path, group, sure.shape, sure.voxel_size_A, sure.stride, sure.model_voxel_size_A)
    require_whole(path, group)
    return EmbeddingField(path, attributes, group)


def _kept(out: Path, wanted: dict[str, Any], path: Path) -> EmbeddingField | None:
    """What is there, if it is whole and of the same tomogram; UserError where it is something else altogether."""
    try:
        old = open_field(out)
    except IncompleteField as error:
        print(f"{error}: that is done now")
        return None
    except UserError:
        if is_half(out):
            print(f"{out}: is half an embedding, made again")
            return None
        raise
    if any(old.attributes.get(k) != v for k, v in wanted.items()):
        return None
    if old.attributes.get("source_state") == _state(path):
        return old
    if "source_content" not in old.attributes:  # of an earlier version
        same = old.attributes.get("source_modified") == path.stat().st_mtime
        return old if same and Path(str(old.attributes.get("source"))).resolve() == path else None
    return _moved(old, path) if old.attributes["source_content"] == content_of(path) else None


def _moved(field: EmbeddingField, path: Path) -> EmbeddingField:
    """The field with the place where its tomogram is now."""
    file = field.path / "zarr.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    described["attributes"] |= {"source": str(path), "source_state": _state(path)}
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(described), encoding="utf-8")
    return open_field(field.path)


def _state(path: Path) -> list[int]:
    """Size, dates and number of a file: while none of them changes nor does its content, as nobody sets the second date."""
    known = path.stat()
    return [known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino]


def _chunk(tile: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks are tiles cut into thinner layers, so that each is written once and none holds room for nothing."""
    return even_part(tile[0], _CHUNK_PLANES), *tile[1:]
