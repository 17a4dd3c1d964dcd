"""Membranes and what sits in them: bilayers of the right profile, proteins the right way round, no lipid inside them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

from tomotwin_core.simulation.membranes import Ellipsoid, Membrane, Sheet, add_sheet, add_vesicle, draw, seat
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample, fill
from tomotwin_core.structures import Density, density_from_points
from tomotwin_core.structures.membrane_frame import MembraneFrame

NORMAL, CENTRE_A = np.array([0.6, 0.0, 0.8]), np.array([-20.0, 5.0, -25.0])


def mushroom() -> Density:
    """A membrane protein: a stalk through the bilayer about CENTRE_A and a large head beyond it, along NORMAL."""
    rng = np.random.default_rng(0)
    stalk = rng.uniform(-1, 1, (400, 3)) * (12, 12, 22)
    head = rng.normal(0, 12, (900, 3)) + (0, 0, 55)
    points = np.concatenate([stalk, head]) - (0, 0, 55 * 900 / 1300)
    across = np.cross([0.0, 1.0, 0.0], NORMAL)
    turned = points @ np.stack([across, np.cross(NORMAL, across), NORMAL])
    density = density_from_points(turned, np.full(1300, 100.0), 5.0)
    centre = -55 * 900 / 1300 * NORMAL
    return Density(
        density.values, 5.0, density.sigma_A, MembraneFrame((0.6, 0.0, 0.8), (centre[0], centre[1], centre[2]))
    )


MOLECULES = Molecules({"mushroom": mushroom(), "ball": density_from_points(np.random.default_rng(1).normal(0, 15, (300, 3)), np.full(300, 500.0), 5.0)}, 8.0)  # fmt: skip


def sphere(sample: Sample, radius_A: float) -> Ellipsoid:
    middle = (np.array(sample.volume.shape[::-1]) - 1) / 2 * sample.voxel_size_A
    return Ellipsoid(middle, np.full(3, radius_A), np.eye(3))


def flat(sample: Sample) -> Sheet:
    middle = (np.array(sample.volume.shape[::-1]) - 1) / 2 * sample.voxel_size_A
    axes = np.stack([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], axis=1)
    return Sheet(middle, axes, np.zeros(0), np.zeros((0, 2)), np.zeros(0))


def with_proteins(side: str, copies: int = 60) -> tuple[Sample, Membrane]:
    sample = Sample.empty((90, 90, 90), 8.0, 90)
    membrane = draw(sample, sphere(sample, 250.0), "vesicle")
    assert membrane is not None
    rng = np.random.default_rng(2)
    for _ in range(copies):
        seat(sample, membrane, MOLECULES, "mushroom", rng, side)
    return sample, membrane


def seats(sample: Sample, membrane: Membrane) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of every protein: distance of its bilayer's middle from the membrane's, angle of its normal to the membrane's (deg),
    and how far outside its centre of mass lies."""
    frame = MOLECULES.densities["mushroom"].membrane
    assert frame is not None
    com = np.array(sample.positions) * sample.voxel_size_A
    turns = np.array(sample.rotations)
    distance, normal = membrane.surface(com + turns @ np.array(frame.centre_A))
    cosine = ((turns @ np.array(frame.normal)) * normal).sum(1)
    return distance, np.rad2deg(np.arccos(np.clip(cosine, -1, 1))), membrane.surface(com)[0]


def test_a_bilayer_has_two_dense_leaflets_38_A_apart_about_light_chains() -> None:
    sample = Sample.empty((40, 40, 120), 2.0, 40)
    assert draw(sample, flat(sample), "membrane")
    profile = sample.volume[20, 20] / 8.0
    x = (np.arange(120) - 59.5) * 2.0
    heads = [x[i] for i in range(1, 119) if profile[i] > max(profile[i - 1], profile[i + 1], 0.3)]
    np.testing.assert_allclose(np.abs(heads), 19.0, atol=2.0)
    assert profile[59:61].max() < 0 < 0.4 < profile.max() < 0.65
    assert abs(profile[np.abs(x) > 45]).max() < 0.01, "nothing beyond"


