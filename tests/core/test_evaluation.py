"""Matching, scores, the blob finder and the pictures."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import (
    box_iou,
    evaluate,
    find_blobs,
    format_table,
    match,
    match_boxes,
    median_f1,
    recall_by_number,
    rightness_in_order,
    write_csv,
)
from tomotwin_core.evaluation.pictures import picks_picture


def on_x(*places: float) -> NDArray[np.float64]:
    return np.array([[place, 0, 0] for place in places]).reshape(-1, 3)


def most_pairs(close: NDArray[np.bool_]) -> int:
    """The size of a maximum matching, by trying everything."""
    if not close.size or not close.any():
        return 0
    rest = most_pairs(close[1:])
    return max([rest] + [1 + most_pairs(np.delete(close[1:], j, axis=1)) for j in np.flatnonzero(close[0])])


# ------------------------------ matching ------------------------------


def test_a_particle_counts_once_however_many_picks_sit_on_it() -> None:
    pick, true = match(on_x(0, 1, 2), on_x(0.9), 5)
    assert pick.tolist() == [1] and true.tolist() == [0], "and the closest pick gets it"


def test_a_pick_between_two_particles_does_not_take_the_only_one_of_another() -> None:
    # Pick 0 is nearest to particle 0, which is the only one that pick 1 can have.
    pick, true = match(on_x(4.9, 0), on_x(4, 8), 4)
    assert dict(zip(pick.tolist(), true.tolist(), strict=True)) == {0: 1, 1: 0}


def test_the_tolerance_itself_is_still_right_and_beyond_it_is_not() -> None:
    assert len(match(on_x(0), on_x(4), 4)[0]) == 1
    assert len(match(on_x(0), on_x(4.001), 4)[0]) == 0


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_matches_nothing(n: int, m: int) -> None:
    pick, true = match(np.ones((n, 3)), np.ones((m, 3)), 1)
    assert len(pick) == len(true) == len(match_boxes(np.ones((n, 3)), np.ones((m, 3)), 10)[0]) == 0
    assert len(rightness_in_order(np.ones((n, 3)), np.ones((m, 3)), 1)) == n


@pytest.mark.parametrize("seed", range(60))
def test_no_pairing_has_more_matches_and_every_prefix_is_counted_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picks, truth = rng.uniform(0, 10, (rng.integers(1, 8), 3)), rng.uniform(0, 10, (rng.integers(1, 8), 3))
    tolerance = rng.uniform(1, 8)
    distance = np.linalg.norm(picks[:, None] - truth[None], axis=2)
    pick, true = match(picks, truth, tolerance)
    assert len(set(pick.tolist())) == len(set(true.tolist())) == len(pick) == most_pairs(distance <= tolerance)
    assert (distance[pick, true] <= tolerance).all()
    found = np.cumsum(rightness_in_order(picks, truth, tolerance))
    assert found.tolist() == [most_pairs(distance[: k + 1] <= tolerance) for k in range(len(picks))]
    iou = np.array([box_iou(np.broadcast_to(p, truth.shape), truth, tolerance) for p in picks])
    assert len(match_boxes(picks, truth, tolerance, 0.3)[0]) == most_pairs(iou > 0.3)


def test_a_crowded_tomogram_is_matched_in_full() -> None:
    truth = np.stack(np.meshgrid(*[np.arange(12.0) * 10] * 3), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(0)
    picks = rng.permutation(truth + rng.uniform(-2.5, 2.5, truth.shape))
    pick, true = match(picks, truth, 12)  # every pick is close to several particles
    assert len(pick) == len(truth)
    np.testing.assert_array_less(np.linalg.norm(picks[pick] - truth[true], axis=1), 4.4)


def test_boxes_overlap_as_boxes_do() -> None:
    iou = box_iou([[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [5, 0, 0], [10, 0, 0]], 10)
    np.testing.assert_allclose(iou, [1, 1 / 3, 0])
    # IoU 0.6 along one axis is a shift of a quarter of the side.
    assert len(match_boxes(on_x(2.49), on_x(0), 10)[0]) == 1
    assert len(match_boxes(on_x(2.51), on_x(0), 10)[0]) == 0


# ------------------------------ scores ------------------------------


def scene(
    places: NDArray[np.float64], label: str = "a", diameter: float = 160, score: object = np.nan, tomogram: str = "t"
) -> Coordinates:
    """Positions given in Angstrom, in a tomogram of 8 A voxels."""
    return Coordinates.from_arrays(places / 8.0, 8.0, tomogram, None, label, score, diameter)  # type: ignore[arg-type]


def test_counts_and_rates_are_what_was_planted() -> None:
    truth = scene(on_x(0, 1000, 2000, 3000))
    picks = scene(on_x(39, 1041, 2000, 9000), score=[0.9, 0.8, 0.7, 0.6])  # within 160 / 4 = 40 A: the first and third
    (row,) = evaluate(picks, truth)
    assert (row.n_true, row.n_picked, row.n_right, row.n_wrong, row.n_missed) == (4, 4, 2, 2, 2)
    assert (row.precision, row.recall, row.f1, row.tolerance_A) == (0.5, 0.5, 0.5, 40)
    assert row.box_f1 == 0.5 and row.median_distance_A == pytest.approx(19.5)


def test_small_particles_have_a_tolerance_of_two_voxels_of_the_model() -> None:
    (row,) = evaluate(scene(on_x(19.9, 520.1), diameter=40), scene(on_x(0, 500), diameter=40))
    assert row.tolerance_A == 20 and row.n_right == 1


def test_the_best_possible_f1_stands_apart_and_comes_from_the_candidates() -> None:
    truth = scene(on_x(0, 1000, 2000, 3000))
    candidates = scene(on_x(0, 1000, 5000, 2000, 6000, 7000, 3000), score=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    picks = candidates.select(candidates.score >= 0.75)
    (row,) = evaluate(picks, truth, candidates)
    assert row.f1 == pytest.approx(2 * 2 / (2 + 4))
    assert row.best_f1 == pytest.approx(2 * 3 / (4 + 4)) and row.best_threshold == pytest.approx(0.6)
    assert row.average_precision == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    (alone,) = evaluate(picks, truth)
    assert alone.best_f1 == row.f1, "without candidates it is looked for above the threshold only"


def test_no_threshold_passes_between_equal_scores() -> None:
    picks = scene(on_x(0, 1000, 5000, 6000, 7000), score=[0.9, 0.5, 0.5, 0.5, 0.5])
    (row,) = evaluate(picks, scene(on_x(0, 1000)))
    assert row.best_f1 == pytest.approx(2 / 3) and row.best_threshold == pytest.approx(0.9)


def test_without_scores_the_best_f1_is_unknown_not_zero() -> None:
    (row,) = evaluate(scene(on_x(0)), scene(on_x(0)))
    assert row.f1 == 1 and math.isnan(row.best_f1) and math.isnan(row.average_precision)


def test_the_best_f1_is_never_below_the_used_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = scene(rng.uniform(0, 600, (30, 3)), diameter=120)
        picks = scene(rng.uniform(0, 600, (60, 3)), diameter=120, score=rng.random(60))
        (row,) = evaluate(picks, truth)
        assert row.best_f1 >= row.f1 - 1e-12


def test_tomograms_are_pooled_by_counts_and_one_threshold_holds_for_all() -> None:
    truth = [scene(on_x(0, 1000, 2000), tomogram="t1"), scene(on_x(0), tomogram="t2")]
    picks = [
        scene(on_x(0, 1000, 5000), score=[0.9, 0.2, 0.1], tomogram="t1"),
        scene(on_x(2000, 0), score=[0.8, 0.3], tomogram="t2"),  # 2000 is a place in the other tomogram
    ]
    (row,) = evaluate(picks, truth)
    assert (row.n_true, row.n_picked, row.n_right) == (4, 5, 3)
    assert row.best_f1 == pytest.approx(2 * 3 / (4 + 4)) and row.best_threshold == pytest.approx(0.2)


def test_picks_and_truth_may_be_in_different_voxels() -> None:
    truth = scene(np.random.default_rng(0).uniform(0, 3000, (20, 3)))
    (row,) = evaluate(truth.to_voxel_size(13.3), truth)
    assert row.f1 == 1 and row.median_distance_A < 1e-9


def test_species_are_kept_apart_and_one_never_picked_counts_as_missed() -> None:
    truth = Coordinates.concatenate([scene(on_x(0, 500), "a"), scene(on_x(1000), "b"), scene(on_x(2000), "c")])
    picks = Coordinates.concatenate([scene(on_x(0, 500, 1000), "a"), scene(on_x(2000), "b"), scene(on_x(0), "new")])
    rows = {row.label: row for row in evaluate(picks, truth)}
    assert {label: row.n_right for label, row in rows.items()} == {"a": 2, "b": 0, "c": 0, "new": 0}
    assert rows["c"].f1 == 0 and rows["c"].recall == 0 and math.isnan(rows["c"].precision)
    assert rows["new"].f1 == 0 and math.isnan(rows["new"].recall)
    assert median_f1(list(rows.values())) == 0, "over a, b and c, not over what is not there"
    assert [row.label for row in evaluate(picks, truth, labels=["b"])] == ["b"]


def test_picks_without_a_label_are_of_the_only_species_there_is() -> None:
    (row,) = evaluate(scene(on_x(0), ""), scene(on_x(0), "ribosome"))
    assert row.label == "ribosome" and row.f1 == 1


def test_no_picks_at_all_is_a_result() -> None:
    (row,) = evaluate(scene(on_x()), scene(on_x(0, 1)))
    assert (row.f1, row.recall, row.best_f1) == (0, 0, 0) and math.isnan(row.precision)


def test_what_does_not_go_together_is_one_sentence() -> None:
    truth = scene(on_x(0), tomogram="TS_01")
    with pytest.raises(UserError, match="the picks of TS_1 have no truth: give the truth of the same tomograms"):
        evaluate([truth, scene(on_x(0), tomogram="TS_1")], truth)
    with pytest.raises(UserError, match="the truth of TS_02 has no picks: give those of the same tomograms"):
        evaluate(truth, [truth, scene(on_x(0), tomogram="TS_02")])
    with pytest.raises(UserError, match="the picks are of 1bxn and the truth is of a: give the targets the names they"):
        evaluate(scene(on_x(0), "1bxn", tomogram="TS_01"), truth)


def test_the_table_shows_every_species_and_the_file_holds_every_number(tmp_path: Path) -> None:
    truth = Coordinates.concatenate([scene(on_x(0, 500), "ribosome"), scene(on_x(1000), "b")])
    picks = Coordinates.concatenate([scene(on_x(0), "ribosome", score=0.7), scene(on_x(1000), "b", score=0.6)])
    rows = evaluate(picks, truth)
    lines = format_table(rows).splitlines()
    assert len(lines) == 6 and {len(line) for line in lines[:4]} == {len(lines[0])}
    assert lines[3].split() == ["ribosome", "2", "1", "1", "1.00", "0.50", "0.67", "0.67", "|", "0.67", "0.70"]
    assert lines[5].split() == ["median", "F1", "0.83", "0.83", "|", "0.83"]
    assert lines[5].index("0.83") == lines[3].index("0.67"), "under the column it is the median of"
    write_csv(tmp_path / "scores.csv", rows)
    with (tmp_path / "scores.csv").open() as stream:
        back = list(csv.DictReader(stream))
    assert [row["label"] for row in back] == ["b", "ribosome"]
    assert float(back[1]["recall"]) == 0.5 and float(back[1]["diameter_A"]) == 160


def test_f_beta_is_the_weighed_mean_of_precision_and_recall(tmp_path: Path) -> None:
    truth = Coordinates.from_arrays(100.0 * np.arange(8)[:, None] * (1, 0, 0), 10.0, "t", label="a", diameter_A=100.0)
    picks = Coordinates.from_arrays(
        100.0 * np.arange(6, 16)[:, None] * (1, 0, 0), 10.0, "t", label="a", diameter_A=100.0
    )
    (score,) = rows = evaluate(picks, truth)
    precision, recall = 0.2, 0.25
    for beta in (0.5, 1.0, 4.0):
        expected = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        assert score.f_beta(beta) == pytest.approx(expected)
    assert score.f_beta(1) == score.f1
    shown = format_table(rows, 4).splitlines()
    assert "F1     F4   box F1" in shown[0] and "0.22   0.25 " in shown[2] and "0.22   0.25 " in shown[-1]
    assert len({len(line) for line in shown[:3]}) == 1
    write_csv(tmp_path / "s.csv", rows, 4)
    with open(tmp_path / "s.csv") as file:
        assert float(next(csv.DictReader(file))["f4"]) == pytest.approx(score.f_beta(4), rel=1e-4)


def test_recall_grows_with_the_number_of_picks() -> None:
    np.testing.assert_allclose(recall_by_number(on_x(0, 1, 9, 20), on_x(0, 10, 50), 2), [1 / 3, 1 / 3, 2 / 3, 2 / 3])


# ------------------------------ blobs and pictures ------------------------------


def blobs(
    places: NDArray[np.float64], heights: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    volume = np.zeros(shape, np.float32)
    for (px, py, pz), height in zip(places, heights, strict=True):
        volume += height * np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * 2.0**2)).astype(np.float32)
    return volume


def test_planted_blobs_are_found_in_order_of_their_strength() -> None:
    places = np.array([[10, 40, 20], [50, 10, 25], [30, 30, 8], [52, 44, 30]], float)
    volume = blobs(places, np.array([2.0, 4.0, 1.0, 3.0]), (40, 55, 65))
    volume += np.random.default_rng(0).normal(0, 0.05, volume.shape).astype(np.float32)
    found = find_blobs(volume, 2, 5, 8, 4)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, places[[1, 3, 0, 2]], atol=1)
    np.testing.assert_allclose(find_blobs(volume, 2, 5, 8, 2), found[:2])


def test_of_two_blobs_too_close_the_stronger_stays() -> None:
    volume = blobs(np.array([[10, 15, 15], [19, 15, 15]], float), np.array([1.0, 2.0]), (30, 30, 30))
    assert len(find_blobs(volume, 1, 4, 7, 9)) >= 2
    np.testing.assert_allclose(find_blobs(volume, 1, 4, 12, 1), [[19, 15, 15]], atol=0.5)
    found = find_blobs(volume, 1, 4, 12, 9)
    assert not any(np.linalg.norm(found[0] - other) < 12 for other in found[1:])


def test_an_empty_volume_has_no_blobs() -> None:
    assert find_blobs(np.zeros((9, 9, 9), np.float32), 1, 2, 3, 5).shape == (0, 3)


def coloured(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    rgb = image[..., :3]
    return (rgb.max(-1) - rgb.min(-1)) > 0.3


@pytest.mark.parametrize("slices", [None, [10, 20, 30]])
def test_circles_stand_where_the_picks_are_and_in_the_truth_too(tmp_path: Path, slices: list[int] | None) -> None:
    volume = np.random.default_rng(0).normal(0, 1, (40, 80, 80)).astype(np.float32)
    truth = Coordinates.from_arrays([[20, 60, 20], [60, 20, 20]], 8, "t", (40, 80, 80), ["a", "b"], diameter_A=100)
    path = tmp_path / "picks.png"
    picks_picture(volume, truth.select([0]), path, truth, slices, title="a test")
    image = imread(path)
    marked = coloured(image)
    left, right = marked[:, : image.shape[1] // 2], marked[:, image.shape[1] // 2 :]
    assert right.sum() > 1.6 * left.sum() > 0, "one pick on the left, two particles on the right"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picks.png"]
    picks_picture(volume, truth, path, slices=slices)
    assert coloured(imread(path)).sum() > 0


def test_a_picture_without_any_pick_is_drawn_all_the_same(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(0, 1, (10, 40, 50)).astype(np.float32)
    picks_picture(volume, Coordinates.from_arrays([], 8, "t"), tmp_path / "a.png")
    assert not coloured(imread(tmp_path / "a.png")).any()
