"""`tomotwin view`: sessions from tomograms and tables, applied without a window, and what is said where none opens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tomotwin_core.cli.main import main
from tomotwin_core.cli.view import session_of
from tomotwin_core.coordinates import Coordinates, read_all_coordinates, read_coordinates, write_coordinates
from tomotwin_core.tomogram import open_tomogram, write_mrc
from tomotwin_view.session import REJECTED
from tomotwin_view.session_file import write_session

SHAPE = (12, 20, 30)
XYZ = np.array([[3.0, 4, 5], [20, 10, 6], [25, 15.5, 7], [8, 9, 10]])
SCORES = [0.9, 0.8, 0.6, 0.3]
TURNED = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two tomograms of 8 A, peaks of both, and picks of the first above 0.5."""
    for name in ("TS_1", "TS_2"):
        write_mrc(tmp_path / f"{name}.mrc", np.random.default_rng(1).normal(size=SHAPE).astype(np.float32), 8.0)
        peaks = Coordinates.from_arrays(
            XYZ,
            8.0,
            name,
            SHAPE,
            ["a", "b", "a", "a"],
            SCORES,
            100.0,
            np.repeat(TURNED[None], 4, 0),
            [0.0, 0.1, 0.2, 0.7],
        )
        write_coordinates(tmp_path / f"{name}_peaks.star", peaks)
        write_coordinates(tmp_path / f"{name}_picks.star", peaks.select(peaks.score > 0.5))
    return tmp_path


def saved(files: Path) -> Path:
    """A session in which the threshold of "a" is lowered to 0.2 and the second pick of it rejected."""
    source = open_tomogram(files / "TS_1.mrc")
    picks, peaks = (read_all_coordinates(files / f"TS_1_{what}.star") for what in ("picks", "peaks"))
    session = session_of([source], picks, peaks)
    assert session.accepted().tolist() == [True, True, True, False]
    session.set_score_min(0.2, session.targets.index("a"))
    session.decide(np.array([2]), REJECTED)
    write_session(str(files / "session.star"), session, {})
    return files / "session.star"


def test_a_saved_session_applied_filters_tomograms_without_a_window_and_keeps_orientations(files: Path) -> None:
    session = saved(files)
    call = ["view", *(str(files / f"TS_{i}.mrc") for i in (1, 2)), "--picks"]
    call += [str(files / f"TS_{i}_picks.star") for i in (1, 2)]
    call += ["--candidates", *(str(files / f"TS_{i}_peaks.star") for i in (1, 2))]
    assert main([*call, "--apply", str(session), "--out", str(files / "out.star")]) == 0
    first, second = (read_coordinates(files / "out.star", name) for name in ("TS_1", "TS_2"))
    np.testing.assert_allclose(first.xyz, XYZ[[0, 1, 3]])
    np.testing.assert_allclose(second.xyz, XYZ)  # the decision was made in the other tomogram
    np.testing.assert_allclose(first.score, np.array(SCORES)[[0, 1, 3]], rtol=1e-6)
    np.testing.assert_allclose(first.diameter_A, 100.0)
    assert first.label.tolist() == ["a", "b", "a"] and first.shape == SHAPE and first.voxel_size_A == 8.0
    assert first.rotation is not None and first.fdr is not None
    np.testing.assert_allclose(first.rotation, np.repeat(TURNED[None], 3, 0), atol=1e-6)


def test_positions_in_other_voxels_come_to_those_of_the_tomogram(files: Path) -> None:
    write_coordinates(files / "binned.star", Coordinates.from_arrays(XYZ / 2, 16.0, "TS_1", score=0.5))
    session = saved(files)
    call = ["view", str(files / "TS_1.mrc"), "--picks", str(files / "binned.star")]
    assert main([*call, "--apply", str(session), "--out", str(files / "out.star")]) == 0
    np.testing.assert_allclose(read_coordinates(files / "out.star").xyz, XYZ)


def test_a_list_without_names_is_taken_for_the_one_tomogram(files: Path) -> None:
    (files / "list.coords").write_text("3 4 5\n20 10 6\n")
    call = ["view", str(files / "TS_1.mrc"), "--picks", str(files / "list.coords")]
    assert main([*call, "--apply", str(saved(files)), "--out", str(files / "out.star")]) == 0
    back = read_coordinates(files / "out.star")
    assert back.tomogram == "TS_1" and len(back) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--picks", "TS_1_picks.star", "--apply", "session.star"], "say where with --out"),
        (["--picks", "TS_2_picks.star", "--apply", "session.star", "--out", "x.star"], "has no positions in TS_1"),
        (
            ["--picks", "TS_1_picks.star", "--apply", "TS_1_picks.star", "--out", "x.star"],
            "was not saved by the picking",
        ),
        (["--picks", "TS_1_picks.star", "--apply", "gone.star", "--out", "x.star"], "gone.star cannot be read"),
        (["--picks", "gone.star"], "gone.star does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], sentence: str
) -> None:
    saved(files)
    monkeypatch.chdir(files)
    assert main(["view", "TS_1.mrc", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (files / "x.star").exists()


def test_without_a_display_or_without_tk_one_sentence_names_the_way_out(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    call = ["view", str(files / "TS_1.mrc"), "--picks", str(files / "TS_1_picks.star")]
    monkeypatch.setitem(sys.modules, "tkinter", None)
    monkeypatch.delitem(sys.modules, "tomotwin_view.window", raising=False)
    assert main(call) == 2
    assert "the window needs Tk" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main(call) == 2
    error = capsys.readouterr().err
    assert "the window cannot be opened" in error and "--apply" in error and error.count("\n") == 1


def test_the_window_saves_to_out_and_the_file_can_be_resumed(
    screen: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tomotwin_view.window import PicksWindow

    def use(window: Any, act: Any) -> None:
        window.root.update()
        act(window)
        window.save_button.invoke()
        window.destroy()

    call = ["view", str(files / "TS_1.mrc"), "--picks", str(files / "TS_1_picks.star"), "--out", str(files / "o.star")]
    monkeypatch.setattr(PicksWindow, "run", lambda window: use(window, lambda w: w.session.toggle(0)))
    assert main(call) == 0
    np.testing.assert_allclose(read_coordinates(files / "o.star").xyz, XYZ[[1, 2]])
    monkeypatch.setattr(PicksWindow, "run", lambda window: use(window, lambda w: w.score.scale.set(0.7)))
    assert main([*call, "--resume", str(files / "o.star")]) == 0
    np.testing.assert_allclose(read_coordinates(files / "o.star").xyz, XYZ[[1]])
