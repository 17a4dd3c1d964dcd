"""A sample from its settings: everything that is asked for, nothing on top of anything else, labels as the truth says."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from test_membranes import MOLECULES
from test_sample import ball

from tomotwin_core.errors import UserError
from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.furniture import add_carbon_edge, contrast_Da_per_A3
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample

FULL = SampleSettings(
    (48, 130, 130), 8.0, 340.0, {"mushroom": 12, "ball": 30}, vesicles=2, gold=3, membranes=1, actin=2, microtubules=1,
    carbon_A=120.0, slab_tilt_deg=(3.0, -2.0), ice_unevenness_A=20.0, vesicle_radius_A=(150.0, 250.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def full() -> Sample:
    return build_sample(FULL, MOLECULES, np.random.default_rng(3), margin_vox=8)


def test_everything_that_is_asked_for_is_there_and_labelled(full: Sample) -> None:
    assert full.volume.shape == full.labels.shape == (48, 130, 146)
    assert full.labels.dtype == np.uint16 and full.volume.dtype == np.float32
    counted = Counter(full.structures)
    assert counted["carbon"] == 1 and counted["gold"] == 3 and counted["vesicle"] >= 1
    assert counted["membrane"] + counted["microtubule"] + counted["actin"] >= 2
    assert counted["ball"] == 30 and counted["mushroom"] >= 6
    assert set(np.unique(full.labels)) == set(range(len(full.structures) + 1)), (
        "every label has voxels, every voxel a name"
    )


def test_each_voxel_belongs_to_one_body_and_each_label_to_its_particle(full: Sample) -> None:
    assert full.n_taken == np.count_nonzero(full.labels)
    assert len(full.names) == len(full.positions) == len(full.rotations) == len(full.particle_labels)
    boxes = ndimage.find_objects(full.labels)
    for name, position, label in zip(full.names, full.positions, full.particle_labels, strict=True):
        assert full.structures[label - 1] == name
        low, high = np.array([(s.start, s.stop) for s in boxes[label - 1]]).T[:, ::-1]
        assert (position > low - 2).all() and (position < high + 1).all()


def test_the_field_is_full_of_density_where_labels_are(full: Sample) -> None:
    for name in ("ball", "gold", "carbon", "mushroom"):
        own = np.isin(full.labels, [i + 1 for i, n in enumerate(full.structures) if n == name])
        assert full.volume[own].mean() > 5 * np.abs(full.volume[full.labels == 0]).mean(), name


def test_the_same_generator_gives_the_same_sample_and_another_another() -> None:
    small = replace(FULL, shape=(32, 64, 64), thickness_A=230.0, carbon_A=0.0, microtubules=0)
    first, same, other = (build_sample(small, MOLECULES, np.random.default_rng(seed), 4) for seed in (4, 4, 5))
    assert np.array_equal(first.volume, same.volume) and first.structures == same.structures
    assert not np.array_equal(first.volume, other.volume)


@pytest.mark.parametrize(("where", "vesicles", "seated"), [("auto", 2, True), ("auto", 0, False), ("free", 2, False)])
def test_membrane_proteins_go_where_the_setting_says(where: Any, vesicles: int, seated: bool) -> None:
    settings = SampleSettings(
        (60, 90, 90), 8.0, 470.0, {"mushroom": 15}, vesicles=vesicles, membrane_proteins=where,
        vesicle_radius_A=(180.0, 180.0),
    )  # fmt: skip
    sample = build_sample(settings, MOLECULES, np.random.default_rng(6))
    assert len(sample.names) >= 5
    lipid = np.isin(sample.labels, [i + 1 for i, n in enumerate(sample.structures) if n == "vesicle"])
    proteins = np.isin(sample.labels, sample.particle_labels)
    touching = ndimage.binary_dilation(lipid) & proteins
    # A seated one is surrounded by lipid.
    share = np.count_nonzero(touching) / np.count_nonzero(proteins)
    assert (share > 0.08) if seated else (share < 0.02)


def test_seated_proteins_without_a_membrane_are_refused_in_one_sentence() -> None:
    settings = SampleSettings((32, 64, 64), 8.0, 200.0, 5, membrane_proteins="seated")
    with pytest.raises(UserError, match="no membrane for mushroom"):
        build_sample(settings, MOLECULES, np.random.default_rng(7))
    soluble = Molecules({"ball": ball()}, 8.0)
    assert build_sample(settings, soluble, np.random.default_rng(7)).names, "nothing to seat, nothing to refuse"


def test_counts_per_species_are_kept_and_unknown_ones_refused() -> None:
    names = [f"species{i}" for i in range(20)]
    molecules = Molecules({n: ball(60.0 + i, 10.0) for i, n in enumerate(names)}, 10.0)
    copies = {n: 1 + i % 4 for i, n in enumerate(names)} | {names[0]: 0}
    settings = SampleSettings((40, 110, 110), 10.0, 380.0, copies)
    sample = build_sample(settings, molecules, np.random.default_rng(8))
    assert Counter(sample.names) == {n: c for n, c in copies.items() if c}
    with pytest.raises(UserError, match="copies of nothing: no such molecule"):
        build_sample(replace(settings, copies={"nothing": 3}), molecules, np.random.default_rng(8))
    with pytest.raises(UserError, match="give 0 or a positive number"):
        build_sample(replace(settings, copies={names[1]: -1}), molecules, np.random.default_rng(8))


def test_gold_has_the_diameters_and_the_contrast_that_are_asked_for() -> None:
    settings = SampleSettings((40, 80, 80), 5.0, 200.0, 0, gold=12, gold_diameter_A=(60.0, 100.0))
    sample = build_sample(settings, Molecules({"ball": ball()}, 5.0), np.random.default_rng(9))
    assert sample.names == ["gold"] * 12
    gold = 5.8 * 5.0**3
    assert sample.volume.max() == pytest.approx(gold, rel=0.02)
    inside = [x for x, p in zip(sample.particle_labels, sample.positions, strict=True) if (np.abs(p[:2] - 40) < 28).all() and abs(p[2] - 20) < 9]  # fmt: skip
    volumes = [sample.volume[sample.labels == i].sum() / gold * 125 for i in inside]
    diameters = (np.array(volumes) * 6 / np.pi) ** (1 / 3)
    assert len(inside) >= 2 and diameters.min() > 57 and diameters.max() < 103


def test_a_carbon_film_covers_its_share_of_the_field_at_the_bottom_of_the_ice_with_a_grain() -> None:
    sample = Sample.empty((60, 160, 160), 5.0, 50)
    assert add_carbon_edge(sample, np.random.default_rng(10), 150.0, 0.3)
    film = sample.labels > 0
    covered = film.any(axis=0)
    assert covered.mean() == pytest.approx(0.3, abs=0.03)
    heights = film.sum(0)[ndimage.binary_erosion(covered, iterations=4)] * 5.0
    np.testing.assert_allclose(heights, 150.0, atol=5.0)
    assert np.flatnonzero(film.any(axis=(1, 2)))[0] == 5
    # One edge: the film and the hole are each in one piece.
    assert ndimage.label(covered)[1] == ndimage.label(~covered)[1] == 1
    inner = ndimage.binary_erosion(film, iterations=2)
    per_A3 = sample.volume[inner] / 125.0
    assert per_A3.mean() == pytest.approx(contrast_Da_per_A3(2.0, 2.51 / 12.01), rel=0.01)
    atoms = 2.0 * 0.6022 / 12.01 * 125
    assert per_A3.std() == pytest.approx(12.01 * (2.51 / 12.01) / 0.091 * np.sqrt(atoms) / 125, rel=0.05)
    assert not add_carbon_edge(sample, np.random.default_rng(11), 150.0, 0.9), "something is in the way"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"vesicles": -1}, "vesicles -1"),
        ({"actin": -2}, "actin -2"),
        ({"occupied": 0.0}, "occupied 0"),
        ({"vesicle_radius_A": (700.0, 200.0)}, "lower value first"),
        ({"gold_diameter_A": (1.0, 20.0)}, "gold_diameter_A"),
        ({"membrane_proteins": "floating"}, "one of auto, seated, free"),
        ({"membrane_protein_side": "up"}, "one of outside, inside, random"),
        ({"carbon_A": 5.0}, "20 to 1000"),
        ({"slab_tilt_deg": (80.0, 0.0)}, "-45 to 45"),
        ({"ice_unevenness_A": 1000.0}, "ice's thickness"),
        ({"thickness_A": 0.0}, "thicker than nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        replace(FULL, **wrong)
    assert "\n" not in str(refused.value)
