"""A template out of the tomogram itself: copies of a molecule that is known by five places alone, averaged, are that molecule."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from test_template_matching import ACQUISITION, molecule, turned

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.picking.references import ReferenceSet, Target, load_references
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.structures import Density
from tomotwin_core.structures.density import low_passed
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc
from tomotwin_core.verification import from_examples
from tomotwin_core.verification.averages import Copies, as_molecule, average, mass_of_Da, usual_amplitudes
from tomotwin_core.verification.from_examples import Place, templates_from_examples
from tomotwin_core.verification.matcher import Matcher, Prepared

SHAPE = (28, 110, 110)
PLACES = np.array([[x, y, 14] for y in (16, 42, 68, 94) for x in (16, 42, 68, 94)])
NOTHING = np.array([[x, y, 14] for y in (29, 55, 81) for x in (29, 55, 81)])
DIAMETER_A = molecule().diameter_A


def turns() -> NDArray[np.float64]:
    return np.asarray(Rotation.random(len(PLACES), random_state=5).as_matrix())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TomogramSource:
    sample = np.zeros(SHAPE, np.float32)
    for (x, y, z), rotation in zip(PLACES, turns(), strict=True):
        values = turned(molecule(), rotation)
        low = np.array([z, y, x]) - values.shape[0] // 2
        begin, end = np.maximum(low, 0), np.minimum(low + values.shape[0], SHAPE)
        part = tuple(slice(a - c, b - c) for a, b, c in zip(begin, end, low, strict=True))
        sample[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))] += values[part]
    series = take_tilt_series(torch.from_numpy(sample), 10.0, ACQUISITION, torch.Generator().manual_seed(2))
    path = tmp_path_factory.mktemp("examples") / "TS_01.mrc"
    write_mrc(path, reconstruct(series, ACQUISITION).numpy(), 10.0)
    return open_tomogram(path)


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """That many shapes and rounds help is the benchmark's to show."""
    monkeypatch.setattr(from_examples, "_TRIED", 8)
    monkeypatch.setattr(from_examples, "_STARTS", 2)
    monkeypatch.setattr(from_examples, "_ROUNDS", 2)


def table(source: TomogramSource, xyz: NDArray[np.float64], score: NDArray[np.float64] | float = 1.0) -> Coordinates:
    scores = np.broadcast_to(np.asarray(score, np.float32), len(xyz))
    return Coordinates.from_arrays(xyz, source.voxel_size_A, source.name, source.shape, "arms", scores, DIAMETER_A)


