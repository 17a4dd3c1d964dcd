"""The panels of the picking window in figures without a screen, and what they read."""

from __future__ import annotations

import time

import numpy as np
import pytest
from matplotlib.backend_bases import MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from planted_session import SHAPE, planted, volume

from tomotwin_view.histogram import HistogramPanel
from tomotwin_view.session import REJECTED, PicksSession
from tomotwin_view.slabs import LatestOnly, grey_range, slab
from tomotwin_view.slices import SlicesPanel


class Canvas(FigureCanvasAgg):
    """An Agg canvas that remembers which parts were sent to the screen."""

    def __init__(self, figure: Figure) -> None:
        super().__init__(figure)
        self.sent: list = []

    def blit(self, bbox: object = None) -> None:
        self.sent.append(bbox)


@pytest.fixture
def session() -> PicksSession:
    return planted()


@pytest.fixture
def slices(session: PicksSession) -> SlicesPanel:
    figure = Figure(figsize=(6, 5), dpi=100)
    Canvas(figure)
    panel = SlicesPanel(figure, session)
    figure.canvas.draw()
    return panel


def mouse(panel: SlicesPanel, view: int, place: tuple[float, float], button: int = 1, kind: str = "press") -> None:
    """Press a button at a place of an orientation, given in its voxels."""
    axes = panel.views[view].axes
    x, y = axes.transData.transform(place)
    event = MouseEvent(f"button_{kind}_event", panel.figure.canvas, x, y, button)
    panel.figure.canvas.callbacks.process(event.name, event)


def colour_at(panel: SlicesPanel, view: int, place: tuple[float, float]) -> np.ndarray:
    """The pixel drawn at a place of an orientation, RGB 0 to 1."""
    x, y = panel.views[view].axes.transData.transform(place)
    pixels = np.asarray(panel.figure.canvas.buffer_rgba())
    return pixels[round(pixels.shape[0] - 1 - y), round(x), :3] / 255


# ------------------------------ slabs ------------------------------
@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "u2", "f2", ">f4"])
def test_slabs_are_means_of_planes_in_their_orientation_for_every_kind_of_voxel(dtype: str) -> None:
    stored = (np.arange(3 * 4 * 5).reshape(3, 4, 5) % 100).astype(dtype)
    exact = stored.astype(np.float32)
    np.testing.assert_allclose(slab(stored, 2, 1), exact[1])
    np.testing.assert_allclose(slab(stored, 1, 2), exact[:, 2])
    np.testing.assert_allclose(slab(stored, 0, 3), exact[:, :, 3].T)
    np.testing.assert_allclose(slab(stored, 0, 3, thickness=3), exact[:, :, 2:5].mean(axis=2).T)
    np.testing.assert_allclose(slab(stored, 2, 0, thickness=5), exact[:3].mean(axis=0))


