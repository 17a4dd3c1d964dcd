"""The template-matching baseline: planted molecules are found where they are, as they lie, and by their own hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotwin_core.verification import template_matching
from tomotwin_core.verification.template_matching import (
    TemplateMatch,
    expected_threshold,
    find_peaks,
    match_template,
)
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.structures import Density, density_from_points
from tomotwin_core.structures.density import at_voxel_size
from tomotwin_core.subtomograms import templates
from tomotwin_core.subtomograms.templates import Imager, sphere, uniform_rotations

STEP = 30.0
ACQUISITION = Acquisition(tilt_step_deg=5.0, dose_e_per_A2=150.0, defocus_um=3.0)
PLACES = np.array([[15, 16, 17], [39, 15, 15], [16, 40, 16], [40, 39, 18]])  # x, y, z


def molecule() -> Density:
    """About 0.9 MDa without any symmetry, and unlike its mirror image: three arms of different length, a turn of a helix."""
    rng = np.random.default_rng(0)
    arms = [([0, 0, 0], 400), ([70, 0, 0], 250), ([0, 55, 10], 200), ([0, 0, 85], 180), ([45, 40, -40], 220)]
    points = np.concatenate([rng.normal(centre, 14, (n, 3)) for centre, n in arms])
    return density_from_points(points, np.full(len(points), 720.0), 5.0)


def turned(density: Density, rotation: NDArray[np.float64]) -> NDArray[np.float32]:
    points = np.argwhere(density.values > 0)
    mass = density.values[tuple(points.T)]
    xyz = (points - (np.array(density.values.shape) - 1) / 2)[:, ::-1] * density.voxel_size_A @ rotation.T
    return at_voxel_size(density_from_points(xyz, mass, 5.0), 10.0).values


@pytest.fixture(scope="module")
def rotations() -> NDArray[np.float64]:
    return np.asarray(Rotation.random(len(PLACES), random_state=3).as_matrix())


@pytest.fixture(scope="module")
def tomogram(rotations: NDArray[np.float64]) -> NDArray[np.float32]:
    sample = np.zeros((34, 56, 56), np.float32)
    for (x, y, z), rotation in zip(PLACES, rotations, strict=True):
        values = turned(molecule(), rotation)
        half = values.shape[0] // 2
        sample[z - half : z + half + 1, y - half : y + half + 1, x - half : x + half + 1] += values
    generator = torch.Generator().manual_seed(1)
    series = take_tilt_series(torch.from_numpy(sample), 10.0, ACQUISITION, generator)
    return reconstruct(series, ACQUISITION).numpy()


@pytest.fixture(scope="module")
def found(tomogram: NDArray[np.float32]) -> TemplateMatch:
    return match_template(tomogram, 10.0, molecule(), ACQUISITION, STEP)


def test_planted_molecules_are_the_best_peaks_within_a_voxel_and_as_they_lie(
    found: TemplateMatch, rotations: NDArray[np.float64]
) -> None:
    peaks = find_peaks(found, "arms", "TS_01")
    assert peaks.tomogram == "TS_01" and set(peaks.label) == {"arms"} and peaks.shape == (34, 56, 56)
    best = peaks.select(np.arange(len(PLACES)))
    distance = np.linalg.norm(best.xyz[:, None] - PLACES[None], axis=2)
    which = distance.argmin(1)
    assert sorted(which) == [0, 1, 2, 3] and distance.min(1).max() < 1.0
    assert best.rotation is not None
    for rotation, truth in zip(best.rotation, rotations[which], strict=True):
        angle = np.degrees(Rotation.from_matrix(rotation.T @ truth).magnitude())
        assert angle < STEP
    assert peaks.score[4] < 0.8 * best.score.min()
    assert expected_threshold(found) < best.score.min()


def test_the_mirror_image_scores_lower(found: TemplateMatch, tomogram: NDArray[np.float32]) -> None:
    density = molecule()
    mirrored = replace(density, values=np.ascontiguousarray(density.values[:, :, ::-1]))
    other = match_template(tomogram, 10.0, mirrored, ACQUISITION, STEP)

    def at_places(match: TemplateMatch) -> list[float]:
        return [float(match.score[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].max()) for x, y, z in PLACES]

    assert np.mean(at_places(other)) < 0.93 * np.mean(at_places(found))


def test_a_score_is_the_correlation_of_template_and_tomogram_under_the_mask(
    monkeypatch: pytest.MonkeyPatch, tomogram: NDArray[np.float32]
) -> None:
    density, step = molecule(), 60.0
    monkeypatch.setattr(templates, "VARIANCE_KEPT", 0.99999)
    match = match_template(tomogram, 10.0, density, ACQUISITION, step)
    assert match.variance_kept > 0.9999
    radius = density.diameter_A / 20 + 1
    half = int(np.ceil(radius))
    mask = sphere(half, radius)
    imaged = Imager.of(density, 10.0, ACQUISITION).templates(match.rotations).numpy()
    for z, y, x in ((16, 28, 28), (17, 20, 35), (16, 40, 15)):
        cut = tomogram[z - half : z + half + 1, y - half : y + half + 1, x - half : x + half + 1][mask]
        direct = imaged @ (cut - cut.mean()) / np.linalg.norm(cut - cut.mean())
        assert match.score[z, y, x] == pytest.approx(direct.max(), abs=2e-3)
        assert direct[match.best[z, y, x]] == pytest.approx(direct.max(), abs=2e-3)


def test_work_in_slabs_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, tomogram: NDArray[np.float32], found: TemplateMatch
) -> None:
    monkeypatch.setattr(template_matching, "MEMORY_BYTES", 4.0 * 56 * 56 * 300)  # a plane or a few at a time
    sliced = match_template(tomogram, 10.0, molecule(), ACQUISITION, 60.0)
    monkeypatch.undo()
    whole = match_template(tomogram, 10.0, molecule(), ACQUISITION, 60.0)
    np.testing.assert_allclose(sliced.score, whole.score, atol=1e-4)
    assert sliced.noise == pytest.approx(whole.noise, rel=1e-4)


def test_grey_levels_and_contrast_that_change_across_the_tomogram_change_no_score() -> None:
    noise = np.random.default_rng(0).normal(size=(30, 30, 80)).astype(np.float32)
    uneven = noise * np.where(np.arange(80) < 40, 1, 5).astype(np.float32) + np.where(np.arange(80) < 40, 0, 7)
    even, other = (match_template(v, 10.0, molecule(), ACQUISITION, 90.0) for v in (noise, uneven.astype(np.float32)))
    inner = (slice(14, 16), slice(14, 16))
    np.testing.assert_allclose(other.score[inner][..., 14:24], even.score[inner][..., 14:24], atol=2e-3)
    np.testing.assert_allclose(other.score[inner][..., 56:66], even.score[inner][..., 56:66], atol=2e-3)


def test_bright_protein_is_dark_protein_turned_over(tomogram: NDArray[np.float32]) -> None:
    dark = match_template(tomogram, 10.0, molecule(), ACQUISITION, 90.0)
    bright = match_template(-tomogram, 10.0, molecule(), ACQUISITION, 90.0, contrast="bright")
    np.testing.assert_allclose(bright.score, dark.score, atol=1e-5)


def test_in_white_noise_correlations_scatter_as_those_of_random_vectors_and_few_pass_the_threshold() -> None:
    noise = np.random.default_rng(1).normal(size=(36, 50, 50)).astype(np.float32)
    density = molecule()
    match = match_template(noise, 10.0, density, ACQUISITION, 50.0)
    radius = density.diameter_A / 20 + 1
    voxels = sphere(int(np.ceil(radius)), radius).sum()
    # Near the faces half of what is under the mask is outside, where there is nothing: a little less than inside.
    assert match.noise == pytest.approx(voxels**-0.5, rel=0.1)
    passed = (match.score > expected_threshold(match)).sum()
    assert passed <= 5 and (match.score > 3 * match.noise).sum() > 50


def test_empty_space_has_finite_scores_and_no_peak(tomogram: NDArray[np.float32]) -> None:
    padded = np.pad(tomogram, ((0, 30), (0, 0), (0, 0)))
    match = match_template(padded, 10.0, molecule(), ACQUISITION, 60.0)
    assert np.isfinite(match.score).all()
    assert (find_peaks(match, min_score=expected_threshold(match)).xyz[:, 2] < 36).all()


@pytest.mark.parametrize("step", [15.0, 30.0])
def test_rotations_cover_all_orientations_evenly(step: float) -> None:
    rotations = uniform_rotations(step)
    assert len(rotations) == np.ceil(8 * np.pi**2 / np.radians(step) ** 3)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_allclose(rotations.mean(0), 0, atol=0.01)
    for any_one in Rotation.random(300, random_state=0).as_matrix():
        # The nearest by the trace of the relative rotation, 1 + 2 cos(angle).
        cosine = (np.einsum("nij,ij->n", rotations, any_one).max() - 1) / 2
        assert np.degrees(np.arccos(min(cosine, 1))) < step


def test_a_step_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="angular step"):
        uniform_rotations(1.0)
