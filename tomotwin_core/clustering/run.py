"""From embedded tomograms to proposals, from a selection to its clusters, and another look at a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from tomotwin_core.clustering.across import ENOUGH_APART, joined_across, of_one_sample
from tomotwin_core.clustering.atlas import Atlas
from tomotwin_core.clustering.candidates import Candidates, CandidateSettings, find_candidates
from tomotwin_core.clustering.grouping import Scatter, grouped, named
from tomotwin_core.clustering.kinds import Kind, Signs, signs
from tomotwin_core.clustering.manifold import manifold
from tomotwin_core.clustering.proposals import Proposal, judged, proposals_of
from tomotwin_core.clustering.scene import Scene, TomogramInfo
from tomotwin_core.clustering.views import rejoined, settled
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.picking.references import Space
from tomotwin_core.progress import note, progress
from tomotwin_core.side_by_side import in_processes, side_by_side

_SAMPLED = 20_000
# More candidates than this are worth the seconds that processes take to start.
_FOR_PROCESSES = 20_000


@dataclass(frozen=True)
class ClusterSettings:
    """fewest: members of a cluster.  fast_map: principal components instead of UMAP."""

    candidates: CandidateSettings = field(default_factory=CandidateSettings)
    fewest: int = 6
    fast_map: bool = False
    seed: int = 1


def scene_of(fields: Sequence[EmbeddingField], atlas: Atlas | None, settings: ClusterSettings, files: dict[str, Path]) -> Scene:
    """The candidates of embedded tomograms in one frame.

    files : the tomograms by name, where they are not where they were embedded.
    """
    hashes = {f.model_hash for f in fields}
    if len(hashes) > 1:
        raise UserError(f"{fields[0].path} and others were made with different models; embed all with one")
    if atlas is not None and {atlas.model_hash} != hashes:
        raise UserError(f"the atlas was made for another model ({atlas.model_hash}) than the embeddings ({hashes.pop()})")
    if len(fields) == 1:
        parts = [find_candidates(fields[0], settings.candidates)]
    else:
        found = side_by_side(lambda one: find_candidates(one, settings.candidates, silent=True), fields)
        parts = list(progress(found, len(fields), "candidates", "tomograms"))
    everything = np.concatenate([one.sample(max(_SAMPLED // len(fields), 2000)) for one in fields])
    centre = everything.mean(0).astype(np.float32)
    if atlas is not None:
        space, frame, origin = Space(centre, atlas.matrix), atlas.frame, atlas.scatter.mean
    else:
        # Without examples of molecules: the ball alone, and everything there is made to scatter alike.
        space = Space.fitted(everything, np.zeros(len(everything), int), everything)
        frame = np.zeros((parts[0].features.shape[1], space.matrix.shape[1]), np.float32)
        frame[: len(space.matrix)] = space.matrix
        origin = np.zeros(frame.shape[1], np.float32)
    candidates = Candidates.joined(parts)
    blank = np.zeros((len(candidates), 2), np.float32)
    ids = np.arange(len(candidates))
    infos = tuple(_info(one, files) for one in fields)
    scene = Scene(infos, candidates, ids, blank, space, frame, origin, everything, fields[0].model_hash, settings.seed)
    return mapped(scene, settings)


def mapped(scene: Scene, settings: ClusterSettings) -> Scene:
    """The scene with a map of its own candidates."""
    if len(scene) > 30 and not settings.fast_map:
        note(f"a map of {len(scene)} candidates is drawn (UMAP)")
    return replace(scene, map=manifold(scene.vectors, settings.seed, settings.fast_map), seed=settings.seed)


def proposed(scene: Scene, atlas: Atlas | None, settings: ClusterSettings) -> tuple[list[Proposal], np.ndarray]:
    """Clusters among all candidates of a scene, ranked, and each candidate's probability to belong to its cluster."""
    tomogram = scene.candidates.tomogram
    parts = [np.flatnonzero(tomogram == t) for t in np.unique(tomogram)]
    if len(parts) < 2:
        label, probability, found = _alone((scene, atlas, settings))
        return proposals_of(scene, label, atlas, found), probability
    label, probability, told = np.full(len(scene), -1), np.zeros(len(scene)), []
    jobs = [(scene.select(rows), atlas, settings) for rows in parts]
    done = zip(parts, (in_processes if len(scene) > _FOR_PROCESSES else map)(_alone, jobs), strict=True)
    for rows, (own, sure, seen) in progress(done, len(parts), "clusters", "tomograms"):
        label[rows], probability[rows] = np.where(own >= 0, own + label.max() + 1, -1), sure
        told.append(seen)
    found = Signs.joined(told, parts)
    vectors, scatter = scene.vectors, scatter_of(scene, atlas)
    clustered = partial(_clustered, vectors, scatter, partial(_kinds, scene, atlas, found), settings)
    kinds = _kinds(scene, atlas, found, np.arange(len(scene)), label)
    joint = joined_across(vectors, label, tomogram, kinds, scatter)
    again = joint < 0
    if of_one_sample(label, joint, kinds):
        note("most species are in several tomograms: what may be a species is clustered together, as of one sample")
        again |= np.array([kind in ("species", "unsure") for kind in kinds])[joint]
        own, probability[again] = clustered(np.flatnonzero(again), joint[again])
    else:
        note("the tomograms have few species in common: each is clustered by itself, and what is the same joined")
        joint = joined_across(vectors, label, tomogram, kinds, scatter, ENOUGH_APART)
        # What is rare in each tomogram may be frequent enough in all of them.
        own, probability[again] = grouped(vectors[again], scatter, settings.fewest, settings.seed)
    joint[again] = np.where(own >= 0, own + len(kinds), -1)
    label, probability = named(joint, probability, settings.fewest)
    return proposals_of(scene, label, atlas, found), probability


