"""Expected false-discovery rates are those of planted right and wrong peaks, in tomograms with many and with few of them."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import FieldMaker
from test_picking import embeddings_with, target, unit

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.picking import LocationSettings, ReferenceSet, Target, load_references, locate, mixture, pick
from tomotwin_core.picking.discovery import (
    Calibration,
    expected_f1,
    false_discovery_rates,
    threshold_of_best_f1,
    threshold_of_rate,
)
from tomotwin_core.tomogram import write_mrc


def scores_of(n_right: int, n_wrong: int, seed: int, moved: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and which are right: two normal distributions of Fisher's z that overlap; wrong ones moved by so much."""
    rng = np.random.default_rng(seed)
    z = np.concatenate([rng.normal(1.9, 0.25, n_right), rng.normal(0.6 + moved, 0.4, n_wrong)])
    return np.tanh(z).astype(np.float32), np.arange(n_right + n_wrong) < n_right


def calibration() -> Calibration:
    made = Calibration.fitted(*scores_of(80, 2000, 0))
    assert made is not None
    return made


@pytest.mark.parametrize("n_right", [400, 60, 15])
@pytest.mark.parametrize("least", [-1.0, 0.2])
def test_the_expected_rate_is_the_real_one_however_many_there_are(n_right: int, least: float) -> None:
    """Simulated tomograms had 4 % right peaks; these have 17, 3 and under 1 %, and wrong peaks a little higher or lower."""
    expected, real, chosen, best = [], [], [], []
    for seed, moved in enumerate(np.random.default_rng(3).normal(0, 0.15, 12), 1):
        scores, right = scores_of(n_right, 2000, seed, float(moved))
        scores, right = scores[scores >= least], right[scores >= least]
        rates = false_discovery_rates(scores, calibration().probabilities(scores, least))
        for rate in (0.1, 0.3):
            kept = scores >= threshold_of_rate(scores, rates, rate)
            if kept.any():
                expected.append(rate)
                real.append((~right[kept]).mean())
        thresholds, _ = expected_f1(scores, rates)
        f1 = np.array([2 * right[scores >= t].sum() / ((scores >= t).sum() + n_right) for t in thresholds])
        best.append(f1.max())
        chosen.append(f1[np.flatnonzero(thresholds == threshold_of_best_f1(scores, rates))[0]])
    assert abs(np.mean(real) - np.mean(expected)) < 0.08
    assert np.mean(chosen) > np.mean(best) - 0.1


def test_wrong_peaks_that_lie_elsewhere_are_found_by_the_others_where_the_calibration_floats() -> None:
    floating = replace(calibration(), floating=True)
    for moved in (0.3, -0.4):
        scores, right = scores_of(200, 5000, 5, moved)
        real = {}
        for made in (calibration(), floating):
            rates = false_discovery_rates(scores, made.as_simulated(scores))
            kept = rates <= 0.3
            real[made.floating] = (~right[kept]).mean(), int(right[kept].sum())
        assert real[True][0] < 0.4 and real[True][1] > 20
        # Held where they were in simulation, they promise too much here and too little there.
        if moved > 0:
            assert real[False][0] > real[True][0] + 0.2
        else:
            assert real[False][0] < real[True][0] - 0.05


def test_the_width_of_the_wrong_peaks_is_found_too_unless_most_are_right() -> None:
    floating = replace(calibration(), floating=True)
    rng = np.random.default_rng(6)
    wide = np.tanh(np.concatenate([rng.normal(1.9, 0.25, 400), rng.normal(0.3, 0.7, 5000)]))
    right = np.arange(len(wide)) < 400
    shares = []
    for made in (calibration(), floating):
        kept = false_discovery_rates(wide, made.as_simulated(wide)) <= 0.5
        shares.append((~right[kept]).mean())
    assert shares[1] < 0.55 and shares[0] > shares[1] + 0.1
    scores, right = scores_of(500, 2000, 7)
    kept = false_discovery_rates(scores, floating.probabilities(scores)) <= 0.2
    assert right[kept].sum() > 300 and (~right[kept]).mean() < 0.2


def test_what_competition_takes_still_tells_where_wrong_peaks_lie(make_field: FieldMaker) -> None:
    scores, right = scores_of(60, 5000, 8, 0.3)
    floating = replace(calibration(), floating=True)
    # Others took most of the wrong ones, the low ones above all.
    left = right | ((np.random.default_rng(1).random(len(scores)) < 0.03) & (scores > 0.6))
    of_left = floating.as_simulated(scores[left], everywhere=scores)
    np.testing.assert_allclose(of_left, floating.as_simulated(scores)[left])
    assert np.abs(of_left - floating.as_simulated(scores[left])).max() > 0.1
    # And `locate` gives it all of them, however little is listed.
    planted = [((6, 8, 8), unit(1), 1.0), ((17, 8, 8), unit(2), 1.0)]
    field = make_field(embeddings_with((24, 16, 16), planted))
    targets = (Target("a", unit(1)[None], 60.0, calibration=floating), target("b", 2, 60.0))
    both, one = ReferenceSet(targets, "hash"), ReferenceSet(targets[:1], "hash")
    together, single = (locate(field, references, LocationSettings(min_score=0.9)) for references in (both, one))
    assert together.label.tolist() == ["a", "b"] or together.label.tolist() == ["b", "a"]
    assert together.fdr is not None and single.fdr is not None
    np.testing.assert_allclose(together.fdr[together.label == "a"], single.fdr, atol=1e-6)


