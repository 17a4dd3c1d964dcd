"""Samples: what lies where in which orientation is what the truth says."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from tomotwin_core.errors import UserError
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import simulate_tomogram
from tomotwin_core.simulation.furniture import add_gold
from tomotwin_core.simulation.membranes import add_vesicle
from tomotwin_core.simulation.molecules import Molecules, RotatedCopy
from tomotwin_core.simulation.sample import Sample, crowding, fill
from tomotwin_core.structures import Density, density_from_points

# Four balls on arms of different length, a handed arrangement: no rotation makes it its mirror image.
ARMS_A = np.array([[0.0, 0, 0], [90, 0, 0], [0, 60, 0], [0, 0, 40]])
BALLS_KDA = np.array([150.0, 130, 110, 90])
CLEAR = Acquisition(dose_e_per_A2=2000.0, shift_error_A=0.0, ice_noise=0.0, tilt_step_deg=3.0, defocus_um=1.5)


def handed(scale: float = 1.0) -> Density:
    points = np.random.default_rng(0).normal(0, 9 * scale, (60, 1, 3)) + scale * ARMS_A
    mass = np.broadcast_to(1000 * BALLS_KDA / 60, points.shape[:2])
    return density_from_points(points.reshape(-1, 3), mass.reshape(-1), 5.0)


def ball(kDa: float = 500.0, sigma_A: float = 25.0) -> Density:
    points = np.random.default_rng(1).normal(0, sigma_A, (400, 3))
    return density_from_points(points, np.full(400, kDa * 1000 / 400), 5.0)


def mirrored(density: Density) -> Density:
    return Density(density.values[:, :, ::-1].copy(), density.voxel_size_A, density.sigma_A)


def turned_back(
    volume: NDArray[np.float32], centre_xyz: NDArray[np.float64], rotation: NDArray[np.float64], voxel_A: float
) -> NDArray[np.float32]:
    """A box of 45^3 at 5 A about a place, turned by R^T into the reference's frame."""
    axis = np.arange(-22, 23) * 5.0 / voxel_A
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    places = rotation @ np.stack([x, y, z]).reshape(3, -1) + np.asarray(centre_xyz)[:, None]
    return np.asarray(ndimage.map_coordinates(volume, places[::-1], order=1).reshape(z.shape), np.float32)


def boxed(density: Density) -> NDArray[np.float32]:
    missing = (45 - density.values.shape[0]) // 2
    return np.pad(density.values, missing) if missing >= 0 else density.values[(slice(-missing, missing),) * 3]


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("variants", [0, 2])
def test_a_copy_has_the_orientation_the_place_and_the_mass_that_it_claims(variants: int) -> None:
    density, rng = handed(), np.random.default_rng(2)
    molecules = Molecules({"handed": density, "mirror": mirrored(density)}, 5.0, variants)
    for _ in range(6):
        copy = molecules.copy("handed", rng)
        assert copy.values.sum() == pytest.approx(density.mass_kDa * 1000, rel=1e-3)
        assert np.linalg.det(copy.rotation) == pytest.approx(1.0, abs=1e-6)
        middle = (np.array(copy.values.shape[::-1]) - 1) / 2 + copy.offset_vox
        back = turned_back(copy.values, middle, copy.rotation, 5.0)
        assert correlation(back, boxed(density)) > 0.97
        assert correlation(back, boxed(mirrored(density))) < 0.85
        assert np.array_equal(copy.body, copy.values > 0.2 * copy.values.max())


def test_a_long_molecule_is_not_cut_when_it_is_turned_out_of_its_boxs_diagonal() -> None:
    along = np.linspace(-100, 100, 201)[:, None] * np.ones(3) / np.sqrt(3)
    rod = density_from_points(along, np.full(201, 500.0), 5.0)
    molecules, rng = Molecules({"rod": rod}, 10.0), np.random.default_rng(3)
    for _ in range(10):
        copy = molecules.copy("rod", rng)
        direction = copy.rotation @ np.ones(3) / np.sqrt(3)
        middle = (np.array(copy.values.shape[::-1]) - 1) / 2 + copy.offset_vox
        ends = [middle + s * 90 / 10 * direction for s in (-1, 1)]
        at_ends = ndimage.map_coordinates(copy.values, np.transpose(ends)[::-1], order=1)
        assert at_ends.min() > 0.2 * copy.values.max()


