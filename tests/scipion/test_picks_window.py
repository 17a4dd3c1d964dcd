"""*Analyze results*: the picking window on a real run, and what stays as a new output of the real project."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import SHAPE, VOXEL_SIZE_A, point, write_mrc
from pwem import Domain
from pwem.objects import Transform
from pyworkflow.object import Pointer
from pyworkflow.viewer import DESKTOP_TKINTER
from test_protocols_in_a_project import embedded, positions, references, tomograms  # noqa: F401
from tomo.objects import SetOfCoordinates3D, Tomogram

from tomotwin_scipion.protocols import ProtTwinReferencePicking
from tomotwin_scipion.viewers import TwinPicksViewer
from tomotwin_scipion.viewers.viewed_picks import ViewedPicks, open_voxels
from tomotwin_view.session import REJECTED
from tomotwin_view.star import read_table


@pytest.fixture(scope="module")
def picked(project: Any, launch: Any, embedded: Any, references: Any) -> Any:  # noqa: F811
    """A run that found five candidates and picked the two above 0.985, one of each reference."""
    protocol = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=1, thresholdMode=1, threshold=0.985)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.inputReferences.append(Pointer(references, extended="outputVolumes"))
    return launch(protocol)


def settle(window: Any) -> None:
    """Let the window draw what is due."""
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        window.root.update()
        time.sleep(0.01)


def drag(scale: Any, value: float) -> None:
    """Take the knob of a slider with the mouse, pull it to a value and let it go."""
    (x0, y0), (x1, y1) = scale.coords(), scale.coords(value)
    scale.event_generate("<ButtonPress-1>", x=x0, y=y0)
    scale.event_generate("<B1-Motion>", x=x1, y=y1)
    scale.event_generate("<ButtonRelease-1>", x=x1, y=y1)


def test_the_viewer_of_a_run_and_a_further_one_of_its_coordinates(picked: Any) -> None:
    assert Domain.findViewers(picked, DESKTOP_TKINTER)[0] is TwinPicksViewer
    assert TwinPicksViewer in Domain.findViewers(picked.output3DCoordinates, DESKTOP_TKINTER)


def test_a_slider_moved_and_a_pick_rejected_become_a_new_set_in_the_project(
    screen: str, project: Any, picked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tkinter

    root = tkinter.Tk()
    viewer = TwinPicksViewer(project=project, protocol=picked, parent=SimpleNamespace(root=root))
    (view,) = viewer._visualize(picked)
    view.show()
    window, session = view.window, view.window.session
    settle(window)
    assert [session.targets, session.counts().tolist()] == [["1abc", "2_def"], [[1, 2], [1, 3]]]
    assert {round(size) for size in session.picks.diameter_A} == {100}

    window.targets.selection_set("1")
    settle(window)
    drag(window.score.scale, 0.9801)  # as near as pixels allow
    assert 0.98 < session.score_min[0, 1] < 0.99
    drag(window.score.scale, 0.98)
    assert session.counts().tolist() == [[1, 2], [3, 3]]
    row = next(i for i, xyz in enumerate(session.picks.xyz) if xyz.round().tolist() == [5, 7, 11])
    session.go_to(row)
    settle(window)
    canvas = window.slices_canvas.get_tk_widget()
    x, y = window.slices.views[0].axes.transData.transform((5, 7))
    canvas.event_generate("<ButtonPress-3>", x=round(x), y=round(canvas.winfo_height() - y))
    assert session.decisions[row] == REJECTED
    window.save_button.invoke()
    assert "New output filtered3DCoordinates: 3 of 5" in window.status.cget("text")
    window.destroy()
    root.destroy()

    again = project.getProtocol(picked.getObjId())  # as the project on disk knows it
    new, old = again.filtered3DCoordinates, again.output3DCoordinates
    assert isinstance(new, SetOfCoordinates3D)
    assert positions(new) == {"first": {(60, 40, 20): 2}, "TS_2_nd": {(69, 49, 0): 2, (1, 2, 3): 2}}
    assert sorted(item.getScore() for item in new.iterCoordinates()) == pytest.approx([0.98, 0.98, 0.99])
    assert (new.getBoxSize(), new.getSamplingRate()) == (old.getBoxSize(), VOXEL_SIZE_A)
    assert sorted(new.getPrecedents().getTSIds()) == ["TS_2_nd", "first"]
    assert new._precedentsPointer.hasValue() and new._precedentsPointer.getExtended()
    assert positions(old) == {"first": {(5, 7, 11): 1}, "TS_2_nd": {(69, 49, 0): 2}}  # untouched
    parents = {row["object_parent_id"] for row in project.mapper.getRelationsByName("relation_datasource")
               if row["object_child_id"] == new.getObjId()}  # fmt: skip
    assert old.getObjId() in parents and len(parents) == 2
    record = again._getExtraPath("filtered3DCoordinates.star")
    assert len(read_table(record, "particles")) == 3
    assert [row["tomotwinAccepted"] for row in read_table(record, "tomotwin_decisions")] == ["0"]


def test_a_new_output_is_named_uniquely_keeps_orientations_and_can_be_filtered_again(project: Any, picked: Any) -> None:
    coordinates = picked.output3DCoordinates
    matrix = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    turned = SetOfCoordinates3D.create(picked._getPath(), suffix="turned")
    turned.copyInfo(coordinates)
    turned.setPrecedents(coordinates._precedentsPointer)
    for item in coordinates.iterCoordinates():
        item._eulerMatrix = Transform(matrix)
        turned.append(item.clone())
    turned.write()
    picked._defineOutputs(turned=turned)

    viewer = TwinPicksViewer(project=project)
    (view,) = viewer._visualize(project.getProtocol(picked.getObjId()).turned)
    picks: ViewedPicks = view.picks
    assert picks.session.counts().tolist() == [[1, 2], [1, 3]]
    before = {name for name, _ in picks.protocol.iterOutputAttributes()}
    picks.register(picks.session)
    picks.register(picks.session)
    again = project.getProtocol(picked.getObjId())
    made = {name for name, _ in again.iterOutputAttributes()} - before
    assert len(made) == 2 and all(name.startswith("filtered3DCoordinates") for name in made)
    for name in made:
        new = getattr(again, name)
        assert new.getSize() == 2
        for item in new.iterCoordinates():
            np.testing.assert_array_equal(item._eulerMatrix.getMatrix(), matrix)


def test_nothing_kept_and_a_run_that_goes_on_are_refused_in_a_sentence(picked: Any, monkeypatch: Any) -> None:
    picks = ViewedPicks(picked.output3DCoordinates, picked)
    with monkeypatch.context() as patch:
        patch.setattr(type(picked), "isActive", lambda self: True)
        with pytest.raises(RuntimeError, match="has not finished"):
            picks.register(picks.session)
    picks.session.decide(np.arange(len(picks.session.decisions)), REJECTED)
    with pytest.raises(RuntimeError, match="No pick stays"):
        picks.register(picks.session)


def test_a_run_without_picks_says_so(project: Any, picked: Any) -> None:
    empty = project.newProtocol(ProtTwinReferencePicking)
    (message,) = TwinPicksViewer(project=project)._visualize(empty)
    assert "no picks yet" in message.getMessage()


def test_tomograms_are_mapped_and_imods_unsigned_bytes_come_out_unsigned(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.arange(np.prod(SHAPE)).reshape(SHAPE), 8.0)
    tomogram = Tomogram(location=(1, str(tmp_path / "a.mrc") + ":mrc"))
    voxels = open_voxels(tomogram)
    assert isinstance(voxels, np.memmap) and voxels.shape == SHAPE and voxels[1, 2, 3] == 50 * 70 + 2 * 70 + 3

    with mrcfile.new(tmp_path / "bytes.mrc") as file:
        file.set_data(np.array([[[-1, 5]] * 2] * 2, dtype=np.int8))
    with open(tmp_path / "bytes.mrc", "r+b") as raw:
        raw.seek(152)
        raw.write(np.array([1146047817, 0], "<i4").tobytes())
    tomogram.setFileName(os.fspath(tmp_path / "bytes.mrc"))
    assert open_voxels(tomogram)[0, 0].tolist() == [255, 5]
