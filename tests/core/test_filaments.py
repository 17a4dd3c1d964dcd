"""Filaments have the repeats, the handedness and the diameters of the real ones, and keep out of everything's way."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.simulation.filaments import (
    Path,
    actin_lattice,
    add_actin,
    add_microtubule,
    build,
    microtubule_lattice,
    random_path,
)
from tomotwin_core.simulation.ice import Ice
from tomotwin_core.simulation.membranes import add_vesicle
from tomotwin_core.simulation.sample import Sample
from tomotwin_core.structures import load_library


def straight(length_A: float, middle_A: float) -> Path:
    """Along z through the middle of a square field."""
    z = np.arange(0, length_A + 1, 20.0)
    return Path(np.stack([0 * z + middle_A, 0 * z + middle_A, z], axis=1), np.repeat(np.eye(3)[None], len(z), 0), 20.0)


def built(kind: str, length_A: float, voxel_A: float, side: int, protofilaments: int = 13) -> NDArray[np.float32]:
    """Density [z, y, x] with the filament along z, its plus end up."""
    sample = Sample.empty((int(length_A / voxel_A), side, side), voxel_A, length_A / voxel_A)
    lattice = actin_lattice(length_A) if kind == "actin" else microtubule_lattice(length_A, protofilaments)
    subunit = "subunit_actin" if kind == "actin" else "subunit_tubulin"
    found = build(sample, straight(length_A, (side - 1) / 2 * voxel_A), lattice, subunit)
    assert found is not None
    sample.volume[found[0]] += found[1]
    return sample.volume


def turned(section: NDArray[np.float32], angle_deg: float) -> NDArray[np.float64]:
    """Sections [..., y, x] turned from x towards y."""
    half = (section.shape[-1] - 1) / 2
    y, x = np.meshgrid(*(np.arange(n) - half for n in section.shape[-2:]), indexing="ij")
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    places = np.stack([-s * x + c * y, c * x + s * y]) + half
    return np.stack([ndimage.map_coordinates(plane, places, order=1) for plane in section])


def repeats_A(volume: NDArray[np.float32], voxel_A: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axial repeats in A and the power of their layer lines."""
    length = 4 * len(volume)
    window = np.hanning(len(volume))[:, None, None]
    power = (np.abs(np.fft.rfft(volume * window, n=length, axis=0)) ** 2).sum((1, 2))
    with np.errstate(divide="ignore"):
        return 1 / np.fft.rfftfreq(length, voxel_A), power


def strongest(volume: NDArray[np.float32], voxel_A: float, low: float, high: float) -> float:
    repeat, power = repeats_A(volume, voxel_A)
    within = (repeat > low) & (repeat < high)
    return float(repeat[within][power[within].argmax()])


def test_actin_has_layer_lines_at_59_and_51_A_and_a_rise_of_27_and_a_half() -> None:
    volume = built("actin", 2200.0, 5.5, 25)
    assert strongest(volume, 5.5, 55, 65) == pytest.approx(59.4, abs=0.5)
    assert strongest(volume, 5.5, 47, 54) == pytest.approx(51.0, abs=0.6)
    assert strongest(volume.sum((1, 2), keepdims=True), 5.5, 20, 40) == pytest.approx(27.5, abs=0.2)


def test_actin_turns_by_minus_166_6_degrees_from_subunit_to_subunit_not_by_plus() -> None:
    volume = built("actin", 660.0, 5.5, 25)[20:-20]
    lower, upper = volume[:-5], volume[5:]  # 27.5 A apart
    angles = np.arange(-180, 180, 2.0)
    alike = [np.corrcoef(turned(lower, a).ravel(), upper.ravel())[0, 1] for a in angles]
    assert max(alike) > 0.95
    assert angles[int(np.argmax(alike))] == pytest.approx(-166.6, abs=2.0)


def test_actin_weighs_what_its_subunits_weigh() -> None:
    volume = built("actin", 1100.0, 10.0, 17)
    mass_kDa = load_library().entries["subunit_actin"].mass_kDa
    assert mass_kDa == pytest.approx(42, abs=1)
    # 41 subunits, of which the box cuts the two at the ends in half.
    assert volume.sum() / 1000 == pytest.approx(40 * mass_kDa, rel=0.02)


@pytest.mark.parametrize("protofilaments", [13, 14])
def test_a_microtubule_is_25_nm_wide_with_a_lumen_and_13_or_14_protofilaments(protofilaments: int) -> None:
    volume = built("tubulin", 410.0, 5.0, 61, protofilaments)
    section = volume[20:-20].mean(0)
    y, x = np.meshgrid(*(np.arange(61) - 30.0,) * 2, indexing="ij")
    radius = np.hypot(y, x) * 5.0
    profile = ndimage.mean(section, np.round(radius / 5).astype(int), np.arange(30))
    dense = np.flatnonzero(profile > 0.5 * profile.max()) * 5.0
    wider = (protofilaments - 13) * 51.5 / (2 * np.pi)
    assert dense[-1] + 2.5 == pytest.approx(125 + wider, abs=7) and dense[0] - 2.5 == pytest.approx(85 + wider, abs=7)
    assert profile[:12].max() < 0.01 * profile.max(), "hollow"
    around = np.deg2rad(np.arange(0, 360, 1.0))
    ring = (107.0 + wider) / 5 * np.stack([np.sin(around), np.cos(around)]) + 30
    power = np.abs(np.fft.rfft(ndimage.map_coordinates(section, ring, order=1)))
    assert power[5:20].argmax() + 5 == protofilaments