def test_coarse_voxels_keep_what_a_bilayer_scatters() -> None:
    sums = []
    for voxel_A in (2.0, 5.0, 10.0):
        side = int(240 / voxel_A)
        sample = Sample.empty((16, 16, side), voxel_A, 16)
        assert draw(sample, flat(sample), "membrane")
        sums.append(sample.volume[8, 8].sum() / voxel_A**2)
    np.testing.assert_allclose(sums, sums[0], rtol=0.02)


def test_distances_from_a_squashed_vesicle_are_those_to_its_surface() -> None:
    surface = Ellipsoid(np.zeros(3), np.array([400.0, 350.0, 250.0]), np.eye(3))
    rng = np.random.default_rng(3)
    direction = rng.normal(size=(200, 3))
    on = direction / np.linalg.norm(direction / surface.radii_A, axis=1)[:, None]
    _, normal = surface(on)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1.0, rtol=1e-9)
    for distance in (-25.0, 0.0, 25.0):
        np.testing.assert_allclose(surface(on + distance * normal)[0], distance, atol=2.0)


def test_points_lie_on_the_surface_all_over_it_with_normals_outwards() -> None:
    sample = Sample.empty((90, 90, 90), 8.0, 90)
    membrane = draw(sample, sphere(sample, 250.0), "vesicle")
    assert membrane is not None
    points, normals = membrane.points(3000, np.random.default_rng(4))
    outwards = (points - 44.5) / np.linalg.norm(points - 44.5, axis=1)[:, None]
    np.testing.assert_allclose(np.linalg.norm(points - 44.5, axis=1) * 8.0, 250.0, atol=0.5)
    np.testing.assert_allclose((outwards * normals).sum(1), 1.0, atol=1e-3)
    # Uniform on a sphere: each coordinate is uniform.
    assert all(np.abs(np.sort(n) - np.linspace(-1, 1, 3000)).max() < 0.06 for n in outwards.T)


def test_vesicles_are_closed_and_inside_the_ice_and_squashed_where_it_is_thin() -> None:
    for seed, thickness in ((5, 90), (6, 50)):
        sample = Sample.empty((100, 140, 140), 10.0, thickness)
        rng = np.random.default_rng(seed)
        sample.labels[:, :, [0, 1, -2, -1]] = sample.labels[:, [0, 1, -2, -1]] = 9  # keeps it off the sides
        membrane = add_vesicle(sample, rng, 300.0)
        assert membrane is not None
        own = sample.labels == membrane.label
        z = np.flatnonzero(own.any(axis=(1, 2)))
        assert z[0] > sample.ice.bottom.max() and z[-1] < sample.ice.top.min()
        count = ndimage.label(~own)[1]
        assert count == 2, "an inside and an outside"
        heights = np.ptp(np.argwhere(own), axis=0) + 1
        assert heights[0] < thickness and heights[1:].max() == pytest.approx(65, abs=3)


def test_a_cut_vesicle_reaches_through_the_faces_of_thin_ice() -> None:
    sample = Sample.empty((60, 140, 140), 10.0, 30)
    membrane = add_vesicle(sample, np.random.default_rng(7), 500.0, cut=True)
    assert membrane is not None
    z = np.argwhere(sample.labels == membrane.label)[:, 0]
    assert z.min() == 15 and z.max() == 44 and sample.volume[:15].max() == sample.volume[45:].max() == 0


def test_sheets_run_through_the_field_flat_or_curved() -> None:
    for curved in (False, True):
        sample = Sample.empty((40, 150, 150), 10.0, 40)
        sheet = add_sheet(sample, np.random.default_rng(1), curved)
        assert sheet is not None
        xyz, normals = sheet.points(400, np.random.default_rng(9))
        spread = np.linalg.svd(xyz - xyz.mean(0), compute_uv=False)[2] / 20  # deviation from a plane, voxels
        assert (spread > 1.0) if curved else (spread < 0.1)
        assert np.abs(normals[:, 2]).mean() < 0.8, "steep in the ice"
        assert np.ptp(np.argwhere(sample.labels)[:, 1:], axis=0).max() > 120


@pytest.mark.parametrize("side", ["outside", "inside"])
def test_proteins_sit_in_the_bilayer_upright_on_the_side_that_is_asked_for(side: str) -> None:
    sample, membrane = with_proteins(side)
    assert len(sample.names) >= 25
    distance, angle, beyond = seats(sample, membrane)
    assert np.abs(distance).max() < 2.0
    if side == "outside":
        assert angle.max() < 2.0 and beyond.min() > 20
    else:
        assert angle.min() > 178.0 and beyond.max() < -20