@pytest.mark.parametrize("variants", [0, 3])
def test_orientations_are_uniform_on_so3(variants: int) -> None:
    molecules, rng = Molecules({"ball": ball(100.0, 8.0)}, 20.0, variants), np.random.default_rng(4)
    rotations = np.array([molecules.copy("ball", rng).rotation for _ in range(1500)])
    np.testing.assert_allclose(rotations.mean(0), 0.0, atol=0.06)
    assert np.trace(rotations, axis1=1, axis2=2).mean() == pytest.approx(0.0, abs=0.1)
    if not variants:
        # The third axis is uniform on the sphere, so its z in -1 .. 1; the angle t of the turn from any orientation has the
        # distribution (t - sin t) / pi (Miles 1965); and quaternions fill the 3-sphere evenly, of which each number squared
        # is Beta(1/2, 3/2).
        assert stats.kstest(rotations[:, 2, 2], "uniform", (-1, 2)).pvalue > 0.01
        for reference in (Rotation.identity(), Rotation.from_euler("zyz", [1.0, 2.0, 0.3])):
            turns = Rotation.from_matrix(rotations) * reference.inv()
            assert stats.kstest(turns.magnitude(), lambda t: (t - np.sin(t)) / np.pi).pvalue > 0.01
        for number in Rotation.from_matrix(rotations).as_quat().T:
            assert stats.kstest(number**2, stats.beta(0.5, 1.5).cdf).pvalue > 0.01
    else:  # 24 orientations of the cube for every variant, all of them used
        assert len(np.unique(rotations.round(5), axis=0)) == 24 * variants


def test_no_two_bodies_overlap_in_a_crowd_with_vesicles_and_gold() -> None:
    sample = Sample.empty((40, 100, 100), 10.0, 36)
    rng = np.random.default_rng(5)
    vesicles = sum(add_vesicle(sample, rng) is not None for _ in range(6))
    beads = sum(add_gold(sample, rng) for _ in range(5))
    molecules = Molecules({"ball": ball(2000.0, 40.0), "handed": handed()}, 10.0)
    fill(sample, molecules, {"ball": 40, "handed": 60}, rng)
    assert vesicles and beads
    assert sample.n_taken == (sample.labels > 0).sum(), "each body has voxels of its own"
    assert sample.names.count("gold") == beads and sample.names.count("handed") > 20
    assert sample.names.index("ball") < sample.names.index("handed"), "large ones go first"
    z = np.array(sample.positions)[:, 2]
    assert z.min() >= sample.ice.bottom.min() and z.max() <= sample.ice.top.max()


def test_filling_stops_at_the_share_that_is_asked_for() -> None:
    sample, rng = Sample.empty((30, 80, 80), 10.0, 30), np.random.default_rng(6)
    fill(sample, Molecules({"ball": ball()}, 10.0), {"ball": 1000}, rng, occupied=0.1)
    assert 0.1 <= sample.occupied_fraction < 0.11


def test_looking_for_the_room_that_is_left_places_more_than_trying_at_random() -> None:
    molecules = Molecules({"ball": ball(400.0, 18.0)}, 10.0, 8)
    placed = []
    for dense in (False, True):
        sample = Sample.empty((30, 50, 50), 10.0, 30)
        fill(sample, molecules, {"ball": 230}, np.random.default_rng(6), dense=dense)
        assert sample.n_taken == np.count_nonzero(sample.labels)
        placed.append(len(sample.names))
    assert placed[1] > 1.05 * placed[0]


def test_balls_are_crowded_up_to_the_jamming_limit_of_random_placement() -> None:
    # Equal spheres put down at random jam at 0.38 of the volume (Widom 1966); random placement gets near it.
    half = 3
    z, y, x = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    body = z**2 + y**2 + x**2 <= 3.3**2
    copy = RotatedCopy(body.astype(np.float32), body, np.eye(3), np.zeros(3))
    sample, rng = Sample.empty((45, 45, 45), 10.0, 45), np.random.default_rng(7)
    for _ in range(400):
        if not sample.place("ball", copy, rng):
            room = sample.free_places(copy.inner_radius_vox(), rng)
            if not len(room) or not sample.place("ball", copy, rng, room):
                break
    assert 0.30 < sample.occupied_fraction < 0.42


