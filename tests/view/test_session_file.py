"""A session saved and taken up again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile
from planted_session import ROWS, picks, planted

from tomotwin_view.session import ACCEPTED, REJECTED
from tomotwin_view.session_file import apply_session, write_session


def decided() -> object:
    session = planted(picks=picks(rlnAngleRot=np.arange(6.0)))
    session.set_score_min(0.65, target=0, tomogram=0)
    session.set_score_min(1 / 3, target=1)
    session.set_size_range(60.0, 95.0, target=0)
    session.decide(np.array([0]), ACCEPTED)
    session.decide(np.array([3]), REJECTED)
    return session


def test_particles_are_the_picks_that_stay_as_an_independent_reader_sees_them(tmp_path: Path) -> None:
    write_session(str(tmp_path / "s.star"), decided(), {"software": 'it\'s "this"'})
    blocks = starfile.read(tmp_path / "s.star", always_dict=True)
    rows = blocks["particles"]
    assert rows["rlnTomoName"].tolist() == ["TS_a", "TS_a", "TS_a", "TS_b", "TS_b"]
    np.testing.assert_allclose(
        rows[["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]], [ROWS[i][2:5] for i in (0, 1, 2, 4, 5)]
    )
    assert rows["tomotwinLabel"].tolist() == ["one", "two", "one", "two", "one"]
    np.testing.assert_allclose(rows["tomotwinScore"], [0.5, 0.9, 0.7, 0.4, 0.8])
    np.testing.assert_allclose(rows["tomotwinDiameterAngst"], [80, 100, 80, 120, 70])
    np.testing.assert_allclose(rows["tomotwinFDR"], [0.5, 0, 0.2, 0.4, 0.05])
    np.testing.assert_allclose(rows["rlnAngleRot"], [0, 1, 2, 4, 5])
    assert blocks["tomotwin_decisions"]["tomotwinAccepted"].tolist() == [1, 0]
    assert blocks["tomotwin_tomograms"]["tomotwinTomogramSizeZ"].tolist() == [20, 20]


def test_a_saved_session_applied_to_the_same_candidates_keeps_the_same_picks(tmp_path: Path) -> None:
    session, again = decided(), planted()
    write_session(str(tmp_path / "s.star"), session, {})
    assert apply_session(str(tmp_path / "s.star"), again) == (2, 0)
    assert (again.accepted() == session.accepted()).all()
    assert (again.score_min == session.score_min).all()  # 1/3 came back to the last digit
    assert (again.size_range == session.size_range).all()
    again.undo()
    assert again.accepted().all()


def test_a_decision_finds_the_candidate_that_moved_a_little_and_no_other(tmp_path: Path) -> None:
    write_session(str(tmp_path / "s.star"), decided(), {})
    moved = planted()
    moved.picks.xyz[0] += 1.0
    moved.picks.xyz[3] += 3.0
    assert apply_session(str(tmp_path / "s.star"), moved) == (1, 1)
    assert moved.decisions.tolist() == [1, -1, -1, -1, -1, -1]


def test_a_tomogram_that_the_file_does_not_know_gets_the_median_threshold(tmp_path: Path) -> None:
    write_session(str(tmp_path / "s.star"), decided(), {})
    other = planted()
    other.tomograms[1] = other.tomograms[1]._replace(name="TS_new")
    apply_session(str(tmp_path / "s.star"), other)
    np.testing.assert_allclose(other.score_min[:, 1], 1 / 3)


@pytest.mark.parametrize(
    "text", ["", "data_particles\n\nloop_\n_rlnTomoName\na\n", "data_tomotwin_thresholds\nloop_\n_a\n1\n"]
)
def test_another_file_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.star").write_text(text)
    with pytest.raises(ValueError, match="was not saved by the picking window"):
        apply_session(str(tmp_path / "s.star"), planted())
