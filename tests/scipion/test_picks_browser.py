"""The picks viewer's drawing, without a screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_mrc
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tomotwin_scipion.viewers.picks_browser import BrowsedTomogram, PicksBrowser, Target


@pytest.fixture
def browser(tmp_path: Path) -> PicksBrowser:
    rng = np.random.default_rng(1)
    for name in "ab":
        write_mrc(tmp_path / f"{name}.mrc", rng.normal(size=(20, 30, 40)), 8.0)
    xyz = np.array([[5.0, 6.0, 10.0], [20.0, 25.0, 13.0], [30.0, 3.0, 1.0]])
    first = BrowsedTomogram("a", str(tmp_path / "a.mrc"), xyz, np.array([0.5, 0.9, 0.7]), np.array([1, 2, 1]))
    second = BrowsedTomogram("b", str(tmp_path / "b.mrc"), xyz[:1] + 1, np.array([0.6]), np.array([2]))
    figure = Figure(figsize=(8, 6))
    FigureCanvasAgg(figure)
    return PicksBrowser(figure, [first, second], {1: Target("one", 8.0), 2: Target("two", 10.0)})


def test_a_pick_is_the_circle_in_which_the_slice_cuts_its_sphere(browser: PicksBrowser) -> None:
    assert browser.height.val == 10
    centres, diameters, groups = browser.circles()
    np.testing.assert_allclose(centres, [[5, 6], [20, 25]])
    np.testing.assert_allclose(diameters, [8.0, 8.0])  # the second: 3 off the middle of a sphere of radius 5
    assert groups.tolist() == [1, 2]


def test_the_similarity_slider_hides_the_picks_below_it(browser: PicksBrowser) -> None:
    browser.score.set_val(0.8)
    assert browser.circles()[2].tolist() == [2]
    assert "1 picks, 1 on this slice" in browser.axes.get_title()


def test_next_turns_to_the_other_tomogram_and_round_again(browser: PicksBrowser) -> None:
    browser.show(browser.number + 1)
    assert browser.axes.get_title().startswith("b (2 of 2)")
    np.testing.assert_allclose(browser.circles()[0], [[6, 7]])
    browser.show(browser.number + 1)
    assert browser.axes.get_title().startswith("a (1 of 2)")
    browser.figure.canvas.draw()