def test_crowding_tells_the_share_the_concentration_and_the_nearest_neighbours() -> None:
    sample = Sample.empty((50, 50, 50), 10.0, 40)
    body = np.ones((3, 3, 3), bool)
    copy = RotatedCopy(body.astype(np.float32), body, np.eye(3), np.array([0.25, 0.0, 0.0]))
    for at in ((20, 20, 10), (20, 20, 22), (20, 40, 22), (30, 8, 40)):
        assert sample.put("cube", copy, np.array(at))
    assert not sample.put("cube", copy, np.array((20, 20, 11))), "taken"
    found = crowding(sample, {"cube": 100.0})
    assert found.occupied == pytest.approx(4 * 27 / (50 * 50 * 40))
    np.testing.assert_allclose(np.sort(found.nearest_A), [120, 120, 200, np.sqrt(100**2 + 120**2 + 180**2)])
    assert found.concentration_g_per_L == pytest.approx(4 * 1e5 / (50 * 50 * 40 * 1e3) * 1660.54, rel=1e-4)


def test_labels_number_the_bodies_in_the_order_of_the_structures() -> None:
    sample, rng = Sample.empty((40, 80, 80), 10.0, 40), np.random.default_rng(8)
    molecules = Molecules({"ball": ball(), "handed": handed()}, 10.0)
    fill(sample, molecules, {"ball": 4, "handed": 5}, rng)
    assert sample.structures == sample.names and sample.particle_labels == list(range(1, len(sample.names) + 1))
    middles = ndimage.center_of_mass(sample.labels > 0, sample.labels, sample.particle_labels)
    whole = [i for i, p in enumerate(sample.positions) if (p > 14).all() and (p < np.array([65, 65, 25])).all()]
    assert whole
    for i in whole:
        np.testing.assert_allclose(middles[i][::-1], sample.positions[i], atol=1.5)


def test_more_bodies_than_labels_are_refused_in_one_sentence() -> None:
    sample = Sample.empty((20, 20, 20), 10.0, 20)
    sample.structures = ["thing"] * 65535
    with pytest.raises(UserError, match="fewer copies"):
        sample.claim("one more", (slice(0, 1),) * 3, np.ones((1, 1, 1), bool))


def test_the_truth_is_the_centre_of_mass_in_the_noise_free_sample() -> None:
    molecules, rng = Molecules({"handed": handed()}, 10.0), np.random.default_rng(7)
    for _ in range(5):
        sample = Sample.empty((50, 60, 70), 10.0, 10)
        assert sample.place("handed", molecules.copy("handed", rng), rng)
        position = sample.positions[0]
        if (position > 14).all() and (position < np.array(sample.volume.shape[::-1]) - 15).all():
            np.testing.assert_allclose(ndimage.center_of_mass(sample.volume)[::-1], position, atol=0.1)


def test_a_copy_at_the_rim_is_cut_and_not_wrapped_round() -> None:
    sample = Sample.empty((21, 21, 21), 10.0, 21)
    values = np.ones((41, 41, 41), np.float32)
    assert sample.place("huge", RotatedCopy(values, values > 0, np.eye(3), np.zeros(3)), np.random.default_rng(8))
    assert sample.volume.max() == 1.0
    assert sample.n_taken == (sample.labels == 1).sum() == sample.volume.sum()


def test_particles_are_dark_at_the_truth_and_turn_back_to_their_density_not_to_its_mirror_image() -> None:
    density = handed(1.4)
    settings = SampleSettings((44, 104, 104), 8.0, 300.0, 20, occupied=0.5)
    made = simulate_tomogram(Molecules({"handed": density}, 8.0), settings, CLEAR, np.random.default_rng(9), "t")
    assert made.volume.shape == settings.shape and len(made.truth) >= 4 and made.truth.rotation is not None
    assert set(made.truth.label) == {"handed"} and made.truth.tomogram == "t"
    blurred = ndimage.gaussian_filter(made.volume, 2)
    at_truth = ndimage.map_coordinates(blurred, made.truth.xyz.T[::-1], order=1)
    assert np.median(at_truth) < np.quantile(blurred, 0.1), "protein is dark"
    whole = [
        (p, r)
        for p, r in zip(made.truth.xyz, made.truth.rotation, strict=True)
        if (p > 6).all() and (p < np.array(settings.shape[::-1]) - 7).all()
    ]
    assert len(whole) >= 3
    turned = np.mean([turned_back(-made.volume, p, r, 8.0) for p, r in whole], axis=0)
    # The average over orientations has no missing wedge left, only the transfer of the microscope.
    right, wrong = (correlation(turned, boxed(d)) for d in (density, mirrored(density)))
    assert right > wrong + 0.1 and right > 0.6


def test_settings_that_cannot_be_are_refused() -> None:
    for shape, voxel_size_A in (((8, 64, 64), 10.0), ((64, 64, 5000), 10.0), ((64, 64, 64), 0.0), ((64, 64, 64), 90.0)):
        with pytest.raises(UserError, match="must lie within"):
            SampleSettings(shape, voxel_size_A, 100.0)