def test_rates_are_the_same_whatever_is_listed(make_field: FieldMaker) -> None:
    field = make_field(embeddings_with((20, 20, 20), [((8, 8, 8), unit(1), 1.0), ((14, 14, 14), unit(1), 0.6)]))
    target = Target("a", unit(1)[None], 60.0, calibration=replace(calibration(), floating=True))
    few, many = (
        locate(field, ReferenceSet((target,), "hash"), LocationSettings(min_score=least)) for least in (0.3, -1.0)
    )
    assert 0 < len(few) < len(many) and few.fdr is not None and many.fdr is not None and few.score.min() >= 0.3
    np.testing.assert_allclose(few.fdr, many.fdr[: len(few)])


def test_right_scores_of_one_are_right_ones_and_no_error() -> None:
    rng = np.random.default_rng(2)
    scores = np.concatenate([np.ones(8), np.tanh(rng.normal(0.3, 0.2, 300))])
    made = Calibration.fitted(scores, np.arange(308) < 8)
    assert made is not None and made.right.sum() > 0
    probabilities = made.probabilities(scores)
    assert np.isfinite(probabilities).all() and probabilities[:8].min() > 0.5 > np.median(probabilities)


def test_rates_never_rise_with_the_score_and_belong_to_their_peaks() -> None:
    scores, _ = scores_of(50, 500, 3)
    rates = false_discovery_rates(scores, calibration().probabilities(scores))
    order = np.argsort(scores)
    assert (np.diff(rates[order]) <= 1e-7).all()
    assert rates[scores.argmax()] < 0.05 and rates[scores.argmin()] > 0.8


def test_too_few_simulated_peaks_calibrate_nothing() -> None:
    scores, right = scores_of(3, 100, 0)
    assert Calibration.fitted(scores, right) is None
    assert len(calibration().probabilities(np.empty(0))) == 0
    assert threshold_of_best_f1(np.empty(0), np.empty(0)) == 1.0
    same = Calibration.fitted(np.full(60, 0.5), np.arange(60) < 30)
    assert same is not None and np.isfinite(same.probabilities(np.full(10, 0.5))).all()


def test_a_reference_file_keeps_calibration_and_background(tmp_path: Path) -> None:
    with_rates = Target("a", unit(1)[None], 100.0, 0.5, "map", replace(calibration(), floating=True))
    made = ReferenceSet((target("b", 2), with_rates), "hash", background=np.stack([unit(5), unit(6)]))
    made.save(tmp_path / "refs.safetensors")
    back = load_references(tmp_path / "refs.safetensors")
    assert back.targets[0].calibration is None
    kept = back.targets[1].calibration
    assert kept is not None and kept.prevalence == pytest.approx(80 / 2080) and kept.floating
    np.testing.assert_array_equal(kept.right, with_rates.calibration.right)  # type: ignore[union-attr]
    np.testing.assert_array_equal(back.background, made.background)


def test_located_peaks_carry_the_rate_of_calibrated_targets_alone(make_field: FieldMaker) -> None:
    field = make_field(embeddings_with((16, 16, 16), [((8, 8, 8), unit(1), 1.0)]))
    both = ReferenceSet((Target("a", unit(1)[None], 60.0, calibration=calibration()), target("b", 2, 60.0)), "hash")
    peaks = locate(field, both, LocationSettings(min_score=0.2))
    assert peaks.fdr is not None
    assert np.isfinite(peaks.fdr[peaks.label == "a"]).all() and np.isnan(peaks.fdr[peaks.label == "b"]).all()
    assert peaks.label[0] == "a" and peaks.fdr[0] < 0.1


def test_background_takes_the_places_that_it_matches_best(make_field: FieldMaker) -> None:
    membrane = 0.8 * unit(1) + 0.6 * unit(9)
    field = make_field(
        embeddings_with(
            (24, 16, 16), [((6, 8, 8), unit(1), 1.0), ((17, 8, 8), membrane / np.linalg.norm(membrane), 1.0)]
        )
    )
    targets = ReferenceSet((target("a", 1),), "hash", background=(membrane / np.linalg.norm(membrane))[None])
    assert len(locate(field, targets, LocationSettings(min_score=0.7))) == 2
    with_background = locate(field, targets, LocationSettings(min_score=0.7, background=True))
    assert len(with_background) == 1 and with_background.label[0] == "a" and with_background.xyz[0, 2] / 2 < 10


def peaks_table(name: str, n_right: int, seed: int) -> Coordinates:
    scores, _ = scores_of(n_right, 300, seed)
    rates = false_discovery_rates(scores, calibration().probabilities(scores))
    xyz = np.random.default_rng(seed).uniform(0, 39, (len(scores), 3))
    return Coordinates.from_arrays(xyz, 10.0, name, (40, 40, 40), "ribosome", scores, 100.0, fdr=rates)


