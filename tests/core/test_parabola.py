"""Peaks between samples."""

import numpy as np

from tomotwin_core.parabola import vertex


def test_a_vertex_is_where_a_parabola_is_highest_and_none_where_it_has_no_such_point() -> None:
    at = np.array([-0.5, 0.0, 0.3, 0.9])
    before, middle, after = (-2.0 * (x - at) ** 2 + 7 for x in (-1, 0, 1))
    np.testing.assert_allclose(vertex(before, middle, after), at, atol=1e-12)
    np.testing.assert_allclose(vertex(before, middle, after, 0.4), np.clip(at, -0.4, 0.4), atol=1e-12)
    assert vertex(1.0, 0.0, 2.0) == vertex(0.0, 1.0, 2.0) == vertex(3.0, 3.0, 3.0) == 0.0
