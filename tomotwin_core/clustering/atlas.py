"""What the molecules of the library, membranes and gold look like to one model: learnt once per model, then kept.

Simulated tomograms with all molecules of the library, with membranes and gold, are looked at exactly as a user's are: the
same candidates are looked for, and the truth says what each of them is. That gives

    space       in which copies of one molecule scatter alike in all directions (from the molecules trained on alone), for
                references; and the same for candidates with their surroundings, for clustering
    molecules   what each molecule looks like, for a guess at what a cluster is
    junk        what membranes, gold, the places between particles and the parts of large particles look like

and, by clustering handfuls of molecules of the atlas among its junk, how wide groups have to be taken to come out as the
molecules that they are. So what clustering takes for one species depends on the model and on no number in this package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from tomotwin_core.clustering.candidates import Bulk, CandidateSettings, places_of_array
from tomotwin_core.clustering.grouping import Scatter, grouped
from tomotwin_core.coordinates import Coordinates
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

_FORMAT = "tomotwin atlas 3"
JUNK = ("membrane", "gold", "ice", "part")
_FEWEST = 3
# Of each kind of junk; parts are of as many kinds as molecules are.
_MOST_JUNK = (600, 600, 600, 2000)
# A place in the body of a particle is a part of it if it is farther from its centre than this share of its diameter, and
# than so many model voxels. Nearer than those others it is the particle itself; between the two it is neither.
_PART_DIAMETER, _PART_VOX, _ITSELF_VOX = 0.2, 3.0, 2.5
_BREADTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 7.0, 10.0)
_DRAWS, _DRAWN, _FEWEST_DRAWN = 24, 10, 6


@dataclass(frozen=True)
class AtlasSettings:
    """Of the simulated tomograms: shape in model voxels, how many, membranes and gold in each, range of defocus."""

    shape: tuple[int, int, int] = (60, 240, 240)
    tomograms: int = 6
    vesicles: int = 1
    membranes: int = 1
    gold: int = 6
    defocus_um: tuple[float, float] = (2.0, 5.0)
    seed: int = 1


@dataclass(frozen=True)
class Atlas:
    """matrix (32, 32): of the space for references.  frame (96, 96): brings candidates' features into the one for clustering.
    breadth: how many times wider than copies of a molecule scatter groups are taken.

    features (n, 96): as of any candidates.  label (n,): which of `names` each is of; the first names are `JUNK`, then the
    molecules'.
    """

    model_hash: str
    matrix: np.ndarray
    frame: np.ndarray
    breadth: float
    names: tuple[str, ...]
    features: np.ndarray
    label: np.ndarray

    @cached_property
    def vectors(self) -> np.ndarray:
        """Its examples (n, 96) in the frame."""
        return np.asarray(self.features @ self.frame)

    @cached_property
    def scatter(self) -> Scatter:
        """How molecules scatter in the frame, as wide as groups are taken."""
        known = self.label >= len(JUNK)
        scatter = Scatter.fitted(self.vectors[known], self.label[known])
        return replace(scatter, widths=self.breadth * scatter.widths)

    @cached_property
    def molecules(self) -> tuple[list[str], np.ndarray]:
        """Names of the molecules and their middles (m, 96) in the frame."""
        present = [k for k in range(len(JUNK), len(self.names)) if (self.label == k).any()]
        return [self.names[k] for k in present], np.array([self.vectors[self.label == k].mean(0) for k in present])

    def save(self, path: Path) -> None:
        """One safetensors file."""
        header = {
            "format": _FORMAT,
            "model_hash": self.model_hash,
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
    try:
        header = json.loads(metadata["atlas"])
        if header["format"] != _FORMAT:
            raise KeyError("format")
        # Copies: what safetensors gives is mapped from the file, and would change with it.
        matrix, frame, features, label = (np.array(tensors[k].numpy()) for k in ("matrix", "frame", "features", "label"))
        names, breadth = tuple(header["names"]), float(header["breadth"])
        return Atlas(header["model_hash"], matrix, frame, breadth, names, features.astype(np.float32), label.astype(int))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not an atlas; leave --atlas out to have one made") from error


def make_atlas(model: Model, settings: AtlasSettings | None = None, device: str = "cpu") -> Atlas:
    """Simulate the library's molecules, with membranes and gold, and look at them through the model: some minutes."""
    settings = settings or AtlasSettings()
    found = []
    for index in progress(range(settings.tomograms), desc="atlas", unit="tomograms"):
        found.append(atlas_examples(index, model, settings, device))
    found.append(noise_examples(model, settings, device))
    return atlas_from(found, model.hash, settings.seed)


def atlas_from(found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], model_hash: str, seed: int) -> Atlas:
    """The atlas out of what `atlas_examples` saw in each simulated tomogram."""
    names, trained = _names()
    rng = np.random.default_rng(seed)
    offset, features, label = (np.concatenate([f[part] for f in found]) for part in range(3))
    chosen = _thinned(label, rng)
    offset, features, label = offset[chosen], features[chosen], label[chosen]
    counts = np.bincount(label, minlength=len(names))
    known = np.array([name in trained for name in names])[label] & (counts[label] >= _FEWEST)
    matrix, frame = (
        Space.fitted(x[known], label[known], np.zeros((1, x.shape[1]), np.float32)).matrix for x in (offset, features)
    )
    atlas = Atlas(model_hash, matrix, frame, 1.0, names, features, label)
    return replace(atlas, breadth=best_breadth(atlas, np.unique(label[known]), rng))


def _names() -> tuple[tuple[str, ...], set[str]]:
    """Junk and molecules in their order, and which of them the space may be learnt from."""
    library = load_library()
    ids = [i for i in library.ids() if library.entries[i].split in ("train", "heldout")]
    return (*JUNK, *ids), {i for i in ids if library.entries[i].split == "train"}


