"""Clusters of several tomograms that are one species."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tomotwin_core.clustering import run
from tomotwin_core.clustering.across import joined_across, of_one_sample
from tomotwin_core.clustering.candidates import Candidates
from tomotwin_core.clustering.grouping import Scatter
from tomotwin_core.clustering.run import ClusterSettings, proposed
from tomotwin_core.clustering.scene import Scene, TomogramInfo
from tomotwin_core.picking.references import Space

SIZE = 32
WIDE = Scatter(np.zeros(SIZE), np.eye(SIZE), np.linspace(0.5, 4.0, SIZE), np.array([0.1, 0.2]))


def test_clusters_of_one_molecule_are_joined_across_tomograms_and_others_stay_apart() -> None:
    rng = np.random.default_rng(3)
    one, other, junk = rng.normal(scale=2.0, size=(3, SIZE))
    # Of each cluster: middle, tomogram, kind.
    clusters = [
        (one, 0, "species"),
        (other, 0, "species"),
        (1.2 * one, 1, "species"),  # less noise in there: longer vectors
        (junk, 1, "ice"),
        (one, 2, "ice"),  # points the same way, but is of another kind
        (one, 1, "species"),  # told apart from the other one of its tomogram
        (other, 2, "species"),
        (junk, 2, "ice"),
    ]
    vectors = np.concatenate([rng.normal(middle, 0.5, (20, SIZE)) for middle, _, _ in clusters] + [rng.normal(size=(5, SIZE))])
    label = np.r_[np.repeat(np.arange(len(clusters)), 20), np.full(5, -1)]
    tomogram = np.r_[np.repeat([t for _, t, _ in clusters], 20), np.zeros(5, int)]
    found = joined_across(vectors, label, tomogram, [kind for _, _, kind in clusters], WIDE)
    of = found[np.arange(len(clusters)) * 20]
    np.testing.assert_array_equal(found, np.r_[np.repeat(of, 20), np.full(5, -1)])
    assert of[1] == of[6] == 1 and of[3] == of[7] == 3 and of[4] == 4
    assert sorted((of[2], of[5])) in ([0, 2], [0, 5]), "one of the two of that tomogram joins the first, the other stays"


def test_tomograms_without_any_cluster_give_none() -> None:
    rng = np.random.default_rng(6)
    label = labels_of(scene_of(rng.normal(scale=2.5, size=(8, SIZE)).astype(np.float32), 2))
    assert (label == -1).all()


def test_tomograms_are_of_one_sample_where_most_species_are_in_several() -> None:
    before = np.repeat(np.arange(6), 3)
    species = ["species"] * 5 + ["ice"]
    assert of_one_sample(before, np.repeat([0, 1, 0, 1, 0, 5], 3), species)
    assert not of_one_sample(before, np.repeat([0, 1, 0, 3, 4, 5], 3), species)
    assert not of_one_sample(before, before, ["ice"] * 6) and not of_one_sample(np.full(4, -1), np.full(4, -1), [])


def test_what_is_rare_in_each_tomogram_is_found_in_all_of_them() -> None:
    scene, truth = with_a_rare_one()
    label = labels_of(scene)
    for kind, count in enumerate((20, 20, 20, 12)):
        own = truth == kind
        [group] = np.unique(label[own & (label >= 0)])
        assert (label[own] == group).sum() >= 0.9 * count and (label[~own] == group).sum() <= 0.2 * count


def test_processes_for_many_candidates_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = with_a_rare_one()
    proposals, probability = proposed(scene, None, ClusterSettings())
    monkeypatch.setattr(run, "_FOR_PROCESSES", 0)
    again, surely = proposed(scene, None, ClusterSettings())
    assert again == proposals and len(again) > 3
    np.testing.assert_array_equal(surely, probability)


def with_a_rare_one() -> tuple[Scene, NDArray]:
    """Three tomograms, in each a molecule of its own, a few copies of one that all have (3), and strangers (-1)."""
    rng = np.random.default_rng(4)
    *frequent, rare = 4.0 * np.linalg.qr(rng.normal(size=(SIZE, 4)))[0].T
    features, truth = [], []
    for kind, place in enumerate(frequent):  # another one in each
        features += [rng.normal(place, 0.25, (20, SIZE)), rng.normal(rare, 0.25, (4, SIZE)), rng.normal(scale=2.5, size=(200, SIZE))]
        truth += [kind] * 20 + [3] * 4 + [-1] * 200
    return scene_of(np.concatenate(features).astype(np.float32), len(frequent)), np.array(truth)


def test_in_tomograms_of_one_sample_what_may_be_a_species_is_clustered_together_and_junk_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two molecules and a heap of junk in each of two tomograms; the junk is told by its first coordinate."""
    rng = np.random.default_rng(5)
    one, other, junk = 4.0 * np.linalg.qr(rng.normal(size=(SIZE, 3)))[0].T
    junk = 6.0 * np.eye(SIZE)[0] + 0.1 * junk
    features = [rng.normal(middle, 0.25, (20, SIZE)) for _ in range(2) for middle in (one, other, junk)]
    scene = scene_of(np.concatenate(features).astype(np.float32), 2)

    def kinds(scene: Scene, atlas: None, found: None, rows: NDArray, label: NDArray) -> list[str]:
        return ["ice" if scene.vectors[rows[label == k], 0].mean() > 5 else "species" for k in range(label.max(initial=-1) + 1)]

    given: list[NDArray] = []
    grouped = run.grouped

    def counted(vectors: NDArray, *settings: Any) -> Any:
        given.append(vectors)
        return grouped(vectors, *settings)

    monkeypatch.setattr(run, "_kinds", kinds)
    monkeypatch.setattr(run, "grouped", counted)
    label = labels_of(scene)
    assert [len(v) for v in given] == [60, 60, 80] and (given[2][:, 0] < 5).all()
    groups = label.reshape(2, 3, 20)
    assert all(len(np.unique(groups[:, k])) == 1 and (groups[:, k] >= 0).all() for k in range(3))
    assert len(np.unique(label)) == 3


def scene_of(features: NDArray, tomograms: int) -> Scene:
    n = len(features)
    xyz_A = np.random.default_rng(0).uniform(200, 3800, (n, 3))
    blank = np.zeros(n, np.float32)
    names = tuple(f"tomo_{k}" for k in range(tomograms))
    which = np.repeat(np.arange(tomograms), n // tomograms)
    table = Candidates(names, which, xyz_A / 10, xyz_A, features, features, blank, blank + 5, blank + 100)
    infos = tuple(TomogramInfo(name, None, f"{name}.zarr", 10.0, (400, 400, 400)) for name in names)
    space = Space(np.zeros(SIZE, np.float32), np.eye(SIZE, dtype=np.float32))
    everything = np.random.default_rng(1).normal(size=(500, SIZE)).astype(np.float32)
    return Scene(infos, table, np.arange(n), np.zeros((n, 2), np.float32), space, np.eye(SIZE), np.zeros(SIZE), everything, "hash", 1)


def labels_of(scene: Scene) -> NDArray:
    proposals, _ = proposed(scene, None, ClusterSettings())
    label = np.full(len(scene), -1)
    for index, proposal in enumerate(proposals):
        label[scene.rows(proposal.members)] = index
    return label
