"""Verified picks: planted molecules are found by their densities, as they lie; gold, the other molecule and what is not there are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from test_template_matching import ACQUISITION, molecule, turned

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.evaluation import match
from tomotwin_core.picking.references import ReferenceSet, Target, load_references
from tomotwin_core.picking.thresholds import pick
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.structures import Density, density_from_points
from tomotwin_core.structures.library import load_library
from tomotwin_core.subtomograms.templates import sphere
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc
from tomotwin_core.verification import rates, verify
from tomotwin_core.verification.competition import Matched, distinct, kept_beside, kept_in_competition, scores
from tomotwin_core.verification.decoys import choose_decoys
from tomotwin_core.verification.matcher import Matcher, Prepared
from tomotwin_core.verification.places import block, coarse_places, number_of_places

SHAPE = (40, 90, 90)
ARMS = np.array([[18, 18, 20], [18, 46, 18], [18, 72, 21], [46, 18, 20], [46, 46, 20], [74, 32, 19]])
BARS = np.array([[46, 72, 20], [72, 72, 20], [72, 52, 18], [32, 32, 20], [60, 60, 20], [32, 60, 20]])
GOLD = np.array([[66, 10, 20], [32, 74, 20]])


def bar() -> Density:
    """A bent bar of 280 kDa."""
    rng = np.random.default_rng(2)
    points = np.concatenate(
        [rng.normal(c, 11, (n, 3)) for c, n in (((-40, 0, 0), 130), ((0, 12, 0), 130), ((40, 0, 20), 130))]
    )
    return density_from_points(points, np.full(len(points), 720.0), 5.0)


def ring() -> Density:
    """One that is nowhere."""
    angle = np.linspace(0, 2 * np.pi, 400)
    points = np.stack([50 * np.cos(angle), 50 * np.sin(angle), 8 * np.sin(5 * angle)], axis=1)
    return density_from_points(points, np.full(400, 720.0), 5.0)


def turns(seed: int, n: int = 6) -> NDArray[np.float64]:
    return np.asarray(Rotation.random(n, random_state=seed).as_matrix())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TomogramSource:
    sample = np.zeros(SHAPE, np.float32)
    for density, places, rotations in ((molecule(), ARMS, turns(3)), (bar(), BARS, turns(4))):
        for (x, y, z), rotation in zip(places, rotations, strict=True):
            values = turned(density, rotation)
            low = np.array([z, y, x]) - values.shape[0] // 2
            high = low + values.shape[0]
            cut = tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))
            part = tuple(
                slice(max(-a, 0), max(-a, 0) + min(b, n) - max(a, 0)) for a, b, n in zip(low, high, SHAPE, strict=True)
            )
            sample[cut] += values[part]
    ball = sphere(3, 3.2).astype(np.float32) * 9000
    for x, y, z in GOLD:
        sample[z - 3 : z + 4, y - 3 : y + 4, x - 3 : x + 4] += ball
    series = take_tilt_series(torch.from_numpy(sample), 10.0, ACQUISITION, torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("verifying") / "TS_01.mrc"
    write_mrc(path, reconstruct(series, ACQUISITION).numpy(), 10.0)
    return open_tomogram(path)


@pytest.fixture(scope="module")
def found(source: TomogramSource) -> Coordinates:
    nothing = Coordinates.from_arrays(np.empty((0, 3)), 10.0, source.name, source.shape)
    targets = {"arms": molecule(), "bar": bar(), "ring": ring()}
    return verify(source, nothing, targets, ACQUISITION)


def picked(found: Coordinates, label: str) -> Coordinates:
    picks, _ = pick(found)
    return picks.select(picks.label == label)


@pytest.mark.parametrize(("label", "places", "seed"), [("arms", ARMS, 3), ("bar", BARS, 4)])
def test_planted_molecules_are_picked_at_the_proposed_threshold_where_they_are_and_as_they_lie(
    found: Coordinates, label: str, places: NDArray[np.int64], seed: int
) -> None:
    picks = picked(found, label)
    i, j = match(picks.xyz, places, 2.5)
    assert len(i) == len(places) and len(picks) <= len(places) + 1
    assert np.median(np.linalg.norm(picks.xyz[i] - places[j], axis=1)) < 0.8
    assert picks.rotation is not None
    turn = np.asarray(picks.rotation)[i].transpose(0, 2, 1) @ turns(seed)[j]
    # The bar is hardly told from itself turned about its length.
    assert np.median(np.degrees(Rotation.from_matrix(turn).magnitude())) < (10 if label == "arms" else 60)


def test_gold_is_no_molecule_however_well_it_correlates(found: Coordinates) -> None:
    picks, _ = pick(found)
    distance = np.linalg.norm(picks.xyz[:, None] - GOLD[None], axis=2).min(1)
    assert (distance > 3).all()


def test_of_a_target_that_is_not_there_hardly_anything_is_picked(found: Coordinates) -> None:
    assert len(picked(found, "ring")) <= 4


def test_scores_fall_and_expected_rates_never_rise_with_them(found: Coordinates) -> None:
    assert (np.diff(found.score) <= 0).all() and found.fdr is not None
    for own in found.by_label().values():
        assert own.fdr is not None and (np.diff(own.fdr) >= -1e-6).all()


def test_a_match_is_the_best_correlation_under_the_mask(source: TomogramSource) -> None:
    tomogram = Prepared.of(source, "dark", 10.0, 30.0)
    matcher = Matcher.of(molecule(), ACQUISITION, 10.0, 30.0, 30.0)
    x, y, z = ARMS[4]
    found = matcher.at(tomogram, np.array([[z + 1, y - 1, x + 1]], float), reach=2)
    mask, volume = matcher.imager.mask, tomogram.volume.numpy()
    half = mask.shape[0] // 2
    zz, yy, xx = found.zyx[0]
    cut = volume[zz - half : zz + half + 1, yy - half : yy + half + 1, xx - half : xx + half + 1][mask]
    cut = cut - cut.mean()
    templates = matcher.imager.templates(matcher.rotations[found.rotation]).numpy()
    assert templates[0] @ cut / np.linalg.norm(cut) == pytest.approx(found.correlation[0], abs=0.03)
    assert found.strength[0] == pytest.approx(found.correlation[0] * np.linalg.norm(cut) / matcher.length, rel=1e-4)
    assert np.linalg.norm(found.zyx[0] - [z, y, x]) <= 1.5


def test_places_at_corners_and_outside_are_matched_as_far_as_there_is_a_tomogram(source: TomogramSource) -> None:
    tomogram = Prepared.of(source, "dark", 10.0, 30.0)
    matcher = Matcher.of(bar(), ACQUISITION, 10.0, 30.0, 40.0)
    found = matcher.at(tomogram, np.array([[0, 0, 0], [39, 89, 89], [-5, 200, 3]], float))
    assert np.isfinite(found.correlation).all() and (found.zyx >= 0).all() and (found.zyx < SHAPE).all()
    assert len(matcher.at(tomogram, np.empty((0, 3))).correlation) == 0


def test_the_other_contrast_is_another_tomogram(source: TomogramSource) -> None:
    dark, bright = (Prepared.of(source, contrast, 10.0, 30.0).volume for contrast in ("dark", "bright"))
    assert (
        torch.allclose(dark, -bright)
        and abs(float(dark.mean())) < 1e-3
        and float(dark.std()) == pytest.approx(1, abs=1e-3)
    )


def test_coarse_places_hold_what_is_planted(source: TomogramSource) -> None:
    coarse = Prepared.of(source, "dark", 20.0, 40.0)
    places = coarse_places(coarse, molecule(), ACQUISITION, 30) / 10.0
    assert len(places) <= 30 and len(match(places, ARMS, 3.0)[0]) == len(ARMS)


def test_places_grow_with_the_tomogram_within_bounds() -> None:
    small, usual, huge = (number_of_places(shape, 10.0) for shape in ((20, 50, 50), (200, 512, 512), (500, 2000, 2000)))
    assert small == 150 and 2000 < usual < 3000 and huge == 3000


def test_a_block_is_the_middle_of_full_height() -> None:
    whole = Prepared(torch.arange(10 * 40 * 60).reshape(10, 40, 60).float(), 20.0)
    part, begins, share = block(whole, 10 * 20 * 20)
    assert part.volume.shape == (10, 20, 20) and share == pytest.approx(1 / 6)
    x, y, _ = (begins / 20).astype(int)
    assert float(part.volume[0, 0, 0]) == float(whole.volume[0, y, x])


@pytest.mark.parametrize("name", ["1dzl", "4v6x", "5mrc", "1eab", "1fj1"])
def test_no_decoy_may_be_the_target(name: str) -> None:
    density = load_library().density(name)
    half_turn = replace(density, values=np.ascontiguousarray(density.values[::-1, ::-1]))
    decoys = choose_decoys({"mine": half_turn})
    assert name not in decoys and len(decoys) >= 6
    masses = np.array([d.density.mass_kDa for d in decoys.values()])
    assert np.median(np.abs(np.log(masses / density.mass_kDa))) < 0.7


def test_the_same_seed_chooses_the_same_decoys() -> None:
    assert list(choose_decoys({"a": bar()}, 5)) == list(choose_decoys({"a": bar()}, 5))


def scene(
    x: list[float], correlation: list[float], strength: list[float], deviation: float, diameter: float
) -> Matched:
    xyz = np.stack([np.array(x, float), np.zeros(len(x)), np.zeros(len(x))], axis=1)
    return Matched(xyz, np.array(correlation), np.array(strength), deviation, diameter, 0.6 * diameter, 100.0)


def test_a_lobe_of_a_large_particle_goes_to_the_large_one_and_a_small_particle_stays() -> None:
    large = scene([0, 1000], [0.5, 0.15], [1, 1], 0.06, 250.0)
    small = scene([60, 500], [0.7, 0.7], [1, 1], 0.18, 100.0)
    matched = {"large": large, "small": small}
    kept = kept_in_competition(matched, {n: m.correlation for n, m in matched.items()})
    assert kept["small"].tolist() == [1] and 0 in kept["large"]


def test_the_same_call_gives_the_same_picks_to_the_bit_though_threads_share_the_work(source: TomogramSource) -> None:
    nothing = Coordinates.from_arrays(np.empty((0, 3)), 10.0, source.name, source.shape)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        one, two = (verify(source, nothing, {"bar": bar()}, ACQUISITION) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert one.xyz.tolist() == two.xyz.tolist() and one.score.tolist() == two.score.tolist()


def test_of_two_matches_of_one_molecule_too_near_the_better_stays() -> None:
    xyz = np.array([[0, 0, 0], [50, 0, 0], [100, 0, 0], [300, 0, 0]], float)
    assert distinct(xyz, np.array([0.5, 0.9, 0.6, 0.1]), 60.0).tolist() == [1, 3]


def test_a_decoy_gives_way_to_better_matches_of_targets_alone() -> None:
    target = scene([0, 500], [0.8, 0.3], [1, 1], 0.15, 100.0)
    decoy = scene([10, 510, 900], [0.6, 0.6, 0.4], [1, 1, 1], 0.15, 100.0)
    matched, score = {"t": target}, {"t": target.correlation}
    won = kept_in_competition(matched, score)
    assert kept_beside(decoy, decoy.correlation, matched, won, score).tolist() == [1, 2]


@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_what_is_unusually_strong_or_faint_counts_less(factor: float) -> None:
    x = [float(300 * i) for i in range(12)]
    strength = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.1, 0.9, factor, factor, 1.0, 1.0]
    one = scene(x, [0.8] * 10 + [0.3, 0.3], strength, 0.15, 100.0)
    score = scores({"a": one}, {})["a"]
    assert score[:8].min() > 0.75 and score[8:10].max() < 0.4


@pytest.mark.parametrize("seed", range(4))
def test_right_matches_are_probable_and_the_decoys_kind_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wrong, right = rng.normal(3.3, 0.6, 50), rng.normal(6.0, 0.5, 20)
    decoys = [(rng.normal(3.3, 0.6, 40), 0.16, 1.1) for _ in range(6)]
    probability = rates.probabilities(np.concatenate([wrong, right]), 0.15, decoys)
    assert probability[50:].mean() > 0.9 and probability[:50].mean() < 0.1
    order = np.argsort(np.concatenate([wrong, right]))
    assert (np.diff(probability[order]) >= -1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_matches_like_those_of_decoys_are_not_probable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    decoys = [(rng.normal(3.3, 0.6, 40), 0.16, 1.1) for _ in range(6)]
    assert rates.probabilities(rng.normal(3.3, 0.6, 40), 0.15, decoys).sum() < 4


def test_without_decoys_or_matches_nothing_is_probable() -> None:
    assert rates.probabilities(np.array([5.0, 6, 7, 8]), 0.1, []).sum() == 0
    assert rates.probabilities(np.array([5.0]), 0.1, [(np.array([3.0, 3.1]), 0.1, 1.0)]).sum() == 0
    assert len(rates.probabilities(np.empty(0), 0.1, [(np.array([3.0]), 0.1, 1.0)])) == 0


def test_references_keep_their_densities(tmp_path) -> None:  # type: ignore[no-untyped-def]
    density = bar()
    made = ReferenceSet((Target("bar", np.eye(1, 32, dtype=np.float32), 150.0, density=density), Target("none", np.eye(1, 32, dtype=np.float32), 90.0)), "m")  # fmt: skip
    made.save(tmp_path / "r.safetensors")
    read = load_references(tmp_path / "r.safetensors")
    assert list(read.densities) == ["bar"]
    again = read.densities["bar"]
    assert again.voxel_size_A == density.voxel_size_A and again.sigma_A == density.sigma_A
    np.testing.assert_allclose(again.values, density.values, rtol=1e-3, atol=1e-2)