def similarity(places: NDArray[np.float64], name: str, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """High at these places, as an embedding that tells the molecule would have it."""
    assert name == "arms"
    near = np.linalg.norm(np.asarray(xyz)[:, None] - places[None], axis=2).min(1) < 3
    return np.where(near, 0.85, 0.5)


def place(source: TomogramSource, examples: NDArray[np.float64], known: NDArray[np.float64]) -> Place:
    peaks = np.concatenate([PLACES, NOTHING]).astype(float)
    score = similarity(known, "arms", peaks)
    found = table(source, peaks, score)
    return Place(source, "dark", found, found, table(source, examples), partial(similarity, known))


def fit(source: TomogramSource, density: Density) -> float:
    """Mean correlation of a template with all copies."""
    tomogram = Prepared.of(source, "dark", 10.0, 30.0)
    return float(Matcher.of(density, ACQUISITION, 10.0, 30.0, 20.0).at(tomogram, PLACES[:, ::-1], 1).correlation.mean())


def test_an_average_of_oriented_copies_is_the_molecule(source: TomogramSource) -> None:
    tomogram = Prepared.of(source, "dark", 10.0, 30.0)
    n = len(PLACES)
    copies = Copies([tomogram], np.zeros(n, int), PLACES[:, ::-1].astype(float), turns(), np.ones(n))
    density = as_molecule(average(copies, DIAMETER_A, ACQUISITION, 30.0), 10.0, DIAMETER_A, 30.0)
    assert density.diameter_A == DIAMETER_A
    assert density.values[density.values > 0].sum() / 1000 == pytest.approx(mass_of_Da(DIAMETER_A) / 1000, rel=1e-3)
    truth = Matcher.of(molecule(), ACQUISITION, 10.0, 30.0, 30.0)
    own = Matcher.of(density, ACQUISITION, 10.0, 30.0, 30.0)
    # In one frame: the templates of one orientation are alike, hand and all, those of another are not.
    same = float((truth.imager.templates(turns()) * own.imager.templates(turns())[:, : truth.imager.mask.sum()]).sum(1).mean())
    other = float((truth.imager.templates(turns()) * own.imager.templates(turns()[::-1].copy())).sum(1).mean())
    assert same > 0.85 and same > other + 0.2


def test_copies_between_voxels_and_in_two_tomograms_are_averaged_where_they_are(source: TomogramSource) -> None:
    tomogram = Prepared.of(source, "dark", 10.0, 30.0)
    moved = Prepared(torch.roll(tomogram.volume, 1, 2), 10.0)
    n = len(PLACES)
    zyx = PLACES[:, ::-1].astype(float)
    all_in_one = Copies([tomogram], np.zeros(n, int), zyx, turns(), np.ones(n))
    of = np.arange(n) % 2
    shared = Copies([tomogram, moved], of, zyx + of[:, None] * [0, 0, 1.0], turns(), np.ones(n))
    one, both = (average(c, DIAMETER_A, ACQUISITION, 30.0) for c in (all_in_one, shared))
    assert np.corrcoef(one.ravel(), both.ravel())[0, 1] > 0.999
    off = Copies([tomogram], np.zeros(n, int), zyx + 0.4, turns(), np.ones(n))
    less = average(off, DIAMETER_A, ACQUISITION, 30.0)
    assert np.corrcoef(one.ravel(), less.ravel())[0, 1] < 0.995


def test_amplitudes_are_those_of_molecules_of_the_size() -> None:
    blurred = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(25, 25, 25)), 2.5, mode="wrap")
    density = as_molecule(blurred, 10.0, 120.0, 30.0)
    usual = usual_amplitudes(25, 10.0, 120)

    def shell(volume: NDArray[np.floating], k: int) -> float:
        axis = np.fft.fftfreq(25, 1 / 25)
        radius = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij")))
        return float(np.sqrt((np.abs(np.fft.fftn(volume)[np.round(radius) == k]) ** 2).mean()))

    # 50 A against 125 A, of which the blur has left a fifteenth.
    assert shell(density.values, 5) / shell(density.values, 2) == pytest.approx(usual[5] / usual[2], rel=0.4)
    assert shell(density.values, 5) / shell(density.values, 2) > 2 * shell(blurred, 5) / shell(blurred, 2)


def test_five_examples_give_a_template_of_more_copies_that_fits_all_of_them(source: TomogramSource) -> None:
    examples = PLACES[[0, 3, 6, 9, 12]].astype(float)
    found = templates_from_examples([place(source, examples, PLACES)], {"arms": DIAMETER_A}, ACQUISITION)["arms"]
    assert found.copies >= 12 and found.is_good
    assert fit(source, found.density) > 0.8 * fit(source, molecule())


def test_examples_of_nothing_give_no_good_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)
    write_mrc(tmp_path / "TS_02.mrc", noise, 10.0)
    monkeypatch.setattr(from_examples, "_TRIED", 3)
    monkeypatch.setattr(from_examples, "_STARTS", 1)
    empty = place(open_tomogram(tmp_path / "TS_02.mrc"), NOTHING[:5].astype(float), NOTHING)
    assert not templates_from_examples([empty], {"arms": DIAMETER_A}, ACQUISITION)["arms"].is_good


def test_a_template_is_kept_in_the_references_with_its_diameter(source: TomogramSource, tmp_path: Path) -> None:
    density = as_molecule(np.asarray(low_passed(molecule(), 10.0)), molecule().voxel_size_A, DIAMETER_A + 7, 30.0)
    target = Target("arms", np.eye(1, 32, dtype=np.float32), DIAMETER_A + 7, density=density)
    ReferenceSet((target,), "m").save(tmp_path / "refs.safetensors")
    read = load_references(tmp_path / "refs.safetensors").densities["arms"]
    assert read.diameter_A == DIAMETER_A + 7
    assert np.allclose(read.values, density.values, atol=2e-3 * np.abs(density.values).max())
    assert replace(read, told_diameter_A=None).diameter_A != DIAMETER_A + 7
