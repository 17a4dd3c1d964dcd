"""Domain randomisation, and the training stream that lives on it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.delivery import Delivery
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.randomise import random_experiment, random_sample, usual_experiment
from tomotwin_core.simulation.sample import Sample
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.training import stream as stream_module
from tomotwin_core.training.stream import FURNITURE, MiniTomogramStream, StreamSettings

FIELD = SampleSettings((52, 136, 136), 10.0, 520.0, copies=3)


def test_everything_about_a_sample_is_drawn_and_the_field_is_kept() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_sample(rng, FIELD) for _ in range(400)]
    assert {(d.shape, d.voxel_size_A, d.copies) for d in drawn} == {(FIELD.shape, 10.0, 3)}
    for kind, share in (("vesicles", 0.35), ("membranes", 0.2), ("gold", 0.4), ("actin", 0.2), ("microtubules", 0.12)):
        assert np.mean([getattr(d, kind) > 0 for d in drawn]) == pytest.approx(share, abs=0.08), kind
    assert 0.01 < np.mean([d.carbon_A > 0 for d in drawn]) < 0.12
    thickness = [d.thickness_A for d in drawn]
    assert min(thickness) < 400 and max(thickness) > 740
    assert np.std([d.slab_tilt_deg for d in drawn]) == pytest.approx(4.0, rel=0.2)
    assert max(d.ice_unevenness_A / d.thickness_A for d in drawn) > 0.06


def test_a_larger_field_holds_more_of_what_is_counted_per_area() -> None:
    rng = np.random.default_rng(1)
    large = replace(FIELD, shape=(52, 544, 544))

    def mean_gold(settings: SampleSettings) -> float:
        return float(np.mean([d.gold for d in (random_sample(rng, settings) for _ in range(300)) if d.gold]))

    assert mean_gold(large) == pytest.approx(1 + 90 * 0.544**2, rel=0.1)
    assert mean_gold(FIELD) == pytest.approx(1 + 90 * 0.136**2, rel=0.2)


def test_the_same_seed_draws_the_same_experiment() -> None:
    first, same, other = (random_experiment(np.random.default_rng(seed), FIELD) for seed in (3, 3, 4))
    assert first == same != other


@pytest.fixture(scope="module")
def library() -> DensityLibrary:
    library = DensityLibrary({}, {})
    z, y, x = np.ogrid[-6:7, -6:7, -6:7]
    for name, (a, b, c) in {"ball": (3, 3, 3), "rod": (5, 2, 2), "disc": (2, 4, 4), "egg": (4, 3, 2)}.items():
        body = ((z / a) ** 2 + (y / b) ** 2 + (x / c) ** 2 < 1).astype(np.float32)
        library.add(name, Density(body * 600.0, 10.0, 5.0), name=name, source="made here", licence="none")
    return library


def test_places_on_membranes_are_listed_as_furniture_away_from_particles(
    library: DensityLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_vesicle(rng: np.random.Generator, settings: SampleSettings):
        return replace(settings, vesicles=1, thickness_A=300.0), Acquisition(tilt_step_deg=6.0), Delivery()

    def seen(*arguments):
        samples.append(build_sample(*arguments))
        return samples[-1]

    samples: list[Sample] = []
    monkeypatch.setattr(stream_module, "random_experiment", with_vesicle)
    monkeypatch.setattr(stream_module, "build_sample", seen)
    settings = StreamSettings(shape=(40, 64, 64), species=4, max_copies=4, usual=0.0, seed=1)
    for mini, sample in zip(next(iter(MiniTomogramStream(library, library.ids(), settings))), samples, strict=True):
        furniture = mini.label == FURNITURE
        assert furniture.sum() > 5 and (~furniture).sum() > 5
        assert cKDTree(mini.xyz[~furniture]).query(mini.xyz[furniture])[0].min() > 5
        x, y, z = mini.xyz[furniture].astype(int).T
        assert {sample.structures[label - 1] for label in sample.labels[z, y, x]} == {"vesicle"}


def test_a_mini_tomogram_that_was_binned_on_the_way_keeps_its_shape(
    library: DensityLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(rng: np.random.Generator, settings: SampleSettings):
        drawn, acquisition, delivery = random_experiment(rng, settings)
        quick = replace(acquisition, tilt_step_deg=5.0, missing_tilts_deg=())
        return drawn, quick, replace(delivery, binned_to_A=27.0, delivered_at_A=10.0)

    monkeypatch.setattr(stream_module, "random_experiment", coarse)
    settings = StreamSettings(shape=(40, 50, 60), species=4, max_copies=3, usual=0.0, seed=2)
    for mini in next(iter(MiniTomogramStream(library, library.ids(), settings))):
        assert mini.volume.shape == (40, 50, 60)
        steps = np.abs(np.diff(mini.volume, axis=2)).mean()
        assert steps < 0.7 * mini.volume.std(), "voxels of 27 A have left no detail from one voxel of 10 A to the next"


def test_the_usual_share_of_mini_tomograms_is_taken_as_most_are(
    library: DensityLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawn(Exception):
        pass

    def noted(name: str):
        def draw(rng: np.random.Generator, settings: SampleSettings):
            drawn.append(name)
            raise Drawn

        return draw

    drawn: list[str] = []
    monkeypatch.setattr(stream_module, "random_experiment", noted("any"))
    monkeypatch.setattr(stream_module, "usual_experiment", noted("usual"))
    stream = MiniTomogramStream(library, library.ids(), StreamSettings(usual=0.75))
    rng = np.random.default_rng(3)
    for _ in range(80):
        with pytest.raises(Drawn):
            stream._mini({}, Molecules({}, 10.0), rng)
    assert 50 <= drawn.count("usual") <= 70 and drawn.count("any") == 80 - drawn.count("usual")


@pytest.mark.parametrize(("share", "expected"), [(0.0, True), (0.000001, False), (1.0, True)])
def test_mini_tomograms_tell_whether_their_statistics_are_usual_ones(
    library: DensityLibrary, share: float, expected: bool
) -> None:
    settings = StreamSettings(shape=(40, 48, 48), species=4, max_copies=3, variants=2, invented=0.0, usual=share)
    assert all(mini.usual == expected for mini in next(iter(MiniTomogramStream(library, library.ids(), settings))))


def test_usual_tomograms_are_taken_within_the_middle_of_what_is_drawn_at_random() -> None:
    drawn = [usual_experiment(np.random.default_rng(seed), FIELD) for seed in range(40)]
    acquisitions = [a for _, a, _ in drawn]
    assert {a.tilt_max_deg for a in acquisitions} == {54.0, 60.0} == {-a.tilt_min_deg for a in acquisitions}
    assert {a.tilt_step_deg for a in acquisitions} == {2.0, 3.0} and {a.voltage_kV for a in acquisitions} == {300.0}
    assert all(100 <= a.dose_e_per_A2 <= 160 and 2 <= a.defocus_um <= 5 for a in acquisitions)
    assert len({a.defocus_um for a in acquisitions}) == 40 and all(d == Delivery() for _, _, d in drawn)
    assert len({s.thickness_A for s, _, _ in drawn}) == 40