def test_tubulin_repeats_every_41_A_along_the_protofilament_and_the_dimer_every_82() -> None:
    volume = built("tubulin", 1148.0, 5.0, 61)
    assert strongest(volume, 5.0, 30, 60) == pytest.approx(41.0, abs=0.3)
    assert strongest(volume, 5.0, 76, 88) == pytest.approx(82.0, abs=1.0)


def test_neighbouring_protofilaments_rise_by_9_5_A_in_a_left_handed_helix() -> None:
    volume = built("tubulin", 492.0, 4.1, 75)[20:-20]
    power = np.fft.rfft(volume, axis=0)
    turned_power = np.fft.rfft(turned(volume, 360 / 13), axis=0)
    line = round(len(volume) * 4.1 / 41.0)
    phase = np.angle((power[line] * np.conj(turned_power[line])).sum())
    # Turned by one protofilament it looks as if moved down: a phase of +2 pi 9.46 / 41.
    rise_A = phase / (2 * np.pi) * 41.0
    assert rise_A == pytest.approx(-9.46, abs=0.5) or rise_A == pytest.approx(9.46, abs=0.5)
    moved = np.roll(turned(volume, 360 / 13), -2, axis=0)  # 8.2 A down
    other = np.roll(turned(volume, 360 / 13), 2, axis=0)
    inner = slice(10, -10)
    down, up = (np.corrcoef(v[inner].ravel(), volume[inner].ravel())[0, 1] for v in (moved, other))
    assert down > 0.97 and down > up + 0.05, "left-handed: counterclockwise neighbours lie lower"


def test_the_lattice_of_13_protofilaments_has_one_seam() -> None:
    lattice = microtubule_lattice(820.0, 13)
    which = np.round(lattice.angle_rad * 13 / (2 * np.pi)).astype(int)
    lowest = np.array([lattice.height_A[which == i].min() for i in range(13)])
    step = np.diff(np.append(lowest, lowest[0])) % 82
    np.testing.assert_allclose(step[:-1], 82 - 9.46, atol=0.1)
    assert step[-1] == pytest.approx((3 * 41 - 9.46) % 82, abs=0.1), "alpha meets beta there"


def test_a_path_keeps_its_direction_for_the_persistence_length() -> None:
    sample = Sample.empty((400, 400, 400), 10.0, 400)
    rng, persistence = np.random.default_rng(1), 3000.0
    cosines = []
    for _ in range(60):
        path = random_path(sample, rng, persistence)
        if len(path.points_A) > 51:
            cosines.append(path.frames[0, :, 2] @ path.frames[50, :, 2])
        assert np.abs(path.frames @ path.frames.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
        steps = np.diff(path.points_A, axis=0) / 20.0
        np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 1.0, atol=1e-9)
        assert (steps * path.frames[:-1, :, 2]).sum(1).min() > 0.9
    assert np.mean(cosines) == pytest.approx(np.exp(-1000.0 / persistence), abs=0.08)


def test_filaments_lie_in_the_ice_both_ways_round_without_overlap_and_are_listed_with_their_paths() -> None:
    ice = Ice.flat((50, 160, 160), 36.0, (3.0, 0.0))
    sample = Sample.empty((50, 160, 160), 10.0, ice)
    rng = np.random.default_rng(2)
    assert add_vesicle(sample, rng, 300.0) is not None
    added = [add_microtubule(sample, rng), *(add_actin(sample, rng) for _ in range(8))]
    assert added[0] and sum(added) >= 6
    assert sample.n_taken == (sample.labels > 0).sum(), "each body has voxels of its own"
    assert [f.name for f in sample.filaments].count("actin") == sum(added[1:])
    for filament in sample.filaments:
        assert sample.structures[filament.label - 1] == filament.name
        x, y = (np.clip(np.round(filament.path[:, i]).astype(int), 0, 159) for i in (0, 1))
        assert (filament.path[:, 2] >= ice.bottom[y, x]).all() and (filament.path[:, 2] <= ice.top[y, x]).all()
        own = np.argwhere(sample.labels == filament.label)[:, ::-1]
        distance = np.linalg.norm(own[::7, None] - filament.path[None], axis=2).min(1) * 10.0
        assert np.quantile(distance, 0.95) < (150 if filament.name == "microtubule" else 60)
        if filament.name == "microtubule":
            assert np.quantile(distance, 0.05) > 70, "hollow"


def test_polarity_and_direction_are_random() -> None:
    sample = Sample.empty((60, 50, 50), 10.0, 60)
    rng = np.random.default_rng(3)
    along = np.array([random_path(sample, rng, 1e6).frames[0, :, 2] for _ in range(300)])
    assert np.abs(along.mean(0)[:2]).max() < 0.15 and np.abs(along[:, 2]).max() < np.sin(np.deg2rad(10))
    assert np.abs(np.linalg.norm(along, axis=1) - 1).max() < 1e-9


def test_the_tubulin_dimer_stands_along_the_protofilament_with_its_outer_ridge_outwards() -> None:
    density = load_library().density("subunit_tubulin")
    half = (density.values.shape[0] - 1) / 2
    index = np.argwhere(density.values > 0.2 * density.values.max())[:, ::-1] - half
    assert np.ptp(index, axis=0).argmax() == 2, "82 A along z, less across"
    # The ridge makes a protofilament narrower outside than inside.
    width = [np.ptp(index[(np.abs(index[:, 0] - x) < 1), 1]) for x in (-3.0, 4.0)]
    assert width[0] > width[1]
