"""Acquisitions: the order in which tilts are exposed, tilts that are missing, and the draws for training."""

from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pytest

from tomotwin_core.errors import UserError
from tomotwin_core.simulation import Acquisition, random_acquisition
from tomotwin_core.simulation.acquisition import Filter, Scheme
from tomotwin_core.simulation.detector import DETECTORS, DetectorName

SMALL = Acquisition(tilt_min_deg=-6.0, tilt_max_deg=6.0, tilt_step_deg=2.0, dose_e_per_A2=70.0)


@pytest.mark.parametrize(
    ("scheme", "start", "order"),
    [
        ("dose-symmetric", 0.0, [0, 2, -2, 4, -4, 6, -6]),
        ("dose-symmetric", 2.0, [2, 4, 0, 6, -2, -4, -6]),
        ("bidirectional", 0.0, [0, 2, 4, 6, -2, -4, -6]),
        ("bidirectional", -4.0, [-4, -2, 0, 2, 4, 6, -6]),
        ("continuous", 0.0, [-6, -4, -2, 0, 2, 4, 6]),
    ],
)
def test_each_scheme_exposes_the_tilts_in_its_order(scheme: Any, start: float, order: list[float]) -> None:
    acquisition = replace(SMALL, scheme=scheme, start_tilt_deg=start)
    assert list(acquisition.tilts_deg[acquisition.exposure_order]) == order
    exposure = acquisition.exposure_before_e_per_A2[acquisition.exposure_order]
    np.testing.assert_allclose(exposure, 10.0 * np.arange(7) + 5.0)


def test_a_missing_tilt_is_not_in_the_series_but_its_dose_was_spent() -> None:
    whole = replace(SMALL, scheme="bidirectional")
    holed = replace(whole, missing_tilts_deg=(2.0, -6.0))
    assert list(holed.tilts_deg) == [-4, -2, 0, 4, 6]
    assert list(holed.tilts_deg[holed.exposure_order]) == [0, 4, 6, -2, -4]
    kept = np.isin(whole.tilts_deg, holed.tilts_deg)
    np.testing.assert_allclose(holed.exposure_before_e_per_A2, whole.exposure_before_e_per_A2[kept])
    assert holed.dose_per_tilt_e_per_A2 == whole.dose_per_tilt_e_per_A2 == pytest.approx(10.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tilt_min_deg": 60.0, "tilt_max_deg": -60.0},
        {"tilt_step_deg": 0.0},
        {"tilt_max_deg": 90.0},
        {"dose_e_per_A2": 0.0},
        {"defocus_um": -1.0},
        {"voltage_kV": 3.0},
        {"scheme": "spiral"},
        {"detector": "film"},
        {"filter": "boxcar"},
        {"missing_tilts_deg": (61.0,)},
        {"tilt_min_deg": 0.0, "tilt_max_deg": 1.0, "missing_tilts_deg": (0.0,)},
        {"phase_shift_deg": 200.0},
        {"astigmatism_um": -0.1},
        {"detector_pixel_A": 0.0},
        {"tilt_error_deg": float("nan")},
        {"rotation_error_deg": -1.0},
        {"sirt_iterations": -1},
    ],
)
def test_an_acquisition_that_cannot_be_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must") as refused:
        replace(Acquisition(), **wrong)
    named = [n for n in wrong if n.split("_")[0] in str(refused.value)]
    assert named and "\n" not in str(refused.value)


def test_draws_reach_all_that_users_have() -> None:
    rng = np.random.default_rng(5)
    drawn = [random_acquisition(rng) for _ in range(600)]
    assert {a.scheme for a in drawn} == set(get_args(Scheme))
    assert {a.filter for a in drawn} == set(get_args(Filter))
    assert {a.detector for a in drawn} == set(get_args(DetectorName)) == set(DETECTORS)
    assert {a.tilt_step_deg for a in drawn} == {1.0, 2.0, 3.0, 4.0, 5.0}
    constant = [f.name for f in fields(Acquisition) if len({getattr(a, f.name) for a in drawn}) == 1]
    assert constant == ["per_tilt"], "every quantity varies but those of real series"
    half_range = np.array([a.tilt_max_deg - a.tilt_min_deg for a in drawn]) / 2
    assert half_range.min() < 45 and half_range.max() > 65
    defocus = np.array([a.defocus_um for a in drawn if not a.phase_shift_deg])
    assert defocus.min() < 2 and defocus.max() > 7 and np.median(defocus) == pytest.approx(3.9, abs=0.4)
    assert 0.01 < np.mean([a.phase_shift_deg > 0 for a in drawn]) < 0.08
    assert 0.15 < np.mean([a.sirt_iterations > 0 for a in drawn]) < 0.35
    assert 0.15 < np.mean([len(a.missing_tilts_deg) > 0 for a in drawn]) < 0.4


def test_the_same_seed_draws_the_same_acquisition() -> None:
    first, same, other = (random_acquisition(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == same != other
