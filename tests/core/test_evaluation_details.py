"""What stands behind the scores: rules, curves, decisions, single tomograms, and the command that writes them."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from test_evaluation import on_x, scene

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import Rule, compare, evaluate, scored
from tomotwin_core.evaluation.details import curves, decisions, scores_by_tomogram


def test_another_tolerance_is_a_share_of_the_diameter_but_never_below_two_voxels_of_the_model() -> None:
    truth, picks = scene(on_x(0, 1000)), scene(on_x(30, 1050))  # 160 A wide
    for share, right in ((0.25, 1), (0.15, 0), (0.4, 2)):
        assert evaluate(picks, truth, rule=Rule(share=share))[0].n_right == right
    (row,) = evaluate(picks, truth, rule=Rule(share=0.01))
    assert row.tolerance_A == 20


def test_boxes_decide_about_counts_curves_and_decisions_alike() -> None:
    # Cubes of 160 A shifted by s along x overlap with IoU (160 - s) / (160 + s): above 0.6 up to 40 A, above 0.5 up to 53.
    truth, picks = scene(on_x(0, 1000, 2000)), scene(on_x(39, 1041, 2060), score=[0.9, 0.8, 0.7])
    for min_iou, right in ((0.6, 1), (0.5, 2), (0.4, 3)):
        compared = compare(picks, truth, rule=Rule(boxes=True, min_iou=min_iou))
        (row,), (curve,) = scored(compared), curves(compared)
        assert row.n_right == right == curve.right[-1] and math.isnan(row.tolerance_A) and row.box_f1 == row.f1
        assert [d.verdict for d in decisions(compared)].count("right") == right
    with pytest.raises(UserError, match="neither the truth nor the picks have one"):
        evaluate(scene(on_x(0), diameter=math.nan), scene(on_x(0), diameter=math.nan), rule=Rule(boxes=True))


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"min_iou": 0.0}, {"min_iou": 1.0}])
def test_shares_that_cannot_be_are_one_sentence(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="give a share"):
        Rule(**wrong)  # type: ignore[arg-type]


def test_a_curve_passes_through_every_planted_point_and_skips_equal_scores() -> None:
    truth = scene(on_x(0, 1000, 2000, 3000))
    candidates = scene(on_x(0, 5000, 1000, 6000, 2000), score=[0.9, 0.8, 0.7, 0.5, 0.5])
    (curve,) = curves(compare(candidates.select(candidates.score > 0.6), truth, candidates))
    np.testing.assert_allclose(curve.threshold, [0.9, 0.8, 0.7, 0.5])
    assert curve.picked.tolist() == [1, 2, 3, 5] and curve.right.tolist() == [1, 1, 2, 3]
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 3 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 4, 1 / 4, 2 / 4, 3 / 4])
    np.testing.assert_allclose(curve.f1, [2 / 5, 2 / 6, 4 / 7, 6 / 9])
    (none,) = curves(compare(scene(on_x(0)), scene(on_x(0))))
    assert len(none.threshold) == 0, "without scores there is no curve"


def test_each_pick_and_each_missed_particle_is_named_by_its_row() -> None:
    truth = Coordinates.concatenate([scene(on_x(500, 0), "a"), scene(on_x(1000), "b")])
    picks = Coordinates.concatenate([scene(on_x(1001), "b", score=0.5), scene(on_x(7000, 3), "a", score=[0.8, 0.9])])
    found = decisions(compare(picks, truth))
    assert [(d.label, d.verdict, d.pick, d.true) for d in found] == [
        ("a", "false", 1, -1),
        ("a", "right", 2, 1),
        ("a", "missed", -1, 0),
        ("b", "right", 0, 2),
    ]
    assert [round(d.x_A, 3) for d in found] == [7000, 3, 500, 1001]
    assert found[1].distance_A == pytest.approx(3) and math.isnan(found[2].distance_A)


def test_tomograms_alone_add_up_to_all_of_them_and_keep_the_common_diameter() -> None:
    truth = [scene(on_x(0, 1000), tomogram="t1"), scene(on_x(0), tomogram="t2", diameter=math.nan)]
    picks = [scene(on_x(35), tomogram="t1"), scene(on_x(35, 9000), tomogram="t2", diameter=math.nan)]
    compared = compare(picks, truth)
    rows = dict(scores_by_tomogram(compared))
    assert [(r.n_true, r.n_picked, r.n_right) for r in (rows["t1"], rows["t2"], *scored(compared))] == [
        (2, 1, 1),
        (1, 2, 1),
        (3, 3, 2),
    ]
    assert rows["t2"].tolerance_A == 40, "its own table does not know how large the particle is"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_command_writes_tables_and_a_picture_in_which_the_curves_can_be_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 4000, (40, 3))
    scores = np.linspace(0.9, 0.3, 60)
    peaks = scene(np.concatenate([places[:30], rng.uniform(5000, 9000, (30, 3))]), score=scores)
    write_coordinates(tmp_path / "truth.star", scene(places))
    write_coordinates(tmp_path / "peaks.star", peaks)
    write_coordinates(tmp_path / "picks.star", peaks.select(peaks.score >= 0.5))
    words = [
        "evaluate",
        tmp_path / "picks.star",
        "--truth",
        tmp_path / "truth.star",
        "--candidates",
        tmp_path / "peaks.star",
    ]
    for option, name in (
        ("--by-tomogram", "t.csv"),
        ("--curves", "c.csv"),
        ("--matches", "m.csv"),
        ("--plot", "p.png"),
    ):
        words += [option, tmp_path / name]
    assert main([str(word) for word in words]) == 0
    pooled, single = rows_of(tmp_path / "t.csv")
    assert (pooled["tomogram"], single["tomogram"]) == ("all", "t")
    assert pooled["n_right"] == single["n_right"] == "30" and float(pooled["precision"]) == pytest.approx(30 / 40)
    curve = rows_of(tmp_path / "c.csv")
    assert len(curve) == 60 and float(curve[29]["f1"]) == pytest.approx(2 * 30 / 70) == float(pooled["best_f1"])
    verdicts = [row["verdict"] for row in rows_of(tmp_path / "m.csv")]
    assert [verdicts.count(word) for word in ("right", "false", "missed")] == [30, 10, 10]
    picture = imread(tmp_path / "p.png")
    blue = (np.abs(picture[..., :3] - (0.122, 0.467, 0.706)).max(axis=2) < 0.05).nonzero()[1]
    thirds = [((blue * 3) // picture.shape[1] == panel).sum() for panel in range(3)]
    assert min(thirds[:2]) > 300 and thirds[2] > 20, "lines in the first two panels, a dot in the third"
    capsys.readouterr()
    assert main([*map(str, words), "--tolerance", "3"]) == 2
    assert "give a share above 0 and up to 1" in capsys.readouterr().err