def test_pick_takes_each_tomograms_own_threshold_or_a_chosen_rate() -> None:
    many, few = peaks_table("a", 150, 1), peaks_table("b", 10, 2)
    (_, of_many), (_, of_few) = pick(many), pick(few)
    assert of_many["ribosome"] < of_few["ribosome"], "where the target is rarer, more is asked of a pick"
    assert many.fdr is not None
    strict, _ = pick(many, fdr=0.1)
    assert strict.fdr is not None and strict.fdr.max() <= 0.1 and len(strict) == (many.fdr <= 0.1).sum()
    without = Coordinates.from_arrays(many.xyz, 10.0, "a", None, "ribosome", many.score)
    with pytest.raises(UserError, match="no false-discovery rate"):
        pick(without, fdr=0.05)
    with pytest.raises(UserError, match="--fdr 1.5"):
        pick(many, fdr=1.5)
    assert len(pick(many, fdr=1e-9)[0]) <= (many.fdr <= 1e-9).sum()


def test_the_command_writes_summary_curves_and_contact_sheet(tmp_path: Path) -> None:
    for index, name in enumerate(("tomo_b", "tomo_a")):
        write_coordinates(tmp_path / f"{name}_peaks.star", peaks_table(name, 60, index))
        write_mrc(
            tmp_path / f"{name}.mrc", np.random.default_rng(index).normal(size=(40, 40, 40)).astype(np.float32), 10.0
        )
    peaks = [str(tmp_path / f"{n}_peaks.star") for n in ("tomo_b", "tomo_a")]
    tomograms = [str(tmp_path / f"{n}.mrc") for n in ("tomo_a", "tomo_b")]
    sheet = tmp_path / "sheet.jpg"
    command = ["pick", *peaks, "--out", str(tmp_path), "--fdr", "0.1", "--summary", str(tmp_path / "s.csv")]
    command += ["--curves", str(tmp_path / "c.csv"), "--contact-sheet", str(sheet), "--tomograms", *tomograms]
    assert main(command) == 0
    with open(tmp_path / "s.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [r["tomogram"] for r in rows] == ["tomo_a", "tomo_b"]
    picks = read_coordinates(tmp_path / "tomo_a_picks.star")
    assert int(rows[0]["picks"]) == len(picks) and float(rows[0]["expected_fdr"]) <= 0.1
    assert picks.score.min() >= float(rows[0]["threshold"]) - 1e-4
    with open(tmp_path / "c.csv", newline="") as lines:
        curve = [r for r in csv.DictReader(lines) if r["tomogram"] == "tomo_a"]
    rates = np.array([float(r["expected_fdr"]) for r in curve])
    assert (np.diff(rates) >= 0).all() and int(curve[-1]["picks"]) == 360
    assert sheet.read_bytes()[:2] == b"\xff\xd8" and sheet.stat().st_size > 10_000
    assert main([*command[:-1]]) == 2, "the tomogram of one is missing"


def test_the_tomograms_own_peaks_tell_where_right_ones_lie() -> None:
    """Right peaks 0.35 lower than simulated, narrow, well above wrong ones: by the simulated densities most are lost."""
    rng = np.random.default_rng(11)
    scores = np.tanh(np.concatenate([rng.normal(1.75, 0.15, 120), rng.normal(0.4, 0.25, 2000)]))
    right = np.arange(len(scores)) < 120
    made = Calibration.fitted(*_spread(80, 2000))
    assert made is not None
    f1 = {}
    for name, probability in (("both", made.probabilities(scores)), ("simulated", made.as_simulated(scores))):
        kept = scores >= threshold_of_best_f1(scores, false_discovery_rates(scores, probability))
        f1[name] = 2 * right[kept].sum() / (kept.sum() + right.sum())
    assert f1["both"] > 0.95 and f1["both"] > f1["simulated"] + 0.05


def _spread(n_right: int, n_wrong: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(12)
    z = np.concatenate([rng.normal(2.0, 0.3, n_right), rng.normal(1.2, 0.4, n_wrong)])
    return np.tanh(z), np.arange(len(z)) < n_right


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_peaks_are_judged_by_the_simulation_alone(count: int) -> None:
    scores = np.concatenate([np.full(count, 0.97), np.tanh(np.random.default_rng(13).normal(0.3, 0.2, 300))])
    made = calibration()
    np.testing.assert_array_equal(made.probabilities(scores), made.as_simulated(scores))


def test_a_fit_never_falls_with_the_score_and_has_room_for_equal_scores() -> None:
    rng = np.random.default_rng(14)
    z = np.concatenate([np.full(40, 3.0), rng.normal(1.8, 0.3, 60), rng.normal(0.5, 0.5, 500)])
    probability = mixture.probabilities(z, 1.9)
    assert probability is not None and np.isfinite(probability).all()
    assert (np.diff(probability[np.argsort(z, kind="stable")]) >= 0).all() and probability[z < 1.1].max() == 0
