"""The density library: many molecules in one small file.

A library is `NAME.npz` (one uint8 array [z, y, x] per molecule, deflated) beside `NAME.json` (the manifest: what each
is, its mass, voxel size, value per grey level, source, licence, family and split). The released one ships in the
package and is computed from public structures by `tomotwin library build`.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from tomotwin_core.checked import Diameter, Name, Number, Schema, Tuple, VoxelSize, checked, read_json
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.membrane_frame import MembraneFrame

RELEASED_LIBRARY = Path(__file__).parent / "data" / "library.npz"


# A molecule of 1000 A in voxels of 1 A.
_MOST_VOXELS = 1000**3
_Vector = Annotated[tuple[Number, Number, Number], Tuple]


class _Entry(Schema):
    id: Name
    name: str
    mass_kDa: Annotated[Number, Field(gt=0, lt=1e7)]
    diameter_A: Diameter
    voxel_size_A: VoxelSize
    sigma_A: Annotated[Number, Field(ge=0, lt=1000)]
    da_per_grey: Annotated[Number, Field(gt=0, lt=1e9)]
    source: str
    licence: str
    kind: str = "soluble"
    family: int = -1
    split: str = "train"
    lookalikes: Annotated[tuple[str, ...], Tuple] = ()
    nearest_train: Number = 0.0
    membrane_normal: _Vector | None = None
    membrane_centre_A: _Vector | None = None
    membrane_confidence: Number | None = None
    membrane_energy_kcal_per_mol: Number | None = None


class _Manifest(Schema):
    entries: list[_Entry]


@dataclass(frozen=True)
class LibraryEntry:
    """What the manifest says of one molecule.

    `split` is train, heldout, crowder (too large for the window, or in a membrane: not a target) or filament (a subunit
    that filaments are built of, no molecule by itself). `lookalikes` are ids that cannot be told apart at 10 A,
    `nearest_train` how alike the nearest molecule outside its family's split is (correlation at 20 A). The fields
    membrane_* are those of `MembraneFrame`, for molecules that sit in a membrane.
    """

    id: str
    name: str
    mass_kDa: float
    diameter_A: float
    voxel_size_A: float
    sigma_A: float
    da_per_grey: float
    source: str
    licence: str
    kind: str = "soluble"
    family: int = -1
    split: str = "train"
    lookalikes: tuple[str, ...] = ()
    nearest_train: float = 0.0
    membrane_normal: tuple[float, float, float] | None = None
    membrane_centre_A: tuple[float, float, float] | None = None
    membrane_confidence: float | None = None
    membrane_energy_kcal_per_mol: float | None = None

    @property
    def membrane(self) -> MembraneFrame | None:
        """Where the bilayer lies about the molecule; None for one that is in no membrane."""
        if self.membrane_normal is None or self.membrane_centre_A is None:
            return None
        return MembraneFrame(
            self.membrane_normal,
            self.membrane_centre_A,
            self.membrane_confidence or 0.0,
            self.membrane_energy_kcal_per_mol or 0.0,
        )


@dataclass
class DensityLibrary:
    """Entries by id, densities decoded when asked for."""

    entries: dict[str, LibraryEntry]
    arrays: dict[str, np.ndarray] = field(repr=False)

    def density(self, id: str) -> Density:
        """The molecule's density; UserError if the library has no such id."""
        if id not in self.entries:
            raise UserError(
                f"library:{id}: no such molecule; `tomotwin library list` shows the {len(self.entries)} there are"
            )
        entry = self.entries[id]
        values = self.arrays[id].astype(np.float32) * entry.da_per_grey
        return Density(values, entry.voxel_size_A, entry.sigma_A, entry.membrane)

    def ids(self, split: str | None = None) -> list[str]:
        return sorted(i for i, e in self.entries.items() if split is None or e.split == split)

    def add(self, entry_id: str, density: Density, **described: object) -> None:
        """Quantise a density to 8 bits and list it under `entry_id`."""
        scale = float(density.values.max()) / 255.0
        grey = np.round(density.values / scale).astype(np.uint8)
        # The quantised sum is brought back to the true mass by the scale itself.
        scale *= density.mass_kDa * 1000.0 / (float(grey.sum(dtype=np.float64)) * scale)
        self.arrays[entry_id] = grey
        if density.membrane is not None:
            described = {**described, **{f"membrane_{key}": value for key, value in asdict(density.membrane).items()}}
        self.entries[entry_id] = LibraryEntry(
            id=entry_id,
            mass_kDa=round(density.mass_kDa, 1),
            diameter_A=round(density.diameter_A, 1),
            voxel_size_A=density.voxel_size_A,
            sigma_A=density.sigma_A,
            da_per_grey=scale,
            **described,  # type: ignore[arg-type]
        )

    def save(self, path: Path | str) -> None:
        """Write NAME.npz and NAME.json, both or neither visible under their final names."""
        path = Path(path)
        manifest = {
            "format": "tomotwin density library 1",
            "unit": "Da per voxel",
            "entries": [
                {key: value for key, value in asdict(self.entries[i]).items() if value is not None} for i in self.ids()
            ],
        }
        with atomic_path(path) as temporary, open(temporary, "wb") as out:
            np.savez_compressed(out, **{i: self.arrays[i] for i in self.ids()})
        with atomic_path(path.with_suffix(".json")) as temporary:
            Path(temporary).write_text(json.dumps(manifest, indent=1) + "\n")


def load_library(path: Path | str | None = None) -> DensityLibrary:
    """Open a library; without a path, the released one (kept after the first call)."""
    return _load(Path(path) if path is not None else RELEASED_LIBRARY)


@lru_cache(maxsize=4)
def _load(path: Path) -> DensityLibrary:
    manifest_path = path.with_suffix(".json")
    hint = "make one with `tomotwin library build`"
    if not path.is_file() or not manifest_path.is_file():
        raise UserError(f"{path}: no density library there (NAME.npz and NAME.json); {hint}")
    content = read_json(manifest_path, "the manifest of a density library", hint)
    sure = checked(_Manifest, content, manifest_path, "the manifest of a density library", hint)
    entries = {e.id: LibraryEntry(**e.model_dump()) for e in sure.entries}
    if len(entries) < len(sure.entries):
        raise UserError(f"{manifest_path}: two of its molecules have one id; {hint}")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {i: _array(archive, f"{i}.npy") for i in entries}
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a density library ({str(error)[:100]}); {hint}") from error
    return DensityLibrary(entries, arrays)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One molecule's grey values [z, y, x]; ValueError where the header asks for anything else, before it is allocated."""
    stated = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
        size = math.prod(shape)
        if dtype != np.uint8 or len(shape) != 3 or not 0 < size <= min(stated, _MOST_VOXELS) or fortran:
            raise ValueError(f"{name} is no density: {dtype} of {shape}")
        content = stream.read(size)
    if len(content) < size:
        raise ValueError(f"{name} is cut short")
    values = np.frombuffer(content, np.uint8).reshape(shape)
    if not values.any():
        raise ValueError(f"{name} is empty")
    return values
