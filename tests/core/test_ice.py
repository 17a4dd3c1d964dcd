"""The slab of ice: as thick, tilted and uneven as asked, and what lies in it stays in it."""

import numpy as np
import pytest
from test_sample import ball

from tomotwin_core.simulation.ice import Ice
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample, fill

SHAPE = (90, 120, 150)


def test_a_level_slab_fills_the_middle_of_the_box() -> None:
    ice = Ice.flat(SHAPE, 30.0)
    mask = ice.mask(SHAPE[0])
    assert mask.shape == SHAPE and np.allclose(ice.thickness, 30)
    assert (mask[30:60] == 1).all() and mask[:30].max() == mask[60:].max() == 0


def test_the_share_of_ice_in_a_column_is_its_thickness_also_at_fractions_of_a_voxel() -> None:
    ice = Ice.flat(SHAPE, 20.3, (6.0, -4.0), 1.5, np.random.default_rng(0))
    np.testing.assert_allclose(ice.mask(SHAPE[0]).sum(0), ice.thickness, atol=1e-4)
    part = (slice(30, 60), slice(10, 40), slice(5, 25))
    np.testing.assert_array_equal(ice.mask_of(part), ice.mask(SHAPE[0])[part])


def test_a_tilted_slab_rises_along_y_and_falls_along_x_and_keeps_its_thickness_along_the_normal() -> None:
    about_x, about_y = 8.0, 5.0
    ice = Ice.flat((200, 120, 150), 30.0, (about_x, about_y))
    rise_y, rise_x = (np.diff(ice.top, axis=axis).mean() for axis in (0, 1))
    assert rise_y == pytest.approx(np.tan(np.deg2rad(about_x)), rel=1e-3)
    assert rise_x == pytest.approx(-np.tan(np.deg2rad(about_y)), rel=1e-3)
    normal_z = 1 / np.sqrt(1 + rise_y**2 + rise_x**2)
    np.testing.assert_allclose(ice.thickness * normal_z, 30.0, rtol=1e-3)


def test_the_surfaces_are_uneven_by_their_deviation_and_smooth() -> None:
    level = Ice.flat((300, 200, 200), 60.0)
    uneven = Ice.flat((300, 200, 200), 60.0, unevenness_vox=5.0, rng=np.random.default_rng(1))
    for surface, plane in ((uneven.top, level.top), (uneven.bottom, level.bottom)):
        assert (surface - plane).std() == pytest.approx(5.0, rel=0.02)
        assert np.abs(np.diff(surface, axis=0)).max() < 1.0
    assert not np.allclose(uneven.top - level.top, uneven.bottom - level.bottom)


def test_surfaces_never_cross_and_never_leave_the_box() -> None:
    ice = Ice.flat((40, 100, 100), 20.0, (30.0, 0.0), 15.0, np.random.default_rng(2))
    assert (ice.thickness >= 0).all() and ice.bottom.min() >= -0.5 and ice.top.max() <= 39.5


def test_molecules_lie_in_a_tilted_uneven_slab_and_fill_thick_and_thin_parts_alike() -> None:
    ice = Ice.flat((80, 120, 120), 24.0, (10.0, -12.0), 3.0, np.random.default_rng(3))
    sample = Sample.empty((80, 120, 120), 10.0, ice)
    fill(sample, Molecules({"ball": ball(60.0, 10.0)}, 10.0, 4), {"ball": 1500}, np.random.default_rng(4))
    xyz = np.array(sample.positions)
    x, y, z = (np.clip(np.round(xyz[:, i]).astype(int), 0, 119) for i in range(3))
    assert len(xyz) > 1000
    assert (xyz[:, 2] > ice.bottom[y, x] - 0.5).all() and (xyz[:, 2] < ice.top[y, x] + 0.5).all()
    assert np.corrcoef(z, ice.top[y, x])[0, 1] > 0.5, "they follow the tilt"
    # As many per volume where the ice is thick as where it is thin.
    thick = ice.thickness > np.median(ice.thickness)
    in_thick = thick[y, x].mean()
    assert in_thick == pytest.approx(ice.thickness[thick].sum() / ice.thickness.sum(), abs=0.05)
