"""Making an atlas: simulated tomograms of the library's molecules, looked at through the model; and keeping it.

Simulated tomograms with all molecules of the library, with membranes, filaments and gold, are looked at exactly as a user's
are, with as much detail as theirs have left: the same candidates are looked for, and the truth says what each of them is. How wide
groups are taken comes from clustering handfuls of molecules among the junk of the same atlas.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from tomotwin_core.clustering.atlas import JUNK, Atlas, load_atlas
from tomotwin_core.clustering.candidates import Bulk, CandidateSettings, places_of_array
from tomotwin_core.clustering.grouping import grouped
from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding.dense import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.model import STRIDE, Model, load_model
from tomotwin_core.picking.references import Space
from tomotwin_core.progress import note, progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import Extras, legend, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, at_detail, normalise_local

_FEWEST = 3
# Of each kind of junk; parts are of as many kinds as molecules are, filaments have walls, lumens and strands.
_MOST_JUNK = (600, 600, 1500, 600, 2000)
# A place in the body of a particle is the particle itself within this share of its diameter from its centre, and within so
# many model voxels; and a part of it if it is farther than those others. Between the two it is neither.
_ITSELF_DIAMETER, _ITSELF_VOX, _PART_DIAMETER, _PART_VOX = 0.12, 2.5, 0.2, 3.0
# The lumen of a microtubule is at most so many model voxels from its wall.
_LUMEN_VOX = 11.0
# Molecules of fewer voxels of the detail across leave nothing that could be learnt; the others get their room.
_SMALLEST_VOX = 4.5
_BREADTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 7.0, 10.0)
_DRAWS, _DRAWN, _FEWEST_DRAWN = 24, 10, 6
# Copies of a molecule that the model was not trained on scatter more than those of its own, and the more copies there are the more shows
# how far from normal they are (chosen on simulated tomograms: docs/clustering.md).
_WIDER = 1.5
# Coarser tomograms than this have atlases of their own, one for every factor of so much.
_FINE_A, _STEP = 12.0, 2 ** (1 / 6)


_FURNITURE = {
    "membrane": "membrane",
    "vesicle": "membrane",
    "gold": "gold",
    "actin": "filament",
    "microtubule": "filament",
}


@dataclass(frozen=True)
class AtlasSettings:
    """Of the simulated tomograms: shape in model voxels, how many, membranes, filaments and gold in each, range of defocus;
    the voxel size whose detail they have (A)."""

    shape: tuple[int, int, int] = (60, 240, 240)
    tomograms: int = 6
    vesicles: int = 1
    membranes: int = 1
    actin: int = 2
    microtubules: int = 2
    gold: int = 6
    detail_A: float = MODEL_VOXEL_SIZE_A
    defocus_um: tuple[float, float] = (2.0, 5.0)
    seed: int = 1


def make_atlas(model: Model, settings: AtlasSettings | None = None, device: str = "cpu") -> Atlas:
    """Simulate the library's molecules, with junk, and look at them through the model: some minutes."""
    settings = settings or AtlasSettings()
    found = []
    for index in progress(range(settings.tomograms), desc="atlas", unit="tomograms"):
        found.append(atlas_examples(index, model, settings, device))
    found.append(noise_examples(model, settings, device))
    return atlas_from(found, model.hash, settings)


def atlas_from(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], model_hash: str, settings: AtlasSettings
) -> Atlas:
    """The atlas out of what `atlas_examples` saw in each simulated tomogram."""
    names, trained = _names()
    rng = np.random.default_rng(settings.seed)
    offset, features, label = (np.concatenate([f[part] for f in found]) for part in range(3))
    chosen = _thinned(label, rng)
    offset, features, label = offset[chosen], features[chosen], label[chosen]
    counts = np.bincount(label, minlength=len(names))
    known = np.array([name in trained for name in names])[label] & (counts[label] >= _FEWEST)
    matrix, frame = (
        Space.fitted(x[known], label[known], np.zeros((1, x.shape[1]), np.float32)).matrix for x in (offset, features)
    )
    atlas = Atlas(model_hash, settings.detail_A, matrix, frame, 1.0, names, features, label)
    return replace(atlas, breadth=_WIDER * best_breadth(atlas, np.unique(label[known]), rng))


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
    least_A = _SMALLEST_VOX * settings.detail_A
    shown = [i for i in names[len(JUNK) :] if library.entries[i].diameter_A >= least_A]
    molecules = Molecules({i: library.density(i) for i in shown}, MODEL_VOXEL_SIZE_A)
    rng = np.random.default_rng((settings.seed, index))
    low, high = settings.defocus_um
    defocus = low + (high - low) * (index + 0.5) / settings.tomograms
    acquisition = replace(Acquisition(), defocus_um=defocus, dose_e_per_A2=float(rng.uniform(90, 150)))
    sample = SampleSettings(
        settings.shape,
        MODEL_VOXEL_SIZE_A,
        0.9 * settings.shape[0] * MODEL_VOXEL_SIZE_A,
        round((len(names) - len(JUNK)) / len(shown)),
        vesicles=settings.vesicles,
        membranes=settings.membranes,
        actin=settings.actin,
        microtubules=settings.microtubules,
        gold=settings.gold,
    )
    made = simulate_tomogram(molecules, sample, acquisition, rng, f"atlas_{index}", device, Extras(labels=True))
    places, offset, features = _seen(-made.volume, model, settings, rng, device)
    assert made.labels is not None
    numbers = legend(shown)
    label = _labelled(places * STRIDE, made.truth, _lumens_filled(made.labels, numbers), names, numbers)
    kept = label >= 0
    return offset[kept], features[kept], label[kept]


