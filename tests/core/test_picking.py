"""Planted similarity comes back as positions; references keep what they are told; thresholds part the target from the rest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from planted import FieldMaker, tiny_network

from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.model import Model
from tomotwin_core.picking import (
    LocationSettings,
    ReferenceSet,
    ReferenceSettings,
    Target,
    load_references,
    locate,
    pick,
    references_from_densities,
    references_from_positions,
)
from tomotwin_core.picking.collect import collect_references
from tomotwin_core.picking.location import peaks_in_layers, peaks_of
from tomotwin_core.picking.maps import write_similarity_maps
from tomotwin_core.picking.references import Space, prototypes_of
from tomotwin_core.picking.thresholds import null_threshold
from tomotwin_core.simulation import Acquisition
from tomotwin_core.structures import Density, load_library
from tomotwin_core.tomogram import open_tomogram

QUICK = Acquisition(tilt_step_deg=20.0)


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def target(name: str, seed: int, diameter_A: float = 160.0, threshold: float = float("nan")) -> Target:
    return Target(name, unit(seed)[None], diameter_A, threshold)


def references(*targets: Target) -> ReferenceSet:
    return ReferenceSet(targets, "hash")


def embeddings_with(
    shape: tuple[int, int, int], planted: Sequence[tuple[Sequence[float], np.ndarray, float]], seed: int = 0
) -> np.ndarray:
    """Random unit vectors; near each (grid place z, y, x; prototype; strength) their cosine with the prototype is a
    Gaussian of that height, the rest of them stays random."""
    field = np.random.default_rng(seed).normal(size=(*shape, 32))
    grid = np.indices(shape).astype(float)
    for place, prototype, strength in planted:
        square = sum((g - p) ** 2 for g, p in zip(grid, place, strict=True))
        cosine = strength * np.exp(-square / (2 * 1.5**2))[..., None]
        across = field - np.minimum(1, 5 * cosine) * (field @ prototype)[..., None] * prototype
        across /= np.linalg.norm(across, axis=-1, keepdims=True)
        field = cosine * prototype + np.sqrt(1 - cosine**2) * across
    return np.asarray(field / np.linalg.norm(field, axis=-1, keepdims=True), np.float32)


def distances_to_nearest(places: np.ndarray, found: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[:, None] - found[None], axis=-1).min(1)


# Beside the seams of slabs of 8 planes on both sides, between grid points, near faces.
PLACES = np.array(
    [(4.3, 5.0, 6.4), (7.5, 15.2, 5.0), (8.0, 5.0, 14.0), (15.4, 15.0, 15.0), (16.5, 6.2, 4.0), (23.0, 14.5, 6.0),
     (24.4, 5.5, 15.3), (29.0, 15.0, 14.0)]
)  # fmt: skip


@pytest.mark.parametrize("voxel_size_A", [8.0, 10.0, 13.3])
@pytest.mark.parametrize("slab", [7, 8, 100])
def test_planted_places_come_back_within_half_a_stride_in_original_voxels(
    make_field: FieldMaker, voxel_size_A: float, slab: int
) -> None:
    field = make_field(embeddings_with((32, 20, 20), [(p, unit(1), 1.0) for p in PLACES]), voxel_size_A)
    found = locate(field, references(target("planted", 1)), LocationSettings(min_score=0.75, slab=slab))
    assert len(found) == len(PLACES)
    true = PLACES[:, ::-1] * 20.0 / voxel_size_A
    assert distances_to_nearest(true, found.xyz).max() < 0.5 * 20.0 / voxel_size_A
    assert np.median(distances_to_nearest(true, found.xyz)) < 0.2 * 20.0 / voxel_size_A
    assert found.voxel_size_A == pytest.approx(voxel_size_A) and found.shape == field.tomogram_shape
    assert found.tomogram == "tomo" and set(found.label) == {"planted"} and set(found.diameter_A) == {160.0}
    assert (np.diff(found.score) <= 0).all(), "best first"


@pytest.mark.parametrize("slab", [1, 2, 3, 5, 8, 11])
def test_slabs_change_no_peak(make_field: FieldMaker, slab: int) -> None:
    field = make_field(embeddings_with((24, 12, 12), [], seed=3))
    targets = references(target("a", 1, 50.0), target("b", 2, 50.0))
    at_once = locate(field, targets, LocationSettings(min_score=0.3, slab=100))
    in_slabs = locate(field, targets, LocationSettings(min_score=0.3, slab=slab))
    assert len(at_once) > 30
    assert len(in_slabs) == len(at_once)
    np.testing.assert_allclose(np.sort(at_once.xyz, axis=0), np.sort(in_slabs.xyz, axis=0), atol=1e-4)


def test_of_two_peaks_closer_than_the_separation_the_better_stays(make_field: FieldMaker) -> None:
    # 7 grid steps are 140 A: closer than 0.6 x 300 A, farther than 0.6 x 200 A.
    planted = [((8, 10, 6), unit(1), 0.9), ((8, 10, 13), unit(1), 1.0)]
    field = make_field(embeddings_with((16, 20, 20), planted))
    wide = locate(field, references(target("wide", 1, 300.0)), LocationSettings(min_score=0.8))
    np.testing.assert_allclose(wide.xyz / 2, [(13, 10, 8)], atol=0.5)
    narrow = locate(field, references(target("narrow", 1, 200.0)), LocationSettings(min_score=0.8))
    assert len(narrow) == 2


def test_a_place_goes_to_the_target_that_it_matches_best_unless_they_may_share_it(make_field: FieldMaker) -> None:
    similar = 0.9 * unit(1) + np.sqrt(1 - 0.9**2) * unit(2)
    two = references(target("right", 1), Target("similar", similar[None] / np.linalg.norm(similar), 160.0))
    field = make_field(embeddings_with((16, 16, 16), [((8, 8, 8), unit(1), 1.0)]))
    alone = locate(field, two, LocationSettings(min_score=0.7))
    assert list(alone.label) == ["right"]
    shared = locate(field, two, LocationSettings(min_score=0.7, competition=False))
    assert sorted(shared.label) == ["right", "similar"]


def test_the_best_of_a_targets_prototypes_counts(make_field: FieldMaker) -> None:
    places = [((5, 8, 8), unit(1), 1.0), ((17, 8, 8), unit(2), 1.0)]
    field = make_field(embeddings_with((24, 16, 16), places))
    both = ReferenceSet((Target("two views", np.stack([unit(1), unit(2)]), 160.0),), "hash")
    assert len(locate(field, both, LocationSettings(min_score=0.8))) == 2
    similarity = both.similarity(field.embeddings(0, 24))
    assert similarity.shape == (24, 16, 16, 1) and similarity.dtype == np.float32
    assert similarity[5, 8, 8, 0] > 0.9 and similarity[17, 8, 8, 0] > 0.9


def test_a_constant_part_of_the_tomogram_is_no_crowd_of_peaks(make_field: FieldMaker) -> None:
    embeddings = embeddings_with((20, 24, 24), [((5, 6, 6), unit(1), 1.0)])
    embeddings[10:] = 0.6 * unit(1) + 0.8 * unit(5)
    found = locate(make_field(embeddings), references(target("planted", 1, 40.0)), LocationSettings(min_score=0.5))
    inside = found.xyz[:, 2] / 2 > 11.5
    assert inside.sum() == 0 and len(found) > 0


def test_nothing_found_is_an_empty_table(make_field: FieldMaker) -> None:
    field = make_field(embeddings_with((6, 6, 6), []))
    found = locate(field, references(target("absent", 1)), LocationSettings(min_score=0.999))
    assert len(found) == 0 and found.tomogram == "tomo"


def test_similarity_maps_hold_the_cosines_on_the_embedding_grid(make_field: FieldMaker, tmp_path: Path) -> None:
    field = make_field(embeddings_with((30, 10, 12), [((26, 4, 7), unit(2), 1.0)]), voxel_size_A=8.0)
    paths = write_similarity_maps(field, references(target("a", 1), target("b", 2)), tmp_path / "maps")
    assert [p.name for p in paths] == ["tomo_a.mrc", "tomo_b.mrc"]
    written = open_tomogram(paths[1])
    assert written.shape == (30, 10, 12) and written.voxel_size_A == pytest.approx(20.0)
    volume = written.slab(0, 30)
    assert np.unravel_index(volume.argmax(), volume.shape) == (26, 4, 7)
    np.testing.assert_allclose(volume, field.embeddings(0, 30) @ unit(2), atol=1e-3)


def test_embeddings_and_references_of_two_models_are_not_compared(make_field: FieldMaker, tmp_path: Path) -> None:
    field = make_field(embeddings_with((6, 6, 6), []), model_hash="another")
    for call in (locate, lambda f, r: write_similarity_maps(f, r, tmp_path / "maps")):
        with pytest.raises(UserError, match="another model"):
            call(field, references(target("a", 1)))
    assert not (tmp_path / "maps").exists()


def test_references_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "refs.safetensors"
    space = Space(unit(3), np.diag(np.arange(1, 33)).astype(np.float32))
    made = ReferenceSet((target("a", 1, 120.0, 0.7), target("b", 2)), "hash", {"seed": 5}, space)
    made.save(path)
    back = load_references(path)
    assert back.names == ["a", "b"] and back.model_hash == "hash" and back.made_by["seed"] == 5
    assert back.targets[0].threshold == 0.7 and np.isnan(back.targets[1].threshold)
    assert [t.diameter_A for t in back.targets] == [120.0, 160.0]
    for one, two in zip(made.targets, back.targets, strict=True):
        assert np.array_equal(one.prototypes, two.prototypes)
    assert np.array_equal(back.space.centre, space.centre) and np.array_equal(back.space.matrix, space.matrix)
    (tmp_path / "text.safetensors").write_text("no references")
    for name in ("text", "missing"):
        with pytest.raises(UserError, match=f"{name}.safetensors"):
            load_references(tmp_path / f"{name}.safetensors")


def test_the_space_of_comparison_is_centred_on_background_and_round_within_a_species() -> None:
    rng = np.random.default_rng(0)
    scatter = np.diag(
        np.concatenate([[0.3], np.full(31, 0.03)])
    )  # copies of one molecule differ along one direction most
    means = 0.2 * rng.normal(size=(5, 32))
    species = np.repeat(np.arange(5), 200)
    examples_ = means[species] + rng.normal(size=(1000, 32)) @ scatter
    background = 2.0 + 0.1 * rng.normal(size=(500, 32))
    space = Space.fitted(examples_, species, background)
    np.testing.assert_allclose(space.centre, background.mean(0), atol=1e-6)
    residuals = (examples_ - np.stack([examples_[species == s].mean(0) for s in range(5)])[species]) @ space.matrix
    deviations = np.sqrt(np.linalg.eigvalsh(residuals.T @ residuals / 1000))
    assert deviations.max() / deviations.min() < 2, "ten times before"
    np.testing.assert_allclose(np.linalg.norm(space.transform(examples_), axis=1), 1.0, atol=1e-5)
    plain = Space.plain().transform(unit(1))
    np.testing.assert_allclose(plain, unit(1), atol=1e-6)
    constant = Space.fitted(np.ones((50, 32)), np.zeros(50), np.ones((50, 32)))
    assert np.isfinite(constant.transform(unit(1))).all()


def test_prototypes_keep_views_apart_and_have_unit_length() -> None:
    rng = np.random.default_rng(0)
    views = np.concatenate([unit(s) + 0.05 * rng.normal(size=(20, 32)) for s in (1, 2)])
    found = prototypes_of(views, 2)
    assert found.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert sorted((found @ np.stack([unit(1), unit(2)]).T).max(0) > 0.98) == [True, True]
    assert len(prototypes_of(views[:7], 3)) == 1, "six examples at least stand behind each"


def examples(
    field: EmbeddingField, grid_places: Sequence[Sequence[float]], label: str = "", diameter: float = 150.0
) -> Coordinates:
    xyz = np.array(grid_places)[:, ::-1] * 20.0 / field.voxel_size_A
    return Coordinates.from_arrays(
        xyz, field.voxel_size_A, field.tomogram, field.tomogram_shape, label, diameter_A=diameter
    )


def test_example_positions_make_a_target_that_looks_like_them_without_the_outlier(make_field: FieldMaker) -> None:
    places = [(4, 4, 4), (4, 12, 4), (4, 4, 12), (12, 4, 4), (12, 12, 4), (12, 4, 12), (4, 12, 12)]
    field = make_field(embeddings_with((16, 16, 16), [(p, unit(1), 1.0) for p in places]), voxel_size_A=13.3)
    made = references_from_positions([(field, examples(field, [*places, (8, 8, 14)]))], name="planted")
    assert made.names == ["planted"] and made.model_hash == "hash" and made.targets[0].diameter_A == 150.0
    assert np.isnan(made.targets[0].threshold)
    similarity = made.similarity(field.embeddings(0, 16))[..., 0]
    assert similarity[tuple(np.transpose(places))].min() > 0.95 and np.quantile(similarity, 0.9) < 0.6
    # The wrong example has no say, and the same positions in other voxels are the same places.
    without = references_from_positions([(field, examples(field, places))], name="planted")
    rescaled = references_from_positions([(field, examples(field, places).to_voxel_size(5.0))], name="planted")
    for other in (without, rescaled):
        np.testing.assert_allclose(made.targets[0].prototypes, other.targets[0].prototypes, atol=1e-5)


def test_example_positions_become_one_target_per_label(make_field: FieldMaker) -> None:
    places = {"a": (4, 4, 4), "b": (10, 10, 10)}
    field = make_field(embeddings_with((16, 16, 16), [(p, unit(i), 1.0) for i, p in enumerate(places.values())]))
    table = Coordinates.concatenate([examples(field, [p], label) for label, p in places.items()])
    made = references_from_positions([(field, table)])
    assert made.names == ["a", "b"]
    similarity = made.similarity(field.embeddings(0, 16))
    for index, place in enumerate(places.values()):
        assert similarity[place].argmax() == index and similarity[place].max() > 0.99


def test_examples_that_cannot_serve_are_told(make_field: FieldMaker) -> None:
    field = make_field(embeddings_with((8, 8, 8), []))
    other = make_field(embeddings_with((8, 8, 8), []), name="other", model_hash="another")
    good = examples(field, [(3, 3, 3)])
    for wrong, words in {
        "outside": ([(field, examples(field, [(9, 3, 3)]))], "outside"),
        "no diameter": ([(field, examples(field, [(3, 3, 3)], diameter=np.nan))], "--diameter"),
        "two models": ([(field, good), (other, examples(other, [(3, 3, 3)]))], "another model"),
        "none": ([(field, good.select(np.zeros(1, bool)))], "no position"),
    }.values():
        with pytest.raises(UserError, match=words):
            references_from_positions(wrong, name="x")


def test_targets_in_tomograms_of_two_models_are_not_mixed(make_field: FieldMaker, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_field(embeddings_with((8, 8, 8), []), name=name, model_hash=name)
        write_coordinates(tmp_path / f"{name}.star", Coordinates.from_arrays([[4, 4, 4]], 10.0, name))
    with pytest.raises(UserError, match="another model"):
        collect_references(
            [("a", str(tmp_path / "one.star")), ("b", str(tmp_path / "two.star"))],
            [tmp_path / "one.zarr", tmp_path / "two.zarr"], "released", QUICK, ReferenceSettings(), "cpu", 100.0,
        )  # fmt: skip


def test_densities_become_targets_with_their_diameter_and_origin() -> None:
    network = tiny_network(2)
    library = load_library()
    densities = {name: library.density(name) for name in ("4v6x", "1dzl")}
    settings = ReferenceSettings(shape=(40, 72, 72), tomograms=2, crowd=1)
    model = Model(network, {}, Path("x"))
    made = references_from_densities(densities, model, QUICK, settings, origins={"4v6x": "library:4v6x"})
    assert made.names == ["4v6x", "1dzl"] and made.model_hash == model.hash
    assert made.targets[0].origin == "library:4v6x"
    for t in made.targets:
        assert t.diameter_A == pytest.approx(densities[t.name].diameter_A)
        np.testing.assert_allclose(np.linalg.norm(t.prototypes, axis=1), 1.0, atol=1e-5)
        assert np.isnan(t.threshold) or -1 <= t.threshold <= 1
    assert made.made_by["reference"]["seed"] == settings.seed


def test_a_reference_wider_than_the_window_is_refused() -> None:
    huge = Density(np.ones((41, 41, 41), np.float32), 10.0)
    with pytest.raises(UserError, match="huge: .* wider than the network's window of 370 A"):
        references_from_densities({"huge": huge}, Model(tiny_network(), {}, Path("x")), QUICK)


def peaks(scores: Sequence[float], label: str = "a") -> Coordinates:
    xyz = np.arange(3 * len(scores)).reshape(-1, 3)
    return Coordinates.from_arrays(xyz, 10.0, "tomo", label=label, score=scores)


def test_a_threshold_keeps_what_reaches_it_for_each_target_its_own() -> None:
    table = Coordinates.concatenate([peaks([0.9, 0.5, 0.4], "a"), peaks([0.9, 0.5, 0.4], "b")])
    kept, used = pick(table, threshold=0.5)
    assert np.allclose(sorted(kept.score), [0.5, 0.5, 0.9, 0.9]) and used == {"a": 0.5, "b": 0.5}
    kept, used = pick(table, calibrated={"a": 0.85, "b": 0.45, "c": 0.1})
    assert [(k, len(v)) for k, v in kept.by_label().items()] == [("a", 1), ("b", 2)]
    assert used == {"a": 0.85, "b": 0.45}
    assert len(pick(table, threshold=0.0)[0]) == 6, "0 is a threshold, not its absence"
    with pytest.raises(UserError, match="within -1 to 1"):
        pick(table, threshold=40.0)


def test_without_a_calibrated_threshold_the_crowd_of_other_peaks_gives_it() -> None:
    crowd = np.random.default_rng(1).normal(0.5, 0.03, 400)
    threshold = null_threshold(np.concatenate([crowd, [0.9, 0.91, 0.93]]))
    assert 0.58 < threshold < 0.68
    kept, _ = pick(peaks([*crowd, 0.9, 0.91, 0.93]), calibrated={"a": float("nan")})
    assert 3 <= len(kept) <= 5
    assert len(pick(peaks([0.9]))[0]) == 1 and len(pick(peaks([]))[0]) == 0


def test_a_peak_lies_at_the_centre_of_its_hill_however_flat_the_top_is() -> None:
    """Layer by layer too, and at a face, where only what lies opposite counts."""
    rng = np.random.default_rng(0)
    shape, centres = (24, 40, 40), np.array([[10.4, 9.7, 10.2], [11.8, 29.6, 30.3], [0.0, 9.6, 30.2]])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    away = np.min([np.linalg.norm(grid - c, axis=-1) for c in centres], axis=0)
    hill = 0.9 - 0.05 * np.maximum(away - 0.8, 0) ** 2 + rng.normal(scale=0.0005, size=shape)
    similarity = np.clip(hill, 0, 1)[..., None].astype(np.float32)
    settings = LocationSettings(min_score=0.85)
    whole = peaks_of(similarity, settings)
    best = [whole.zyx[np.linalg.norm(whole.zyx - c, axis=1).argmin()] for c in centres]
    assert np.linalg.norm(best[:2] - centres[:2], axis=1).max() < 0.2
    assert np.linalg.norm(best[2][1:] - centres[2][1:]) < 0.2 and best[2][0] == 0
    layers = [(z, np.moveaxis(similarity[z : z + n], -1, 0)) for z, n in ((0, 1), (1, 2), (3, 9), (12, 1), (13, 11))]
    parts = peaks_in_layers(layers, settings)
    np.testing.assert_allclose(sorted(parts.zyx.tolist()), sorted(whole.zyx.tolist()), atol=1e-6)
