"""What the molecules of the library, membranes and gold look like to one model: learnt once per model, then kept.

Simulated tomograms with all molecules of the library, with membranes and gold, are looked at exactly as a user's are: the
same candidates are looked for, and the truth says what each of them is. That gives

    space       in which copies of one molecule scatter alike in all directions (from the molecules trained on alone)
    molecules   what each molecule looks like, for a guess at what a cluster is
    junk        what membranes, gold and the places between particles look like

and, from molecules parted into random halves, how alike two references of one molecule are and how alike those of two
molecules: the measure for merging clusters, which so depends on the model and on no number in this package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from tomotwin_core.clustering.candidates import Bulk, CandidateSettings, places_of_array
from tomotwin_core.embedding.dense import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.files import provenance
from tomotwin_core.model import STRIDE, Model, load_model
from tomotwin_core.model.checkpoint import read_safetensors, write_safetensors
from tomotwin_core.picking.references import Space
from tomotwin_core.progress import note, progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import Extras, legend, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, normalise_local

_FORMAT = "tomotwin atlas 1"
JUNK = ("membrane", "gold", "ice")
_FEWEST = 3
_MOST_JUNK = 600


@dataclass(frozen=True)
class AtlasSettings:
    """Of the simulated tomograms: shape in model voxels, how many, membranes and gold in each, range of defocus."""

    shape: tuple[int, int, int] = (60, 240, 240)
    tomograms: int = 12
    vesicles: int = 1
    membranes: int = 1
    gold: int = 6
    defocus_um: tuple[float, float] = (2.0, 5.0)
    seed: int = 1


@dataclass(frozen=True)
class Atlas:
    """model_hash.  space: see the module; its centre is the mean embedding of the simulated tomograms.

    offset (n, 32): embeddings at candidates less their tomogram's mean.  label (n,): which of `names` each is of; the first
    names are `JUNK`, then the molecules'.  tomogram (n,): the simulated tomogram it is in.
    """

    model_hash: str
    space: Space
    names: tuple[str, ...]
    offset: np.ndarray
    label: np.ndarray
    tomogram: np.ndarray

    def moved(self, offset: np.ndarray) -> np.ndarray:
        """Embeddings less the mean of their tomogram (n, 32) -> unit vectors of the space."""
        moved = offset @ self.space.matrix
        return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), 1e-9))

    def save(self, path: Path) -> None:
        """One safetensors file."""
        header = {"format": _FORMAT, "model_hash": self.model_hash, "names": list(self.names), "made_by": provenance()}
        tensors = {
            "centre": torch.from_numpy(self.space.centre),
            "matrix": torch.from_numpy(np.ascontiguousarray(self.space.matrix, np.float32)),
            "offset": torch.from_numpy(self.offset.astype(np.float16)),
            "label": torch.from_numpy(self.label.astype(np.int16)),
            "tomogram": torch.from_numpy(self.tomogram.astype(np.int16)),
        }
        write_safetensors(path, tensors, {"atlas": json.dumps(header)})


def load_atlas(path: Path) -> Atlas:
    """Read an atlas; UserError if the file is none."""
    tensors, metadata = read_safetensors(path, "an atlas")
    try:
        header = json.loads(metadata["atlas"])
        if header["format"] != _FORMAT:
            raise KeyError("format")
        space = Space(tensors["centre"].numpy(), tensors["matrix"].numpy())
        columns = (tensors[k].numpy() for k in ("offset", "label", "tomogram"))
        offset, label, tomogram = columns
        return Atlas(
            header["model_hash"], space, tuple(header["names"]), offset.astype(np.float32), label.astype(int), tomogram.astype(int)
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not an atlas; leave --atlas out to have one made") from error


def make_atlas(model: Model, settings: AtlasSettings | None = None, device: str = "cpu") -> Atlas:
    """Simulate the library's molecules, with membranes and gold, and look at them through the model: some minutes."""
    settings = settings or AtlasSettings()
    library = load_library()
    ids = [i for i in library.ids() if library.entries[i].split in ("train", "heldout")]
    trained = {i for i in ids if library.entries[i].split == "train"}
    note(f"an atlas of {len(ids)} molecules is made for the model {model.hash}, once")
    molecules = Molecules({i: library.density(i) for i in ids}, MODEL_VOXEL_SIZE_A)
    embedder = DenseEmbedder(model.network, device)
    names = (*JUNK, *ids)
    rng = np.random.default_rng(settings.seed)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for index in progress(range(settings.tomograms), desc="atlas", unit="tomograms"):
        found.append(_one(index, molecules, embedder, names, settings, rng, device))
    offset = np.concatenate([f[0] for f in found])
    label = np.concatenate([f[1] for f in found])
    tomogram = np.repeat(np.arange(len(found)), [len(f[1]) for f in found])
    chosen = _thinned(label, rng)
    offset, label, tomogram = offset[chosen], label[chosen], tomogram[chosen]
    known = np.isin(label, [k for k, name in enumerate(names) if name in trained])
    counted = known & (np.bincount(label, minlength=len(names))[label] >= _FEWEST)
    space = Space.fitted(offset[counted], label[counted], np.zeros((1, offset.shape[1]), np.float32))
    return Atlas(model.hash, space, names, offset, label, tomogram)