def noise_examples(
    model: Model, settings: AtlasSettings, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of white noise alone, all of it ice: what stands out there is chance."""
    rng = np.random.default_rng((settings.seed, settings.tomograms))
    noise = rng.normal(size=settings.shape).astype(np.float32)
    _, offset, features = _seen(noise, model, settings, rng, device)
    return offset, features, np.full(len(features), JUNK.index("ice"))


def _seen(
    volume: np.ndarray, model: Model, settings: AtlasSettings, rng: np.random.Generator, device: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates in a volume, protein bright: places on the grid, embeddings less their mean, features."""
    seen = normalise_local(at_detail(volume, settings.detail_A))
    embeddings, particleness = DenseEmbedder(model.network, device).whole(seen)
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    bulk = Bulk.of(flat[rng.choice(len(flat), min(20_000, len(flat)), replace=False)])
    places, embedding, features = places_of_array(embeddings, particleness, bulk, CandidateSettings())
    return places, embedding - bulk.centre, features


def _labelled(zyx: np.ndarray, truth: Coordinates, labels: np.ndarray, names: Sequence[str], numbers: Mapping[str, int]) -> np.ndarray:
    """What each place (n, 3), in model voxels, is: an index of `names`, -1 where it cannot be said.

    numbers : of the label volume.
    """
    out = np.full(len(zyx), -1)
    furniture = {numbers[name]: JUNK.index(kind) for name, kind in _FURNITURE.items()}
    molecules = min(numbers[name] for name in _FURNITURE) - 1
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
        itself = np.maximum(_ITSELF_VOX, _ITSELF_DIAMETER * truth.diameter_A[nearest] / MODEL_VOXEL_SIZE_A)
        for i in np.flatnonzero(distance <= itself):
            out[i] = names.index(str(truth.label[nearest[i]]))
    return out


def _lumens_filled(labels: np.ndarray, numbers: Mapping[str, int]) -> np.ndarray:
    """The label volume with ice in microtubules as their own: it looks like the middle of a hollow particle."""
    wall = labels == numbers["microtubule"]
    if not wall.any():
        return labels
    near = distance_transform_edt(~wall) <= _LUMEN_VOX
    inside = distance_transform_edt(np.pad(near, 1, mode="edge"))[1:-1, 1:-1, 1:-1] > _LUMEN_VOX
    return np.where(inside & (labels == 0), numbers["microtubule"], labels)


def _thinned(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices, in order, with no more than so many of each kind of junk."""
    chosen = [np.flatnonzero(label >= len(JUNK))]
    for kind in range(len(JUNK)):
        own = np.flatnonzero(label == kind)
        chosen.append(rng.permutation(own)[: _MOST_JUNK[kind]])
    return np.sort(np.concatenate(chosen))


def detail_of(voxel_sizes_A: Sequence[float]) -> float:
    """The detail of the atlas that speaks for tomograms of these voxel sizes (A): that of most of them."""
    middle = float(np.median(voxel_sizes_A))
    if middle <= _FINE_A:
        return MODEL_VOXEL_SIZE_A
    steps = round(np.log(middle / MODEL_VOXEL_SIZE_A) / np.log(_STEP))
    return round(float(MODEL_VOXEL_SIZE_A * _STEP**steps), 1)


def kept_atlas(model_hash: str, model_file: str, detail_A: float = MODEL_VOXEL_SIZE_A, device: str = "cpu") -> Atlas:
    """The atlas of a model for a detail: that which ships with this software, that which an earlier call kept, or made now
    and kept.

    Kept in the user's cache folder; where that cannot be written it is made anew each time.
    """
    coarse = f"_{detail_A:g}A" if detail_A > MODEL_VOXEL_SIZE_A else ""
    name = f"atlas_{model_hash}{coarse}.safetensors"
    places = [Path(__file__).parent / "data" / name, _cache() / name]
    for place in places:
        if os.path.isfile(place):  # Path.is_file raises where a folder on the way may not be looked into
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
    note(f"what the library looks like to this model{coarse and f' at a detail of {detail_A:g} A'} is learnt, once: some minutes")
    atlas = make_atlas(model, AtlasSettings(detail_A=detail_A), device)
    try:
        atlas.save(places[-1])
        note(f"{places[-1]}: kept for the next time")
    except UserError as error:
        note(f"the atlas is not kept: {error}")
    return atlas


def _cache() -> Path:
    """The user's cache folder; where nobody knows the user's home (a job in a container) the temporary one."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tomotwin"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"tomotwin_{os.getuid()}")
