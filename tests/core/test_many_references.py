"""Many references: memory is bounded by a strip of a layer, whatever their number, and the peaks are those of the whole."""

import tracemalloc
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from planted import FieldMaker, tiny_network
from scipy.ndimage import gaussian_filter

from tomotwin_core.embedding.live import LiveField
from tomotwin_core.model import Model
from tomotwin_core.picking import LocationSettings, ReferenceSet, Target, locate
from tomotwin_core.picking import similarity as similarity_room
from tomotwin_core.picking.location import peaks_in_layers
from tomotwin_core.picking.maps import write_similarity_maps
from tomotwin_core.picking.similarity import layers_to_compare, strips
from tomotwin_core.tomogram import open_tomogram, write_mrc


def unit_vectors(shape: tuple[int, ...], seed: int, smooth: float = 0.0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(*shape, 32))
    if smooth:
        vectors = gaussian_filter(vectors, (smooth, smooth, smooth, 0))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def many(count: int, model_hash: str = "hash") -> ReferenceSet:
    prototypes = unit_vectors((count, 3), 1)
    return ReferenceSet(tuple(Target(f"t{i}", p, 100.0) for i, p in enumerate(prototypes)), model_hash, background=unit_vectors((2,), 9))


@pytest.mark.parametrize("competition", [True, False])
@pytest.mark.parametrize("count", [5, 32, 40])
def test_peaks_do_not_depend_on_the_parts_that_are_compared_at_a_time(
    make_field: FieldMaker, monkeypatch: pytest.MonkeyPatch, count: int, competition: bool
) -> None:
    field = make_field(unit_vectors((16, 14, 13), 0, 1.0))
    settings = LocationSettings(min_score=0.45, competition=competition, background=True, slab=7)
    found = []
    for strip_bytes in (4 * 3 * count * 200, 4 * count * 7 * 13 * 6, 1 << 28):
        monkeypatch.setattr(similarity_room, "STRIP_BYTES", strip_bytes)
        found.append(locate(field, many(count), settings))
    assert len(found[0]) > 30
    for other in found[1:]:
        np.testing.assert_array_equal(other.label, found[0].label)
        np.testing.assert_allclose(other.xyz, found[0].xyz, atol=1e-4)
        np.testing.assert_allclose(other.score, found[0].score, atol=1e-6)


@pytest.mark.parametrize("lost", [True, False])
def test_strips_of_embeddings_give_the_peaks_of_all_similarities_in_their_order(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    embeddings, references = unit_vectors((19, 10, 11), 2, 1.0), many(34)
    layers = [(z, np.moveaxis(embeddings[z : z + 5], -1, 0)) for z in range(0, 19, 5)]
    monkeypatch.setattr(similarity_room, "STRIP_BYTES", 4 * 34 * 9 * 11 * 7)

    def compare(numbers: np.ndarray) -> np.ndarray:
        return np.moveaxis(references.similarity(np.moveaxis(numbers, 0, -1)), -1, 0)

    settings = LocationSettings(min_score=-1.0 if lost else 0.3)
    whole = peaks_in_layers([(z, compare(layer)) for z, layer in layers], settings, lost)
    parts = peaks_in_layers(layers, settings, lost, compare, 34)
    assert len(whole.score) > 50
    np.testing.assert_array_equal(parts.target, whole.target)
    np.testing.assert_allclose(parts.zyx, whole.zyx, atol=1e-4)
    if lost:
        assert whole.won is not None
        np.testing.assert_array_equal(parts.won, whole.won)


def test_memory_does_not_grow_with_the_number_of_references(make_field: FieldMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    field = make_field(unit_vectors((12, 40, 40), 0))
    monkeypatch.setattr(similarity_room, "STRIP_BYTES", 1 << 20)
    peaks = {}
    for count in (40, 400):
        references = many(count)
        tracemalloc.start()
        locate(field, references, LocationSettings(min_score=0.95))
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    similarities = 4 * 400 * 12 * 40 * 40
    embeddings = 4 * 32 * 12 * 40 * 40
    assert peaks[400] < 6 * embeddings < similarities / 2
    assert peaks[400] < 3 * peaks[40]


@pytest.mark.parametrize("count", [3, 50])
def test_a_strip_is_within_its_bytes_and_holds_its_rows_and_their_neighbours(
    make_field: FieldMaker, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    embeddings, references = unit_vectors((6, 40, 10), 4), many(count)
    whole = np.moveaxis(references.similarity(embeddings), -1, 0)
    monkeypatch.setattr(similarity_room, "STRIP_BYTES", 4 * count * 6 * 10 * 12)
    layers, compare = layers_to_compare(make_field(embeddings), references)
    rows = []
    for z0, layer in layers:
        for y0, y1, low, part in strips(layer, compare, count, 2):
            assert (compare is None) == (count <= 32) and (compare is None or part.nbytes <= similarity_room.STRIP_BYTES)
            assert low <= max(y0 - 2, 0) and low + part.shape[2] >= min(y1 + 2, 40)
            np.testing.assert_allclose(part, whole[:, z0 : z0 + part.shape[1], low : low + part.shape[2]], atol=2e-3)
            rows += range(y0, y1) if z0 == 0 else []
    assert rows == list(range(40))


def test_a_tomogram_that_is_embedded_meanwhile_is_searched_for_many_as_for_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mrc(tmp_path / "t.mrc", np.random.default_rng(0).normal(size=(40, 44, 46)).astype(np.float32), 10.0)
    field = LiveField(open_tomogram(tmp_path / "t.mrc"), Model(tiny_network(), {}, tmp_path), tile=8)
    references = many(36, field.model_hash)
    monkeypatch.setattr(similarity_room, "STRIP_BYTES", 1 << 14)
    settings = LocationSettings(min_score=0.3, competition=False)
    found = locate(field, references, settings)
    for index in (0, 17, 35):
        alone = locate(field, ReferenceSet(references.targets[index : index + 1], field.model_hash), settings)
        own = found.select(found.label == f"t{index}")
        np.testing.assert_allclose(own.xyz, alone.xyz, atol=1e-4)


def test_maps_of_many_references_are_their_similarities(make_field: FieldMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, references = unit_vectors((9, 12, 13), 5), many(34)
    monkeypatch.setattr(similarity_room, "STRIP_BYTES", 4 * 34 * 9 * 13 * 5)
    paths = write_similarity_maps(make_field(embeddings), references, tmp_path)
    expected = references.similarity(embeddings)
    for index in (0, 20, 33):
        with mrcfile.open(paths[index]) as written:
            np.testing.assert_allclose(written.data, expected[..., index], atol=2e-3)