def _one(
    index: int,
    molecules: Molecules,
    embedder: DenseEmbedder,
    names: Sequence[str],
    settings: AtlasSettings,
    rng: np.random.Generator,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and labels of the candidates of one simulated tomogram."""
    low, high = settings.defocus_um
    defocus = low + (high - low) * (index + 0.5) / settings.tomograms
    acquisition = replace(Acquisition(), defocus_um=defocus, dose_e_per_A2=float(rng.uniform(90, 150)))
    sample = SampleSettings(
        settings.shape,
        MODEL_VOXEL_SIZE_A,
        0.9 * settings.shape[0] * MODEL_VOXEL_SIZE_A,
        1,
        vesicles=settings.vesicles,
        membranes=settings.membranes,
        gold=settings.gold,
    )
    made = simulate_tomogram(molecules, sample, acquisition, rng, f"atlas_{index}", device, Extras(labels=True))
    embeddings, particleness = embedder.whole(normalise_local(-made.volume))
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    bulk = Bulk.of(flat[rng.choice(len(flat), min(20_000, len(flat)), replace=False)])
    places, embedding = places_of_array(embeddings, particleness, bulk, CandidateSettings())
    assert made.labels is not None
    label = _labelled(places * STRIDE, made.truth.xyz[:, ::-1], made.truth.label, made.labels, molecules, names)
    kept = label >= 0
    return (embedding - bulk.centre)[kept], label[kept]


def _labelled(
    zyx: np.ndarray, truth: np.ndarray, species: np.ndarray, labels: np.ndarray, molecules: Molecules, names: Sequence[str]
) -> np.ndarray:
    """What each place (n, 3), in model voxels, is: an index of `names`, -1 where it cannot be said."""
    out = np.full(len(zyx), -1)
    numbers = legend(list(molecules.densities))
    furniture = {numbers["membrane"]: 0, numbers["vesicle"]: 0, numbers["gold"]: 1}
    reach = 3
    padded = np.pad(labels, reach)
    for i, place in enumerate(zyx.astype(int)):
        box = padded[tuple(slice(p, p + 2 * reach + 1) for p in place)]
        present = set(np.unique(box).tolist())
        hits = [kind for number, kind in furniture.items() if number in present]
        if hits:
            out[i] = max(hits)
        elif present <= {0}:
            out[i] = 2
    if len(truth):
        distance, nearest = cKDTree(truth).query(zyx)
        for i in np.flatnonzero(distance <= 2.5):
            out[i] = names.index(str(species[nearest[i]]))
    return out


def _thinned(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices, in order, with no more than so many of each kind of junk."""
    chosen = [np.flatnonzero(label >= len(JUNK))]
    for kind in range(len(JUNK)):
        own = np.flatnonzero(label == kind)
        chosen.append(rng.permutation(own)[:_MOST_JUNK])
    return np.sort(np.concatenate(chosen))


def kept_atlas(model_hash: str, model_file: str, device: str = "cpu") -> Atlas:
    """The atlas of a model: that which ships with this software, that which an earlier call kept, or made now and kept.

    Kept in the user's cache folder; where that cannot be written it is made anew each time.
    """
    name = f"atlas_{model_hash}.safetensors"
    places = [Path(__file__).parent / "data" / name, _cache() / name]
    for place in places:
        if place.is_file():
            return load_atlas(place)
    model = load_model(model_file)
    if model.hash != model_hash:
        raise UserError(
            f"the embeddings were made with another model ({model_hash}) than {model_file} ({model.hash}); give theirs as --model, "
            "or --no-library to go without the library"
        )
    atlas = make_atlas(model, device=device)
    try:
        atlas.save(places[-1])
        note(f"{places[-1]}: kept for the next time")
    except UserError as error:
        note(f"the atlas is not kept: {error}")
    return atlas


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tomotwin"