def test_with_sides_at_random_both_are_taken() -> None:
    sample, membrane = with_proteins("random")
    _, angle, beyond = seats(sample, membrane)
    assert np.minimum(angle, 180 - angle).max() < 2.0
    assert 0.25 < (beyond > 0).mean() < 0.75


def test_proteins_are_turned_about_the_normal_at_random_and_lie_all_over_the_vesicle() -> None:
    spins, directions = [], []
    sample = Sample.empty((90, 90, 90), 8.0, 90)
    membrane = draw(sample, sphere(sample, 250.0), "vesicle")
    assert membrane is not None
    rng = np.random.default_rng(10)
    across = np.cross([0.0, 1.0, 0.0], NORMAL)
    for _ in range(250):
        one = Sample(sample.volume.copy(), 8.0, sample.labels.copy(), sample.ice, list(sample.structures))
        assert seat(one, membrane, MOLECULES, "mushroom", rng)
        up = one.rotations[0] @ NORMAL
        about = np.cross([0.0, 0.0, 1.0], up)
        about /= np.linalg.norm(about)
        turned = one.rotations[0] @ across
        spins.append(np.arctan2(turned @ np.cross(up, about), turned @ about))
        directions.append(up[2])
    assert stats.kstest(np.array(spins) / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    assert stats.kstest(np.array(directions), "uniform", (-1, 2)).pvalue > 0.01


def test_there_is_no_lipid_where_the_protein_is_and_all_of_it_elsewhere() -> None:
    sample = Sample.empty((60, 60, 60), 8.0, 60)
    membrane = draw(sample, flat(sample), "membrane")
    assert membrane is not None
    lipid = sample.volume.copy()
    assert seat(sample, membrane, MOLECULES, "mushroom", np.random.default_rng(11))
    centre = np.round(sample.positions[0]).astype(int)
    copy = MOLECULES.turned("mushroom", sample.rotations[0], sample.positions[0] - centre)
    protein = np.zeros(sample.volume.shape, np.float32)
    half = copy.values.shape[0] // 2
    low = centre[::-1] - half
    cut = tuple(slice(max(-a, 0), min(n - a, 2 * half + 1)) for a, n in zip(low, protein.shape, strict=True))
    into = tuple(slice(max(a, 0), min(a + 2 * half + 1, n)) for a, n in zip(low, protein.shape, strict=True))
    protein[into] = copy.values[cut]
    body = sample.labels == 2
    left = sample.volume - protein
    assert np.count_nonzero(body & (np.abs(lipid) > 0.2 * lipid.max())) > 20, "it is in the membrane"
    assert np.abs(left[body]).max() < 0.01 * lipid.max()
    away = protein == 0
    np.testing.assert_allclose(left[away], lipid[away], atol=1e-4 * lipid.max())


def test_nothing_overlaps_in_a_sample_with_crowded_membranes() -> None:
    sample, membrane = with_proteins("outside")
    before = sample.n_taken
    fill(sample, MOLECULES, {"ball": 100}, np.random.default_rng(12))
    assert sample.n_taken == (sample.labels > 0).sum() > before
    assert sample.structures[0] == "vesicle" and membrane.label == 1
    for name, position, label in zip(sample.names, sample.positions, sample.particle_labels, strict=True):
        assert sample.structures[label - 1] == name
        own = np.argwhere(sample.labels == label)[:, ::-1]
        assert np.linalg.norm(own.mean(0) - position) < 2.5, "the label lies where the truth says"


def test_a_membrane_is_not_drawn_through_what_is_there() -> None:
    sample = Sample.empty((40, 40, 40), 10.0, 40)
    sample.claim("thing", (slice(18, 22),) * 3, np.ones((4, 4, 4), bool))
    assert draw(sample, flat(sample), "membrane") is None
    assert sample.volume.max() == 0 and sample.structures == ["thing"]


def test_a_soluble_molecule_has_no_seat() -> None:
    sample = Sample.empty((40, 40, 40), 10.0, 40)
    membrane = draw(sample, flat(sample), "membrane")
    assert membrane is not None
    assert not seat(sample, membrane, MOLECULES, "ball", np.random.default_rng(13))