def test_smoothing_keeps_the_mean_and_spreads_a_point_as_a_binomial() -> None:
    point = np.zeros((1, 7, 7), dtype=np.float32)
    point[0, 3, 3] = 16
    smooth = slab(point, 2, 0, smoothing=1)
    np.testing.assert_allclose(smooth[2:5, 2:5], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert smooth.sum() == pytest.approx(16)


def test_grey_levels_pass_over_a_few_extreme_voxels() -> None:
    data = volume(1)
    data[10, :2, :3] = 1e6
    low, high = grey_range(data, thickness=1, smoothing=0)
    assert -3 < low < -2 and 2 < high < 3


def test_of_requests_that_came_while_reading_only_the_last_is_done() -> None:
    reader, done = LatestOnly(), []
    reader.ask("z", lambda: time.sleep(0.1))
    for number in range(5):
        reader.ask("z", lambda number=number: done.append(number))
    answers = 0
    while reader.busy:
        answers += len(reader.answers())
    assert done == [4] and answers == 2
    reader.close()


# ------------------------------ slices ------------------------------
def test_a_pick_is_the_circle_in_which_each_slice_cuts_its_sphere(session: PicksSession, slices: SlicesPanel) -> None:
    session.move_cursor(np.array([5, 25, 10]))
    found = [[array.tolist() for array in view.circles(session)] for view in slices.views]
    (xy_rows, xy_radii), (yz_rows, yz_radii), (xz_rows, xz_radii) = found
    assert xy_rows == [0, 1]
    np.testing.assert_allclose(xy_radii, [4.0, 4.0])  # the second: 3 off the middle of a sphere of radius 5
    assert yz_rows == [0] and yz_radii == [4.0]
    assert xz_rows == [1] and xz_radii == [5.0]


def test_circles_lie_at_their_place_in_each_orientation(session: PicksSession, slices: SlicesPanel) -> None:
    session.show_target(0, False)
    session.move_cursor(np.array([20, 25, 13]))  # in the middle of the second pick
    for view, place in zip(slices.views, [(20, 25), (13, 25), (20, 13)]):
        (circles,) = (artist for artist in slices._collections(view) if isinstance(artist, EllipseCollection))
        np.testing.assert_allclose(circles.get_offsets(), [place])


def test_slices_show_the_planes_at_the_cross_hair_and_follow_it(session: PicksSession, slices: SlicesPanel) -> None:
    slices.set_appearance(thickness=1, smoothing=0)
    session.move_cursor(np.array([7, 8, 9]))
    data = volume(0)
    for view, expected in zip(slices.views, [data[9], data[:, :, 7].T, data[:, 8]]):
        np.testing.assert_array_equal(view.image.get_array(), expected)
    session.show_tomogram(1)
    np.testing.assert_array_equal(slices.views[0].image.get_array(), volume(1)[10])


def test_voxels_are_equally_large_in_all_orientations(slices: SlicesPanel) -> None:
    scales = []
    for view in slices.views:
        box = view.axes.get_window_extent()
        scales += [box.width / np.ptp(view.axes.get_xlim()), box.height / np.ptp(view.axes.get_ylim())]
    np.testing.assert_allclose(scales, scales[0], rtol=0.02)


def test_a_click_beside_picks_moves_the_cross_hair_in_that_plane(session: PicksSession, slices: SlicesPanel) -> None:
    mouse(slices, 0, (35, 20))
    assert session.cursor.tolist() == [35, 20, 10]
    mouse(slices, 1, (4, 3))  # yz: z across, y up
    assert session.cursor.tolist() == [35, 3, 4]
    mouse(slices, 2, (12, 17))
    assert session.cursor.tolist() == [12, 3, 17]


def test_a_click_on_a_pick_selects_it_and_brings_all_slices_to_its_middle(
    session: PicksSession, slices: SlicesPanel
) -> None:
    mouse(slices, 0, (21, 26))
    assert np.flatnonzero(session.selection).tolist() == [1]
    assert session.cursor.tolist() == [20, 25, 13]
    mouse(slices, 0, (35, 5))
    assert not session.selection.any()


def test_a_right_click_rejects_a_pick_and_another_takes_it_back(session: PicksSession, slices: SlicesPanel) -> None:
    session.move_cursor(np.array([0, 0, 10]))
    mouse(slices, 0, (6, 7), button=3)
    assert session.decisions.tolist() == [REJECTED, -1, -1, -1, -1, -1]
    mouse(slices, 0, (6, 7), button=3)
    assert session.accepted()[0]
    mouse(slices, 0, (35, 20), button=3)  # nothing there
    assert session.accepted().all()


def test_the_wheel_goes_through_the_slices_of_the_orientation_under_it(
    session: PicksSession, slices: SlicesPanel
) -> None:
    for view, axis in ((0, 2), (1, 0), (2, 1)):
        before = session.cursor[axis]
        x, y = slices.views[view].axes.transData.transform((10, 10))
        event = MouseEvent("scroll_event", slices.figure.canvas, x, y, step=2)
        slices.figure.canvas.callbacks.process("scroll_event", event)
        assert session.cursor[axis] == before + 2


def test_circles_are_drawn_in_the_colour_of_their_target_and_go_with_the_threshold(
    session: PicksSession, slices: SlicesPanel
) -> None:
    session.move_cursor(np.array([30, 15, 10]))
    rim = (5.0, 10.0)  # four voxels above the middle of row 0
    orange = np.array([0xE6, 0x9F, 0x00]) / 255
    np.testing.assert_allclose(colour_at(slices, 0, rim), orange, atol=0.15)
    session.set_score_min(0.6, target=0)
    assert np.ptp(colour_at(slices, 0, rim)) < 0.05  # grey: the tomogram again


def test_moving_a_threshold_sends_only_the_slices_and_draws_no_image_again(
    session: PicksSession, slices: SlicesPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for view in slices.views:
        monkeypatch.setattr(view.image, "draw", lambda renderer: pytest.fail("an image was drawn again"))
    slices.figure.canvas.sent.clear()
    session.set_score_min(0.6, target=0)
    boxes = [bbox.bounds for bbox in slices.figure.canvas.sent]
    np.testing.assert_allclose(boxes, [view.axes.bbox.bounds for view in slices.views])


def test_magnifying_keeps_the_place_in_view_and_the_next_pick_comes_into_it(
    session: PicksSession, slices: SlicesPanel
) -> None:
    slices.zoom(4.0, np.array([30, 20, 10]))
    (low, high), (bottom, top) = slices.views[0].axes.get_xlim(), slices.views[0].axes.get_ylim()
    assert high - low == pytest.approx(SHAPE[2] / 4) and low < 30 < high and bottom < 20 < top
    session.go_to(0)
    (low, high), (bottom, top) = slices.views[0].axes.get_xlim(), slices.views[0].axes.get_ylim()
    assert low < 5 < high and bottom < 6 < top
    slices.zoom(0.0)
    assert slices.views[0].axes.get_xlim() == (-0.5, SHAPE[2] - 0.5)


def test_a_tomogram_that_cannot_be_read_is_said_and_the_others_are_shown(
    session: PicksSession, slices: SlicesPanel
) -> None:
    def gone() -> np.ndarray:
        raise FileNotFoundError("b.mrc is gone")

    session.tomograms[1] = session.tomograms[1]._replace(open=gone)
    session.show_tomogram(1)
    assert "b.mrc is gone" in slices.views[0].text.get_text()
    session.show_tomogram(0)
    assert "gone" not in slices.views[0].text.get_text()


# ------------------------------ histogram ------------------------------
@pytest.fixture
def histogram(session: PicksSession) -> HistogramPanel:
    figure = Figure(figsize=(4, 3), dpi=100)
    Canvas(figure)
    panel = HistogramPanel(figure, session)
    figure.canvas.draw()
    return panel


def test_the_histogram_counts_the_scores_of_the_edited_target_in_one_or_all_tomograms(
    session: PicksSession, histogram: HistogramPanel
) -> None:
    assert histogram.numbers.sum() == 4 and "one, all tomograms" in histogram.axes.get_title()
    histogram.per_tomogram = True
    session.edit_target(1)
    assert histogram.numbers.sum() == 1 and "two, TS_a" in histogram.axes.get_title()


def test_the_expected_fdr_is_drawn_over_the_scores_tomogram_by_tomogram(histogram: HistogramPanel) -> None:
    curves = [line.get_xydata().tolist() for line in histogram.fdr_axes.lines]
    assert curves == [[[0.5, 0.5], [0.7, 0.2]], [[0.6, 0.1], [0.8, 0.05]]]


def test_dragging_in_the_histogram_sets_the_threshold_as_one_step_for_undo(
    session: PicksSession, histogram: HistogramPanel
) -> None:
    for kind, score in (("button_press", 0.55), ("motion_notify", 0.62), ("button_release", 0.62)):
        x, y = histogram.axes.transData.transform((score, 0.5))
        event = MouseEvent(f"{kind}_event", histogram.figure.canvas, x, y, 1)
        histogram.figure.canvas.callbacks.process(event.name, event)
    np.testing.assert_allclose(session.score_min[:, 0], 0.62)
    assert session.accepted().tolist() == [False, True, True, False, True, True]
    session.undo()
    assert session.accepted().all()