def best_breadth(atlas: Atlas, trained: np.ndarray, rng: np.random.Generator) -> float:
    """How wide groups have to be taken so that ten molecules among junk come out best, on average over some draws.

    trained : numbers of the molecules that take part.  A molecule comes out as well as the worse of purity and completeness
    of its best group.
    """
    score = np.zeros(len(_BREADTHS))
    junk = np.flatnonzero(atlas.label < len(JUNK))
    counts = np.bincount(atlas.label, minlength=len(atlas.names))
    many = trained[counts[trained] >= _FEWEST_DRAWN]
    for _ in range(_DRAWS):
        drawn = rng.choice(many, min(_DRAWN, len(many)), replace=False)
        rows = np.concatenate([np.flatnonzero(np.isin(atlas.label, drawn)), rng.permutation(junk)[: 2 * _DRAWN * _FEWEST_DRAWN]])
        truth = atlas.label[rows]
        for index, breadth in enumerate(_BREADTHS):
            label, _ = grouped(atlas.vectors[rows], replace(atlas, breadth=breadth).scatter, _FEWEST)
            for molecule in drawn:
                inside = np.bincount(label[(truth == molecule) & (label >= 0)], minlength=1)
                size = np.bincount(label[label >= 0], minlength=len(inside))[: len(inside)]
                worse = np.minimum(inside / np.maximum(size, 1), inside / (truth == molecule).sum())
                score[index] += float(worse.max())
    return float(_BREADTHS[int(score.argmax())])


def atlas_examples(
    index: int, model: Model, settings: AtlasSettings, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings less their mean, features and labels of the candidates of one simulated tomogram, which depends on the
    settings and its index alone."""
    names, _ = _names()
    library = load_library()
    molecules = Molecules({i: library.density(i) for i in names[len(JUNK) :]}, MODEL_VOXEL_SIZE_A)
    rng = np.random.default_rng((settings.seed, index))
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
    embeddings, particleness = DenseEmbedder(model.network, device).whole(normalise_local(-made.volume))
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    bulk = Bulk.of(flat[rng.choice(len(flat), min(20_000, len(flat)), replace=False)])
    places, embedding, features = places_of_array(embeddings, particleness, bulk, CandidateSettings())
    assert made.labels is not None
    label = _labelled(places * STRIDE, made.truth, made.labels, names)
    kept = label >= 0
    return (embedding - bulk.centre)[kept], features[kept], label[kept]


def noise_examples(
    model: Model, settings: AtlasSettings, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of white noise alone, all of it ice: what stands out there is chance."""
    rng = np.random.default_rng((settings.seed, settings.tomograms))
    noise = rng.normal(size=settings.shape).astype(np.float32)
    embeddings, particleness = DenseEmbedder(model.network, device).whole(normalise_local(noise))
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    bulk = Bulk.of(flat[rng.choice(len(flat), min(20_000, len(flat)), replace=False)])
    _, embedding, features = places_of_array(embeddings, particleness, bulk, CandidateSettings())
    return embedding - bulk.centre, features, np.full(len(features), JUNK.index("ice"))


def _labelled(zyx: np.ndarray, truth: Coordinates, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """What each place (n, 3), in model voxels, is: an index of `names`, -1 where it cannot be said."""
    out = np.full(len(zyx), -1)
    numbers = legend(names[len(JUNK) :])
    furniture = {numbers["membrane"]: 0, numbers["vesicle"]: 0, numbers["gold"]: 1}
    molecules = len(names) - len(JUNK)
    reach = 3
    padded = np.pad(labels, reach)
    centres = truth.xyz[:, ::-1]
    for i, place in enumerate(zyx.astype(int)):
        box = padded[tuple(slice(p, p + 2 * reach + 1) for p in place)]
        present = set(np.unique(box).tolist())
        hits = [kind for number, kind in furniture.items() if number in present]
        if hits:
            out[i] = max(hits)
        elif present <= {0}:
            out[i] = JUNK.index("ice")
        elif len(centres) and ((box[2:-2, 2:-2, 2:-2] > 0) & (box[2:-2, 2:-2, 2:-2] <= molecules)).any():
            away = np.linalg.norm(centres - zyx[i], axis=1)
            if (away > np.maximum(_PART_VOX, _PART_DIAMETER * truth.diameter_A / MODEL_VOXEL_SIZE_A)).all():
                out[i] = JUNK.index("part")
    if len(centres):
        distance, nearest = cKDTree(centres).query(zyx)
        for i in np.flatnonzero(distance <= _ITSELF_VOX):
            out[i] = names.index(str(truth.label[nearest[i]]))
    return out


def _thinned(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices, in order, with no more than so many of each kind of junk."""
    chosen = [np.flatnonzero(label >= len(JUNK))]
    for kind in range(len(JUNK)):
        own = np.flatnonzero(label == kind)
        chosen.append(rng.permutation(own)[: _MOST_JUNK[kind]])
    return np.sort(np.concatenate(chosen))


def kept_atlas(model_hash: str, model_file: str, device: str = "cpu") -> Atlas:
    """The atlas of a model: that which ships with this software, that which an earlier call kept, or made now and kept.

    Kept in the user's cache folder; where that cannot be written it is made anew each time.
    """
    name = f"atlas_{model_hash}.safetensors"
    places = [Path(__file__).parent / "data" / name, _cache() / name]
    for place in places:
        if place.is_file():
            try:
                return load_atlas(place)
            except UserError:
                note(f"{place}: of another version of this software, or damaged; the atlas is made anew")
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
