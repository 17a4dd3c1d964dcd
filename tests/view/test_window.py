"""The window itself, on a virtual screen: its sliders, mouse and keys as a user moves them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_session import planted, volume

from tomotwin_view.session import REJECTED, PicksSession
from tomotwin_view.session_file import write_session


@pytest.fixture
def session() -> PicksSession:
    return planted()


@pytest.fixture
def window(screen: str, session: PicksSession) -> Iterator[Any]:
    from tomotwin_view.window import PicksWindow

    window = PicksWindow(session, lambda session: f"{int(session.accepted().sum())} saved", "save it")
    wait(window, lambda: window.slices.views[0].pixels is not None)
    yield window
    window.destroy()


def wait(window: Any, until: Callable[[], bool], seconds: float = 20.0) -> None:
    """Let the window work until something holds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "the window did not come to it in time"
        window.root.update()
        time.sleep(0.01)


def click(window: Any, view: int, place: tuple[float, float], button: int) -> None:
    """Press and release a mouse button at a place of an orientation, through Tk."""
    widget = window.slices_canvas.get_tk_widget()
    x, y = window.slices.views[view].axes.transData.transform(place)
    for event in ("ButtonPress", "ButtonRelease"):
        widget.event_generate(f"<{event}-{button}>", x=round(x), y=round(widget.winfo_height() - y))
    window.root.update()


def key(window: Any, name: str) -> None:
    widget = window.slices_canvas.get_tk_widget()
    widget.focus_force()
    window.root.update()
    widget.event_generate(f"<{name}>")
    window.root.update()


def test_the_slices_are_read_and_shown(window: Any) -> None:
    window.slices.set_appearance(thickness=1, smoothing=0)
    wait(window, lambda: np.array_equal(window.slices.views[0].image.get_array(), volume(0)[10]))
    wait(window, lambda: np.array_equal(window.slices.views[1].image.get_array(), volume(0)[:, :, 20].T))


def test_the_score_slider_filters_the_target_chosen_in_the_list(window: Any, session: PicksSession) -> None:
    window.targets.selection_set("0")
    window.root.update()
    window.score.scale.set(0.65)
    assert session.accepted().tolist() == [False, True, True, False, True, True]
    wait(window, lambda: window.targets.set("0", "all") == "2 of 4")
    assert window.score.entry.get() == "0.650"
    assert "in all 4 of 6" in window.counts.cget("text")


def test_a_number_typed_beside_the_slider_counts_and_nonsense_does_not(window: Any, session: PicksSession) -> None:
    for text, threshold in (("0.75", 0.75), ("much", 0.75)):
        window.score.entry.focus_force()
        window.score.entry.delete(0, "end")
        window.score.entry.insert(0, text)
        window.score.entry.event_generate("<Return>")
        window.root.update()
        assert session.score_min[:, 0].tolist() == [threshold] * 2
        wait(window, lambda: window.score.entry.get() == "0.750")


def test_the_threshold_of_this_tomogram_alone_leaves_the_other_alone(window: Any, session: PicksSession) -> None:
    window.alone.set(True)
    window._scope_chosen()
    window.score.scale.set(0.65)
    assert session.accepted().tolist() == [False, True, True, True, True, True]


def test_the_size_and_fdr_sliders_filter(window: Any, session: PicksSession) -> None:
    window.smallest.scale.set(75.0)
    assert session.accepted().tolist() == [True, True, True, True, True, False]
    session.undo()
    window.fdr.scale.set(0.12)
    assert session.accepted().tolist() == [False, True, False, True, True, True]


def test_right_click_rejects_keys_undo_and_step_through(window: Any, session: PicksSession) -> None:
    click(window, 0, (5, 6), button=3)
    assert session.decisions.tolist() == [REJECTED, -1, -1, -1, -1, -1]
    key(window, "Control-z")
    assert session.accepted().all()
    key(window, "n")
    assert np.flatnonzero(session.selection).tolist() == [1]
    wait(window, lambda: "score 0.9000" in window.picked.cget("text"))
    key(window, "r")
    assert np.flatnonzero(session.decisions == REJECTED).tolist() == [1]
    key(window, "bracketright")
    assert session.current == 1
    wait(window, lambda: window.chooser.get() == "TS_b")


def test_a_letter_typed_into_a_number_is_no_command(window: Any, session: PicksSession) -> None:
    window.score.entry.focus_force()
    window.root.update()
    window.score.entry.event_generate("<n>")
    window.root.update()
    assert not session.selection.any()


def test_a_box_in_the_list_hides_a_target(window: Any, session: PicksSession) -> None:
    window.root.update()
    x, y, width, height = window.targets.bbox("1", "shown")
    window.targets.event_generate("<Button-1>", x=x + width // 2, y=y + height // 2)
    window.root.update()
    assert session.shown.tolist() == [True, False]
    assert session.edited == 0


def test_saving_says_what_was_saved_and_a_saved_session_is_taken_up(
    window: Any, session: PicksSession, tmp_path: Path
) -> None:
    session.set_score_min(0.65, target=0)
    write_session(str(tmp_path / "s.star"), session, {})
    window.save_button.invoke()
    assert window.status.cget("text") == "4 saved" and not session.changed
    session.undo()
    window.load(str(tmp_path / "s.star"))
    assert int(session.accepted().sum()) == 4 and "taken over" in window.status.cget("text")


def test_closing_with_unsaved_changes_asks_and_cancel_keeps_the_window(
    window: Any, session: PicksSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tomotwin_view import base_window as module

    answers = iter([None])
    monkeypatch.setattr(module.messagebox, "askyesnocancel", lambda *a, **k: next(answers))
    session.set_score_min(0.65, target=0)
    window.close()
    assert window.root.winfo_exists()
    assert next(answers, "asked") == "asked"
