"""The window on clusters, on a virtual screen: lines drawn in the UMAP and the slices, buttons and keys as a user moves them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_clusters import MIDDLES, nowhere, opener, write_folder

from tomotwin_view.cluster_files import read_clusters, read_selection, write_selection
from tomotwin_view.cluster_session import ClustersSession

ENGINE = """
import json, sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from planted_clusters import write_folder
words = sys.argv[1:]
assert words[7:] == ["--model", "mine"], words
assert words[0] == "cluster" and words[2] == "--recompute" and words[3] == "--selection" and words[5] == "--out", words
selected = json.loads(Path(words[4]).read_text())["clusters"]
print("clustering", len(selected[0]["add"]), "candidates", flush=True)
if {wait}:
    time.sleep(60)
if len(selected[0]["add"]) == 10:
    print("tomotwin: error: these ten are too much alike.")
    sys.exit(2)
write_folder(Path(words[6]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "clusters")


def engine(path: Path, wait: bool = False) -> list[str]:
    """A stand-in for the engine: "clusters again" into the planted clusters, and refuses ten candidates."""
    path.write_text(ENGINE.format(here=str(Path(__file__).parent), wait=wait))
    return [sys.executable, str(path)]


@pytest.fixture
def open_window(screen: str, folder: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    from tomotwin_view.clusters_window import ClustersWindow

    opened = []

    def open_window(opens: Any = opener, wait_for_ever: bool = False) -> Any:
        session = read_clusters(str(folder), opens)

        def save(session: ClustersSession) -> str:
            write_selection(str(folder / "selection.json"), session.chosen())
            return "saved"

        command = engine(tmp_path / "engine.py", wait_for_ever)
        window = ClustersWindow(session, save, str(folder), opens, command, "save it", engine_options=["--model", "mine"])
        opened.append(window)
        wait(window, lambda: window.scatter._pixels is not None)
        return window

    yield open_window
    for window in opened:
        window.destroy()


@pytest.fixture
def window(open_window: Callable[..., Any]) -> Any:
    return open_window()


def wait(window: Any, until: Callable[[], bool], seconds: float = 20.0) -> None:
    """Let the window work until something holds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "the window did not come to it in time"
        window.root.update()
        time.sleep(0.01)


def drag(window: Any, canvas: Any, axes: Any, places: np.ndarray, state: int = 0, button: int = 1) -> None:
    """Press a mouse button at the first of the places, given in the data of the axes, move over the others, let it go."""
    widget = canvas.get_tk_widget()
    points = [(round(x), round(widget.winfo_height() - y)) for x, y in axes.transData.transform(places)]
    widget.event_generate(f"<ButtonPress-{button}>", x=points[0][0], y=points[0][1], state=state)
    for x, y in points[1:]:
        widget.event_generate("<Motion>", x=x, y=y, state=state | 0x100)
    widget.event_generate(f"<ButtonRelease-{button}>", x=points[-1][0], y=points[-1][1], state=state | 0x100)
    window.root.update()


def circle(middle: tuple[float, float], radius: float) -> np.ndarray:
    towards_the_middle = np.arctan2(5 - middle[1], 5 - middle[0])  # of the picture: what lies outside cannot be clicked on
    angle = towards_the_middle + np.linspace(0, 2 * np.pi, 25)
    return np.array(middle) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def lasso(window: Any, cluster: str, state: int = 0) -> None:
    drag(window, window.scatter_canvas, window.scatter.axes, circle(MIDDLES[cluster], 2.8), state)


def members(folder: Path, cluster: int) -> list[int]:
    return sorted(json.loads((folder / "clusters.json").read_text())["clusters"][cluster]["members"])


def selected(window: Any) -> list[int]:
    return sorted(window.session.candidates.ids[window.session.selection].tolist())


def key(window: Any, name: str) -> None:
    widget = window.scatter_canvas.get_tk_widget()
    widget.focus_force()
    window.root.update()
    widget.event_generate(f"<{name}>")
    window.root.update()


def test_a_line_around_a_planted_cluster_selects_exactly_its_particles_and_shows_them_in_the_slices(
    window: Any, folder: Path
) -> None:
    session = window.session
    lasso(window, "cluster_02")
    umap = session.candidates.umap
    inside = np.hypot(*(umap - MIDDLES["cluster_02"]).T) < 2.7
    assert selected(window) == sorted(session.candidates.ids[inside].tolist()) == members(folder, 1)
    row = session.focus
    assert session.selection[row] and session.current == session.tomogram[row]
    np.testing.assert_array_equal(session.cursor, np.rint(session.xyz[row]))
    wait(window, lambda: window.slices.views[0].at == session.cursor[2])
    rows, _ = window.slices.views[0].circles(session)
    assert row in rows
    # A second line with Shift adds to it, a third with Ctrl takes from it.
    lasso(window, "cluster_01", state=0x1)
    assert selected(window) == sorted(members(folder, 0) + members(folder, 1))
    lasso(window, "cluster_02", state=0x4)
    assert selected(window) == members(folder, 0)


def test_a_click_in_the_slices_selects_the_candidate_in_the_umap_and_the_reverse(window: Any, folder: Path) -> None:
    session, views = window.session, window.slices.views
    first = int(np.flatnonzero((session.tomogram == 0) & (session.candidates.proposal == 1))[0])
    session.move_cursor(session.xyz[first])
    session.look_at(0)
    window.root.update()
    drag(window, window.slices_canvas, views[0].axes, session.xyz[[first], :2])
    assert np.flatnonzero(session.selection).tolist() == [first] and session.focus == first
    assert session.at_hand == 1
    wait(window, lambda: np.array_equal(window.scatter._rings.get_offsets(), session.candidates.umap[[first]]))
    wait(window, lambda: "cluster_02: species" in window.facts.cget("text"))

    other = int(np.flatnonzero((session.tomogram == 1) & (session.candidates.proposal == 2))[0])
    drag(window, window.scatter_canvas, window.scatter.axes, session.candidates.umap[[other]])
    assert session.focus == other and session.current == 1 and session.at_hand == 2
    np.testing.assert_array_equal(session.cursor, np.rint(session.xyz[other]))
    assert other in views[0].circles(session)[0]
    wait(window, lambda: window.chooser.get() == "TS_b")


def test_a_line_drawn_with_shift_in_a_slice_selects_the_circles_in_it_and_a_click_beside_keeps_them(window: Any) -> None:
    session, view = window.session, window.slices.views[0]
    rows, _ = view.circles(session)
    assert len(rows) >= 2
    corners = np.array([[-0.4, -0.4], [39.5, -0.4], [39.5, 59.4], [-0.4, 59.4]])
    drag(window, window.slices_canvas, view.axes, corners, state=0x1)
    expected = {int(row) for row in rows if session.xyz[row, 0] < 39.5}
    assert set(np.flatnonzero(session.selection)) == expected and expected
    free = next(
        place for place in np.random.default_rng(0).uniform(2, 55, (500, 2)) if window.slices.pick_at(2, *place) is None
    )
    drag(window, window.slices_canvas, view.axes, np.array([free]))
    assert set(np.flatnonzero(session.selection)) == expected
    assert session.cursor[:2].tolist() == np.rint(free).astype(int).tolist()
    key(window, "Escape")
    assert not session.selection.any()


def test_clusters_are_merged_named_discarded_and_saved(window: Any, folder: Path) -> None:
    session = window.session
    window.clusters.selection_set("0", "2")
    window.root.update()
    key(window, "m")
    wait(window, lambda: len(window.clusters.get_children()) == 2)
    window.name.focus_force()
    window.name.delete(0, "end")
    window.name.insert(0, "ribosome")
    window.name.event_generate("<Return>")
    window.root.update()
    wait(window, lambda: "ribosome" in window.clusters.item("0", "text"))
    x, y, width, height = window.clusters.bbox("1", "picked")
    window.clusters.event_generate("<Button-1>", x=x + width // 2, y=y + height // 2)
    window.root.update()
    window.save_button.invoke()
    assert window.status.cget("text") == "saved" and not session.changed
    assert read_selection(str(folder / "selection.json")) == [
        {"name": "ribosome", "from": ["cluster_01", "cluster_03"], "add": [], "remove": []}
    ]
    key(window, "Control-z")
    assert [entry.picked for entry in session.entries] == [True, True]
    window.load(str(folder / "selection.json"))
    assert [entry.picked for entry in session.entries] == [True, False]
    assert "1 clusters of selection.json" in window.status.cget("text")


def test_a_selection_becomes_a_cluster_by_a_key_and_without_one_it_is_said_what_to_do(window: Any, folder: Path) -> None:
    key(window, "c")
    assert "Select candidates first" in window.status.cget("text")
    key(window, "l")
    leftovers = selected(window)
    assert len(leftovers) == 6
    key(window, "c")
    assert window.session.chosen()[-1] == {"name": "selection", "from": [], "add": leftovers, "remove": []}
    wait(window, lambda: "selected by hand, median diameter 60 Å" in window.facts.cget("text"))


def test_gallery_and_facts_are_those_of_the_cluster_at_hand_and_of_all_it_is_made_of(window: Any, folder: Path) -> None:
    wait(window, lambda: "6, TS_b 6" in window.facts.cget("text"))
    text = window.facts.cget("text")
    for words in ("cluster_01: species, picked", "12 members", "certainty 0.93, about 100 Å wide, 1234 per µm³, compactness 0.87",
                  "most like: 4v6x 0.91, 1dzl 0.40", "cluster_01 stands apart."):  # fmt: skip
        assert words in text
    assert window.gallery.paths == [str(folder / "gallery" / "cluster_01.png")]
    window.session.merge([0, 1])
    wait(window, lambda: len(window.gallery.paths) == 2)
    (folder / "gallery" / "cluster_03.png").write_bytes(b"no picture")
    window.session.look_at(1)
    wait(window, lambda: "cluster_03.png cannot be shown" in window.gallery.figure.texts[0].get_text())


def test_without_tomograms_there_is_the_umap_alone_and_it_works(open_window: Callable[..., Any], folder: Path) -> None:
    window = open_window(nowhere)
    assert window.slices is None
    lasso(window, "cluster_03")
    assert selected(window) == members(folder, 2)
    key(window, "n")
    assert window.session.selection.sum() == 10


def test_a_selection_is_clustered_again_beside_the_window_and_what_is_saved_there_becomes_clusters_here(
    window: Any, folder: Path
) -> None:
    session = window.session
    window.cluster_again()
    assert "Select 10 candidates or more" in window.status.cget("text")
    lasso(window, "cluster_01")
    window.again_button.invoke()
    wait(window, lambda: bool(window.further))
    assert read_selection(str(folder / "again_01.json"))[0]["add"] == members(folder, 0)
    further = window.further[0]
    further.session.set_picked([1], False)
    further.save()
    assert session.names()[-1] == "cluster_01_2" and session.changed
    assert sorted(session.candidates.ids[session.members(3)].tolist()) == members(folder, 0)
    assert read_selection(str(folder / "again_01" / "selection.json"))[0]["from"] == ["cluster_01"]


def test_what_the_engine_refuses_is_shown_in_its_words(
    window: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tomotwin_view import clusters_window as module

    said = []
    monkeypatch.setattr(module.messagebox, "showerror", lambda title, text, **_: said.append(text))
    lasso(window, "cluster_03")  # ten
    window.again_button.invoke()
    wait(window, lambda: bool(said))
    assert said == ["tomotwin: error: these ten are too much alike."] and not window.further
    assert window.again_button.cget("text") == "cluster again"


def test_clustering_again_can_be_stopped_and_goes_with_the_window(open_window: Callable[..., Any], folder: Path) -> None:
    window = open_window(wait_for_ever=True)
    lasso(window, "cluster_01")
    window.again_button.invoke()
    wait(window, lambda: "clustering 12 candidates" in window.status.cget("text"))
    window.again_button.invoke()
    wait(window, lambda: "stopped" in window.status.cget("text"))
    window.again_button.invoke()
    process = window._run._process
    wait(window, lambda: "clustering 12 candidates" in window.status.cget("text"))
    assert (folder / "again_02.json").exists() and process.poll() is None
    window._run.stop()
    assert process.poll() is not None


def test_right_click_takes_a_candidate_out_of_its_cluster_in_either_panel(window: Any) -> None:
    session = window.session
    row = int(np.flatnonzero(session.label == 1)[0])
    drag(window, window.scatter_canvas, window.scatter.axes, session.candidates.umap[[row]], button=3)
    assert session.label[row] == -1
    drag(window, window.scatter_canvas, window.scatter.axes, session.candidates.umap[[row]], button=3)
    assert session.label[row] == 1
    session.go_to(row)
    window.root.update()
    drag(window, window.slices_canvas, window.slices.views[0].axes, session.xyz[[row], :2], button=3)
    assert (session.label == 1).sum() == 7
