"""Viewers of embeddings and evaluations: what they draw is what was planted."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import SHAPE, TOMOTWIN, VOXEL_SIZE_A, planted_tomogram, write_mrc
from pwem import Domain
from pyworkflow.viewer import DESKTOP_TKINTER
from test_evaluate_picks import evaluated as evaluated
from test_evaluate_picks import sets as sets
from test_streaming_and_continue import PLACES, Growing, new_embedding

from tomotwin_scipion.viewers import TwinEmbeddingsViewer, TwinEvaluationViewer
from tomotwin_scipion.viewers.slice_plotter import ALONG_Y, ALONG_Z
from tomotwin_scipion.viewers.viewer_evaluation import COLUMNS, EvaluationPlotter, table_rows

STEP = 20 / VOXEL_SIZE_A  # voxels between two embeddings
PATIENCE_S = 60


@pytest.fixture(scope="module")
def embedded(project: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    growing = Growing(project, tmp_path_factory.mktemp("tomograms"))
    growing.add("held", "z")
    write_mrc(growing.folder / "z.mrc", planted_tomogram({PLACES["z"]: 6}), VOXEL_SIZE_A)  # no colours of that
    return launch(new_embedding(project, growing))


def wait_for_colours(view: Any) -> None:
    """As in the window: it is the timer that looks, time and again."""
    for _ in range(10 * PATIENCE_S):
        if not view.told.startswith("colours are") or view.shown is not None:
            return
        view.timer._on_timer()
        time.sleep(0.1)
    raise AssertionError("the colours were not made")


def test_colours_of_an_embedding_lie_beside_the_tomogram_at_the_same_voxels(
    project: Any, embedded: Any, calls: Any
) -> None:
    assert Domain.findViewers(embedded, DESKTOP_TKINTER)[0] is TwinEmbeddingsViewer
    assert TwinEmbeddingsViewer in Domain.findViewers(embedded.Embeddings, DESKTOP_TKINTER)
    (view,) = TwinEmbeddingsViewer(project=project)._visualize(embedded)
    wait_for_colours(view)
    x, y, z = PLACES["held"]
    for along, at, (column, row) in ((ALONG_Z, z, (x, y)), (ALONG_Y, y, (x, z))):
        view.sliders[along].set_val(at)
        plain, coloured = view.axes[along]
        image = coloured.images[0]
        colours = image.get_array()
        left, right, bottom, top = image.get_extent()
        # Where matplotlib draws the only red point, in voxels of the tomogram.
        ((i, j),) = np.argwhere(colours[..., 0] == 1)
        place = (
            left + (j + 0.5) * (right - left) / colours.shape[1],
            bottom + (i + 0.5) * (top - bottom) / colours.shape[0],
        )
        assert np.abs(np.subtract(place, (column, row))).max() <= STEP / 2
        np.testing.assert_allclose(colours[0, 0], (0.2, 0.4, 0.6), atol=1e-6)
        assert plain.images[0].get_array().shape == (SHAPE[1:] if along == ALONG_Z else (SHAPE[0], SHAPE[2]))
        assert plain.get_xlim() == coloured.get_xlim() == (-0.5, SHAPE[2] - 0.5)
    # Colours that take long: the timer goes on looking (matplotlib drops callbacks that return False).
    colours, answers = view.shown, iter([None, None, view.shown])
    view.shown, view.colours.look = None, lambda tsId: next(answers)
    for _ in range(3):
        view.timer._on_timer()
    assert view.shown is colours
    view.close()

    # Kept for the next time, and of all tomograms fitted to the same.
    before = calls()
    (view,) = TwinEmbeddingsViewer(project=project)._visualize(embedded.Embeddings)
    wait_for_colours(view)
    assert calls() == before
    view.turn(1)
    wait_for_colours(view)
    assert "z (2 of 2)" in view.figure._suptitle.get_text()
    assert "no such colours" in view.axes[ALONG_Z][1].texts[0].get_text()
    fits = [call[call.index("--fit") : call.index("--out")] for call in calls()]
    assert fits[0] == fits[1] and len(fits[0]) == 3
    view.close()


@pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here")
@pytest.mark.usefixtures("real_engine")
def test_an_evaluation_is_shown_as_curves_with_the_picks_on_them_and_as_a_table(evaluated: Any) -> None:
    assert Domain.findViewers(evaluated, DESKTOP_TKINTER)[0] is TwinEvaluationViewer
    view = EvaluationPlotter(evaluated, "title")
    balance, threshold, tomograms = view.axes
    curve, ring = balance.lines[:2]
    np.testing.assert_allclose(curve.get_xdata(), [0.5, 0.5, 0.5, 1])
    np.testing.assert_allclose(curve.get_ydata(), [1, 1 / 2, 1 / 3, 2 / 4], atol=1e-6)
    assert (ring.get_xdata(), ring.get_ydata()) == (0.5, pytest.approx(1 / 3, abs=1e-4))
    assert ring.get_color() == curve.get_color() == threshold.lines[0].get_color()
    assert [text.get_text() for text in tomograms.get_xticklabels()] == ["t1", "t2"]
    np.testing.assert_allclose(tomograms.lines[0].get_ydata(), [0.5, 0])  # of group_1; in t2 there is none of it
    assert "group_1, F1 0.40" in balance.get_legend().texts[0].get_text()
    plt.close(view.figure)
    rows = table_rows(evaluated)
    assert len(rows) == 2 + 4 and all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0][:8] == ["all tomograms", "group_1", "2", "3", "1", "0.33", "0.50", "0.40"]
    assert rows[-1][:8] == ["t2", "group_2", "1", "0", "0", "-", "0.00", "0.00"]


@pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here")
@pytest.mark.usefixtures("real_engine")
def test_the_table_of_an_evaluation_opens_and_saves(screen: str, project: Any, evaluated: Any) -> None:
    import tkinter

    root = tkinter.Tk()
    table, plots = TwinEvaluationViewer(project=project)._visualize(evaluated)
    root.update()
    table.saveData()
    (saved,) = Path(project.path, "Logs").glob("tomotwin-evaluation*.csv")
    assert "all tomograms" in saved.read_text()
    plots.close()
    root.destroy()
