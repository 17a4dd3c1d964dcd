"""Windows on small screens and with many rows, numbers as they are shown and typed, clusters sorted and looked at, on a virtual
screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_clusters import nowhere, opener, write_folder
from planted_session import SHAPE, picks, volume

from tomotwin_view.cluster_files import read_clusters
from tomotwin_view.session import PicksSession, Tomogram

MANY = 23


def many_targets() -> PicksSession:
    """Two tomograms with picks of 23 targets, three in each of the two."""
    rows = [
        (tomogram, target, 5.0 + target, 6.0, 10.0, 0.3 + 0.1 * number + 0.2 * tomogram, 80.0 + target, 0.1)
        for tomogram in (0, 1)
        for target in range(MANY)
        for number in range(3)
    ]
    tomograms = [Tomogram(name, 10.0, SHAPE, lambda i=i: volume(i)) for i, name in enumerate(("TS_a", "TS_b"))]
    score_min = np.array([[0.35] * MANY, [0.62] * MANY])
    return PicksSession(tomograms, [f"target {number}" for number in range(MANY)], picks(rows), score_min=score_min)


@pytest.fixture
def window(screen: str) -> Iterator[Any]:
    from tomotwin_view.window import PicksWindow

    window = PicksWindow(many_targets(), lambda session: "saved " * 60, "create new output")
    settle(window)
    yield window
    window.destroy()


@pytest.fixture
def clusters(screen: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    from tomotwin_view.clusters_window import ClustersWindow

    opened = []

    def open_window(opens: Any = opener) -> Any:
        folder = str(write_folder(tmp_path / "clusters"))
        opened.append(ClustersWindow(read_clusters(folder, opens), lambda session: "saved", folder, opens))
        settle(opened[-1])
        return opened[-1]

    yield open_window
    for window in opened:
        window.destroy()


def settle(window: Any, seconds: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        window.root.update()
        time.sleep(0.01)


def widgets(parent: Any) -> Iterator[Any]:
    for child in parent.winfo_children():
        yield child
        yield from widgets(child)


def hidden(window: Any) -> list[str]:
    """Buttons, numbers and boxes that do not lie within the window."""
    root = window.root
    right, foot = root.winfo_rootx() + root.winfo_width(), root.winfo_rooty() + root.winfo_height()
    lost = []
    for widget in widgets(root):
        if widget.winfo_class() not in ("TButton", "TEntry", "TCheckbutton", "TRadiobutton", "TCombobox"):
            continue
        inside = widget.winfo_rootx() + widget.winfo_width() <= right and widget.winfo_rooty() + widget.winfo_height() <= foot
        if not (widget.winfo_viewable() and inside):
            lost.append(f"{widget.winfo_class()} {widget}")
    return lost


@pytest.mark.parametrize("size", ["1366x768", "1326x688", "1280x720", "1100x640", "1024x600"])
def test_on_a_small_screen_no_button_is_lost(window: Any, size: str) -> None:
    window.root.geometry(size)
    settle(window)
    assert hidden(window) == []
    window.save()  # a sentence of several lines takes room, too
    settle(window)
    assert hidden(window) == []


@pytest.mark.parametrize("size", ["1366x768", "1326x688", "1280x720", "1100x640", "1024x600"])
def test_on_a_small_screen_no_button_of_the_clusters_is_lost(clusters: Any, size: str) -> None:
    window = clusters()
    window.root.geometry(size)
    settle(window)
    assert hidden(window) == []
    assert window.facts.winfo_viewable()


@pytest.mark.parametrize("target", [0, 7, 8, 15, MANY - 1])
def test_every_target_can_be_reached_and_the_one_at_hand_is_in_sight(window: Any, target: int) -> None:
    assert len(window.targets.get_children()) == MANY
    window.session.edit_target(target)
    settle(window)
    assert window.targets.selection() == (str(target),) and window.targets.bbox(str(target))
    bars = [one for one in widgets(window.side) if one.winfo_class() == "TScrollbar"]
    assert bars and bars[0].winfo_viewable()


def test_thresholds_of_all_tomograms_are_shown_as_the_range_that_they_are(window: Any) -> None:
    assert window.score.entry.get() == "0.350 – 0.620"
    window.alone.set(True)
    window._scope_chosen()
    settle(window)
    assert window.score.entry.get() == "0.350"
    window.session.show_tomogram(1)
    settle(window)
    assert window.score.entry.get() == "0.620"
    window.alone.set(False)
    window._scope_chosen()
    window.session.set_score_min(0.5, 0)
    settle(window)
    assert window.score.entry.get() == "0.500"
    assert (window.session.score_min[:, 0] == 0.5).all() and (window.session.score_min[1, 1:] == 0.62).all()


@pytest.mark.parametrize("text", ["much", "0,5", "nan", "inf", "0.5 A", "", "--1"])
def test_what_is_no_number_is_told_and_changes_nothing(window: Any, text: str) -> None:
    before = window.session.score_min.copy()
    type_into(window, text)
    assert f"lowest score: '{text}' is no number; write one with a point" in window.status.cget("text")
    np.testing.assert_array_equal(window.session.score_min, before)
    assert window.score.entry.get() == "0.350 – 0.620"


def test_a_number_is_selected_when_it_gets_the_focus_and_typing_takes_its_place(window: Any) -> None:
    window.score.entry.focus_force()
    settle(window)
    assert window.score.entry.selection_present()
    window.score.entry.event_generate("<Key>", keysym="1")
    window.score.entry.event_generate("<Return>")
    settle(window)
    assert (window.session.score_min[:, 0] == 1.0).all()


def type_into(window: Any, text: str) -> None:
    entry = window.score.entry
    entry.focus_force()
    settle(window, 0.1)
    entry.delete(0, "end")
    entry.insert(0, text)
    entry.event_generate("<Return>")
    settle(window, 0.1)


@pytest.mark.parametrize(
    ("column", "down", "up"),
    [
        ("all", ["0", "2", "1"], ["1", "2", "0"]),
        ("here", ["0", "2", "1"], ["1", "2", "0"]),
        ("kind", ["2", "0", "1"], ["0", "1", "2"]),
        ("picked", ["0", "1", "2"], ["2", "0", "1"]),
        ("#0", ["0", "1", "2"], ["2", "1", "0"]),
    ],
)
def test_clusters_are_sorted_by_any_column_up_down_and_as_they_were(clusters: Any, column: str, down: list, up: list) -> None:
    window = clusters()
    rows = window.clusters
    for wanted, arrow in ((down, "▼"), (up, "▲"), (["0", "1", "2"], "")):
        rows.tk.call(*rows.tk.splitlist(rows.heading(column, "command")))
        settle(window, 0.1)
        assert list(rows.get_children()) == wanted
        assert rows.heading(column, "text").endswith(arrow)
        assert rows.chosen() == [window.session.at_hand]
    rows.sort_by(column)
    window.session.rename(0, "zebra")  # the list is written anew, and stays sorted
    settle(window)
    assert list(rows.get_children()) == (down if column != "#0" else ["1", "2", "0"])


def test_a_cluster_drawn_by_hand_has_its_gallery_at_once(clusters: Any) -> None:
    window = clusters()
    assert window.gallery.paths and not window.gallery.cut
    leftover = np.flatnonzero(window.session.label < 0)
    window.session.select(leftover)
    window.session.new_entry()
    settle(window)
    assert window.session.kind(window.session.at_hand) == "by hand"
    assert not window.gallery.paths and window.gallery.cut == tuple(leftover)
    assert len(window.gallery.figure.axes) == len(leftover)
    window.session.undo()
    settle(window)
    assert window.gallery.paths and len(window.gallery.figure.axes) == 1


def test_without_tomograms_it_is_said_what_makes_a_gallery(clusters: Any) -> None:
    window = clusters(nowhere)
    window.session.select(np.flatnonzero(window.session.label < 0))
    window.session.new_entry()
    settle(window)
    assert "tomotwin cluster --selection" in window.gallery.figure.texts[0].get_text()


@pytest.mark.parametrize(
    ("xyz", "shape", "bright"),
    [((40, 30, 10), (20, 60, 80), (18, 18)), ((0, 0, 0), (20, 60, 80), (18, 18)), ((79, 59, 19), (20, 60, 80), (18, 18)),
     ((3.4, 58.6, 10), (20, 60, 80), (18, 18)), ((5, 5, 1), (3, 9, 9), (18, 18))],
)  # fmt: skip
def test_the_middle_plane_has_the_place_in_its_middle_and_nothing_beyond_the_tomogram(
    xyz: tuple, shape: tuple, bright: tuple
) -> None:
    from tomotwin_view.gallery import THICK_A, WIDTH_A, middle_plane

    x, y = np.rint(xyz).astype(int)[:2]
    voxels = np.zeros(shape, np.float32)
    voxels[:, y, x] = 1
    picture = middle_plane(voxels, np.array(xyz), 10.0)
    assert picture.shape == (37, 37) == (round(WIDTH_A / 10),) * 2 and THICK_A == 60
    assert np.unravel_index(np.nanargmax(picture), picture.shape) == bright and np.nanmax(picture) == pytest.approx(1)
    rows, columns = np.nonzero(np.isfinite(picture))
    assert (columns + x - 18).min() == max(x - 18, 0) and (columns + x - 18).max() == min(x + 18, shape[2] - 1)
    assert (rows + y - 18).min() == max(y - 18, 0) and (rows + y - 18).max() == min(y + 18, shape[1] - 1)
