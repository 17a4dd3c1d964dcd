"""What the picking window decides, without a window."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from planted_session import ROWS, picks, planted

import tomotwin_view
from tomotwin_view.session import ACCEPTED, REJECTED, UNDECIDED, with_candidates


def kept(session) -> list[int]:
    return np.flatnonzero(session.accepted()).tolist()


def test_without_thresholds_everything_stays() -> None:
    assert kept(planted()) == [0, 1, 2, 3, 4, 5]


def test_a_threshold_holds_for_its_target_and_keeps_what_scores_exactly_as_much() -> None:
    session = planted()
    session.set_score_min(0.7, target=0)
    assert kept(session) == [1, 2, 4, 5]


def test_a_threshold_for_one_tomogram_leaves_the_other_alone() -> None:
    session = planted()
    session.set_score_min(0.7, target=0, tomogram=1)
    assert kept(session) == [0, 1, 2, 4, 5]


def test_a_range_of_sizes_is_in_angstrom_and_of_its_target() -> None:
    session = planted()
    session.set_size_range(75.0, 85.0, target=0)
    assert kept(session) == [0, 1, 2, 4]


def test_a_pick_without_score_or_size_passes_thresholds() -> None:
    session = planted(picks=picks([(0, 0, 1, 1, 1, np.nan, np.nan, np.nan)]))
    session.set_score_min(0.9, target=0)
    session.set_size_range(10.0, 20.0, target=0)
    assert kept(session) == [0]


def test_decisions_by_hand_stand_above_thresholds() -> None:
    session = planted()
    session.set_score_min(0.65, target=0)
    session.decide(np.array([0]), ACCEPTED)
    session.decide(np.array([1, 5]), REJECTED)
    assert kept(session) == [0, 2, 4]
    session.decide(np.array([0, 1]), UNDECIDED)
    assert kept(session) == [1, 2, 4]


def test_toggle_turns_a_pick_over_whatever_kept_it() -> None:
    session = planted()
    session.set_score_min(0.65, target=0)
    for row in (0, 2):
        session.toggle(row)
    assert kept(session) == [0, 1, 4, 5]
    for row in (0, 2):
        session.toggle(row)
    assert kept(session) == [1, 2, 4, 5]


def test_undo_and_redo_go_through_thresholds_and_decisions_in_order() -> None:
    session = planted()
    session.set_score_min(0.65, target=0)
    session.decide(np.array([5]), REJECTED)
    session.undo()
    assert kept(session) == [1, 2, 4, 5]
    session.undo()
    assert kept(session) == [0, 1, 2, 3, 4, 5]
    session.undo()  # nothing left to undo
    session.redo()
    session.redo()
    assert kept(session) == [1, 2, 4]


def test_one_drag_of_a_slider_is_one_step_for_undo_and_the_next_drag_another() -> None:
    session = planted()
    for value in (0.52, 0.55, 0.65):
        session.set_score_min(value, target=0)
    session.end_of_drag()
    session.set_score_min(0.75, target=0)
    session.undo()
    assert session.score_min[0, 0] == 0.65
    session.undo()
    assert session.score_min[0, 0] == -np.inf


def test_counts_are_of_a_tomogram_or_of_all() -> None:
    session = planted()
    session.set_score_min(0.65, target=0)
    assert session.counts().tolist() == [[2, 4], [2, 2]]
    assert session.counts(1).tolist() == [[1, 2], [1, 1]]


def test_expected_fdr_is_that_of_the_faintest_kept_and_its_mean_over_tomograms_counts_picks() -> None:
    session = planted()
    assert session.expected_fdr(0, tomogram=0) == 0.5
    assert session.expected_fdr(0) == pytest.approx((0.5 * 2 + 0.1 * 2) / 4)
    session.set_score_min(0.65, target=0)
    assert session.expected_fdr(0) == pytest.approx((0.2 * 1 + 0.05 * 1) / 2)
    assert np.isnan(planted(picks=picks([(0, 0, 1, 1, 1, 0.5, 80, np.nan)])).expected_fdr(0))


def test_a_threshold_by_fdr_is_set_tomogram_by_tomogram_and_keeps_nothing_where_it_cannot_be_met() -> None:
    session = planted()
    session.set_fdr(0.1, target=0)
    assert kept(session) == [1, 3, 4, 5]
    session.undo()
    assert len(kept(session)) == 6


def test_a_session_with_candidates_begins_with_exactly_the_picks() -> None:
    rows = [ROWS[2], ROWS[5]]
    joined, score_min, taken = with_candidates(picks(rows), picks(), (2, 2))
    session = planted(picks=joined, score_min=score_min)
    assert kept(session) == [0, 1]
    assert taken.tolist() == [True, True, False, True, True, False]
    session.set_score_min(0.6, target=0)
    assert kept(session) == [0, 1, 4]  # the candidate of 0.6
    session.set_score_min(0.0, target=1)
    np.testing.assert_allclose(session.picks.xyz[kept(session)][:, 0], [30, 25, 20, 6, 9])


def test_turning_pages_goes_round_and_begins_in_the_middle_with_nothing_selected() -> None:
    session, heard = planted(), []
    session.listeners.append(heard.append)
    session.go_to(2)
    assert session.cursor.tolist() == [30, 3, 1]
    session.show_tomogram(-1)
    assert session.current == 1 and session.cursor.tolist() == [20, 15, 10] and not session.selection.any()
    assert heard == ["selection", "cursor", "tomogram"]
    session.show_tomogram(2)
    assert session.current == 0


def test_the_cursor_stays_within_the_tomogram() -> None:
    session = planted()
    session.move_cursor(np.array([-3.0, 12.6, 99.0]))
    assert session.cursor.tolist() == [0, 13, 19]


def test_steps_go_through_the_picks_drawn_by_falling_score_and_round() -> None:
    session = planted()
    session.set_score_min(0.6, target=0)  # takes row 0 out of the first tomogram
    visited = []
    for forward in (True, True, True, False):
        session.step(forward)
        visited.append(int(np.flatnonzero(session.selection)[0]))
    assert visited == [1, 2, 1, 2]
    session.show_target(1, False)
    session.step(True)
    assert np.flatnonzero(session.selection).tolist() == [2]


def test_what_thresholds_leave_out_is_drawn_on_demand_and_what_was_rejected_always() -> None:
    session = planted()
    session.set_score_min(0.6, target=0)
    session.decide(np.array([2]), REJECTED)
    assert np.flatnonzero(session.visible()).tolist() == [1, 2]
    session.set_view(show_left_out=True)
    assert np.flatnonzero(session.visible()).tolist() == [0, 1, 2]


def test_a_session_knows_whether_it_was_changed_since_it_was_saved() -> None:
    session = planted()
    session.move_cursor(np.array([1, 1, 1]))
    assert not session.changed
    session.set_score_min(0.6, target=0)
    assert session.changed


@pytest.mark.parametrize("path", sorted(Path(tomotwin_view.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_the_room_keeps_to_python_3_8_numpy_and_matplotlib(path: Path) -> None:
    allowed = {"ast", "concurrent", "contextlib", "csv", "functools", "json", "os", "re", "shlex", "subprocess", "tempfile"}
    allowed |= {"tkinter", "typing", "matplotlib", "numpy"}
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] in allowed
        elif isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= allowed