def _alone(job: tuple[Scene, Atlas | None, ClusterSettings]) -> tuple[np.ndarray, np.ndarray, Signs]:
    """Of the candidates of a scene by itself: labels and probabilities (n,), and what can be told of each."""
    scene, atlas, settings = job
    found = signs(scene, atlas)
    kinds = partial(_kinds, scene, atlas, found)
    return *_clustered(scene.vectors, scatter_of(scene, atlas), kinds, settings, np.arange(len(scene))), found


def _clustered(
    vectors: np.ndarray,
    scatter: Scatter,
    kinds: Callable[[np.ndarray, np.ndarray], list[Kind]],
    settings: ClusterSettings,
    rows: np.ndarray,
    known: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters among some candidates (m,): label and probability (m,), with the views of one molecule in one cluster.

    kinds : of the groups of a labelling of rows.  known : (m,) groups to start from, -1 for none.
    """
    vectors = vectors[rows]
    label, probability = grouped(vectors, scatter, settings.fewest, settings.seed, known)
    species = np.flatnonzero([kind == "species" for kind in kinds(rows, label)])
    joined = rejoined(vectors, label, species, scatter)
    final, agreeing = settled(vectors, joined, scatter)
    if (final == label).all():
        return label, probability
    return named(final, np.where(final != joined, agreeing, probability), settings.fewest)


def _kinds(scene: Scene, atlas: Atlas | None, found: Signs, rows: np.ndarray, label: np.ndarray) -> list[Kind]:
    return [judged(scene, rows[label == k], atlas, found)[0] for k in range(label.max(initial=-1) + 1)]


def scatter_of(scene: Scene, atlas: Atlas | None) -> Scatter:
    """How molecules scatter in the scene's frame."""
    if atlas is not None:
        return replace(atlas.scatter, mean=atlas.scatter.mean - scene.origin)
    moved = (scene.everything - scene.everything.mean(0)) @ scene.space.matrix
    return Scatter.unknown(np.cov(moved.T))


def _info(field: EmbeddingField, files: dict[str, Path]) -> TomogramInfo:
    source = files.get(field.tomogram, Path(str(field.attributes.get("source", ""))))
    file = str(source.resolve()) if source.is_file() else None
    contrast = str(field.attributes.get("contrast", "dark"))
    return TomogramInfo(
        field.tomogram, file, str(field.path.resolve()), field.voxel_size_A, field.tomogram_shape, contrast
    )


def relocated(scene: Scene, files: dict[str, Path]) -> Scene:
    """The scene with its tomograms where the user says they are."""
    tomograms = tuple(replace(t, file=str(files[t.name].resolve())) if t.name in files else t for t in scene.tomograms)
    return replace(scene, tomograms=tomograms)
